"""Measures what a step of the search costs beside a training step of the widest plain network of the same depth.

    python -m workflows.benchmark_search --samples runs/demo/taught

Both learn from the same batches, in turns, in one process; times are medians.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from prerank.benchmarks.search_step import WIDTHS, ratios
from prerank.core import cli
from prerank.core.config import Positive, Widths, widths


@dataclass(frozen=True)
class BenchmarkSearch:
    """Measure the cost of a search step."""

    samples: Path
    """A folder made by workflows.teach."""
    widths: Widths = WIDTHS
    """Candidate widths, with commas: by default the paper's."""
    layers: Positive = 3
    batch: Positive = 64
    """Requests in a batch."""
    steps: Positive = 8
    """Batches that are timed, after one that is not."""
    threads: Positive = 1


def main(config: BenchmarkSearch) -> dict[str, float]:
    """Returns the ratios: of a step of the weights, of the architecture, and their mean, as they alternate."""
    torch.set_num_threads(config.threads)
    found = ratios(
        config.samples, candidates=config.widths, layers=config.layers, batch=config.batch, steps=config.steps
    )
    widest = (max(widths(config.widths)),) * config.layers
    for name, ratio in found.of.items():
        print(f"{name:36} {1000 * ratio * found.plain_s:8.1f} ms, {ratio:.2f} times a training step of {widest}")
    return found.of


if __name__ == "__main__":
    cli.run(main, BenchmarkSearch)
