"""Runs of MLflow as plain rows: what each was, what it came to, and its table of requests.

A sweep's trials carry their own requests.parquet, of the validation requests; a pipeline's arms share their parent's,
`<arm>.<metric>` of the test requests. What has no such table is listed with the reason.
"""

import json
import math
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from prerank.core.errors import InputError
from prerank.evaluation.compare_json import Group, Known, LeftOut, Results, Row
from prerank.evaluation.comparison import METRICS, compared
from prerank.tracking.faults import masked
from prerank.tracking.find import PARENT, listed

NOT_SWEPT = {"name", "features"}
"""Keys that differ among arms as well but have a place of their own."""
AT_ONCE = 8
"""Runs that are asked for at a time."""
Param = float | str
"""A parameter as a number or as text: MLflow holds them all as text."""


@dataclass(frozen=True)
class Measured:
    """A run that has a table of requests."""

    row: Row
    """Without `params`."""
    params: dict[str, Param]
    """All of them."""
    table: pa.Table
    """request_id, recall, hit_rate."""
    k: int
    requests_of: str
    """`validation` or `test`."""


class Arch(TypedDict, total=False):
    features: list[str]
    widths: list[int]


def compare(
    client: MlflowClient, runs: list[Run], *, whole: bool, base: str = "", seed: int = 0
) -> tuple[Results, pa.Table]:
    """What `comparison.compared` says of the runs, and of those that could not be compared; and the requests.

    whole: the runs are all children of their parents, of which a sweep's that are not trials are no rows.
    """
    ids = dict.fromkeys(run.data.tags[PARENT] for run in runs if PARENT in run.data.tags)
    parents = {run.info.run_id: run for run in listed(client, ids)}
    measured, left_out = _read(client, runs, parents, whole)
    groups = _groups(parents, [one.row for one in measured], left_out)
    swept = _swept(parents[group["id"]] for group in groups if group["id"])
    swept = swept or _differing([one.params for one in measured])
    rows: list[Row] = [{**one.row, "params": {key: one.params.get(key) for key in swept}} for one in measured]
    requests = {one.row["run_id"]: one.table for one in measured}
    found, table = compared(rows, requests, groups=groups, base=base, seed=seed)
    results: Results = {
        "k": measured[0].k,
        "requests_of": measured[0].requests_of,
        "swept": swept,
        "left_out": left_out,
        **found,
        "mlflow": masked(client.tracking_uri),
    }
    return results, table


def _read(
    client: MlflowClient, runs: list[Run], parents: Mapping[str, Run], whole: bool
) -> tuple[list[Measured], list[LeftOut]]:
    """The runs that have a table of requests, and the others with the reason.

    Raises InputError where none has one, or where they are of different K or of validation and test requests.
    """
    tables = {run_id: _parquet(client, run_id) for run_id in parents}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda run: _facts(client, run, parents, tables, whole), runs))
    measured = [one for one in found if isinstance(one, Measured)]
    left_out = [one for one in found if not isinstance(one, Measured)]
    for parent in dict.fromkeys(row["group"] for row in left_out if whole or not measured):
        mine = [row for row in left_out if row["group"] == parent]
        if not any(one.row["group"] == parent for one in measured):
            reasons = "; ".join(dict.fromkeys(f"{row['name']}: {row['reason']}" for row in mine[:5]))
            who = f"parent {parent}" if parent else "the runs"
            raise InputError(f"{who}: no comparable run ({reasons}); let a trial come to its end, or name other runs")
    _same([(one.row, one.k) for one in measured], "recall is counted at different K")
    _same([(one.row, one.requests_of) for one in measured], "these are of different requests")
    return measured, left_out


def _same(values: Sequence[tuple[Row, int | str]], what: str) -> None:
    """Raises InputError naming two runs of which it does not hold."""
    for row, value in values[1:]:
        if value != values[0][1]:
            names = [f"{one['name']} ({one['run_id']}): {its}" for one, its in (values[0], (row, value))]
            raise InputError(f"{what}: {', '.join(names)}; compare the runs of one kind")


def _facts(
    client: MlflowClient, run: Run, parents: Mapping[str, Run], tables: Mapping[str, pa.Table | None], whole: bool
) -> Measured | LeftOut:
    tags, metrics, name = run.data.tags, run.data.metrics, run.info.run_name or ""
    parent = parents.get(tags.get(PARENT, ""))
    above, of = (parent.data.tags, parent.data.metrics) if parent else ({}, {})
    shared = tables[parent.info.run_id] if parent else None
    k, table, requests_of = _k(metrics, r"(?:best|val)/"), None, "validation"
    reason = _apart(run, above, whole)
    artifacts = set() if reason else {file.path for file in client.list_artifacts(run.info.run_id)}
    if not reason and "requests.parquet" in artifacts:
        table = _columns(_parquet(client, run.info.run_id), "")
    elif not reason and shared is not None:
        table = _columns(shared, f"{name}.")
        k, requests_of = _k(of, rf"test/{re.escape(name)}/") or k, "test"
    if table is not None and k is None:
        reason = "no metric recall_at_K says what its recall is of"
    curve = _curve(client, run, k)
    epochs = metrics.get("epochs", len(curve) or None)
    known: Known = {
        "run_id": run.info.run_id,
        "name": name,
        "group": parent.info.run_id if parent else "",
        "sampler": above.get("sampler", ""),
        "space": above.get("space", tags.get("space", "")),
        "status": run.info.status,
        "stopped_early": tags.get("stopped_early") == "true",
        "epochs": None if epochs is None else int(epochs),
        "curve": curve,
    }
    if table is None or k is None:
        return {**known, "reason": reason or _missing(run, above)}
    arch = _arch(client, run, artifacts)
    row: Row = {
        **known,
        "latency_us": metrics.get("latency_us", of.get(f"test/{name}/latency_us")),
        "fetch_us": metrics.get("fetch_us", of.get(f"test/{name}/fetch_us")),
        "inference_us": metrics.get("inference_us", of.get(f"test/{name}/inference_us")),
        "features": arch.get("features"),
        "widths": arch.get("widths"),
        "params": {},
    }
    params = {key: _plain(value) for key, value in run.data.params.items()}
    return Measured(row, params, table, k, requests_of)


def _apart(run: Run, above: Mapping[str, str], whole: bool) -> str:
    """Why a run is no row whatever it has written; empty where it may be one."""
    if run.data.tags.get("kind") == "sweep":
        return "a sweep: its trials are compared, with --parents"
    if whole and above.get("kind") == "sweep" and run.data.tags.get("kind") != "trial":
        return "not a trial of the sweep"
    if run.info.run_name == "teacher":
        return "the teacher, against whose order recall is counted"
    return ""


def _missing(run: Run, above: Mapping[str, str]) -> str:
    """Why a run has no table of requests."""
    if run.data.tags.get("stopped_early") == "true":
        return f"stopped early by {above.get('scheduler') or 'the scheduler'}"
    ends = {"FAILED": "failed", "KILLED": "killed", "RUNNING": "not at its end", "SCHEDULED": "not begun"}
    return ends.get(run.info.status, "no recall request by request: a step, or a run from before it was kept")


def _groups(parents: Mapping[str, Run], rows: Sequence[Row], left_out: Sequence[LeftOut]) -> list[Group]:
    """A group a parent, and one of the runs that have none."""
    groups: list[Group] = []
    for group_id in dict.fromkeys(row["group"] for row in (*rows, *left_out)):
        mine = [row for row in rows if row["group"] == group_id]
        apart = [row for row in left_out if row["group"] == group_id]
        parent = parents.get(group_id)
        tags, metrics = (parent.data.tags, parent.data.metrics) if parent else ({}, {})
        spent = metrics.get("epochs", sum(row["epochs"] or 0 for row in (*mine, *apart)))
        said = [tags[key] for key in ("space", "sampler") if tags.get(key)]
        groups.append(
            {
                "id": group_id,
                "name": "/".join(said) or (parent.info.run_name or "" if parent else "runs without a parent"),
                "space": tags.get("space", ""),
                "sampler": tags.get("sampler", ""),
                "scheduler": tags.get("scheduler", ""),
                "metric": tags.get("metric", ""),
                "runs": len(mine),
                "left_out": len(apart),
                "epochs": int(spent),
            }
        )
    names = [group["name"] for group in groups]
    return [{**g, "name": f"{g['name']} {g['id'][:8]}"} if names.count(g["name"]) > 1 else g for g in groups]


def _swept(parents: Iterable[Run]) -> list[str]:
    """The keys that the sweeps say they drew."""
    return list(dict.fromkeys(key for parent in parents for key in json.loads(parent.data.tags.get("swept", "[]"))))


def _parquet(client: MlflowClient, run_id: str) -> pa.Table | None:
    if not any(file.path == "requests.parquet" for file in client.list_artifacts(run_id)):
        return None
    with tempfile.TemporaryDirectory() as folder:
        return pq.read_table(client.download_artifacts(run_id, "requests.parquet", folder))


def _columns(table: pa.Table | None, prefix: str) -> pa.Table | None:
    """request_id and the metrics of one run; None where the table has none of it."""
    names = [f"{prefix}{metric}" for metric in METRICS]
    if table is None or not {"request_id", *names} <= set(table.column_names):
        return None
    ids = table["request_id"].cast(pa.string())
    return pa.table({"request_id": ids, **{m: table[name] for m, name in zip(METRICS, names, strict=True)}})


def _k(metrics: Mapping[str, float], prefix: str) -> int | None:
    found = (re.fullmatch(rf"{prefix}recall_at_(\d+)", name) for name in metrics)
    return max((int(match[1]) for match in found if match), default=None)


def _curve(client: MlflowClient, run: Run, k: int | None) -> list[list[float]]:
    """[epoch, validation recall at K]; a restart that logs an epoch again replaces it."""
    name = f"val/recall_at_{k}"
    if name not in run.data.metrics:
        return []
    by_epoch = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
    return [[epoch, by_epoch[epoch]] for epoch in sorted(by_epoch)]


def _arch(client: MlflowClient, run: Run, artifacts: set[str]) -> Arch:
    """Features and widths from its arch.json, else from its parameters."""
    if "arch.json" in artifacts:
        with tempfile.TemporaryDirectory() as folder:
            return json.loads(Path(client.download_artifacts(run.info.run_id, "arch.json", folder)).read_text())
    features, widths = (run.data.params.get(key, "") for key in ("features", "widths"))
    found: Arch = {}
    if features.startswith("["):
        found["features"] = json.loads(features)
    if widths.startswith("["):
        found["widths"] = json.loads(widths)
    return found


def _differing(params: Sequence[Mapping[str, Param]]) -> list[str]:
    keys = dict.fromkeys(key for one in params for key in one)
    return [key for key in keys if key not in NOT_SWEPT and len({one.get(key) for one in params}) > 1]


def _plain(text: str) -> Param:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, list):
        return ", ".join(map(str, value))
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else text
