"""What Ray has no public way for: every use of what it keeps to itself or does not document, each with its reason.

`tests/core/test_private_ray.py` fails where a release of Ray has moved one of them, and where another file uses one. So
a new release is tried by running the tests, and the range in `pyproject.toml` widened where they pass.
"""

import json
import logging
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from prerank.core.storage import rmtree

if TYPE_CHECKING:  # Ray's parts are imported where they are used: Train and Tune take seconds
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    from ray.tune.search.sample import Domain

TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"
"""It says at every start that a token guards the cluster, which is as it should be."""

TRACEBACK_LOGGERS = ("ray.data.exceptions", "ray.data._internal.execution.streaming_executor_state")
"""They print the traceback of a task, each once, before Ray Data raises the same: what is raised is what is told."""

OUT_OF_MEMORY = ("OutOfMemoryError", "ObjectStoreFullError")
"""Ray's and torch's errors, by name: a command line that fails has no need to import what raises them."""
OUT_OF_DISK = ("OutOfDiskError",)
KILLED = ("WorkerCrashedError", "ActorDiedError", "LocalRayletDiedError", "NodeDiedError")
"""A process of Ray ended without a word, or the machine that it was on."""

SOCKETS = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.0"
"""What Ray adds to its folder of temporary files to name a socket, at its longest."""
SOCKET_BYTES = 107
"""Of the name of a Unix socket, at most; on macOS three less."""

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


@contextmanager
def signals_left_alone() -> Iterator[None]:
    """Within, `ray.init` sets no handler for SIGTERM: its own ends the process with other codes and without a word.

    Ray's core sets one too, below Python's, that prints a stack: afterwards Python's is there again.
    """
    from ray._private import utils

    before = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda sigterm_handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before
        handler = signal.getsignal(signal.SIGTERM)
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def folder_of_temporary_files() -> str:
    """In which Ray would make its own."""
    from ray._common import utils

    return utils.get_default_system_temp_dir()


def address_of_the_last_start() -> str | None:
    """HOST:PORT of the cluster that `ray start` began last on this machine, which may be gone.

    Ray's `auto` looks for other processes of Ray too, and would join what another command has started for itself.
    """
    from ray._private import services

    return services.find_bootstrap_address(None)


def answers(address: str, *, seconds: float) -> bool:
    """Whether a server that speaks as Ray's do answers at HOST:PORT; Ray itself waits minutes, and may then abort."""
    import grpc
    from ray._private import gcs_utils

    channel = cast("grpc.Channel", gcs_utils.create_gcs_channel(address))  # of asyncio only where that is asked for
    try:
        grpc.channel_ready_future(channel).result(timeout=seconds)
    except grpc.FutureTimeoutError:
        return False
    finally:
        channel.close()
    return True


def no_tracebacks_of_tasks() -> None:
    for name in TRACEBACK_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def no_word_of_unhandled_errors() -> None:
    """Keeps Ray from printing errors that nobody asked for, such as of tasks that were cut off with what failed."""
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")


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


def trainer(*, workers: int) -> "type[DataParallelTrainer]":
    """The trainer for so many workers, with two changes.

    A single one needs no process group, whose store would listen on all addresses of its machine: TorchTrainer has no
    switch for that, and its base class is exported from no public module. And `fit` leaves Ctrl-C alone: the handler
    that it would set, and leave behind, keeps the command from ending, then and later.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    class SeveralWorkers(TorchTrainer):
        def _register_sigint_handler(self, controller: object) -> None:
            pass

    class OneWorker(DataParallelTrainer):
        def _register_sigint_handler(self, controller: object) -> None:
            pass

    return SeveralWorkers if workers > 1 else OneWorker


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


def own_words(said: str) -> str:
    """What an error said before Ray Data wrote below it how often it had tried, and what of that can be set."""
    return re.split(r"\nFailed to [^\n]* attempts \(total backoff", said)[0]


def causes(error: BaseException) -> list[BaseException | None]:
    """What an error was raised for; one of Ray holds what happened in a task, in a controller, in the workers.

    Read by the attributes' names, of which the task's and the worker's are not documented: a command line that fails
    has no need to import Ray Train.
    """
    one = [getattr(error, name, None) for name in ("cause", "controller_failure", "_base_exc")]
    return [*one, error.__cause__, *getattr(error, "worker_failures", {}).values()]
