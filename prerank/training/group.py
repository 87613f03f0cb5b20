"""Training on Ray Train: one worker group trains any number of arms over the same samples, one after the other.

A checkpoint is Ray Train's: the folder that `ray.train.report` stores holds the finished arms' best weights and the
state of the arm under way. After a failure Ray restarts the workers from it; after a kill the same command does, as the
run's name and folder are the same.
"""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar, cast

import ray
import ray.train
import ray.train.torch
import torch
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from prerank.core.cluster.private import drop_torn, report_without_waiting, trainer
from prerank.core.errors import InputError
from prerank.models import checkpoint
from prerank.models.checkpoint import ModelManifest, State
from prerank.models.options import Arm
from prerank.tracking.runs import Run
from prerank.training.finished import NO_OTHERS, Beside, finished_models, fit_alone, key_of
from prerank.training.kinds import train_any
from prerank.training.options import Compute
from prerank.training.progress import Bars, Board, Teller
from prerank.training.worker import Job, Trained, Worker, log_epoch


class Shared(TypedDict):
    """What each worker of a group is sent, as Ray Train takes it."""

    job: Job
    runs: dict[str, Run]
    """Of MLflow, by the name of an arm."""
    board: NotRequired[ActorHandle[Board]]
    """Where progress is told; `launch` puts it there."""


class Arms(Shared):
    arms: list[Arm]


Sent = TypeVar("Sent", bound=Shared)


def fit(
    arms: list[Arm], samples: Path, work: Path, *, compute: Compute, k: int, runs: dict[str, Run], key: str = ""
) -> dict[str, Trained]:
    """Trains the arms and returns them by name; `work` keeps the checkpoints, and the same call resumes from them.

    `k`: the cut-off of the validation metrics; `runs`: the MLflow run of an arm, if any; `key`: of the checkpoints,
    where it is that of more arms than are still to be trained. `check` says beforehand whether the samples have what
    the arms need.
    """
    samples = samples.resolve()
    job = Arms(arms=arms, job=Job(samples, compute, k), runs=runs)
    name = f"ray_train-{key or key_of(arms, samples, k, compute.lanes)}"
    done = launch(_train_arms, job, name=name, work=work, compute=compute)
    with done.as_directory() as folder:
        return {arm.name: Trained(arm, *checkpoint.load_best(Path(folder), arm.name)) for arm in arms}


def launch(
    worker: Callable[[Sent], None], job: Sent, *, name: str, work: Path, compute: Compute
) -> ray.train.Checkpoint:
    """Runs `worker` on a worker group of Ray Train with a progress board; returns the last checkpoint it reported.

    The same name and folder go on from the latest checkpoint. The workers are packed on as few nodes as have room.
    """
    drop_torn(work / name)
    if others_of(work, name):
        print(f"note: {work}: its checkpoints are of other options, samples or another version: this begins anew")
    report_without_waiting()
    sent = cast(Callable[[dict[str, object]], None], worker)  # a dictionary of any kind, as Ray has it
    of_ray = trainer(workers=compute.workers)
    with Bars() as board:
        result = of_ray(
            sent,
            train_loop_config={**job, "board": board},
            scaling_config=ray.train.ScalingConfig(
                num_workers=compute.workers,
                use_gpu=compute.gpu,
                resources_per_worker={"CPU": compute.cpus} | ({"GPU": 1} if compute.gpu else {}),
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=str(work.resolve()),
                failure_config=ray.train.FailureConfig(max_failures=compute.max_failures, controller_failure_limit=3),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            ),
        ).fit()
    assert result.checkpoint is not None  # every worker has reported: at the end of an arm at least
    return result.checkpoint


def others_of(work: Path, name: str) -> list[str]:
    """Trainings whose checkpoints are there, where there are none of this one."""
    if not work.is_dir() or (work / name).exists():
        return []
    return sorted(path.name for path in work.iterdir() if path.name.startswith("ray_train-"))


def train_models(
    arms: dict[Path, Arm],
    samples: Path,
    *,
    kind: str,
    work: Path,
    compute: Compute,
    k: int,
    beside: Beside = NO_OTHERS,
    parent: Run | None = None,
) -> dict[str, ModelManifest]:
    """`prerank.training.finished.finished_models`, trained on Ray Train."""

    def fit_shared(
        arms: list[Arm], samples: Path, work: Path, *, compute: Compute, k: int, runs: dict[str, Run], key: str
    ) -> dict[str, Trained]:
        refuse_local_store(runs)
        return fit(arms, samples, work, compute=compute, k=k, runs=runs, key=key)

    job = Job(samples, compute, k)
    return finished_models(arms, job, kind=kind, work=work, fit=fit_shared, beside=beside, parent=parent)


def room_here(compute: Compute) -> int:
    """Trainings of one worker that this node has the processors for; 1 without a cluster, and on GPUs."""
    if not ray.is_initialized() or compute.gpu:
        return 1
    here = ray.get_runtime_context().get_node_id()
    cpus = next(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["NodeID"] == here)
    return max(1, int(cpus // compute.cpus))


class Apart:
    """Trainings of one worker side by side, each in a process of its own on this node, whose store of MLflow is this
    process's too."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.task = partial(cast(Any, ray.remote(fit_alone)).options, scheduling_strategy=here)
        self.running: set[Any] = set()
        self.stopped = False

    def fit(
        self, arms: list[Arm], samples: Path, work: Path, *, compute: Compute, k: int, runs: dict[str, Run], key: str
    ) -> dict[str, Trained]:
        """As `fit_here`; called by several threads."""
        if self.stopped:
            raise CancelledError
        trained = self.task(num_cpus=compute.cpus).remote(arms, Job(samples, compute, k), runs)
        self.running.add(trained)
        try:
            return ray.get(trained)
        finally:
            self.running.discard(trained)

    def stop(self) -> None:
        self.stopped = True
        for trained in list(self.running):
            ray.cancel(trained, force=True)


def refuse_local_store(runs: dict[str, Run]) -> None:
    """Workers log to the runs: a SQLite file is not a place that several nodes can write to."""
    nodes = sum(node["Alive"] for node in ray.nodes())
    local = [run.uri for run in runs.values() if run.uri.startswith("sqlite:")]
    if nodes > 1 and local:
        raise InputError(f"MLflow at {local[0]} cannot be shared by {nodes} nodes; set MLFLOW_TRACKING_URI to a server")


def _train_arms(job: Arms) -> None:
    with train_worker(job) as worker:
        for arm in job["arms"]:
            train_any(arm, job["job"], worker)


@contextmanager
def train_worker(job: Shared) -> Iterator[Worker]:
    """A worker of Ray Train: the first one's folder is the checkpoint, and it logs to the `runs` of the job by name."""
    context, compute = ray.train.get_context(), job["job"].compute
    rank, board = context.get_world_rank(), job.get("board")
    if not compute.gpu:
        torch.set_num_threads(max(1, int(compute.cpus)))
    with tempfile.TemporaryDirectory() as folder:
        done = Path(folder)
        resumed = ray.train.get_checkpoint()
        if resumed:
            resumed.to_directory(done)

        def keep(name: str, state: State, ended: bool) -> None:
            if rank == 0:
                log_epoch(name, state, ended, job["runs"])
            kept = ray.train.Checkpoint.from_directory(done) if rank == 0 else None
            ray.train.report({"name": name, "epoch": state.epoch, "step": state.step}, checkpoint=kept)

        worker = Worker(
            done,
            ray.train.torch.get_device(),
            keep,
            prepare=ray.train.torch.prepare_model,
            rank=rank,
            world=context.get_world_size(),
        )
        yield replace(worker, tell=Teller(board)) if rank == 0 and board else worker
