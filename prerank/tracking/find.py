"""Runs found in MLflow: by id, as the children of a parent, or by a query; each fault of the asking as one line."""

import socket
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from prerank.core.errors import InputError
from prerank.tracking import server
from prerank.tracking.faults import OLD_SCHEMA, explained, masked
from prerank.tracking.server import PARENT

PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}


def connect(uri: str) -> MlflowClient:
    """A client of a store that answers; raises InputError for one that does not, rather than try for minutes."""
    what, where = f"--tracking-uri {masked(uri)}", urlsplit(uri)
    if where.scheme.startswith("sqlite") and not Path(uri.partition("///")[2]).is_file():
        raise InputError(f"{what}: no such file; give --tracking-uri or MLFLOW_TRACKING_URI")
    try:
        if where.hostname:
            port = where.port or PORTS.get(where.scheme.partition("+")[0], 80)
            socket.create_connection((where.hostname, port), timeout=5).close()
        client = server.connect(uri)
        client.search_experiments(max_results=1)
    except (OSError, MlflowException) as error:
        if OLD_SCHEMA in str(error):
            raise InputError(explained(uri, error)) from error
        advice = "start it, or give another --tracking-uri or MLFLOW_TRACKING_URI"
        raise InputError(f"{what}: does not answer as MLflow ({_line(error)}); {advice}") from error
    return client


def children(client: MlflowClient, parents: Iterable[str]) -> list[Run]:
    """The children of the parents; raises InputError naming one that has none."""
    found = []
    for parent in listed(client, parents):
        mine = _search(client, [parent.info.experiment_id], f"tags.`{PARENT}` = '{parent.info.run_id}'")
        if not mine:
            raise InputError(f"parent {parent.info.run_id}: has no children; give the run of a sweep or of a pipeline")
        found += sorted(mine, key=lambda run: run.info.start_time)
    return found


def listed(client: MlflowClient, ids: Iterable[str]) -> list[Run]:
    """The runs of these ids, each once; raises InputError naming one that is not there."""
    found = []
    for run_id in dict.fromkeys(ids):
        try:
            found.append(client.get_run(run_id))
        except MlflowException as error:
            uri = masked(client.tracking_uri)
            raise InputError(f"run {run_id}: not in {uri}; give the id that MLflow shows of the run") from error
    return found


def queried(client: MlflowClient, query: str, experiment: str = "") -> list[Run]:
    """The runs that MLflow's search finds, in the experiment or in all; raises InputError where it finds none."""
    where = f"--query {query!r}" + (f" --experiment {experiment}" if experiment else "")
    every = client.search_experiments()
    chosen = [e.experiment_id for e in every if not experiment or e.name == experiment]
    if not chosen:
        raise InputError(f"{where}: no such experiment; expected one of {', '.join(e.name for e in every)}")
    try:
        found = _search(client, chosen, query)
    except MlflowException as error:
        raise InputError(f"{where}: {_line(error)}") from error
    if not found:
        raise InputError(f"{where}: no run found; try the query in the search field of MLflow's page")
    return sorted(found, key=lambda run: run.info.start_time)


def _search(client: MlflowClient, experiments: list[str], query: str) -> list[Run]:
    page, found = client.search_runs(experiments, query, max_results=1000), []
    while True:
        found += page
        if not page.token:
            return found
        page = client.search_runs(experiments, query, max_results=1000, page_token=page.token)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
