"""The experiment that a run goes to: found by its name, made, or restored."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prerank.core.errors import InputError
from prerank.core.storage import Remote
from prerank.tracking.faults import is_fault, one_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SQLITE = "sqlite:///"


def experiment_of(client: "MlflowClient", uri: str, name: str, out: Path) -> str:
    """The id of the experiment MLFLOW_EXPERIMENT_NAME, or `name`: made where there is none, restored where deleted."""
    named = os.environ.get("MLFLOW_EXPERIMENT_NAME", "").strip()
    try:
        named.encode()  # bytes of the environment that are no text
        return _named_experiment(client, uri, named or name, out)
    except Exception as error:
        code = getattr(error, "error_code", "INVALID_PARAMETER_VALUE")
        if not is_fault(error) or not named or code != "INVALID_PARAMETER_VALUE":
            raise
        said = f"MLFLOW_EXPERIMENT_NAME {named[:60]!r}: {one_line(error)}"
        raise InputError(f"{said}; name another experiment, or unset it") from error


def _named_experiment(client: "MlflowClient", uri: str, name: str, out: Path) -> str:
    from mlflow.exceptions import MlflowException  # late, as wherever a store is asked

    found = client.get_experiment_by_name(name)
    if found is not None:
        restore(client, found.experiment_id)
        return found.experiment_id
    # Beside the output, or where that is in object storage, beside the database.
    beside = Path(uri.partition("///")[2]) if isinstance(out, Remote) else out
    local = (beside.resolve().parent / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
    try:
        return client.create_experiment(name, artifact_location=local)
    except MlflowException as error:
        found = client.get_experiment_by_name(name)  # made by another command meanwhile
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return found.experiment_id


def restore(client: "MlflowClient", experiment_id: str) -> None:
    """Restores an experiment that was deleted, with the runs that went with it."""
    from mlflow.entities import LifecycleStage

    found = client.get_experiment(experiment_id)
    if found.lifecycle_stage != LifecycleStage.ACTIVE:
        client.restore_experiment(experiment_id)
        print(f"note: the experiment {found.name!r} was deleted in MLflow, and is restored", file=sys.stderr)
