"""What Ray has no public way for: every use of what it keeps to itself or does not document, each with its reason.

`tests/core/test_private_ray.py` fails where a release of Ray has moved one of them, and where another file uses one. So
a new release is tried by running the tests, and the range in `pyproject.toml` widened where they pass.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prerank.core.storage import rmtree

if TYPE_CHECKING:  # Ray's parts are imported where they are used: Train and Tune take seconds
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    from ray.tune.search.sample import Domain

TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"
"""It says at every start that a token guards the cluster, which is as it should be."""

CHECKPOINTS = "checkpoint_manager_snapshot.json"
"""In the folder of a run of Ray Train: the list of its checkpoints, which Ray writes in place."""

JOB_FOLDERS = ("runtime_resources", "working_dir_files")
"""In the path of a job's copy of its working directory, which Ray deletes with the job."""


def listen_on_loopback() -> None:
    """Has a cluster that this process starts listen on loopback alone.

    Ray listens on all of a machine's addresses unless it is told that no other machine can join. The variable is for
    the processes that it starts, the constant for this one, which has read the variable already.
    """
    from ray._private import ray_constants

    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def ship_no_secrets() -> None:
    """Has Ray Tune leave the variables of AWS out of the runtime environment of its trials.

    It would write them to its logs; every node has its own.
    """
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in os.environ if name.startswith("AWS_")}


def report_without_waiting() -> None:
    """Has the controller of Ray Train look at its workers every 0.2 s, unless the environment says otherwise.

    Each report waits for that: 15 of them took 28 s at Ray's 2 s, and 3 s at 0.2. No argument says it.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")


def keep_every_checkpoint_quietly() -> None:
    """Keeps Ray Tune from warning that it saves the state of a sweep as often as it was told to.

    The warning names the variable; Ray's list of variables does not.
    """
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")


def trainer_without_process_group() -> "type[DataParallelTrainer]":
    """The trainer for a single worker, which needs no process group: its store listens on all addresses of its machine.

    TorchTrainer has no switch for that, and its base class is exported from no public module.
    """
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    return DataParallelTrainer


def drop_torn(folder: Path) -> None:
    """Removes a run of Ray Train whose list of checkpoints is half-written, by a kill or on a full disk.

    Ray would fail on it each time; without it the training begins anew.
    """
    try:
        json.loads((folder / CHECKPOINTS).read_text())
    except FileNotFoundError:
        pass
    except (json.JSONDecodeError, UnicodeDecodeError):
        rmtree(folder)


@dataclass(frozen=True)
class Range:
    """What a key of a space is drawn from: low to high, whole numbers or any, evenly or evenly on a scale of logs."""

    low: float
    high: float
    whole: bool
    logs: bool


def parts_of(domain: "Domain") -> list[object] | Range | None:
    """The values of a choice, the range of numbers, None for a domain that is neither.

    Ray documents how a domain is made (`tune.choice`, `tune.loguniform`), and not how to look into it.
    """
    from ray.tune.search.sample import Categorical, Float, Integer, LogUniform

    if isinstance(domain, Categorical):
        return list(domain.categories)
    if not isinstance(domain, Float | Integer):
        return None
    logs = isinstance(domain.get_sampler(), LogUniform)
    return Range(domain.lower, domain.upper, isinstance(domain, Integer), logs)


def causes(error: BaseException) -> list[BaseException | None]:
    """What an error was raised for; one of Ray holds what happened in a task, in a controller, in the workers.

    Read by the attributes' names, of which the task's is not documented: a command line that fails has no need to
    import Ray Train.
    """
    one = [getattr(error, "cause", None), getattr(error, "controller_failure", None), error.__cause__]
    return [*one, *getattr(error, "worker_failures", {}).values()]
