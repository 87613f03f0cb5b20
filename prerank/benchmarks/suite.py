"""The rows by their names: what each reads, and how it is measured for figures or, quickly, for their form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from prerank.benchmarks import (
    building,
    click_models,
    contrast,
    lines,
    proposals,
    scale,
    scoring,
    search_step,
    starting,
    tables,
)
from prerank.benchmarks import training as training_loop
from prerank.benchmarks.rows import Left, Row

Short = Literal["build", "feed", "train", "scale", "contrast", "search", "score", "start", "tables"]
Long = Literal["build-logs", "growth", "larger", "sweep", "evaluation", "proposals", "pipeline"]
Name = Short | Long
NAMES: tuple[Name, ...] = (*get_args(Short), *get_args(Long))
LONG: frozenset[Name] = frozenset(get_args(Long))
"""Rows that take minutes, or as long as the logs are large."""
READS: dict[str, tuple[Name, ...]] = {
    "logs": ("build-logs", "sweep"),
    "samples": ("feed", "train", "scale", "contrast", "search", "score", "start", "sweep", "proposals"),
    "teacher": ("scale", "score", "sweep", "evaluation"),
    "student": ("score", "evaluation"),
    "search": ("proposals",),
}
"""Rows by the folder of `Inputs` that they read."""
COMMANDS = tuple(f"workflows.{name}" for name in ("build_samples", "train_student", "evaluate"))
QUICK_ROWS = 20_000


@dataclass(frozen=True)
class Inputs:
    """What the line has made; `rows` of made-up fine lists, items kept `k`, and `quick` for the form alone."""

    logs: Path
    samples: Path
    """Taught."""
    teacher: Path
    student: Path
    search: Path
    """Of a search by proposals."""
    latency_table: Path
    rows: int
    k: int
    quick: bool

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 5

    @property
    def made(self) -> lines.Made:
        return lines.Made(self.logs, self.samples, self.teacher, self.student)


def _of_samples(measure: Callable[..., list[Row]]) -> Callable[[Inputs], list[Row]]:
    return lambda inputs: measure(inputs.samples, k=inputs.k, rounds=inputs.rounds)


def _build(inputs: Inputs) -> Sequence[Row | Left]:
    if inputs.quick:
        return building.build(
            min(inputs.rows, QUICK_ROWS), rounds=1, orders=building.ORDERS[:1], times=building.TIMES[:2]
        )
    return building.build(inputs.rows, rounds=inputs.rounds)


def _train(inputs: Inputs) -> Sequence[Row | Left]:
    shared = {"k": inputs.k, "rounds": inputs.rounds}
    bare = training_loop.train(inputs.samples, **shared)
    return [*bare, *click_models.click_models(inputs.samples, **shared, batches=2 if inputs.quick else 10)]


def _start(inputs: Inputs) -> Sequence[Row]:
    rounds = inputs.rounds
    return [*starting.imports(COMMANDS, rounds=rounds), *starting.commands(inputs.samples, rounds=rounds)]


def _proposals(inputs: Inputs) -> Sequence[Row]:
    made = proposals.Made(inputs.samples, inputs.search, inputs.latency_table)
    return [*proposals.order(made, k=inputs.k, number=24), *proposals.cost(made, k=inputs.k, times=(1, 2, 5))]


def _score(inputs: Inputs) -> Sequence[Row | Left]:
    repeats = 50 if inputs.quick else 1000
    return scoring.score(inputs.student, inputs.teacher, inputs.samples, k=inputs.k, repeats=repeats)


MEASURES: dict[Name, Callable[[Inputs], Sequence[Row | Left]]] = {
    "build": _build,
    "feed": _of_samples(training_loop.feed),
    "train": _train,
    "scale": lambda inputs: scale.speedup(inputs.samples, inputs.teacher, rounds=inputs.rounds),
    "contrast": _of_samples(contrast.contrast),
    "search": lambda inputs: search_step.rows(inputs.samples, steps=1 if inputs.quick else 8),
    "score": _score,
    "start": _start,
    "build-logs": lambda inputs: [building.build_of(inputs.logs, rounds=inputs.rounds)],
    "growth": lambda inputs: building.growth(inputs.rows, rounds=inputs.rounds),
    "larger": lambda _: building.larger(times=1.1),
    "sweep": lambda inputs: lines.sweep(inputs.made, trials=8, epochs=3, rounds=inputs.rounds),
    "evaluation": lambda inputs: lines.evaluation(inputs.made, requests=1000, rounds=inputs.rounds),
    "tables": lambda inputs: tables.tables(tables.SIZES[: 1 if inputs.quick else 2], rounds=5 if inputs.quick else 21),
    "proposals": _proposals,
    "pipeline": lambda _: lines.pipeline(),
}
