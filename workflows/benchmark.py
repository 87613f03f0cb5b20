"""Measures what the system itself costs, each figure against something else on the same work, in turns in one run.

    python -m workflows.benchmark all --quick --samples runs/demo/taught --teacher runs/demo/teacher \
        --student runs/demo/students/all --out runs/benchmark.json

`memory` builds samples from `--rows` and ten times as many made-up rows, and prints rates and the peak of all processes
together; it is not among `all`. A figure that was taken beside other programs is worth little: the load is told.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console

from prerank.benchmarks import building, memory, scoring, search_step, starting, tables, training
from prerank.benchmarks.rows import Left, Report, Row, load_now, report, terminal_table
from prerank.core.cli import run
from prerank.core.config import Positive
from prerank.core.errors import InputError
from prerank.core.outputs import write_json

Name = Literal["build", "growth", "feed", "train", "contrast", "search", "score", "start", "tables"]
NAMES: tuple[Name, ...] = ("build", "growth", "feed", "train", "contrast", "search", "score", "start", "tables")
QUICK_ROWS = 20_000
COMMANDS = tuple(f"workflows.{name}" for name in ("build_samples", "train_student", "evaluate"))


@dataclass(frozen=True)
class Benchmark:
    """Measures what the system itself costs."""

    what: Annotated[Literal["all", "memory"] | Name, tyro.conf.Positional]
    samples: Path = Path("runs/demo/taught")
    """Of feed, train, contrast, search and score: a folder made by workflows.teach."""
    teacher: Path = Path("runs/demo/teacher")
    """Of score."""
    student: Path = Path("runs/demo/students/all")
    """Of score."""
    rows: Positive = 500_000
    """Of the fine lists of build, growth and memory: these grow them, up to 16 times."""
    k: Positive = 150
    """Items that pre-ranking keeps, which the students' rank bins follow."""
    threads: Positive = 1
    """Of torch."""
    quick: bool = False
    """Fewer repeats on smaller inputs: for the form of the figures, not for their worth."""
    out: Path | None = None
    """A JSON file for the figures."""


def main(config: Benchmark) -> Report | None:
    """Returns what `--out` holds; nothing for memory."""
    if config.what == "memory":
        memory.grow(config.rows)
        return None
    names = NAMES if config.what == "all" else (config.what,)
    for name, folder in (("samples", config.samples), ("teacher", config.teacher), ("student", config.student)):
        if {"feed", "train", "contrast", "search", "score"} & {*names} and not folder.is_dir():
            raise InputError(f"--{name} {folder}: no such folder; make demo makes them, or name one of yours")
    torch.set_num_threads(config.threads)
    load, rows = load_now(), list[Row | Left]()
    for name in names:
        rows += MEASURES[name](config)
        Console(width=max(140, Console().width)).print(terminal_table(rows, load))
    result = report(rows, quick=config.quick, load=load)
    if config.out:
        write_json(config.out, result)
    return result


def _of_samples(measure: Callable[..., Sequence[Row | Left]]) -> Callable[[Benchmark], Sequence[Row | Left]]:
    return lambda config: measure(config.samples.resolve(), k=config.k, rounds=2 if config.quick else 5)


MEASURES: dict[Name, Callable[[Benchmark], Sequence[Row | Left]]] = {
    "build": lambda c: building.build(min(c.rows, QUICK_ROWS) if c.quick else c.rows, rounds=1 if c.quick else 5),
    "growth": lambda c: building.growth(min(c.rows, QUICK_ROWS) if c.quick else c.rows, rounds=1 if c.quick else 5),
    "feed": _of_samples(training.feed),
    "train": _of_samples(training.train),
    "contrast": _of_samples(training.contrast),
    "search": lambda c: search_step.rows(c.samples.resolve(), steps=3 if c.quick else 8),
    "score": lambda c: scoring.score(c.student, c.teacher, c.samples, repeats=50 if c.quick else 1000),
    "start": lambda c: starting.imports(COMMANDS, rounds=1 if c.quick else 5),
    "tables": lambda c: tables.tables(tables.SIZES[: 1 if c.quick else 2], rounds=5 if c.quick else 21),
}


if __name__ == "__main__":
    run(main, Benchmark)
