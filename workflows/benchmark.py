"""Measures build_samples on made-up logs: rows a second, and that memory stays flat as logs grow.

    python -m workflows.benchmark memory --rows 500000

Builds from `rows` and ten times as many, clustered and shuffled: 45 dense features, an embedding of 16 and a history
of about 50 ids. Memory: sum of PSS (Linux) over all Ray processes too.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prerank.benchmarks.memory import ITEMS, watch, write_logs
from prerank.core.cli import run
from prerank.core.config import Positive


@dataclass(frozen=True)
class Benchmark:
    """Measures build_samples on made-up logs."""

    what: Annotated[Literal["memory"], tyro.conf.Positional]
    rows: Positive = 500_000  # of the fine lists; the larger logs have ten times as many, 3 GB for the default


def main(config: Benchmark) -> None:
    for order in ("clustered", "shuffled"):
        peaks = []
        for rows in (config.rows, 10 * config.rows):
            with tempfile.TemporaryDirectory() as folder:
                write_logs(Path(folder) / "logs", rows // ITEMS, order == "shuffled")
                flags = ["--logs", f"{folder}/logs", "--out", f"{folder}/samples"]
                seconds, peak = watch("workflows.build_samples", flags)
            print(f"{order} {rows:>12,} rows: {seconds:6.1f} s, {rows / seconds:>9,.0f}/s, {peak:6.0f} MiB", flush=True)
            peaks.append(peak)
        print(f"{order}: {peaks[1] / peaks[0]:.2f} times the memory for ten times the rows", flush=True)


if __name__ == "__main__":
    run(main, Benchmark)
