"""Methods compared at equal latency budgets over several seeds: means, spread, and how sure a difference is.

S seeds, R requests, B bootstrap replicates. A value that is not defined for a request is NaN and is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from prerank.core.outputs import fingerprint
from prerank.evaluation.intervals import DRAWS_AT_ONCE, ratio
from prerank.models.arch import Arch

METRICS = ("recall", "hit_rate")
"""Columns of an evaluation, request by request."""
HAND_PICKED = "hand_picked"


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


def rows_of(entries: Sequence[Entry], per_request: pa.Table) -> list[dict[str, Any]]:
    """A row a budget and method, as JSON holds it; the seeds of a group must be the same in every group.

    per_request: one row a request, columns `<student>.<metric>`. A row has the `factor`, `budget_us` and `method`; by
    seed the `students`, numbers of `features` and `widths`; the share of the seeds that `kept` each feature; the mean
    times; `spread` of each metric; and `vs_hand_picked`, the `difference` to that method at the same budget.
    """
    rows = []
    groups = _groups(entries)
    for (factor, budget_us, method), group in groups.items():
        every = [name for entry in group for name in entry.arch.features]
        row = {
            "factor": factor,
            "budget_us": budget_us,
            "method": method,
            "students": [entry.student for entry in group],
            "features": [len(entry.arch.features) for entry in group],
            "widths": [list(entry.arch.widths) for entry in group],
            "kept": {name: every.count(name) / len(group) for name in dict.fromkeys(every)},
        }
        row |= {key: float(np.mean([entry.times[key] for entry in group])) for key in group[0].times}
        row |= {metric: spread(_values(group, metric, per_request)) for metric in METRICS}
        hand_picked = groups.get((factor, budget_us, HAND_PICKED))
        if hand_picked and method != HAND_PICKED:
            row["vs_hand_picked"] = _against(group, hand_picked, per_request)
        rows.append(row)
    return rows


def best_rivals(
    entries: Sequence[Entry], per_request: pa.Table, *, of: str, apart_from: Sequence[str]
) -> list[dict[str, Any]]:
    """At each budget the `rival` of the highest mean recall, and the `difference` of the method `of` to it.

    The rival is chosen by the very requests that it is measured on, which flatters it.
    """
    best = []
    groups = _groups(entries)
    for (factor, budget_us, method), ours in groups.items():
        rivals = [k for k in groups if k[:2] == (factor, budget_us) and k[2] not in (of, *apart_from)]
        if method == of and rivals:
            rival = max(rivals, key=lambda k: spread(_values(groups[k], "recall", per_request))["mean"])
            versus = _against(ours, groups[rival], per_request)
            best.append({"factor": factor, "budget_us": budget_us, "rival": rival[2], **versus})
    return best


def spread(values_SR: np.ndarray) -> dict[str, Any]:
    """`mean` over requests and seeds, `std` of the seeds' means (None for one seed), and those means, `seeds`."""
    mean_S = np.nanmean(values_SR, axis=1)
    std = float(mean_S.std(ddof=1)) if len(mean_S) > 1 else None
    return {"mean": float(mean_S.mean()), "std": std, "seeds": mean_S.tolist()}


def difference(a_SR: np.ndarray, b_SR: np.ndarray, **options: Any) -> dict[str, float]:
    """`mean` of a - b with `lo` and `hi` of `two_way_interval`, and the least and the largest of the seeds' means."""
    mean_S = np.nanmean(np.asarray(a_SR) - np.asarray(b_SR), axis=1)
    lo, hi = two_way_interval(a_SR, b_SR, **options)
    said = {"mean": mean_S.mean(), "lo": lo, "hi": hi, "seeds_lo": mean_S.min(), "seeds_hi": mean_S.max()}
    return {key: float(value) for key, value in said.items()}


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


def _values(group: list[Entry], metric: str, per_request: pa.Table) -> np.ndarray:
    """[S, R]"""
    return np.stack([per_request[f"{entry.student}.{metric}"].to_numpy() for entry in group])


def _against(group: list[Entry], other: list[Entry], per_request: pa.Table) -> dict[str, dict[str, float]]:
    return {m: difference(_values(group, m, per_request), _values(other, m, per_request)) for m in METRICS}
