"""Measures what the system itself costs, each figure against something else on the same work, in turns in one run.

    python -m workflows.benchmark all --quick --logs runs/logs --samples runs/demo/taught --teacher runs/demo/teacher \
        --student runs/demo/students/all --out runs/benchmark.json

What each row is, against what, and what it leaves out stands in prerank/benchmarks/README.md. `memory` builds samples
from `--rows` and ten times as many made-up rows, and prints rates and the peak of all processes together; it is not
among `all`. A figure that was taken beside other programs is worth little: the load is told.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
import tyro
from rich.console import Console

from prerank.benchmarks import (
    building,
    click_models,
    lines,
    memory,
    proposals,
    scale,
    scoring,
    search_step,
    starting,
    tables,
)
from prerank.benchmarks import training as training_loop
from prerank.benchmarks.rows import Left, Report, Row, load_now, report, terminal_table
from prerank.core.cli import run
from prerank.core.config import Positive
from prerank.core.errors import InputError
from prerank.core.outputs import write_json

Short = Literal["build", "growth", "feed", "train", "scale", "contrast", "search", "score", "start", "tables"]
Long = Literal["sweep", "evaluation", "proposals", "pipeline"]
Name = Short | Long
NAMES: tuple[Name, ...] = (*get_args(Short), *get_args(Long))
COMMANDS = tuple(f"workflows.{name}" for name in ("build_samples", "train_student", "evaluate"))
QUICK_ROWS = 20_000


@dataclass(frozen=True)
class Benchmark:
    """Measures what the system itself costs."""

    what: Annotated[Literal["all", "memory"] | Short | Long, tyro.conf.Positional]
    logs: Path = Path("runs/logs")
    """Of sweep: those that the samples were built from."""
    samples: Path = Path("runs/demo/taught")
    """A folder made by workflows.teach."""
    teacher: Path = Path("runs/demo/teacher")
    """Of score, sweep and evaluation."""
    student: Path = Path("runs/demo/students/all")
    """Of score and evaluation."""
    search: Path = Path("runs/demo/search")
    """Of proposals: what a search by proposals left."""
    latency_table: Path = Path("runs/demo/latency.json")
    """Of proposals: what that search went by."""
    rows: Positive = 500_000
    """Of the fine lists of build, growth and memory: these grow them, up to 16 times."""
    k: Positive = 150
    """Items that pre-ranking keeps, which the students' rank bins follow."""
    threads: Positive = 1
    """Of torch."""
    quick: bool = False
    """Fewer repeats on smaller inputs, without sweep, evaluation and pipeline: for the form of the figures, not for
    their worth."""
    out: Path | None = None
    """A JSON file for the figures."""

    @property
    def made(self) -> lines.Made:
        return lines.Made(*(path.resolve() for path in (self.logs, self.samples, self.teacher, self.student)))


def main(config: Benchmark) -> Report | None:
    """Returns what `--out` holds; nothing for memory."""
    if config.what == "memory":
        memory.grow(config.rows)
        return None
    names = NAMES if config.what == "all" else (config.what,)
    slow: set[Name] = {*get_args(Long)} if config.quick else set()
    for folder, of in READS.items():
        path = getattr(config, folder)
        if {*of} & ({*names} - slow) and not path.is_dir():
            raise InputError(f"--{folder} {path}: no such folder; make demo makes them, or name one of yours")
    torch.set_num_threads(config.threads)
    load, rows = load_now(), list[Row | Left]()
    for name in names:
        rows += [Left(name, "takes minutes; without --quick")] if name in slow else MEASURES[name](config)
        Console(width=max(140, Console().width)).print(terminal_table(rows, load))
    result = report(rows, quick=config.quick, load=load)
    if config.out:
        write_json(config.out, result)
    return result


READS: dict[str, tuple[Name, ...]] = {
    "logs": ("sweep",),
    "samples": ("feed", "train", "scale", "contrast", "search", "score", "start", "sweep", "proposals"),
    "teacher": ("score", "sweep", "evaluation"),
    "student": ("score", "evaluation"),
    "search": ("proposals",),
}


def _rounds(config: Benchmark) -> int:
    return 1 if config.quick else 5


def _of_samples(measure: Callable[..., list[Row]]) -> Callable[[Benchmark], list[Row]]:
    return lambda config: measure(config.samples.resolve(), k=config.k, rounds=2 if config.quick else 5)


def _grown(measure: Callable[..., list[Row | Left]]) -> Callable[[Benchmark], list[Row | Left]]:
    def measured(config: Benchmark) -> list[Row | Left]:
        if config.quick:
            return measure(min(config.rows, QUICK_ROWS), rounds=1, orders=building.ORDERS[:1])
        return measure(config.rows, rounds=_rounds(config))

    return measured


def _train(config: Benchmark) -> Sequence[Row | Left]:
    shared = {"k": config.k, "rounds": 2 if config.quick else 5}
    batches = 2 if config.quick else 10
    bare = training_loop.train(config.samples.resolve(), **shared)
    return [*bare, *click_models.click_models(config.samples.resolve(), **shared, batches=batches)]


def _start(config: Benchmark) -> Sequence[Row]:
    rounds = _rounds(config)
    return [*starting.imports(COMMANDS, rounds=rounds), *starting.commands(config.samples.resolve(), rounds=rounds)]


def _proposals(config: Benchmark) -> Sequence[Row]:
    made = proposals.Made(config.samples.resolve(), config.search, config.latency_table)
    return [*proposals.order(made, k=config.k, number=24), *proposals.cost(made, k=config.k, times=(1, 2, 5))]


def _score(config: Benchmark) -> Sequence[Row | Left]:
    repeats = 50 if config.quick else 1000
    return scoring.score(config.student, config.teacher, config.samples, k=config.k, repeats=repeats)


MEASURES: dict[Name, Callable[[Benchmark], Sequence[Row | Left]]] = {
    "build": _grown(building.build),
    "growth": _grown(building.growth),
    "feed": _of_samples(training_loop.feed),
    "train": _train,
    "scale": lambda c: scale.speedup(c.samples.resolve(), rounds=_rounds(c)),
    "contrast": _of_samples(training_loop.contrast),
    "search": lambda c: search_step.rows(c.samples.resolve(), steps=3 if c.quick else 8),
    "score": _score,
    "start": _start,
    "sweep": lambda c: lines.sweep(c.made, trials=8, epochs=3, rounds=_rounds(c)),
    "evaluation": lambda c: lines.evaluation(c.made, requests=1000, rounds=_rounds(c)),
    "tables": lambda c: tables.tables(tables.SIZES[: 1 if c.quick else 2], rounds=5 if c.quick else 21),
    "proposals": _proposals,
    "pipeline": lambda _: lines.pipeline(),
}


if __name__ == "__main__":
    run(main, Benchmark)
