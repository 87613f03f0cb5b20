"""Runs of MLflow as plain rows: what each was, what it came to, and its table of requests.

A sweep's trials carry their own requests.parquet, of the validation requests; a pipeline's arms share their parent's,
`<arm>.<metric>` of the test requests. What has no such table is listed with the reason.
"""

import json
import math
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from prerank.core.errors import InputError
from prerank.evaluation.comparison import METRICS, Row, compared
from prerank.tracking.find import PARENT, listed
from prerank.tracking.server import masked

NOT_SWEPT = {"name", "features"}
"""Keys that differ among arms as well but have a place of their own."""
AT_ONCE = 8
"""Runs that are asked for at a time."""


@dataclass(frozen=True)
class Read:
    """What MLflow holds of some runs."""

    rows: list[Row]
    requests: dict[str, pa.Table]
    """By run id: request_id, recall, hit_rate."""
    left_out: list[Row]
    groups: list[Row]
    k: int
    requests_of: str
    """`validation` or `test`."""


def compare(
    client: MlflowClient, runs: list[Run], *, whole: bool, base: str = "", seed: int = 0
) -> tuple[dict[str, Any], pa.Table]:
    """What `comparison.compared` says of the runs, with `left_out`, `swept`, `k`, `requests_of`; and the requests.

    whole: the runs are all children of their parents, of which a sweep's that are not trials are no rows.
    """
    found = read(client, runs, whole=whole)
    swept = list(dict.fromkeys(key for group in found.groups for key in group.pop("swept")))
    params = {row["run_id"]: row.pop("all_params") for row in found.rows}
    swept = swept or _differing(list(params.values()))
    for row in found.rows:
        row["params"] = {key: params[row["run_id"]].get(key) for key in swept}
    results, table = compared(found.rows, found.requests, groups=found.groups, base=base, seed=seed)
    facts = {"k": found.k, "requests_of": found.requests_of, "swept": swept, "left_out": found.left_out}
    return {**facts, **results, "mlflow": masked(client.tracking_uri)}, table


def read(client: MlflowClient, runs: list[Run], *, whole: bool) -> Read:
    """Rows of the runs that have a table of requests, and the reasons of the others.

    Raises InputError where none has one, or where they are of different K or of validation and test requests.
    """
    ids = dict.fromkeys(run.data.tags[PARENT] for run in runs if PARENT in run.data.tags)
    parents = {run.info.run_id: run for run in listed(client, ids)}
    tables = {run_id: _parquet(client, run_id) for run_id in parents}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        facts = list(pool.map(lambda run: _facts(client, run, parents, tables, whole), runs))
    rows = [row for row, table in facts if table is not None]
    left_out = [row for row, table in facts if table is None]
    for parent in dict.fromkeys(row["group"] for row in left_out if whole or not rows):
        mine = [row for row in left_out if row["group"] == parent]
        if not any(row["group"] == parent for row in rows):
            reasons = "; ".join(dict.fromkeys(f"{row['name']}: {row['reason']}" for row in mine[:5]))
            who = f"parent {parent}" if parent else "the runs"
            raise InputError(f"{who}: no comparable run ({reasons}); let a trial come to its end, or name other runs")
    for key, what in (("k", "recall is counted at different K"), ("requests_of", "these are of different requests")):
        for row in rows[1:]:
            if row[key] != rows[0][key]:
                names = [f"{r['name']} ({r['run_id']}): {r[key]}" for r in (rows[0], row)]
                raise InputError(f"{what}: {', '.join(names)}; compare the runs of one kind")
    requests = {row["run_id"]: table for row, table in facts if table is not None}
    groups = _groups(parents, rows, left_out)
    k, requests_of = rows[0]["k"], rows[0]["requests_of"]
    for row in rows:
        del row["k"], row["requests_of"]
    return Read(rows, requests, left_out, groups, k, requests_of)


def _facts(
    client: MlflowClient, run: Run, parents: dict[str, Run], tables: dict[str, pa.Table | None], whole: bool
) -> tuple[Row, pa.Table | None]:
    """The row of a run with its table of requests; without one, the row has the reason."""
    tags, metrics, name = run.data.tags, run.data.metrics, run.info.run_name
    parent = parents.get(tags.get(PARENT))
    above, of = (parent.data.tags, parent.data.metrics) if parent else ({}, {})
    k, table, requests_of = _k(metrics, r"(?:best|val)/"), None, "validation"
    reason = _apart(run, above, whole)
    artifacts = set() if reason else {file.path for file in client.list_artifacts(run.info.run_id)}
    if not reason and "requests.parquet" in artifacts:
        table = _columns(_parquet(client, run.info.run_id), "")
    elif not reason and parent and tables[parent.info.run_id] is not None:
        table = _columns(tables[parent.info.run_id], f"{name}.")
        k, requests_of = _k(of, rf"test/{re.escape(name)}/") or k, "test"
    if table is not None and k is None:
        table, reason = None, "no metric recall_at_K says what its recall is of"
    curve = _curve(client, run, k)
    epochs = metrics.get("epochs", len(curve) or None)
    row = {
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
    if table is None:
        return {**row, "reason": reason or _missing(run, above)}, None
    times = ("latency_us", "fetch_us", "inference_us")
    params = {key: _plain(value) for key, value in run.data.params.items()}
    arch = _arch(client, run, artifacts)
    return {
        **row,
        **{key: metrics.get(key, of.get(f"test/{name}/{key}")) for key in times},
        **{key: arch.get(key) for key in ("features", "widths")},
        "all_params": params,
        "k": k,
        "requests_of": requests_of,
    }, table


def _apart(run: Run, above: dict[str, str], whole: bool) -> str:
    """Why a run is no row whatever it has written; empty where it may be one."""
    if run.data.tags.get("kind") == "sweep":
        return "a sweep: its trials are compared, with --parents"
    if whole and above.get("kind") == "sweep" and run.data.tags.get("kind") != "trial":
        return "not a trial of the sweep"
    if run.info.run_name == "teacher":
        return "the teacher, against whose order recall is counted"
    return ""


def _missing(run: Run, above: dict[str, str]) -> str:
    """Why a run has no table of requests."""
    if run.data.tags.get("stopped_early") == "true":
        return f"stopped early by {above.get('scheduler') or 'the scheduler'}"
    ends = {"FAILED": "failed", "KILLED": "killed", "RUNNING": "not at its end", "SCHEDULED": "not begun"}
    return ends.get(run.info.status, "no recall request by request: a step, or a run from before it was kept")


def _groups(parents: dict[str, Run], rows: list[Row], left_out: list[Row]) -> list[Row]:
    """A group a parent, and one of the runs that have none."""
    groups = []
    for group_id in dict.fromkeys(row["group"] for row in rows + left_out):
        mine, apart = ([row for row in side if row["group"] == group_id] for side in (rows, left_out))
        parent = parents.get(group_id)
        tags, metrics = (parent.data.tags, parent.data.metrics) if parent else ({}, {})
        spent = metrics.get("epochs", sum(row["epochs"] or 0 for row in mine + apart))
        said = [tags[key] for key in ("space", "sampler") if tags.get(key)]
        groups.append(
            {
                "id": group_id,
                "name": "/".join(said) or (parent.info.run_name if parent else "runs without a parent"),
                **{key: tags.get(key, "") for key in ("space", "sampler", "scheduler", "metric")},
                "runs": len(mine),
                "left_out": len(apart),
                "epochs": int(spent),
                "swept": json.loads(tags.get("swept", "[]")),
            }
        )
    names = [group["name"] for group in groups]
    return [g | {"name": f"{g['name']} {g['id'][:8]}"} if names.count(g["name"]) > 1 else g for g in groups]


def _parquet(client: MlflowClient, run_id: str) -> pa.Table | None:
    if not any(file.path == "requests.parquet" for file in client.list_artifacts(run_id)):
        return None
    with tempfile.TemporaryDirectory() as folder:
        return pq.read_table(client.download_artifacts(run_id, "requests.parquet", folder))


def _columns(table: pa.Table, prefix: str) -> pa.Table | None:
    """request_id and the metrics of one run; None where the table has none of it."""
    names = [f"{prefix}{metric}" for metric in METRICS]
    if not {"request_id", *names} <= set(table.column_names):
        return None
    ids = table["request_id"].cast(pa.string())
    return pa.table({"request_id": ids, **{m: table[name] for m, name in zip(METRICS, names, strict=True)}})


def _k(metrics: dict[str, float], prefix: str) -> int | None:
    found = (re.fullmatch(rf"{prefix}recall_at_(\d+)", name) for name in metrics)
    return max((int(match[1]) for match in found if match), default=None)


def _curve(client: MlflowClient, run: Run, k: int | None) -> list[list[float]]:
    """[epoch, validation recall at K]; a restart that logs an epoch again replaces it."""
    name = f"val/recall_at_{k}"
    if name not in run.data.metrics:
        return []
    by_epoch = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
    return [[epoch, by_epoch[epoch]] for epoch in sorted(by_epoch)]


def _arch(client: MlflowClient, run: Run, artifacts: set[str]) -> dict[str, Any]:
    """Features and widths from its arch.json, else from its parameters."""
    if "arch.json" in artifacts:
        with tempfile.TemporaryDirectory() as folder:
            return json.loads(Path(client.download_artifacts(run.info.run_id, "arch.json", folder)).read_text())
    known = {key: run.data.params.get(key, "") for key in ("features", "widths")}
    return {key: json.loads(value) for key, value in known.items() if value.startswith("[")}


def _differing(params: list[dict[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for one in params for key in one)
    return [key for key in keys if key not in NOT_SWEPT and len({one.get(key) for one in params}) > 1]


def _plain(text: str) -> float | int | str:
    """A parameter as a number or as text: MLflow holds them all as text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, list):
        return ", ".join(map(str, value))
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else text
