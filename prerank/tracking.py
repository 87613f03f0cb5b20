"""Where people look: one MLflow run a step or an arm, children of the run of the pipeline.

Plain `MlflowClient` calls, no global state: a worker logs to a run that the driver made. The run's id is kept beside
the output, so a restarted command goes on in its run. Nothing in MLflow is read back as an input.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from prerank.outputs import write_json

PARAM_LENGTH = 6000


@dataclass(frozen=True)
class Run:
    """A run that any process can log to."""

    uri: str
    run_id: str
    experiment_id: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def metrics(self, values: dict[str, float | None], step: int = 0) -> None:
        """Metrics in one request; None and NaN are left out, as MLflow has no place for them."""
        now = int(1000 * time.time())
        entries = [Metric(k, float(v), now, step) for k, v in values.items() if v is not None and v == v]
        self.client.log_batch(self.run_id, metrics=entries)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        self.client.log_artifact(self.run_id, str(path), folder)

    def figures(self, figures: dict[str, Figure]) -> None:
        for name, figure in figures.items():
            self.client.log_figure(self.run_id, figure, f"figures/{name}.png")


def tracking_uri(out: Path) -> str:
    """`MLFLOW_TRACKING_URI`, or a SQLite file in the folder that holds the output."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.resolve().parent / 'mlflow.db'}"


@contextmanager
def run(
    name: str,
    *,
    out: Path,
    state: Path,
    params: dict[str, Any],
    tags: dict[str, str] | None = None,
    parent: Run | None = None,
) -> Iterator[Run]:
    """A run named `name` for the output `out`, a child of `parent` if there is one; ends as FINISHED or FAILED.

    Without a parent, the experiment is MLFLOW_EXPERIMENT_NAME or the run's name. `state` is the JSON file that
    remembers the run's id, so that a restart goes on in it rather than adding another.
    """
    uri = parent.uri if parent else tracking_uri(out)
    client = MlflowClient(uri)
    current = _resumed(client, uri, state)
    if current is None:
        experiment_id = parent.experiment_id if parent else _experiment(client, uri, name, out)
        parent_tag = {"mlflow.parentRunId": parent.run_id} if parent else {}
        all_tags = {"mlflow.source.git.commit": git_commit(), "out": str(out), **(tags or {}), **parent_tag}
        created = client.create_run(experiment_id, run_name=name, tags=all_tags)
        current = Run(uri, created.info.run_id, experiment_id)
        state.parent.mkdir(parents=True, exist_ok=True)
        write_json(state, asdict(current))
        entries = [Param(key, _text(value)[:PARAM_LENGTH]) for key, value in params.items()]
        for start in range(0, len(entries), 100):
            client.log_batch(current.run_id, params=entries[start : start + 100])
    try:
        yield current
    except BaseException:
        client.set_terminated(current.run_id, "FAILED")
        raise
    client.set_terminated(current.run_id, "FINISHED")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _resumed(client: MlflowClient, uri: str, state: Path) -> Run | None:
    """The run that `state` remembers, if it is of this store and still there."""
    if not state.is_file():
        return None
    known = Run(**json.loads(state.read_text()))
    if known.uri != uri:
        return None
    try:
        client.update_run(known.run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return known


def _experiment(client: MlflowClient, uri: str, name: str, out: Path) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", name)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    local = (out.resolve().parent / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
    return client.create_experiment(name, artifact_location=local)


def git_commit() -> str:
    """The commit of the code that runs, or `unknown` outside a checkout."""
    root = Path(__file__).parent
    result = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
