"""MLflow's store: a client that gives up soon, what it is asked beforehand, and one logged entry as MLflow's calls."""

import logging
import os
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prerank.core.errors import InputError
from prerank.core.locks import held
from prerank.tracking.entry import Entry
from prerank.tracking.experiment import SQLITE, restore
from prerank.tracking.faults import is_down, masked, one_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

KEY = "prerank.key"  # a tag by which a run is found that the server made late, or made and could not say so
PARENT = "mlflow.parentRunId"
KEYED = "key-"  # begins what stands for the id of such a run
PROBE_S = 5
TALKATIVE = "mlflow.store.db.utils"
"""Tells of each step by which it makes a database."""
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
INACTIVE = "must be in the 'active' state"
"""What MLflow says of a run or an experiment that was deleted, and is there until `mlflow gc`."""
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the queue is what tries again, and it makes no run twice
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a line a run, with the address's password
}


def connect(uri: str) -> "MlflowClient":
    """A client; its requests give up soon, unless the environment says otherwise.

    Raises InputError where the address lacks its secrets and this process's MLFLOW_TRACKING_URI is not the whole one.
    """
    from mlflow.tracking import MlflowClient  # late: it takes two seconds, which a command needs for its first steps

    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    return MlflowClient(_whole(uri))


def _whole(uri: str) -> str:
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri == masked(named):
        return named
    if "***" in uri:
        raise InputError(f"{uri}: set MLFLOW_TRACKING_URI to the whole address on every node, before Ray starts there")
    return uri


def probe(uri: str) -> None:
    """Raises soon where a server is down, also where its machine swallows what is sent to it.

    A SQLite file gets its tables, one process at a time: MLflow's own, and those of several commands that begin at
    once, would make the same table. Raises InputError where it cannot be written.
    """
    logging.getLogger(TALKATIVE).setLevel(logging.ERROR)
    uri = _whole(uri)
    where = urlsplit(uri)
    if uri.rstrip("/") == "sqlite:":
        raise InputError(f"MLflow at {uri}: in memory, and gone with this process; name a file, as {SQLITE}/PATH")
    if uri.startswith("http"):
        from mlflow.utils.credentials import get_default_host_creds  # late, as in `connect`
        from mlflow.utils.rest_utils import http_request

        http_request(get_default_host_creds(uri), "/health", "GET", timeout=PROBE_S, max_retries=0)
    elif where.hostname:
        port = where.port or PORTS.get(where.scheme.partition("+")[0], 0)
        socket.create_connection((where.hostname, port), timeout=PROBE_S).close()
    elif uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with held(path.with_name(f".{path.name}.lock")):
                _refuse_unwritable(path)
                connect(uri)
        except (OSError, sqlite3.Error) as error:
            if is_down(error):
                raise
            raise InputError(f"MLflow at {uri}: {one_line(error)}; mend it, or set MLFLOW_TRACKING_URI") from error


def _refuse_unwritable(path: Path) -> None:
    """Raises sqlite3.Error; MLflow would try for minutes."""
    with closing(sqlite3.connect(path, timeout=PROBE_S)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.rollback()


def local_uri(path: Path) -> str:
    """Of a SQLite file; raises InputError where its path is none that an address can hold."""
    import sqlalchemy.engine  # late, as MLflow is, which stands on it

    uri = f"{SQLITE}{path}"
    if sqlalchemy.engine.make_url(uri).database != str(path):
        raise InputError(
            f"{path.parent}: no address of MLflow can name a SQLite file in it (`?`, or `%` before two digits); set "
            "MLFLOW_TRACKING_URI, or name another folder"
        )
    return uri


def send(uri: str, entry: Entry, file: Path | None, *, again: bool = False) -> str:
    """One entry to the store; the run's id. What was sent before has no further effect, a run to create if `again`.

    A run or an experiment that was deleted in MLflow, and is still there, is restored: it is written to again.
    """
    from mlflow.entities import LifecycleStage
    from mlflow.exceptions import MlflowException

    client = connect(uri)
    try:
        return _send(client, entry, file, again)
    except MlflowException as error:
        if INACTIVE not in str(error):
            raise
    restore(client, entry["experiment"])
    found = None if "create" in entry else client.get_run(_id(client, entry["experiment"], entry["run"]))
    if found is not None and found.info.lifecycle_stage != LifecycleStage.ACTIVE:
        client.restore_run(found.info.run_id)
        print(f"note: run {found.info.run_id} was deleted in MLflow, and is restored", file=sys.stderr)
    return _send(client, entry, file, again)


def _send(client: "MlflowClient", entry: Entry, file: Path | None, again: bool) -> str:
    from mlflow.entities import Metric, Param, RunTag

    experiment_id = entry["experiment"]
    if "create" in entry:
        found = _find(client, experiment_id, entry["run"]) if again else None
        tags = {**entry.get("tags", {}), KEY: entry["run"]}
        if PARENT in tags:
            tags[PARENT] = _id(client, experiment_id, tags[PARENT])
        return found or client.create_run(experiment_id, entry.get("time"), tags, entry["create"]).info.run_id
    run_id = _id(client, experiment_id, entry["run"])
    if "metrics" in entry:
        client.log_batch(run_id, metrics=[Metric(*row) for row in entry["metrics"]])
    elif "params" in entry:
        params = [Param(key, value) for key, value in entry["params"].items()]
        for start in range(0, len(params), 100):
            client.log_batch(run_id, params=params[start : start + 100])
    elif "tags" in entry:
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in entry["tags"].items()])
    elif "artifact" in entry:
        client.log_artifact(run_id, str(file), entry["artifact"])
    elif "ended" in entry:
        client.set_terminated(run_id, entry["ended"], entry.get("time"))
    elif "status" in entry:
        client.update_run(run_id, status=entry["status"])
    return run_id


def _id(client: "MlflowClient", experiment_id: str, run_id: str) -> str:
    """The server's id of a run that it made late; raises MlflowException if it made none."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

    found = _find(client, experiment_id, run_id) if run_id.startswith(KEYED) else run_id
    if found is None:
        raise MlflowException(f"no run was made for {run_id}", RESOURCE_DOES_NOT_EXIST)
    return found


def _find(client: "MlflowClient", experiment_id: str, key: str) -> str | None:
    from mlflow.entities import ViewType

    found = client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}'", ViewType.ALL)
    return found[0].info.run_id if found else None
