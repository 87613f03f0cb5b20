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
from prerank.core.nested import flat_numpy, offsets_of, segment_of
from prerank.core.storage import parquet
from prerank.evaluation.metrics import Candidates, Validation
from prerank.logs.schema import Feature, load_schema
from prerank.models import checkpoint
from prerank.models.checkpoint import State
from prerank.models.distill import Distiller
from prerank.models.fusion import ONE_HEAD, Fusion
from prerank.models.options import Arm
from prerank.models.place import bucket
from prerank.models.ranker import Ranker, Scorer
from prerank.models.scorers import scorer_of
from prerank.models.stats import load_stats
from prerank.samples.anew import Redraw, shares_around
from prerank.samples.batches import columns, scoring_batch
from prerank.samples.draw import NEED_POSITIONS, UNIFORM, DrawConfig
from prerank.samples.files import candidates_of, sample_files, samples_manifest
from prerank.samples.fitting import drawn_by
from prerank.samples.heads import fused_teacher, label_of, teacher_of
from prerank.samples.kept import Kept
from prerank.samples.reader import Reader, sequential
from prerank.tracking.runs import Run
from prerank.training import boosted, loop
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


def scored_columns(features: tuple[Feature, ...], score: str | None, fusion: Fusion = ONE_HEAD) -> tuple[str, ...]:
    names = [*(f.name for f in features), "item_id", "exposed", "clicked", "converted", *([score] if score else [])]
    names += [label_of(head) for head in fusion.heads] + [teacher_of(h, score) for h in fusion.heads if score]
    return tuple(dict.fromkeys(names))


def teacher_column(samples: Path, split: str = "train") -> str | None:
    """The column with the teacher's score: ours, or the one that the logs brought (which candidates do not have)."""
    present = _columns(samples, split).names
    return next((name for name in ("teacher_score", "fine_score") if name in present), None)


def check(arms: list[Arm], samples: Path, *, taught: bool = True) -> None:
    """Raises InputError where an arm needs what the samples do not have; `taught`: its teacher is in their columns."""
    manifest, schema = samples_manifest(samples), load_schema(samples)
    teacher_score, present = teacher_column(samples), _columns(samples, "train").names
    built, counts = manifest["strategies"], manifest["counts"]
    for arm in arms:
        arm.check()
        if all(feature.of_request for feature in schema.select(arm.features, where=arm.name)):
            raise InputError(
                f"{arm.name}: no feature of an item or cross side: nothing tells one candidate from another"
            )
        if arm.model in ("two_tower_gbdt", "gbdt"):
            boosted.check_memory(samples, schema.select(arm.features, where=arm.name), arm)
        if taught and arm.distill.active and teacher_score is None:
            raise InputError(f"{samples}: no teacher_score and no fine_score to distil from; run workflows.teach first")
        if taught and arm.distill.reads_representation and "teacher_repr" not in present:
            name = "contrast" if arm.distill.contrast else "relations"
            if manifest.get("taught"):
                raise InputError(
                    f"{samples}: the teacher is one of trees, which has no last hidden layer that --distill.{name} "
                    "could hold the student's against; leave it out, or train a teacher with --model mlp"
                )
            raise InputError(f"{samples}: no teacher_repr for --distill.{name}; run workflows.teach first")
        if taught and arm.by_strategy:
            _check_heads(arm, samples, present, teacher_score or "teacher_score")
        missing = [name for name in arm.strategies if name not in built]
        if arm.by_strategy and missing:
            raise InputError(
                f"{samples}: built with strategies {', '.join(built)}; {arm.name} needs {', '.join(missing)}"
            )
        if not manifest["positions"]:
            _check_positions(arm, samples)
        if arm.by_place:
            _check_places(samples, present)
        if not arm.by_strategy:
            _check_negatives(arm, samples, drawn_by(manifest["draw"]))
            if counts.get("requests_with_click") == 0:
                raise InputError(f"{samples}: no training request has a click, which {arm.name} learns from")


def _check_heads(arm: Arm, samples: Path, present: list[str], teacher_score: str) -> None:
    """Raises InputError where a head has no teacher."""
    for head in arm.heads:
        if teacher_of(head, teacher_score) not in present:
            raise InputError(
                f"{samples}: no teacher's score of {head!r}, which --fusion {arm.fusion.said()} learns from; train the "
                "teacher with --model mlp on samples whose schema.json has it among the 'labels', and run "
                "workflows.teach"
            )


def _check_positions(arm: Arm, samples: Path) -> None:
    """Raises InputError where the arm learns from positions, which the samples do not have."""
    asking = [f"--strategy {name}" for name in arm.strategies if arm.by_strategy and name in NEED_POSITIONS]
    if arm.distill.contrast and arm.distill.positives == "bin":
        asking.append("--distill.positives bin")
    if asking:
        raise InputError(
            f"{samples}: built from logs without fine_position, which {arm.name} needs for {', '.join(asking)}; run "
            "workflows.teach, which gives positions by the teacher's scores, or build from logs with fine_position "
            "(0 for the highest fine_score), or give --strategy exposed and --distill.positives item"
        )


def _check_places(samples: Path, present: list[str]) -> None:
    """Raises InputError where no request had items at different places, as far as anybody knows."""
    if "shown_position" not in present:
        raise InputError(
            f"{samples}: built before samples held shown_position, which learn.shown_position needs; delete the folder "
            "and run workflows.build_samples again"
        )
    tables = sequential(files_of(samples, "train"), ("shown_position",))
    if not any(_differ(table["shown_position"]) for table in tables):
        raise InputError(
            f"{samples}: no request has items of different shown_position (0 for the first place), which "
            "learn.shown_position learns from; leave it out"
        )


def _differ(places: pa.ChunkedArray) -> bool:
    """Whether a request has items of different known places."""
    request_I, place_I = segment_of(offsets_of(places)), bucket(flat_numpy(places))
    request_I, place_I = request_I[place_I >= 0], place_I[place_I >= 0]
    return bool(((np.diff(request_I) == 0) & (np.diff(place_I) != 0)).any())


def _check_negatives(arm: Arm, samples: Path, draw: DrawConfig) -> None:
    """Raises InputError where samples were built with fewer unexposed items than the arm asks for, on average.

    A request of which all unexposed items were drawn has what there is, and none is asked of it.
    """
    first = next(sequential(files_of(samples, "train"), ("exposed", "drawn")))
    exposed_I, request_I = flat_numpy(first["exposed"]).astype(bool), segment_of(offsets_of(first["exposed"]))
    drawn_I = ~exposed_I & (flat_numpy(first["drawn"]) & UNIFORM > 0)
    exposures_R, held_R = (np.bincount(request_I[of], minlength=len(first)) for of in (exposed_I, drawn_I))
    limited_R = held_R >= draw.uniform_of(exposures_R)
    if not limited_R.any():
        return
    wanted, held = np.round(arm.unexposed_ratio * exposures_R[limited_R]).mean(), held_R[limited_R].mean()
    if wanted > held:
        raise InputError(
            f"{samples}: holds {held:.0f} unexposed items a request (draw.uniform_items, draw.uniform_ratio), but an "
            f"unexposed_ratio of {arm.unexposed_ratio:g} asks for {wanted:.0f}; lower it, or build samples with more"
        )


def teacher_width(samples: Path) -> int:
    return _columns(samples, "train").field("teacher_repr").type.value_type.list_size


def _columns(samples: Path, split: str) -> pa.Schema:
    files = files_of(samples, split)
    if not files:
        return pa.schema([])
    with parquet(files[0]) as file:
        return file.schema_arrow


def files_of(samples: Path, split: str) -> tuple[Path, ...]:
    return tuple(path for path, _ in sample_files(samples, split))
