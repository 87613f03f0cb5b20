"""Measures what a step of the search costs beside a training step of the widest plain network of the same depth.

    python -m workflows.benchmark_search --samples runs/demo/taught

Both learn from the same batches, in turns, in one process; times are medians.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from prerank.core import cli
from prerank.core.config import widths
from prerank.latency.options import Latency
from prerank.latency.table import HEAD, Table
from prerank.logs.schema import load_schema
from prerank.models.batch import Batch
from prerank.models.distill import Distiller
from prerank.models.options import Arm, Distill, Optim
from prerank.models.ranker import Ranker
from prerank.samples.batches import columns, training_batch
from prerank.samples.files import sample_files, samples_manifest
from prerank.samples.reader import Reader
from prerank.search.autofas import AutoFAS
from prerank.search.loop import make_optimizer, take_turn
from prerank.search.options import Search
from prerank.training import loop


@dataclass(frozen=True)
class BenchmarkSearch:
    """Measure the cost of a search step."""

    samples: Path
    """A folder made by workflows.teach."""
    widths: str = "1024,512,256,128,64,0"
    """Candidate widths, with commas: by default the paper's."""
    layers: int = 3
    batch: int = 64
    """Requests in a batch."""
    steps: int = 8
    """Batches that are timed, after one that is not."""
    threads: int = 1


def main(config: BenchmarkSearch) -> dict[str, float]:
    """Returns the ratios: of a step of the weights, of the architecture, and their mean, as they alternate."""
    torch.set_num_threads(config.threads)
    schema, stats = load_schema(config.samples), json.loads((config.samples / "stats.json").read_text())
    features = tuple(feature for feature in schema.features if not feature.teacher_only)
    arm = Arm(
        "benchmark",
        tuple(feature.name for feature in features),
        (max(widths(config.widths)),) * config.layers,
        strategies=tuple(samples_manifest(config.samples)["strategies"]),
        distill=Distill(score=1.0),
        optim=Optim(batch=config.batch),
    )
    files = tuple(path for path, _ in sample_files(config.samples, "train"))
    tables = islice(Reader(files, columns(arm, "teacher_score"), config.batch).epoch(0), config.steps + 1)
    batches = [training_batch(table, arm, features, 0, "teacher_score") for table in tables]

    plain = Distiller(Ranker(features, arm.widths, stats), arm)
    turns = {"plain": _turn(plain, loop.make_optimizer(plain, arm), lambda batch, step: plain(batch))}
    forms = [("shared", "softmax"), ("independent", "softmax"), ("independent", "two_path")]
    for form, estimator in forms:
        search = replace(Search(), form=form, estimator=estimator, widths=config.widths, layers=config.layers)
        method = AutoFAS(
            features,
            schema.fetch,
            stats,
            arm=arm,
            search=search,
            latency=Latency(),
            table=_made_up(features, widths(config.widths)),
            budget_us=1000.0,
        )
        optimizer = make_optimizer(method, arm, search)
        for learns in ("weights", "architecture"):
            turns[f"{form} {estimator}, {learns}"] = partial(_search_turn, method, optimizer, learns)
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for step, batch in enumerate(batches):
        for name, turn in turns.items():
            start = time.perf_counter()
            turn(batch, step)
            seconds[name].append(time.perf_counter() - start)
    median = {name: float(np.median(taken[1:])) for name, taken in seconds.items()}
    out = {name: taken / median["plain"] for name, taken in median.items()}
    for form, estimator in forms:
        both = [out[f"{form} {estimator}, {learns}"] for learns in ("weights", "architecture")]
        out[f"{form} {estimator}"] = float(np.mean(both))
    for name, ratio in out.items():
        print(f"{name:36} {1000 * ratio * median['plain']:8.1f} ms, {ratio:.2f} times a training step of {arm.widths}")
    return out


def _search_turn(
    method: AutoFAS,
    optimizer: torch.optim.Optimizer,
    learns: Literal["weights", "architecture"],
    batch: Batch,
    step: int,
) -> None:
    take_turn(method, optimizer, batch, step, 1.0, learns, clip=5.0)


def _turn(module: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable) -> Callable[[object, int], None]:
    def turn(batch: object, step: int) -> None:
        value: Tensor = loss(batch, step)[0]
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()

    return turn


def _made_up(features: tuple, hidden: tuple[int, ...]) -> Table:
    """A table to reckon with: what it says does not change how long a step takes."""
    ins = (1, sum(feature.width for feature in features) + max(hidden))
    outs = tuple(sorted({HEAD, *(width for width in hidden if width)}))
    inputs = dict.fromkeys((feature.name for feature in features), 1.0)
    return Table("onnxruntime", 1000, 1, 10.0, inputs, ins, outs, ((1.0,) * len(outs), (9.0,) * len(outs)), "made up")


if __name__ == "__main__":
    cli.run(main, BenchmarkSearch)
