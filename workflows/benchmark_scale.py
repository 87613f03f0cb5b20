"""Measures what 1, 2 and 4 workers do with your logs on this host, and reckons from it what a day of them needs.

    python -m workflows.benchmark_scale --logs runs/logs --taught runs/demo/taught --teacher runs/demo/teacher

Builds samples with as many CPUs, teaches them, and trains a teacher (with the small models that it has to beat) and a
student in batches of `--load.batch` by the loop that Ray Train runs; each is timed once it runs, so that what a start
costs is left out. `--load.rows-a-day` and the rest of `--load` say what is asked. On Linux.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from rich.console import Console

from prerank.benchmarks.capacity import Load, needs
from prerank.benchmarks.scale import Inputs, Steps, Timed, host, measured, rates_of, terminal_tables
from prerank.core import cli
from prerank.core.outputs import write_json
from workflows import build_samples, teach


@dataclass(frozen=True)
class BenchmarkScale:
    """Measure rates on these logs, and reckon what a cluster needs for a day of them."""

    logs: Path
    taught: Path
    """A folder made by workflows.teach from these logs."""
    teacher: Path
    """A folder made by workflows.train_teacher."""
    out: Path | None = None
    """A JSON file for the figures."""
    load: Load = Load()


class Scale(TypedDict):
    """What `--out` holds."""

    host: str
    by_workers: Timed
    rates: dict[str, float]
    """The fields of `Rates`."""
    load: dict[str, float]
    """The fields of `Load`."""
    needs: list[dict[str, str | float]]
    """The fields of `Need`."""


def main(config: BenchmarkScale) -> Scale:
    """Returns the measured rates and what follows from them."""
    config.load.check()
    inputs = Inputs(*(path.resolve() for path in (config.logs, config.taught, config.teacher)))
    steps = Steps(
        build=lambda logs, out: build_samples.main(build_samples.BuildSamples(logs, out)),
        teach=lambda samples, teacher, out: teach.main(teach.Teach(samples, teacher, out)),
    )
    timed = measured(inputs, steps, batch=config.load.batch)
    rates = rates_of(inputs, timed)
    answer = needs(rates, config.load)
    results: Scale = {
        "host": host(),
        "by_workers": timed,
        "rates": asdict(rates),
        "load": asdict(config.load),
        "needs": [asdict(need) for need in answer],
    }
    console = Console(width=max(110, Console().width))
    for table in terminal_tables(timed, answer, config.load):
        console.print(table)
    if config.out:
        write_json(config.out, results)
    return results


if __name__ == "__main__":
    cli.run(main, BenchmarkScale)
