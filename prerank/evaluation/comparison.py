"""Runs compared over the same requests: how sure each mean is, each difference to one of them, and their Pareto fronts.

Plain rows in, plain rows out, as JSON holds them. R requests, N runs, B bootstrap replicates, the same for all. A value
that is not defined for a request (a hit-rate without a click) is NaN and is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa

from prerank.core.errors import InputError
from prerank.evaluation import pareto
from prerank.evaluation.compare_json import Compared, ComparedRow, Front, Fronts, Group, Pair, Row, Values
from prerank.evaluation.intervals import bootstrap_means, percentiles

METRICS = ("recall", "hit_rate")
ORDER = {"pareto": 0, "grid": 2}
"""Of a pair of fronts that of the sampler for both aims comes first, a grid last."""
TWICE = "a request stands in its table twice; write the table again, a row a request"
Points = tuple[np.ndarray, np.ndarray]
"""Recall and latency of the points of a front."""
Volume = tuple[float, np.ndarray] | None
"""The hypervolume of a group and its bootstraps [B]; None where all rows are at one point."""


def compared(
    rows: Sequence[Row], requests: Mapping[str, pa.Table], *, groups: Sequence[Group], base: str = "", seed: int = 0
) -> tuple[Compared, pa.Table]:
    """What the rows come to, and the table of all their requests: `<label>.recall` and `<label>.hit_rate`.

    requests: of each run id a table of request_id, recall and hit_rate; base: name or run id of what the others are
    compared with, by default the row of the best mean recall. Raises InputError where two were measured on other
    requests.
    """
    ids, values = aligned(rows, requests)
    order_N = np.argsort(-np.nanmean(values["recall"], axis=0), kind="stable")
    values = {metric: value_RN[:, order_N] for metric, value_RN in values.items()}
    rows = [rows[int(i)] for i in order_N]
    labels = _labels(rows, {group["id"]: group["name"] for group in groups})
    at = _find(rows, labels, base) if base else 0
    means_BN = {metric: bootstrap_means(values[metric], seed=seed) for metric in METRICS}
    means = {metric: _means(values[metric]).tolist() for metric in METRICS}
    intervals = {metric: percentiles(means_BN[metric]) for metric in METRICS}
    against = {metric: _against(values[metric], at, seed) for metric in METRICS}
    on_N = _mark(means["recall"], [row["latency_us"] for row in rows])
    done: list[ComparedRow] = [
        {
            **row,
            "label": labels[i],
            "vs_base": None if i == at else {metric: against[metric][i] for metric in METRICS},
            "recall": means["recall"][i],
            "recall_ci": list(intervals["recall"][i]),
            "hit_rate": _number(means["hit_rate"][i]),
            "hit_rate_ci": _numbers(intervals["hit_rate"][i]),
            "front": bool(on_N[i]),
        }
        for i, row in enumerate(rows)
    ]
    results: Compared = {
        "rows": done,
        "base": labels[at],
        "base_given": bool(base),
        "requests": len(ids),
        "seed": seed,
        **fronts(done, groups, means_BN["recall"]),
    }
    columns = {f"{label}.{metric}": values[metric][:, i] for i, label in enumerate(labels) for metric in METRICS}
    return results, pa.table({"request_id": ids, **columns})


def _against(value_RN: np.ndarray, at: int, seed: int) -> list[Values]:
    """`[difference, lo, hi]` of each run to one of them, paired by request."""
    difference_RN = value_RN - value_RN[:, at : at + 1]
    intervals = percentiles(bootstrap_means(difference_RN, seed=seed))
    return [_numbers((mean, *edges)) for mean, edges in zip(_means(difference_RN), intervals, strict=True)]


def aligned(rows: Sequence[Row], requests: Mapping[str, pa.Table]) -> tuple[pa.Array, dict[str, np.ndarray]]:
    """The request ids, ascending, and each metric [R, N]; raises InputError naming two runs whose requests differ."""
    sorted_ = [requests[row["run_id"]].sort_by("request_id") for row in rows]
    ids = sorted_[0]["request_id"].combine_chunks()
    for row, table in zip(rows, sorted_, strict=True):
        mine = table["request_id"].combine_chunks()
        if not mine.equals(ids):
            raise InputError(_differ(rows[0], row, ids, mine))
    if len(ids.unique()) < len(ids):
        raise InputError(f"{_said(rows[0])}: {TWICE}")
    values = {m: np.stack([table[m].to_numpy().astype(float) for table in sorted_], axis=1) for m in METRICS}
    for row, recall_R in zip(rows, values["recall"].T, strict=True):
        if np.isnan(recall_R).all():
            raise InputError(f"{_said(row)}: no request has a recall; leave the run out of the comparison")
    return ids, values


def fronts(rows: Sequence[ComparedRow], groups: Sequence[Group], recall_BN: np.ndarray) -> Fronts:
    """The front of each group that was timed, as labels, and each pair of fronts; recall_BN: bootstraps of the rows."""
    timed = [i for i, row in enumerate(rows) if row["latency_us"] is not None]
    if not timed:
        return {"groups": [{**group, "front": [], "hypervolume": None} for group in groups], "pairs": []}
    recall_N, latency_N = (np.array([rows[i][key] for i in timed], float) for key in ("recall", "latency_us"))
    reference = float(recall_N.min()), float(latency_N.max())
    box = (recall_N.max() - reference[0]) * (reference[1] - latency_N.min())
    said: list[Front] = []
    points: dict[str, Points] = {}
    volumes: dict[str, Volume] = {}
    for group in groups:
        mine = np.array([n for n, i in enumerate(timed) if rows[i]["group"] == group["id"]], int)
        on = mine[pareto.front(recall_N[mine], latency_N[mine])] if len(mine) else mine
        on = on[np.argsort(latency_N[on], kind="stable")]
        volume = float(pareto.hypervolume(recall_N[mine], latency_N[mine], reference=reference) / box) if box else None
        said.append({**group, "front": [rows[timed[n]]["label"] for n in on], "hypervolume": volume})
        if len(on):
            points[group["id"]] = recall_N[on], latency_N[on]
            recall_Bn = recall_BN[:, [timed[n] for n in mine]]
            of_B = pareto.hypervolume(recall_Bn, latency_N[mine], reference=reference)
            volumes[group["id"]] = (volume, of_B / box) if volume is not None else None
    ranked = sorted((group for group in said if group["front"]), key=lambda group: ORDER.get(group["sampler"], 1))
    pairs = [_pair(a, b, points, volumes) for a, b in combinations(ranked, 2)]
    return {"groups": said, "pairs": pairs, "reference": {"recall": reference[0], "latency_us": reference[1]}}


def _pair(a: Front, b: Front, points: Mapping[str, Points], volumes: Mapping[str, Volume]) -> Pair:
    at, other = points[a["id"]], points[b["id"]]
    ahead, behind = pareto.dominates(*at, *other), pareto.dominates(*other, *at)
    of_a, of_b = volumes[a["id"]], volumes[b["id"]]
    difference = None
    if of_a and of_b:
        difference = _numbers((of_a[0] - of_b[0], *percentiles((of_a[1] - of_b[1])[:, None])[0]))
    return {
        "a": a["name"],
        "b": b["name"],
        "dominates": a["name"] if ahead else b["name"] if behind else None,
        "covered_of_a": int(pareto.covered(*other, *at)[0].sum()),
        "covered_of_b": int(pareto.covered(*at, *other)[0].sum()),
        "difference": difference,
    }


def _mark(recalls: Sequence[float | None], latencies_us: Sequence[float | None]) -> np.ndarray:
    """Which rows are on the front of all that were timed, bool [N]."""
    on_N = np.zeros(len(recalls), bool)
    timed = [i for i, latency_us in enumerate(latencies_us) if latency_us is not None]
    if timed:
        on_N[timed] = pareto.front(*(np.array([side[i] for i in timed], float) for side in (recalls, latencies_us)))
    return on_N


def _labels(rows: Sequence[Row], groups: Mapping[str, str]) -> list[str]:
    """Names; with their group's where two rows have one name, and with its run id where that is not enough."""
    labels = [row["name"] for row in rows]
    if len(set(labels)) < len(labels) and len(groups) > 1:
        labels = [f"{row['name']} ({groups[row['group']]})" for row in rows]
    return [
        f"{row['name']} ({row['run_id']})" if labels.count(label) > 1 else label
        for row, label in zip(rows, labels, strict=True)
    ]


def _find(rows: Sequence[Row], labels: Sequence[str], base: str) -> int:
    found = [i for i, row in enumerate(rows) if base in (row["run_id"], row["name"], labels[i])]
    if len(found) == 1:
        return found[0]
    some = ", ".join(f"{labels[i]} ({rows[i]['run_id']})" for i in (found or range(len(rows)))[:6])
    if found:
        raise InputError(f"--base {base}: {len(found)} runs have this name; give one's id: {some}")
    raise InputError(f"--base {base}: no comparable run has this name or id; expected one such as {some}")


def _differ(a: Row, b: Row, ids_a: pa.Array, ids_b: pa.Array) -> str:
    in_a, in_b = set(ids_a.to_pylist()), set(ids_b.to_pylist())
    if in_a == in_b:
        return f"{_said(b if len(ids_b) > len(in_b) else a)}: {TWICE}"
    return (
        f"{_said(a)} and {_said(b)} were measured on different requests: {len(in_a - in_b):,} of {len(in_a):,} are the "
        f"first's alone, {len(in_b - in_a):,} of {len(in_b):,} the second's; compare runs of the same samples"
    )


def _said(row: Row) -> str:
    return f"{row['name']} ({row['run_id']})"


def _means(values_RN: np.ndarray) -> np.ndarray:
    counts_N = (~np.isnan(values_RN)).sum(axis=0)
    return np.divide(np.nansum(values_RN, axis=0), counts_N, out=np.full(len(counts_N), np.nan), where=counts_N > 0)


def _numbers(values: Iterable[float]) -> Values:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
