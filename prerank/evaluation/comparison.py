"""Runs compared over the same requests: how sure each mean is, each difference to one of them, and their Pareto fronts.

Plain rows in, plain rows out, as JSON holds them. R requests, N runs, B bootstrap replicates, the same for all. A value
that is not defined for a request (a hit-rate without a click) is NaN and is left out.
"""

from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from prerank.core.errors import InputError
from prerank.evaluation import pareto
from prerank.evaluation.intervals import bootstrap_means, percentiles

METRICS = ("recall", "hit_rate")
ORDER = {"pareto": 0, "grid": 2}
"""Of a pair of fronts that of the sampler for both aims comes first, a grid last."""
TWICE = "a request stands in its table twice; write the table again, a row a request"
Row = dict[str, Any]


def compared(
    rows: list[Row], requests: dict[str, pa.Table], *, groups: list[Row], base: str = "", seed: int = 0
) -> tuple[dict[str, Any], pa.Table]:
    """What the rows come to, best mean recall first, and the table of all their requests.

    rows: each with a `run_id`, a `name`, the id of its `group`, and a `latency_us` or None; requests: of each run id
    a table of request_id, recall and hit_rate; groups: each with an `id`, a `name` and a `sampler`; base: name or run
    id of what the others are compared with, by default the row of the best mean recall.

    The answer: `rows`, each with a `label` that no other has, `recall`, `recall_ci` (95%), `hit_rate`, `hit_rate_ci`,
    `vs_base` {metric: [difference, lo, hi], paired by request} and whether it is on the `front`; the `base`;
    `requests`, how many; `groups` with their `front` and `hypervolume`; and the `pairs` of their fronts. The table has
    the columns `<label>.recall` and `<label>.hit_rate`. Raises InputError where two were measured on other requests.
    """
    ids, values = aligned(rows, requests)
    values["recall"] = values["recall"][:, order_N := np.argsort(-np.nanmean(values["recall"], axis=0), kind="stable")]
    values["hit_rate"] = values["hit_rate"][:, order_N]
    labels = _labels([rows[i] for i in order_N], {group["id"]: group["name"] for group in groups})
    rows = [{**rows[i], "label": label} for i, label in zip(order_N, labels, strict=True)]
    at = _find(rows, base) if base else 0
    for row in rows:
        row["vs_base"] = None if row is rows[at] else {}
    means_BN = {metric: bootstrap_means(values[metric], seed=seed) for metric in METRICS}
    for metric in METRICS:
        value_RN = values[metric]
        difference_RN = value_RN - value_RN[:, at : at + 1]
        against = percentiles(bootstrap_means(difference_RN, seed=seed))
        sides = zip(_means(value_RN), percentiles(means_BN[metric]), _means(difference_RN), against, strict=True)
        for row, (mean, interval, difference, versus) in zip(rows, sides, strict=True):
            row |= {metric: _number(mean), f"{metric}_ci": _numbers(interval)}
            if row["vs_base"] is not None:
                row["vs_base"][metric] = _numbers((difference, *versus))
    on_N = _mark(rows)
    results = {
        "rows": [{**row, "front": bool(on)} for row, on in zip(rows, on_N, strict=True)],
        "base": rows[at]["label"],
        "base_given": bool(base),
        "requests": len(ids),
        "seed": seed,
        **fronts(rows, groups, means_BN["recall"]),
    }
    columns = {f"{row['label']}.{metric}": values[metric][:, i] for i, row in enumerate(rows) for metric in METRICS}
    return results, pa.table({"request_id": ids, **columns})


def aligned(rows: list[Row], requests: dict[str, pa.Table]) -> tuple[pa.Array, dict[str, np.ndarray]]:
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


def fronts(rows: list[Row], groups: list[Row], recall_BN: np.ndarray) -> dict[str, Any]:
    """The front of each group that was timed, as labels, and each pair of fronts; recall_BN: bootstraps of the rows.

    `hypervolume`: the share of the rectangle between the `reference`, the least recall and the longest latency of all
    rows, and the best of each that a front dominates. Of a pair `a`, `b`: which of them `dominates`, or None; how many
    points of each front the other has `covered`; and the `difference` of the hypervolumes a - b, [value, lo, hi] over
    the requests.
    """
    timed = [i for i, row in enumerate(rows) if row["latency_us"] is not None]
    if not timed:
        return {"groups": [{**group, "front": [], "hypervolume": None} for group in groups], "pairs": []}
    recall_N, latency_N = (np.array([rows[i][key] for i in timed], float) for key in ("recall", "latency_us"))
    reference = float(recall_N.min()), float(latency_N.max())
    box = (recall_N.max() - reference[0]) * (reference[1] - latency_N.min())
    said, points, volumes = [], {}, {}
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
            volumes[group["id"]] = volume, of_B / box if box else None
    ranked = sorted((group for group in said if group["front"]), key=lambda group: ORDER.get(group["sampler"], 1))
    pairs = [_pair(a, b, points, volumes) for a, b in combinations(ranked, 2)]
    return {"groups": said, "pairs": pairs, "reference": {"recall": reference[0], "latency_us": reference[1]}}


def _pair(a: Row, b: Row, points: dict[str, tuple], volumes: dict[str, tuple]) -> Row:
    at, other = points[a["id"]], points[b["id"]]
    ahead, behind = pareto.dominates(*at, *other), pareto.dominates(*other, *at)
    (volume_a, a_B), (volume_b, b_B) = volumes[a["id"]], volumes[b["id"]]
    difference = None
    if volume_a is not None:
        difference = _numbers((volume_a - volume_b, *percentiles((a_B - b_B)[:, None])[0]))
    return {
        "a": a["name"],
        "b": b["name"],
        "dominates": a["name"] if ahead else b["name"] if behind else None,
        "covered_of_a": int(pareto.covered(*other, *at)[0].sum()),
        "covered_of_b": int(pareto.covered(*at, *other)[0].sum()),
        "difference": difference,
    }


def _mark(rows: list[Row]) -> np.ndarray:
    """Which rows are on the front of all that were timed, bool [N]."""
    on_N = np.zeros(len(rows), bool)
    timed = [i for i, row in enumerate(rows) if row["latency_us"] is not None]
    if timed:
        on_N[timed] = pareto.front(*(np.array([rows[i][key] for i in timed]) for key in ("recall", "latency_us")))
    return on_N


def _labels(rows: list[Row], groups: dict[str, str]) -> list[str]:
    """Names; with their group's where two rows have one name, and with its run id where that is not enough."""
    labels = [row["name"] for row in rows]
    if len(set(labels)) < len(labels) and len(groups) > 1:
        labels = [f"{row['name']} ({groups[row['group']]})" for row in rows]
    return [
        f"{row['name']} ({row['run_id']})" if labels.count(label) > 1 else label
        for row, label in zip(rows, labels, strict=True)
    ]


def _find(rows: list[Row], base: str) -> int:
    found = [i for i, row in enumerate(rows) if base in (row["run_id"], row["name"], row["label"])]
    if len(found) == 1:
        return found[0]
    some = ", ".join(f"{row['label']} ({row['run_id']})" for row in ([rows[i] for i in found] or rows)[:6])
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


def _numbers(values: tuple[float, ...]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
