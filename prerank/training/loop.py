"""The training loop of one arm: no Ray in it, so it runs in a test, under torchrun or in a profiler as well."""

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Generic, Protocol, TypeVar, cast

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor, nn

from prerank.core.errors import InputError
from prerank.evaluation import metrics
from prerank.logs.schema import Feature
from prerank.models import checkpoint
from prerank.models.batch import Batch, Inputs
from prerank.models.checkpoint import State
from prerank.models.distill import Distiller, Shown
from prerank.models.fusion import ONE_HEAD, Fusion
from prerank.models.options import Arm
from prerank.models.ranker import Scorer
from prerank.samples.anew import Redraw
from prerank.samples.batches import REDRAW, ahead, scoring_batch
from prerank.samples.cut import training_batches
from prerank.samples.heads import fused_teacher, of_label
from prerank.samples.reader import Reader
from prerank.training.average import AveragedAdamW, weights_of
from prerank.training.tables import clip_grad_norm


class Validated(Protocol):
    """What a validation scores with: `Shown`, or a method of the search."""

    @property
    def student(self) -> Callable[[Inputs, Tensor], tuple[Tensor, Tensor]]:
        """From the features and `request_I` to score_I and repr_ID."""
        ...

    def eval(self) -> object: ...


T = TypeVar("T")
Validate = Callable[[Validated], dict[str, float]]
"""The metrics of the validation day by name."""
Save = Callable[[State, Distiller[Scorer], torch.optim.Optimizer, dict[str, Tensor]], None]
"""Of the state, the latest and the best weights."""


@dataclass(frozen=True)
class Lesson:
    """What an arm is trained on, and what decides when it has learned enough."""

    arm: Arm
    features: tuple[Feature, ...]
    """Of the arm, in the schema's order."""
    reader: Reader
    validate: Validate
    teacher_score: str | None = None
    """The column of the samples that holds the teacher's score."""
    checkpoint_steps: int = 0
    """Also save in mid-epoch every so many steps; 0 saves after each epoch alone."""
    redraw: Redraw = REDRAW
    """How pairs and rank bins are drawn in each pass."""


def make_optimizer(model: nn.Module, arm: Arm) -> AveragedAdamW:
    optim = arm.optim
    return AveragedAdamW([*model.parameters()], lr=optim.lr, weight_decay=optim.weight_decay, average=optim.average)


def train(
    lesson: Lesson,
    model: nn.Module,
    optimizer: AveragedAdamW,
    *,
    state: State,
    best: dict[str, Tensor],
    save: Save,
    progress: Callable[[State], None] = lambda state: None,
) -> dict[str, Tensor]:
    """Trains until `optim.epochs` or until the validation has not improved for `optim.patience` epochs.

    `model` is a `Distiller`, or DDP around one. `state` and `best` say where to go on from; `state` is brought
    forward in place and `save` is called with it after every epoch (and every `checkpoint_steps`). Every worker calls
    with the same `state`. Returns the best weights of the student. Raises FloatingPointError when the loss is not
    finite and InputError when no batch held anything to learn from.
    """
    arm, of_epoch, every = lesson.arm, lesson.reader.steps, lesson.checkpoint_steps
    distiller = cast(Distiller[Scorer], getattr(model, "module", model))
    with closing(feed(lesson, model, state, epochs=arm.optim.epochs)) as batches:
        while state.epoch < arm.optim.epochs and state.epoch - state.best_epoch <= arm.optim.patience:
            model.train()
            for losses in steps(lesson, model, optimizer, state, batches):
                add(state.sums, losses)
                progress(state)
                if every and state.step % every == 0 and state.step < of_epoch:
                    state.sums = dict(over_workers(state.sums))
                    save(state, distiller, optimizer, best)
            means = {f"train/{name}": total / of_epoch for name, total in over_workers(state.sums).items()}
            if not math.isfinite(means["train/loss"]):
                raise FloatingPointError(f"{arm.name}: the loss of epoch {state.epoch} is not finite; lower optim.lr")
            if means["train/hard"] == 0 and not arm.distill.active:
                raise InputError(
                    f"{arm.name}: the samples hold nothing to learn for strategies {', '.join(arm.strategies)}"
                )
            weights = distiller.finished(weights_of(distiller, optimizer))
            values = lesson.validate(Shown(distiller.student, weights))
            state.history.append({"epoch": state.epoch, **means, **{f"val/{k}": v for k, v in values.items()}})
            chosen = _chosen(arm, values)
            if state.best is None or chosen > state.best:
                state.best, state.best_epoch = chosen, state.epoch
                best = checkpoint.copied(weights)
            state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
            save(state, distiller, optimizer, best)
    return best


def feed(lesson: Lesson, model: nn.Module, state: State, *, epochs: int | None = None) -> Generator[Batch]:
    """The batches from where the state is on, epoch after epoch up to so many (None: without an end), some made while
    others are learned from; the first of an epoch during the validation before it."""
    arm, reader = lesson.arm, lesson.reader
    packed = cast(Distiller[Scorer], getattr(model, "module", model)).student.embed.packed

    def tables() -> Iterator[tuple[int, pa.Table]]:
        start = state.step
        for epoch in count(state.epoch) if epochs is None else range(state.epoch, epochs):
            for step, table in enumerate(reader.epoch(epoch, start), epoch * reader.steps + start):
                yield reader.pass_of(step), table
            start = 0

    made = ahead(training_batches(tables(), arm, lesson.features, lesson.teacher_score, lesson.redraw, packed))
    with closing(made):
        yield from chain.from_iterable(made)


def steps(
    lesson: Lesson, model: nn.Module, optimizer: torch.optim.Optimizer, state: State, batches: Iterator[Batch]
) -> Iterator[dict[str, Tensor]]:
    """The rest of an epoch, step by step: each gives its loss and the loss's parts, with `state.step` brought forward.

    The distillation's weight rises over the steps of the first `warmup_epochs`. `batches` are of `feed`.
    """
    arm, reader = lesson.arm, lesson.reader
    device = next(model.parameters()).device
    autocast = autocast_on(device)
    warmup_steps = arm.distill.warmup_epochs * reader.steps
    waits = Waits(islice(batches, reader.steps - state.step))
    for batch in waits:
        step = state.epoch * reader.steps + state.step
        warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
        with autocast:
            loss, parts = model(batch.to(device), warmup)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm(model.parameters(), arm.optim.clip)
        optimizer.step()
        state.step += 1
        state.wait_share = waits.share
        yield {"loss": loss.detach(), **parts}


class Waits(Generic[T]):
    """The items, and the share of the time until the latest of them that passed in waiting for one."""

    def __init__(self, items: Iterable[T]) -> None:
        self.items, self.waited, self.share, self.begun = iter(items), 0.0, 0.0, time.perf_counter()

    def __iter__(self) -> "Waits[T]":
        return self

    def __next__(self) -> T:
        asked = time.perf_counter()
        item = next(self.items)
        now = time.perf_counter()
        self.waited += now - asked
        self.share = self.waited / (now - self.begun)
        return item


def _chosen(arm: Arm, values: Mapping[str, float]) -> float:
    """The metric that decides on early stopping; raises InputError where no request defines it."""
    chosen = next((value for name, value in values.items() if name.partition("_at_")[0] == arm.select_by), None)
    if chosen is None:
        raise InputError(
            f"{arm.name}: no request of the validation day has the {arm.select_by} that decides on early stopping: "
            "recall takes more than k candidates, hit_rate and auc a click; build samples with more validation "
            "days or requests (split.val_days, val_requests), or lower --k"
        )
    return chosen


def validator(
    tables: Iterable[pa.Table],
    features: tuple[Feature, ...],
    *,
    k: int,
    teacher_score: str | None,
    device: torch.device,
    fusion: Fusion = ONE_HEAD,
) -> Validate:
    """Scores this worker's validation requests and averages over all workers': no request is lost or counted twice.

    `hit_rate_at_K` and `auc` (clicked against all other candidates, within the request) are over requests with a
    click, `recall_at_K` is the overlap with the teacher's top K where there is a teacher, over requests of more than K
    candidates. What no request defines is left out. Of a `fusion` the teacher's scores are fused alike, and beside
    stands what the score is for each head, such as `recall_like_at_K` of the teacher's head and `hit_rate_like_at_K`
    of the label.
    """
    parts = []
    for table in tables:
        measures = {"": _measure(table, fusion, k, teacher_score)}
        for head in fusion.heads:
            measures[f"_{head}"] = _measure(of_label(table, head), Fusion((head,), (1.0,)), k, teacher_score)
        parts.append((scoring_batch(table, features).to(device), measures))
    of_metric = {"recall": f"recall{{}}_at_{k}", "hit_rate": f"hit_rate{{}}_at_{k}", "auc": "auc{}"}
    heads = ["", *(f"_{head}" for head in fusion.heads)]
    names = {(name, head): said.replace("{}", head) for head in heads for name, said in of_metric.items()}

    def validate(model: Validated) -> dict[str, float]:
        model.eval()
        sums, counts = dict.fromkeys(names.values(), 0.0), dict.fromkeys(names.values(), 0.0)
        for batch, measures in parts:
            with torch.inference_mode():
                score_N = model.student(batch.features, batch.request_I)[0].float().cpu().numpy()
            for head, measure in measures.items():
                for name, column_R in measure(score_N).items():
                    sums[names[name, head]] += np.nansum(column_R)
                    counts[names[name, head]] += np.count_nonzero(~np.isnan(column_R))
        sums, counts = all_reduced(sums), all_reduced(counts)
        return {name: sums[name] / counts[name] for name in sums if counts[name]}

    return validate


def _measure(table: pa.Table, fusion: Fusion, k: int, teacher_score: str | None) -> metrics.Validation:
    teacher_N = fused_teacher(table, fusion, teacher_score) if teacher_score else None
    return metrics.Validation(metrics.Candidates.of(table), teacher_N, k=k)


def autocast_on(device: torch.device) -> torch.autocast:
    """bfloat16 where the device has it; nothing on a CPU."""
    enabled = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def all_reduced(values: dict[str, float]) -> dict[str, float]:
    """The sums over the workers; the values themselves where there is one worker."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor([values[name] for name in sorted(values)], dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return dict(zip(sorted(values), total.tolist(), strict=True))


def over_workers(sums: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The mean over the workers: that of the whole batch, as each has an equal share of its requests."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    return {name: total / world for name, total in all_reduced({k: float(v) for k, v in sums.items()}).items()}


def add(sums: dict[str, Tensor | float], parts: Mapping[str, Tensor]) -> None:
    """In double precision and on the device, so that no step waits for a number."""
    for name, part in parts.items():
        sums[name] = sums.get(name, 0.0) + part.double()
