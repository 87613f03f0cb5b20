"""What a worker does to train one arm, wherever it is: on Ray Train, in a trial of Ray Tune, or by itself."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from prerank.core.errors import InputError
from prerank.core.memory import memory
from prerank.evaluation.metrics import Candidates, Validation
from prerank.logs.schema import Feature, load_schema
from prerank.models import checkpoint
from prerank.models.checkpoint import State
from prerank.models.distill import Distiller
from prerank.models.fusion import ONE_HEAD, Fusion
from prerank.models.options import Arm
from prerank.models.ranker import Ranker, Scorer
from prerank.models.scorers import scorer_of
from prerank.models.stats import load_stats
from prerank.samples.anew import Redraw, shares_around
from prerank.samples.batches import columns, scoring_batch
from prerank.samples.files import candidates_of, files_of, samples_manifest
from prerank.samples.fitting import drawn_by
from prerank.samples.heads import fused_teacher
from prerank.samples.kept import Kept
from prerank.samples.reader import Reader, sequential
from prerank.samples.taught import scored_columns, teacher_column, teacher_width
from prerank.tracking.runs import Run
from prerank.training import loop
from prerank.training.options import Compute
from prerank.training.tables import mark_large


@dataclass(frozen=True)
class Trained:
    """An arm after its training: its history and the best weights of its ranker."""

    arm: Arm
    state: State
    best: dict[str, Tensor]


@dataclass(frozen=True)
class Job:
    """What every arm or search of a worker shares."""

    samples: Path
    compute: Compute
    k: int
    """The cut-off of the validation metrics."""
    tables: Mapping[tuple[Path, int], pa.Table] = field(default_factory=dict)
    """Row groups of the training samples that are in memory already, as `Reader` takes them."""


class Tell(Protocol):
    """Is told how many steps of how many are done, as often as after each step; `now`: the last word."""

    def __call__(self, name: str, done: int, total: int, note: Callable[[], str], *, now: bool = False) -> object:
        """`note()` says more: it is called where its words are shown."""
        ...


@dataclass(frozen=True)
class Worker:
    """Where it trains, and who is told."""

    done: Path
    """What the latest checkpoint holds: finished arms' best weights, and the state of the one under way."""
    device: torch.device
    keep: Callable[[str, State, bool], None]
    """`keep(name, state, ended)` makes `done` the latest checkpoint; every worker calls it equally often."""
    tell: Tell = lambda *_, **__: None
    prepare: Callable[[nn.Module], nn.Module] = lambda model: model
    """Moves a model to the device, and wraps it where there are other workers."""
    rank: int = 0
    world: int = 1
    kept: Kept = field(default_factory=Kept)
    """Samples that stay in memory from one arm to the next."""

    def finished(self, name: str) -> bool:
        """Whether the latest checkpoint holds this arm's end."""
        return (self.done / f"{name}.best.safetensors").exists() and not self.under_way(name)

    def under_way(self, name: str) -> bool:
        return (self.done / f"{name}.latest.safetensors").exists()


@contextmanager
def alone(compute: Compute, runs: Mapping[str, Run], tell: Tell) -> Iterator[Worker]:
    """A worker by itself in this process: it logs to `runs` by name, and what it keeps goes when the block is left."""
    device, threads = torch.device("cuda" if compute.gpu else "cpu"), torch.get_num_threads()

    def keep(name: str, state: State, ended: bool) -> None:
        log_epoch(name, state, ended, runs)

    if not compute.gpu:
        torch.set_num_threads(max(1, int(compute.cpus)))
    try:
        with tempfile.TemporaryDirectory() as done:
            yield Worker(Path(done), device, keep, tell, prepare=lambda model: model.to(device))
    finally:
        torch.set_num_threads(threads)


def log_epoch(name: str, state: State, ended: bool, runs: Mapping[str, Run]) -> None:
    """Where `state` is kept because an epoch is over: its metrics, to the run of that name, if there is one."""
    if name in runs and state.step == 0 and not ended:
        runs[name].metrics(logged(state), step=state.epoch - 1)


def logged(state: State) -> dict[str, float]:
    """The last epoch's metrics by their names in MLflow, where `latency_us` is that of the network that was found."""
    numbers = {key: value for key, value in state.history[-1].items() if isinstance(value, float)}
    named = {key if "/" in key else f"search/{key}": value for key, value in numbers.items()}
    return named | {"train/wait_share": state.wait_share}


def train_arm(arm: Arm, job: Job, worker: Worker) -> None:
    """Trains the arm, or goes on with it; at the end the worker's folder holds its best weights and its history."""
    if worker.finished(arm.name):
        return
    samples, compute, done = job.samples, job.compute, worker.done
    teacher_score = teacher_column(samples)
    features = load_schema(samples).select(arm.features, where=arm.name)
    check_memory(features, worker.device)
    torch.manual_seed(arm.seed)
    student = scorer_of(arm.arch, features, load_stats(samples))
    distiller = Distiller(student, arm, teacher_width(samples) if arm.distill.contrast else None)
    mark_large(distiller, worker.device)
    model = worker.prepare(distiller)
    optimizer = loop.make_optimizer(model, arm)
    state, best = State(), checkpoint.weights(student)
    if worker.under_way(arm.name):
        state, best = checkpoint.load_state(done, arm.name, distiller, optimizer)
    reader = Reader(
        files_of(samples, "train"),
        columns(arm, teacher_score),
        arm.optim.batch,
        compute.lanes,
        worker.rank,
        worker.world,
        arm.seed,
        epoch_steps=arm.optim.epoch_steps,
        tables=job.tables,
        kept=worker.kept,
    )

    def save(
        state: State, distiller: Distiller[Scorer], optimizer: torch.optim.Optimizer, best: dict[str, Tensor]
    ) -> None:
        if worker.rank == 0:
            checkpoint.save_state(done, arm.name, state, distiller, optimizer, best)
        worker.keep(arm.name, state, False)

    def note() -> str:
        return f"best {arm.select_by} {state.best:.4f} of epoch {state.best_epoch}" if state.history else ""

    def progress(state: State) -> None:
        worker.tell(arm.name, state.epoch * reader.steps + state.step, arm.optim.epochs * reader.steps, note)

    validate, redraw = validation(job, features, worker, arm.fusion), redraw_of(samples, job.k)
    lesson = loop.Lesson(arm, features, reader, validate, teacher_score, compute.checkpoint_steps, redraw)
    best = loop.train(lesson, model, optimizer, state=state, best=best, save=save, progress=progress)
    worker.tell(arm.name, state.epoch * reader.steps, state.epoch * reader.steps, note, now=True)
    (done / f"{arm.name}.latest.safetensors").unlink(missing_ok=True)
    if worker.rank == 0:
        checkpoint.save_best(done, arm.name, state, best)
    worker.keep(arm.name, state, True)


def check_memory(features: tuple[Feature, ...], device: torch.device) -> None:
    """Raises InputError where the embedding tables, which every worker holds whole, do not fit the device."""
    # Weights, gradients and the two moments of AdamW, in float32.
    bytes_of = {feature.name: 16 * (feature.size + 1) * feature.dim for feature in features if feature.dim}
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory().available
    if sum(bytes_of.values()) > free:
        name = max(bytes_of, key=bytes_of.__getitem__)
        raise InputError(
            f"the embedding tables take {sum(bytes_of.values()) / 2**30:,.1f} GiB in training, most of it {name!r} "
            f"with {bytes_of[name] / 2**30:,.1f}; a worker has {free / 2**30:,.1f} free on its {device.type}; give the "
            "feature a smaller size (strings are hashed into it) or dim, leave it out, or bring fine_score in the logs "
            "instead of training a teacher here"
        )


def validation(job: Job, features: tuple[Feature, ...], worker: Worker, fusion: Fusion = ONE_HEAD) -> loop.Validate:
    """The metrics of a model on this worker's share of the validation day, averaged over all workers'."""
    score = teacher_column(job.samples, "val")
    names = scored_columns(features, score, fusion)
    tables = sequential(files_of(job.samples, "val"), names, worker.rank, worker.world)
    return loop.validator(tables, features, k=job.k, teacher_score=score, device=worker.device, fusion=fusion)


def redraw_of(samples: Path, k: int) -> Redraw:
    """How pairs are drawn anew: as at first; and rank bins, with an edge at K of the candidates."""
    manifest = samples_manifest(samples)
    candidates = candidates_of(samples)
    return Redraw(drawn_by(manifest["draw"]), shares_around(k, candidates), min(1.0, k / candidates))


def per_request(
    ranker: Ranker, features: tuple[Feature, ...], samples: Path, k: int, fusion: Fusion = ONE_HEAD
) -> pa.Table:
    """The same metrics request by request: `request_id`, `recall` (where there is a teacher), `hit_rate`, `auc`."""
    score, parts = teacher_column(samples, "val"), []
    ranker = ranker.eval()
    for table in sequential(files_of(samples, "val"), ("request_id", *scored_columns(features, score, fusion))):
        batch = scoring_batch(table, features)
        with torch.inference_mode():
            score_N = ranker(batch.features, batch.request_I)[0].float().numpy()
        measure = Validation(Candidates.of(table), fused_teacher(table, fusion, score) if score else None, k=k)
        columns_R = {name: np.asarray(column_R, float) for name, column_R in measure(score_N).items()}
        parts.append(pa.table({"request_id": table["request_id"], **columns_R}))
    return pa.concat_tables(parts)
