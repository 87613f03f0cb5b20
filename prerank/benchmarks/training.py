"""The training loop against a bare one: same network, same batches, already in memory."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import nn

from prerank.benchmarks.rows import Row, in_turns, medians
from prerank.logs.schema import load_schema
from prerank.models.batch import Batch
from prerank.models.checkpoint import State
from prerank.models.distill import Distiller
from prerank.models.options import Arm, Distill, Optim
from prerank.models.ranker import Ranker
from prerank.models.stats import load_stats
from prerank.samples.batches import columns
from prerank.samples.cut import training_batches
from prerank.samples.files import files_of
from prerank.samples.reader import Reader
from prerank.samples.taught import teacher_column, teacher_width
from prerank.training import loop
from prerank.training.arms import student_arm
from prerank.training.average import AveragedAdamW
from prerank.training.worker import redraw_of

WAIT, OF_BARE = 0.1, 0.9
"""What is to be reached: the share of waiting at most, of the bare loop's speed at least."""
WIDE = (512, 256)


@dataclass
class Pupil:
    """A student in training, which goes over the samples an epoch at a time."""

    lesson: loop.Lesson
    model: Distiller[Ranker]
    optimizer: AveragedAdamW
    state: State
    fed: Generator[Batch]
    waits: list[float]

    @classmethod
    def of(cls, arm: Arm, samples: Path, k: int) -> "Pupil":
        teacher_score, features = teacher_column(samples), load_schema(samples).select(arm.features, where=arm.name)
        reader = Reader(files_of(samples, "train"), columns(arm, teacher_score), arm.optim.batch, seed=arm.seed)
        lesson = loop.Lesson(arm, features, reader, lambda _: {}, teacher_score, redraw=redraw_of(samples, k))
        torch.manual_seed(arm.seed)
        student = Ranker(features, arm.widths, load_stats(samples))
        model = Distiller(student, arm, teacher_width(samples) if arm.distill.reads_representation else None)
        state = State()
        return cls(lesson, model, loop.make_optimizer(model, arm), state, loop.feed(lesson, model, state), [])

    def epoch(self) -> None:
        """As `train_student` does it, but for the validation."""
        for _ in loop.steps(self.lesson, self.model, self.optimizer, self.state, self.fed):
            pass
        self.waits.append(self.state.wait_share)
        self.state.epoch, self.state.step = self.state.epoch + 1, 0

    def epoch_alone(self) -> None:
        """With all of its batches made within it, and none for the next while another has its turn."""
        self.fed.close()
        self.fed = loop.feed(self.lesson, self.model, self.state, epochs=self.state.epoch + 1)
        self.epoch()

    def batches(self, *, packed: bool = True) -> Iterator[Batch]:
        """Of the first epoch; packed: as the loop has them, or each feature by itself."""
        of, pack = self.lesson, self.model.student.embed.packed if packed else dict
        tables = ((0, table) for table in of.reader.epoch(0))
        made = training_batches(tables, of.arm, of.features, of.teacher_score, of.redraw, pack)
        yield from chain.from_iterable(made)

    def bare(self, batches: list[Batch]) -> None:
        for batch in batches:
            loss, _ = self.model(batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.lesson.arm.optim.clip)
            self.optimizer.step()


def students(samples: Path) -> dict[str, Arm]:
    """The base, with scores, with the contrast, and with scores and wide."""
    optim = Optim(epoch_steps=1)
    base = student_arm(samples, distill=Distill(), optim=optim)
    return {
        "base": base,
        "score": replace(base, distill=Distill(score=1.0)),
        "contrast": replace(base, distill=Distill(contrast=10.0)),
        "wide": replace(base, distill=Distill(score=1.0), widths=WIDE),
    }


def feed(samples: Path, *, k: int, rounds: int) -> list[Row]:
    """What the loop waits for batches, after the first epoch."""
    rows = []
    for name, arm in students(samples).items():
        pupil = Pupil.of(arm, samples, k)
        seconds = medians(in_turns({"epoch": pupil.epoch}, rounds))["epoch"]
        detail = f"epoch {seconds:.2f} s"
        share = float(np.median(pupil.waits[1:]))
        rows.append(
            Row(f"feed, {name}", "of an epoch's time, waiting for batches", share, "share", WAIT, detail=detail)
        )
    return rows


def train(samples: Path, *, k: int, rounds: int) -> list[Row]:
    """The loop's speed as a multiple of the bare loop's."""
    rows = []
    for name, arm in students(samples).items():
        ours, bare = Pupil.of(arm, samples, k), Pupil.of(arm, samples, k)
        batches = list(bare.batches())
        took = medians(in_turns({"ours": ours.epoch_alone, "bare": partial(bare.bare, batches)}, rounds))
        items = sum(len(batch.request_I) for batch in batches)
        detail = f"{items / took['ours']:,.0f} and {items / took['bare']:,.0f} items a second"
        what = "speed of train_student's loop, of a bare loop's on batches in memory"
        rows.append(Row(f"train, {name}", what, took["bare"] / took["ours"], "times", least=OF_BARE, detail=detail))
    return rows
