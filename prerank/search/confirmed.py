"""What a search has confirmed by training: the front of latency and recall, and what is read off it for a budget."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
from scipy.special import stdtrit

from prerank.core.outputs import write_json
from prerank.logs.schema import Schema
from prerank.models.arch import Arch
from prerank.search.method import SearchEpoch
from prerank.search.propose import space_of
from prerank.search.spec import Spec, predicted

LONGER = (1, 3, 9, 9)
"""How many times `search.steps` a training of each rung has."""
LAST = len(LONGER) - 1
"""The last rung: of several seeds."""
TIE = 0.001
"""Of the metric: the cheaper of two that are no farther apart is taken."""
LEVEL = 0.95
FITS = 1 + 1e-9


class Row(TypedDict):
    """What one set came to on the validation days, as JSON holds it."""

    features: list[str]
    widths: list[int]
    latency_us: float
    rung: int
    """The last that it came to."""
    metric: float
    """There."""
    requests: list[float | None]
    """By request; of the last rung alone."""


class Point(TypedDict):
    """Of the front: nothing cheaper keeps as much."""

    latency_us: float
    metric: float
    features: list[str]
    widths: list[int]
    rung: int


class Front(TypedDict):
    """front.json."""

    metric: str
    area: float
    """Under the front over log latency, from the cheapest point to all features, as a share of what 1 would be."""
    incumbent: Point | None
    points: list[Point]


class Measured(TypedDict):
    """What arch.json says of a winner that was measured on the host of the latency table."""

    measured_us: float
    """Of inference."""
    error: float
    """How far that is above the prediction, as a share of it."""


@dataclass(frozen=True)
class Choice:
    """What a budget comes to, and why."""

    arch: Arch
    metric: float
    incumbent: Arch | None
    gain: tuple[float, float, float] | None
    """Of the best over the incumbent on the validation: mean, and the interval that decided."""
    tried: int
    """Within the budget beside the incumbent, on any rung: the best was chosen among all of these. 0 where none of them
    was trained out."""
    requests: int

    def said(self, metric: str) -> str:
        """In a line or two for the terminal."""
        if self.gain is None:
            return f"{metric} {100 * self.metric:.1f} on the validation; nothing to hold it against"
        mean, lo, hi = (100 * x for x in self.gain)
        interval = f"{mean:+.1f} points [{lo:+.1f}, {hi:+.1f}] on {self.requests} validation requests"
        if self.arch != self.incumbent:
            return f"{metric} {100 * self.metric:.1f}, {interval} over the hand-picked features"
        if not self.tried:
            return f"{metric} {100 * self.metric:.1f}: the hand-picked features, as nothing else was trained out"
        return (
            f"note: the hand-picked features stay: the best of {self.tried} proposals keeps {interval}, which does not "
            f"tell it from them{'; more validation requests would' if mean > 0 else ''}"
        )


@dataclass(frozen=True)
class Confirmed:
    """A finished search by proposals; stands where `prerank.search.found.Found` does."""

    spec: Spec
    rows: Sequence[Row]
    limit_us: float | None = None
    """What may be predicted for the winner of the search's own budget, where the host takes longer than predicted."""
    measured: Measured | None = None
    """Of the winner."""

    def and_what(self, other: "Confirmed") -> "Confirmed":
        """With what another search of the same ground has trained; of what both have, what came farther."""
        rows: dict[Arch, Row] = {}
        for row in sorted([*self.rows, *other.rows], key=lambda row: row["rung"]):
            rows[arch_of(row)] = row
        return replace(self, rows=sorted(rows.values(), key=lambda row: (row["latency_us"], str(arch_of(row)))))

    @property
    def history(self) -> list[SearchEpoch]:
        """None: its trainings stand in `rows`."""
        return []

    def derive(self, schema: Schema, budget_us: float | None = None) -> Arch:
        return self.choice(schema, budget_us).arch

    def choice(self, schema: Schema, budget_us: float | None = None) -> Choice:
        """The best within the budget that was trained out, by default within that of the search.

        The incumbent, where the best is not sure to beat it; the cheaper of those within a `TIE`. Raises InputError
        where nothing fits.
        """
        limit_us = self.limit_us if budget_us is None else None
        budget_us = self.spec.budget_us if budget_us is None else budget_us
        guarded = self.spec.search.method == "propose"  # a rival's answer is its own best
        incumbent = incumbent_of(self.spec, schema, budget_us) if guarded else None
        most_us = FITS * (budget_us if limit_us is None else min(budget_us, limit_us))
        fitting = [row for row in self.rows if row["latency_us"] <= most_us or arch_of(row) == incumbent]
        last = [row for row in fitting if row["rung"] == LAST] or fitting
        if not last:
            space = space_of(self.spec, schema)
            return Choice(space.cheapest(budget_us), math.nan, incumbent, None, 0, 0)
        best = last[best_of([(row["metric"], row["latency_us"]) for row in last])]
        held = next((row for row in last if incumbent == arch_of(row)), None)
        others = [row for row in last if row is not held]
        tried = len(fitting) - (held is not None) if others else 0
        if held is None or not best["requests"]:
            return Choice(arch_of(best), best["metric"], incumbent, None, tried, 0)
        top = max(others, key=lambda r: r["metric"], default=held) if best is held else best
        a_R, b_R = (np.array([np.nan if x is None else x for x in row["requests"]], float) for row in (top, held))
        over = gain(a_R, b_R, tried)
        taken = top if over[1] > 0 else held
        requests = int((~np.isnan(b_R)).sum())
        return Choice(arch_of(taken), taken["metric"], incumbent, over, tried, requests)

    def front(self, schema: Schema) -> Front:
        """Of what was trained for long enough, from the cheapest up."""
        points: list[Point] = []
        rows = [row for row in self.rows if row["rung"] >= LAST - 1]
        for row in sorted(rows, key=lambda row: (row["latency_us"], -row["metric"])):
            if not points or row["metric"] > points[-1]["metric"]:
                points.append(_point(row))
        incumbent = incumbent_of(self.spec, schema, math.inf)
        held = next((_point(row) for row in rows if arch_of(row) == incumbent), None)
        most_us = max((row["latency_us"] for row in rows), default=1.0)
        return {
            "metric": self.spec.arm.select_by,
            "area": area([(point["latency_us"], point["metric"]) for point in points], most_us),
            "incumbent": held,
            "points": points,
        }

    def write(self, folder: Path, schema: Schema) -> Arch:
        """Writes `arch.json`, `front.json`, `proposals.json` with all that was trained, and a history of nothing."""
        arch = self.derive(schema)
        arch.save(folder / "arch.json", **predicted(self.spec, arch, schema), **(self.measured or {}))
        write_json(folder / "front.json", self.front(schema))
        write_json(folder / "proposals.json", [{k: v for k, v in row.items() if k != "requests"} for row in self.rows])
        write_json(folder / "history.json", self.history)
        return arch

    def to_json(self, key: str) -> "SavedConfirmed":
        """`key`: what it followed from."""
        return {"key": key, "confirmed": list(self.rows)}


class SavedConfirmed(TypedDict):
    key: str
    confirmed: list[Row]


def read_front(folder: Path) -> Front:
    """The front.json of a search that is done."""
    return json.loads((folder / "front.json").read_text())


def incumbent_of(spec: Spec, schema: Schema, budget_us: float) -> Arch | None:
    """What the team has: the hand-picked features with the base widths, or as many of them as the budget has room for;
    None where the schema names none, or none fits."""
    space = space_of(spec, schema)
    chosen = dict.fromkeys(schema.hand_picked, 1.0)
    if not set(schema.hand_picked) & {feature.name for feature in space.features if not feature.of_request}:
        return None
    return space.best(chosen, space.networks[0], budget_us if math.isfinite(budget_us) else 1e12)


def best_of(trained: Sequence[tuple[float, float]]) -> int:
    """The place in (metric, microseconds) of the cheapest of those within a `TIE` of the best."""
    least = max(metric for metric, _ in trained) - TIE
    near = (place for place, (metric, _) in enumerate(trained) if metric >= least)
    return min(near, key=lambda place: (trained[place][1], -trained[place][0]))


def gain(a_R: np.ndarray, b_R: np.ndarray, tried: int) -> tuple[float, float, float]:
    """(mean, lo, hi) of a - b, paired by request: Student's interval, widened for a being the best of so many.

    Student's, as the bootstrap's is too narrow of few requests; the level is Bonferroni's.
    """
    difference_R = (a_R - b_R)[~np.isnan(a_R - b_R)]
    n, mean = len(difference_R), float(np.mean(difference_R)) if len(difference_R) else 0.0
    if n < 2:
        return mean, -math.inf, math.inf
    quantile = float(stdtrit(n - 1, 1 - (1 - LEVEL) / 2 / max(1, tried)))
    half = quantile * float(np.std(difference_R, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def area(points: Sequence[tuple[float, float]], most_us: float) -> float:
    """Under the steps of (microseconds, metric), ascending, over log microseconds up to `most_us`, as a share."""
    if not points or most_us <= points[0][0]:
        return points[0][1] if points else math.nan
    ends = [*(us for us, _ in points[1:]), most_us]
    whole = sum(value * math.log(end / us) for (us, value), end in zip(points, ends, strict=True))
    return whole / math.log(most_us / points[0][0])


def arch_of(row: Row) -> Arch:
    return Arch(tuple(row["features"]), tuple(row["widths"]))


def _point(row: Row) -> Point:
    return {
        "latency_us": row["latency_us"],
        "metric": row["metric"],
        "features": row["features"],
        "widths": row["widths"],
        "rung": row["rung"],
    }
