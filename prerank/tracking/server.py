"""MLflow's store: a client that gives up soon, whether a fault is an outage, and one logged entry as MLflow's calls."""

import os
import re
from pathlib import Path

import requests
import sqlalchemy.exc
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from prerank.core.errors import InputError
from prerank.tracking.entry import Entry

KEY = "prerank.key"  # a tag by which a run is found that the server made late, or made and could not say so
PARENT = "mlflow.parentRunId"
KEYED = "key-"  # begins what stands for the id of such a run
PROBE_S = 5
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the queue is what tries again, and it makes no run twice
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a line a run, with the address's password
}
BUSY = ("TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED")
DENIED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")


def connect(uri: str) -> MlflowClient:
    """A client; its requests give up soon, unless the environment says otherwise.

    Raises InputError where the address lacks its secrets and this process's MLFLOW_TRACKING_URI is not the whole one.
    """
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
    """Raises soon where a server is down, also where its machine swallows what is sent to it."""
    uri = _whole(uri)
    if uri.startswith("http"):
        http_request(get_default_host_creds(uri), "/health", "GET", timeout=PROBE_S, max_retries=0)


def is_down(error: BaseException) -> bool:
    """Whether the store does not answer, is overloaded or locked: the same call may succeed later."""
    code, seen = getattr(error, "error_code", None), error
    if code not in (None, "INTERNAL_ERROR", *BUSY):
        return False
    while seen is not None:
        if isinstance(seen, requests.HTTPError) and seen.response is not None:
            return seen.response.status_code >= 500 or seen.response.status_code in (408, 429)
        if isinstance(seen, requests.RequestException):
            return not isinstance(seen, ValueError)  # as an address without a scheme
        if isinstance(seen, sqlalchemy.exc.OperationalError):
            return "sqlite3" not in str(seen) or "is locked" in str(seen)
        seen = seen.__cause__ or seen.__context__
    return code in BUSY


def is_refusal(error: BaseException) -> bool:
    """Whether a store that is up will not take this one entry, today or tomorrow."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    denied = status in (401, 403) or getattr(error, "error_code", None) in DENIED
    return not denied and (not is_down(error) or "too many 500 error" in str(error))


def masked(text: str) -> str:
    """The text without the secrets of the addresses in it."""
    text = re.sub(r"(?<=://)[^/\s]*@", "***@", text)
    return re.sub(r"(?i)\b(password|token)=[^&\s'\"]+", r"\1=***", text)


def send(uri: str, entry: Entry, file: Path | None, *, again: bool = False) -> str:
    """One entry to the store; the run's id. What was sent before has no further effect, a run to create if `again`."""
    client, experiment_id = connect(uri), entry["experiment"]
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


def _id(client: MlflowClient, experiment_id: str, run_id: str) -> str:
    """The server's id of a run that it made late; raises MlflowException if it made none."""
    found = _find(client, experiment_id, run_id) if run_id.startswith(KEYED) else run_id
    if found is None:
        raise MlflowException(f"no run was made for {run_id}", RESOURCE_DOES_NOT_EXIST)
    return found


def _find(client: MlflowClient, experiment_id: str, key: str) -> str | None:
    found = client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}'")
    return found[0].info.run_id if found else None
