"""Methods compared at equal latency budgets over several seeds: means, spread, and how sure a difference is.

S seeds, R requests, B bootstrap replicates. A value that is not defined for a request is NaN and is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

import numpy as np
import pyarrow as pa

from prerank.core.outputs import fingerprint
from prerank.evaluation.intervals import DRAWS_AT_ONCE, ratio
from prerank.models.arch import Arch

Metric = Literal["recall", "hit_rate"]
"""Columns of an evaluation, request by request."""
HAND_PICKED = "hand_picked"


class Spread(TypedDict):
    mean: float
    """Over requests and seeds."""
    std: float | None
    """Of the seeds' means; None for one seed."""
    seeds: list[float]
    """Those means."""


class Difference(TypedDict):
    mean: float
    lo: float
    """And `hi`: the interval of `two_way_interval`."""
    hi: float
    seeds_lo: float
    """The least of the seeds' means, and the largest."""
    seeds_hi: float


class Versus(TypedDict):
    """The difference to another method at the same budget."""

    recall: Difference
    hit_rate: Difference


class Row(TypedDict):
    """A method at a budget, as JSON holds it."""

    factor: float | None
    budget_us: float | None
    method: str
    students: list[str]
    """By seed, as are the numbers of `features` and `widths`."""
    features: list[int]
    widths: list[list[int]]
    kept: dict[str, float]
    """The share of the seeds that kept each feature."""
    fetch_us: float
    """Predicted, the mean of the seeds."""
    inference_us: float
    latency_us: float
    recall: Spread
    hit_rate: Spread
    vs_hand_picked: NotRequired[Versus]


class BestRival(Versus):
    """At a budget the rival of the highest mean recall, and the difference to it."""

    factor: float | None
    budget_us: float | None
    method: NotRequired[str]
    """That is held against it; in files from before there were several, autofas."""
    rival: str


@dataclass(frozen=True)
class Entry:
    """What one method with one seed came to at one budget."""

    method: str
    seed: int
    factor: float | None
    """The budget as a share of the reference; None where no budget binds."""
    budget_us: float | None
    arch: Arch
    times: dict[str, float]
    """Predicted `fetch_us`, `inference_us` and `latency_us`."""

    @property
    def student(self) -> str:
        """Its name: that of every entry that came to the same features and widths with the same seed."""
        return f"{fingerprint([self.arch.features, self.arch.widths])[:8]}-s{self.seed}"


def rows_of(entries: Sequence[Entry], per_request: pa.Table) -> list[Row]:
    """A row a budget and method; the seeds of a group must be the same in every group.

    per_request: one row a request, columns `<student>.<metric>`.
    """
    rows: list[Row] = []
    groups = _groups(entries)
    for (factor, budget_us, method), group in groups.items():
        every = [name for entry in group for name in entry.arch.features]
        row: Row = {
            "factor": factor,
            "budget_us": budget_us,
            "method": method,
            "students": [entry.student for entry in group],
            "features": [len(entry.arch.features) for entry in group],
            "widths": [list(entry.arch.widths) for entry in group],
            "kept": {name: every.count(name) / len(group) for name in dict.fromkeys(every)},
            "fetch_us": _mean_time(group, "fetch_us"),
            "inference_us": _mean_time(group, "inference_us"),
            "latency_us": _mean_time(group, "latency_us"),
            "recall": spread(_values(group, "recall", per_request)),
            "hit_rate": spread(_values(group, "hit_rate", per_request)),
        }
        hand_picked = groups.get((factor, budget_us, HAND_PICKED))
        if hand_picked and method != HAND_PICKED:
            row["vs_hand_picked"] = _against(group, hand_picked, per_request)
        rows.append(row)
    return rows


def best_rivals(
    entries: Sequence[Entry], per_request: pa.Table, *, of: str, apart_from: Sequence[str]
) -> list[BestRival]:
    """At each budget the rival of the highest mean recall, and the difference of the method `of` to it.

    The rival is chosen by the very requests that it is measured on, which flatters it.
    """
    best: list[BestRival] = []
    groups = _groups(entries)
    for (factor, budget_us, method), ours in groups.items():
        rivals = [k for k in groups if k[:2] == (factor, budget_us) and k[2] not in (of, *apart_from)]
        if method == of and rivals:
            rival = max(rivals, key=lambda k: spread(_values(groups[k], "recall", per_request))["mean"])
            versus = _against(ours, groups[rival], per_request)
            best.append({"factor": factor, "budget_us": budget_us, "method": of, "rival": rival[2], **versus})
    return best


def spread(values_SR: np.ndarray) -> Spread:
    mean_S = np.nanmean(values_SR, axis=1)
    std = float(mean_S.std(ddof=1)) if len(mean_S) > 1 else None
    return {"mean": float(mean_S.mean()), "std": std, "seeds": mean_S.tolist()}


def difference(a_SR: np.ndarray, b_SR: np.ndarray) -> Difference:
    """Of a - b, paired by seed and request."""
    mean_S = np.nanmean(np.asarray(a_SR) - np.asarray(b_SR), axis=1)
    lo, hi = two_way_interval(a_SR, b_SR)
    return {
        "mean": float(mean_S.mean()),
        "lo": lo,
        "hi": hi,
        "seeds_lo": float(mean_S.min()),
        "seeds_hi": float(mean_S.max()),
    }


def two_way_interval(
    a_SR: np.ndarray, b_SR: np.ndarray, *, seed: int = 0, replicates: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of a - b, paired by seed and request, drawing whole seeds and whole requests.

    A replicate draws S seeds and R requests, both with replacement, and takes every pair of them (the pigeonhole
    bootstrap, Owen, Annals of Applied Statistics 2007): it covers other requests and other seeds. With one seed it is
    the bootstrap over requests; with few, it takes the seeds to vary (S-1)/S as much as they do. Pairs drawn with one
    `seed` see the same draws.
    """
    difference_SR = np.asarray(a_SR, float) - np.asarray(b_SR, float)
    defined_SR = ~np.isnan(difference_SR)
    seeds, requests = difference_SR.shape
    # A replicate's mean is Σ_s w_s Σ_r v_r d_sr / Σ_s w_s Σ_r v_r [d_sr is defined], where w_s and v_r are how often
    # the seed and the request are drawn: the sums over the requests are one product for all seeds.
    rng = np.random.default_rng(seed)
    weight_BS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=replicates)
    value_R2S = np.concatenate([np.where(defined_SR, difference_SR, 0.0), defined_SR]).T
    chunk, p_R = max(1, DRAWS_AT_ONCE // requests), np.full(requests, 1 / requests)
    chunks = (min(chunk, replicates - begin) for begin in range(0, replicates, chunk))
    drawn_B2S = np.concatenate([rng.multinomial(requests, p_R, size=rows) @ value_R2S for rows in chunks])
    sums_BS, counts_BS = np.split(drawn_B2S, 2, axis=1)
    mean_B = ratio((weight_BS * sums_BS).sum(axis=1), (weight_BS * counts_BS).sum(axis=1))
    lo, hi = np.nanpercentile(mean_B, 100 * np.array([(1 - level) / 2, (1 + level) / 2]))
    return float(lo), float(hi)


def _groups(entries: Sequence[Entry]) -> dict[tuple[float | None, float | None, str], list[Entry]]:
    groups: dict[tuple[float | None, float | None, str], list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.seed):
        groups.setdefault((entry.factor, entry.budget_us, entry.method), []).append(entry)
    return {(e.factor, e.budget_us, e.method): groups[e.factor, e.budget_us, e.method] for e in entries}


def _mean_time(group: list[Entry], key: str) -> float:
    return float(np.mean([entry.times[key] for entry in group]))


def _values(group: list[Entry], metric: Metric, per_request: pa.Table) -> np.ndarray:
    """[S, R]"""
    return np.stack([per_request[f"{entry.student}.{metric}"].to_numpy() for entry in group])


def _against(group: list[Entry], other: list[Entry], per_request: pa.Table) -> Versus:
    def of(metric: Metric) -> Difference:
        return difference(_values(group, metric, per_request), _values(other, metric, per_request))

    return {"recall": of("recall"), "hit_rate": of("hit_rate")}
