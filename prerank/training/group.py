"""Training on Ray Train: a worker group trains any number of arms over the same samples, one after the other, and as
many groups go side by side as the cluster has room for.

A checkpoint is Ray Train's: the folder that `ray.train.report` stores holds the finished arms' best weights and the
state of the arm under way. After a failure Ray restarts the workers from it; after a kill the same command does, as the
run's name and folder are the same.
"""

import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NotRequired, TypedDict, TypeVar, cast

import ray
import ray.train
import ray.train.torch
import torch
from ray.actor import ActorHandle
from torch import nn

from prerank.core.cluster.private import drop_torn, report_without_waiting, trainer
from prerank.core.errors import InputError
from prerank.models import checkpoint
from prerank.models.checkpoint import ModelManifest, State
from prerank.models.distill import Distiller
from prerank.models.options import Arm
from prerank.tracking.runs import Run
from prerank.training.apart import side_by_side
from prerank.training.finished import NO_OTHERS, Beside, finished_models, key_of
from prerank.training.kinds import train_any
from prerank.training.options import Compute
from prerank.training.progress import Bars, Board, Teller
from prerank.training.worker import Job, Trained, Worker, log_epoch

RUN = "ray_train-"
"""Before the key of what is trained: a folder of checkpoints."""


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
    key = key or key_of(arms, samples, k, compute.lanes)
    return _fit({f"{RUN}{key}": arms}, Job(samples.resolve(), compute, k), work, runs)


def _fit(groups: dict[str, list[Arm]], job: Job, work: Path, runs: dict[str, Run]) -> dict[str, Trained]:
    """Each group's arms one after the other, and the groups, by the names of their checkpoints, side by side."""
    jobs = {name: Arms(arms=arms, job=job, runs=runs) for name, arms in groups.items()}
    trained: dict[str, Trained] = {}
    for name, done in launch(_train_arms, jobs, work=work, compute=job.compute).items():
        with done.as_directory() as folder:
            for arm in groups[name]:
                trained[arm.name] = Trained(arm, *checkpoint.load_best(Path(folder), arm.name))
    return trained


def launch(
    worker: Callable[[Sent], None], jobs: dict[str, Sent], *, work: Path, compute: Compute
) -> dict[str, ray.train.Checkpoint]:
    """Runs `worker` on a worker group of Ray Train for each job, side by side under one progress board; returns the
    last checkpoint that each reported.

    A job of the same name and folder goes on from its latest checkpoint. The workers of a group are packed on as few
    nodes as have room; one that finds none waits.
    """
    if others_of(work, jobs):
        print(f"note: {work}: its checkpoints are of other options, samples or another version: this begins anew")
    report_without_waiting()
    with Bars() as board:
        return side_by_side(
            {name: partial(_run, worker, job, name, work, compute, board) for name, job in jobs.items()}
        )


def _run(
    worker: Callable[[Sent], None], job: Sent, name: str, work: Path, compute: Compute, board: ActorHandle[Board]
) -> ray.train.Checkpoint:
    drop_torn(work / name)
    sent = cast(Callable[[dict[str, object]], None], worker)  # a dictionary of any kind, as Ray has it
    of_ray = trainer(workers=compute.workers)
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


def others_of(work: Path, names: Collection[str]) -> list[str]:
    """Trainings whose checkpoints are there, where there are none of these."""
    there = sorted(path.name for path in work.glob(f"{RUN}*"))
    return [] if set(names) & set(there) else there


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

    whole = [arm.name for arm in (*arms.values(), *beside.arms)]

    def fit_shared(
        arms: list[Arm], samples: Path, work: Path, *, compute: Compute, k: int, runs: dict[str, Run], key: str
    ) -> dict[str, Trained]:
        refuse_local_store(runs)
        names = names_of(f"{RUN}{key}", work, min(len(whole), room_for(compute)))
        of_group = {arm: names[index % len(names)] for index, arm in enumerate(whole)}
        groups = {name: [arm for arm in arms if of_group[arm.name] == name] for name in names}
        return _fit({name: mine for name, mine in groups.items() if mine}, Job(samples, compute, k), work, runs)

    job = Job(samples.resolve(), compute, k)
    return finished_models(arms, job, kind=kind, work=work, fit=fit_shared, beside=beside, parent=parent)


def names_of(name: str, work: Path, room: int) -> list[str]:
    """Of the groups that arms are dealt to: as many as there is room for, or as those whose checkpoints are there."""
    there = [path.name for path in work.glob(f"{name}*")]
    if there:
        room = int(there[0].rpartition("of")[2]) if there[0] != name else 1
    return [name] if room == 1 else [f"{name}-{index}of{room}" for index in range(room)]


def room_for(compute: Compute) -> int:
    """Groups that the cluster has the processors, or the GPUs, for as it stands; a process has one to itself."""
    what, each = ("GPU", 1.0) if compute.gpu else ("CPU", max(1.0, compute.cpus))
    return max(1, int(ray.cluster_resources().get(what, 0.0) // (each * compute.workers)))


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


def _prepared(model: nn.Module) -> nn.Module:
    """On the worker's device, and in DDP where there are others.

    What a `Distiller` has beside its weights, the statistics of the features, no step changes, so it is not sent from
    worker to worker before each, which took a tenth of a small student's step. A search's is, as some of it moves.
    """
    moves = not isinstance(model, Distiller)
    return ray.train.torch.prepare_model(model, parallel_strategy_kwargs={"broadcast_buffers": moves})


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
            prepare=_prepared,
            rank=rank,
            world=context.get_world_size(),
        )
        yield replace(worker, tell=Teller(board)) if rank == 0 and board else worker
