"""Measures what the system itself costs, each figure against something else on the same work, in turns in one run.

    python -m workflows.benchmark all --quick --logs runs/logs --samples runs/demo/taught --teacher runs/demo/teacher \
        --student runs/demo/students/all --out runs/benchmark.json

What each row is, against what, and what it leaves out stands in prerank/benchmarks/README.md. `memory` builds samples
from `--rows` and ten times as many made-up rows, and prints rates and the peak of all processes together; it is not
among `all`. A figure that was taken beside other programs is worth little: the load is told.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console

from prerank.benchmarks import memory
from prerank.benchmarks.rows import Left, Report, Row, load_now, report, terminal_table
from prerank.benchmarks.suite import LONG, MEASURES, NAMES, READS, Inputs, Long, Short
from prerank.core.cli import run
from prerank.core.config import Positive
from prerank.core.errors import InputError
from prerank.core.outputs import write_json


@dataclass(frozen=True)
class Benchmark:
    """Measures what the system itself costs."""

    what: Annotated[Literal["all", "memory"] | Short | Long, tyro.conf.Positional]
    logs: Path = Path("runs/logs")
    """Of build-logs; and of sweep, those that the samples were built from."""
    samples: Path = Path("runs/demo/taught")
    """A folder made by workflows.teach."""
    teacher: Path = Path("runs/demo/teacher")
    """Of scale, score, sweep and evaluation."""
    student: Path = Path("runs/demo/students/all")
    """Of score and evaluation."""
    search: Path = Path("runs/demo/search")
    """Of proposals: what a search by proposals left."""
    latency_table: Path = Path("runs/demo/latency.json")
    """Of proposals: what that search went by."""
    rows: Positive = 500_000
    """Of the fine lists of build, growth and memory: these grow them, up to 40 times."""
    k: Positive = 150
    """Items that pre-ranking keeps, which the students' rank bins follow."""
    threads: Positive = 1
    """Of torch."""
    quick: bool = False
    """Fewer repeats on smaller inputs, without the rows that take longest: for the form of the figures, not for
    their worth."""
    out: Path | None = None
    """A JSON file for the figures."""


def main(config: Benchmark) -> Report | None:
    """Returns what `--out` holds; nothing for memory."""
    if config.what == "memory":
        memory.grow(config.rows)
        return None
    names = NAMES if config.what == "all" else (config.what,)
    slow = LONG if config.quick else frozenset()
    for folder, of in READS.items():
        path = getattr(config, folder)
        if {*of} & ({*names} - slow) and not path.is_dir():
            raise InputError(f"--{folder} {path}: no such folder; make demo makes them, or name one of yours")
    torch.set_num_threads(config.threads)
    load, rows, inputs = load_now(), list[Row | Left](), inputs_of(config)
    for name in names:
        rows += [Left(name, "takes long; without --quick")] if name in slow else MEASURES[name](inputs)
        Console(width=max(140, Console().width)).print(terminal_table(rows, load))
    result = report(rows, quick=config.quick, load=load)
    if config.out:
        write_json(config.out, result)
    return result


def inputs_of(config: Benchmark) -> Inputs:
    folders = ("logs", "samples", "teacher", "student", "search", "latency_table")
    return Inputs(
        *(getattr(config, name).resolve() for name in folders), rows=config.rows, k=config.k, quick=config.quick
    )


if __name__ == "__main__":
    run(main, Benchmark)
