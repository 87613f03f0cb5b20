"""Short trainings from scratch, in memory, and what they keep on whole lists: what tells proposals apart.

The training samples' first requests are encoded once, with every feature, and so are the validation's whole lists:
then a training costs little but its products, and any number of them can follow each other. A training is a number of
steps, whatever the number of samples, and in all else the student's own: a steady rate, the mean of the weights over
the last steps, and of a longer one the best look on the way, as early stopping has it. A rate that rises high and falls
to nothing is over sooner, but by then it has learned tables of ids by heart, and holds good sets for worse.

Shapes: R requests of the validation, N their candidates.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from prerank.core.errors import InputError
from prerank.core.nested import flat_numpy
from prerank.evaluation.metrics import Candidates, Validation
from prerank.logs.schema import Feature, load_schema
from prerank.models.arch import Arch
from prerank.models.batch import Batch
from prerank.models.distill import Distiller
from prerank.models.embed import NUMBERS, Embed
from prerank.models.options import Arm
from prerank.models.ranker import Ranker
from prerank.models.stats import Stats, load_stats
from prerank.samples.batches import columns, scoring_batch, training_batch
from prerank.samples.files import files_of
from prerank.samples.reader import Reader, sequential
from prerank.samples.taught import teacher_column, teacher_width
from prerank.training.average import AveragedAdamW, weights_of
from prerank.training.worker import Job

REQUESTS = 8_192
"""Training requests that are held in memory, at most."""
CANDIDATES = 1_000_000
"""Candidates of the validation that are, at most, by whole row groups, the first one in any case."""
FASTER = 2.0
"""The rate of a short training, over the student's own."""
OVER = 1 / 3
"""The part of a training over which its weights are averaged at the end, at most: the student's own mean may be over
more steps than that."""
LOOK = 180
"""Steps after which a longer training is looked at, each time."""
ALL = ("/all numbers of requests", "/all numbers of items")
"""Keys of what `Picked` picks from."""


@dataclass(frozen=True)
class Lists:
    """Whole lists of some requests."""

    batch: Batch
    validation: Validation
    teacher_N: np.ndarray | None
    by: Literal["recall", "hit_rate", "auc"]

    def metric(self, score_N: Tensor) -> np.ndarray:
        """What the student is chosen by, float64 [R]; NaN where a request has none."""
        columns = self.validation(score_N.float().cpu().numpy())
        if self.by not in columns:
            raise InputError(f"{self.by}: no teacher's score in the validation samples to measure it by")
        return columns[self.by]


@dataclass(frozen=True)
class Held:
    """What short trainings learn from and are measured by."""

    arm: Arm
    """The student, with all features to choose from; without the contrast where it distils scores as well."""
    features: tuple[Feature, ...]
    stats: Stats
    teacher_width: int | None
    batches: list[Batch]
    lists: list[Lists]
    requests: int
    """Of the training."""
    numbers: Embed
    """Of all features that are numbers; batches and lists have its output beside the features."""

    def of(self, arch: Arch) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.name in arch.features)

    def without(self, fold: int) -> "tuple[Held, list[Batch]]":
        """The same without every so-manieth batch, and those; of a single batch, it stands on both sides."""
        out = self.batches[fold - 1 :: fold] or self.batches[-1:]
        return replace(self, batches=[b for b in self.batches if not any(b is o for o in out)] or out), out


def hold(arm: Arm, job: Job) -> Held:
    """Reads and encodes; raises InputError where no request of the validation tells students apart."""
    features = load_schema(job.samples).select(arm.features, where=arm.name)
    if arm.distill.contrast and (arm.distill.score or arm.distill.kl):
        # It takes as long as all the rest together, and orders proposals no otherwise.
        arm = replace(arm, distill=replace(arm.distill, contrast=0.0))
    score = teacher_column(job.samples)
    reader = Reader(
        files_of(job.samples, "train"), columns(arm, score), arm.optim.batch, job.compute.lanes, seed=arm.seed
    )
    steps = min(reader.dealt.batches, max(1, REQUESTS // reader.dealt.batch))
    tables = (table for _, table in zip(range(steps), reader.epoch(0), strict=False))
    stats = load_stats(job.samples)
    numbers = Embed(tuple(feature for feature in features if not feature.dim), stats)
    batches = [normalised(training_batch(table, arm, features, 0, score), numbers) for table in tables]
    lists = [replace(part, batch=normalised(part.batch, numbers)) for part in _lists(arm, features, job)]
    contrasted = teacher_width(job.samples) if arm.distill.contrast else None
    held = Held(arm, features, stats, contrasted, batches, lists, steps * reader.dealt.batch, numbers)
    if all(np.isnan(part.metric(torch.zeros(len(part.batch.request_I)))).all() for part in lists):
        raise InputError(
            f"{arm.name}: no request of the validation day has the {arm.select_by} that proposals are compared by; "
            "build samples with more validation days or requests (split.val_days, val_requests), or lower --k"
        )
    return held


def _lists(arm: Arm, features: tuple[Feature, ...], job: Job) -> Iterator[Lists]:
    score = teacher_column(job.samples, "val")
    names = (*(f.name for f in features), "item_id", "exposed", "clicked", "converted", *([score] if score else []))
    held = 0
    for table in sequential(files_of(job.samples, "val"), names):
        candidates = Candidates.of(table)
        if held and held + len(candidates.exposed) > CANDIDATES:
            return
        held += len(candidates.exposed)
        teacher_N = flat_numpy(table[score]).astype(np.float32) if score else None
        validation = Validation(candidates, teacher_N, k=job.k)
        yield Lists(scoring_batch(table, features), validation, teacher_N, arm.select_by)


def normalised(batch: Batch, numbers: Embed) -> Batch:
    sides = {key: numbers.numbers(batch.features, of_item) for of_item, key in enumerate(ALL)}
    return replace(batch, features=batch.features | {key: x for key, x in sides.items() if x is not None})


class Picked:
    """Gives a network its numbers out of those of all features, which are normalised once for all trainings.

    To normalise them in each step and on the whole lists took a quarter of a short training.
    """

    def __init__(self, held: Held, embed: Embed) -> None:
        of, begin = held.numbers.columns, (0, held.numbers.widths[0])
        self.columns = {
            of_item: torch.tensor([c - begin[of_item] for name in names for c in range(of[name].start, of[name].stop)])
            for of_item, names in enumerate(embed.dense)
            if names
        }
        self.ids = [feature.name for side in embed.looked_up for feature in side]

    def __call__(self, batch: Batch) -> Batch:
        features = {name: batch.features[name] for name in self.ids}
        for of_item, places in self.columns.items():
            features[NUMBERS[of_item]] = cast(Tensor, batch.features[ALL[of_item]]).index_select(1, places)
        return replace(batch, features=features)


def trained(arch: Arch, held: Held, steps: int, seed: int) -> tuple[Ranker, np.ndarray]:
    """A student after so many steps, or after fewer where it kept more on the way, and its `measured`."""
    torch.manual_seed(seed)
    ranker = Ranker(held.of(arch), arch.widths, held.stats)
    model, picked = Distiller(ranker, held.arm, held.teacher_width), Picked(held, ranker.embed)
    looks: list[np.ndarray] = []

    def look() -> float:
        ranker.load_state_dict(model.finished())
        looks.append(measured(ranker, held))
        return float(np.nanmean(looks[-1]))

    run_steps(model, lambda batch, step: model(picked(batch))[0], held, steps, seed, look)
    ranker.load_state_dict(model.finished())
    return ranker, max(looks, key=np.nanmean)


def run_steps(
    model: nn.Module,
    loss_of: Callable[[Batch, int], Tensor],
    held: Held,
    steps: int,
    seed: int,
    look: Callable[[], float] | None = None,
) -> None:
    """Brings the model's weights to the means over its last steps, or to those that `look` says most of.

    Raises FloatingPointError where the loss is not finite.
    """
    optim, turns = held.arm.optim, in_turn(held.batches, seed)
    average = min(optim.average, max(0.0, 1 - 1 / (OVER * steps)))
    parameters, shared = [*model.parameters()], {"lr": FASTER * optim.lr, "weight_decay": optim.weight_decay}
    optimizer = AveragedAdamW(parameters, average=average, **shared)
    best, most = dict[str, Tensor](), -math.inf
    for step in range(1, steps + 1):
        model.train()
        loss = loss_of(next(turns), step - 1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, optim.clip)
        optimizer.step()
        if step == steps or (look and step % LOOK == 0):
            if not math.isfinite(float(loss.detach())):
                raise FloatingPointError(f"{held.arm.name}: the loss of a short training is not finite; lower optim.lr")
            latest, means = _copy(model.state_dict()), _copy(weights_of(model, optimizer))
            model.load_state_dict(means)
            value = look() if look else 0.0
            if not best or value > most:
                best, most = means, value
            if step < steps:
                model.load_state_dict(latest)
    model.load_state_dict(best)
    model.eval()


def in_turn(batches: Sequence[Batch], seed: int) -> Iterator[Batch]:
    """Without end, all of them in one order and then in another."""
    rng = np.random.default_rng(seed)
    while True:
        yield from (batches[place] for place in rng.permutation(len(batches))[::-1])


def _copy(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}


@torch.inference_mode()
def measured(ranker: Ranker, held: Held) -> np.ndarray:
    """The metric that the student is chosen by, float64 [R]; NaN where a request has none."""
    ranker.eval()
    picked = Picked(held, ranker.embed)
    scores = ((part, ranker(picked(part.batch).features, part.batch.request_I)[0]) for part in held.lists)
    return np.concatenate([part.metric(score_N) for part, score_N in scores])
