"""What Ray has no public way for: every use of its internals, each with its reason.

`tests/core/test_private_ray.py` fails where a release of Ray has moved one of them. So a new release is tried by
running the tests, and the range in `pyproject.toml` widened where they pass.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from prerank.core.storage import rmtree

if TYPE_CHECKING:  # Ray's parts are imported where they are used: Train and Tune take seconds
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"
"""It says at every start that a token guards the cluster, which is as it should be."""

CHECKPOINTS = "checkpoint_manager_snapshot.json"
"""In the folder of a run of Ray Train: the list of its checkpoints, which Ray writes in place."""


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
