"""What a step of the search costs beside a training step of the widest plain network of the same depth.

Both learn from the same batches, in turns, in one process; times are medians.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from torch import nn

from prerank.benchmarks.peer import Peer
from prerank.benchmarks.rows import Left, Row
from prerank.core.config import widths
from prerank.latency.options import Latency
from prerank.latency.table import HEAD, Table
from prerank.logs.schema import Feature, Schema, load_schema
from prerank.models.batch import Batch
from prerank.models.distill import Distiller
from prerank.models.options import Arm, Distill, Optim
from prerank.models.ranker import Ranker
from prerank.models.stats import Stats, load_stats
from prerank.samples.batches import columns, training_batch
from prerank.samples.files import files_of, samples_manifest
from prerank.samples.reader import Reader
from prerank.search.autofas import AutoFAS
from prerank.search.loop import make_optimizer, take_turn
from prerank.search.options import Search
from prerank.search.spec import Spec
from prerank.search.supernet import Form
from prerank.training import loop

Turn = Callable[[Batch, int], object]
"""Learns from a batch, in its step."""
FORMS: tuple[tuple[Form, Literal["softmax", "two_path"]], ...] = (
    ("shared", "softmax"),
    ("independent", "softmax"),
    ("independent", "two_path"),
)
WIDTHS = "1024,512,256,128,64,0"
"""The paper's."""
MOST: dict[Form, float] = {"shared": 1.5, "independent": 3.0}
NNI = Peer("NNI's ProxylessNAS", ("nni", "pytorch_lightning"), install="as prerank/benchmarks/README.md says")


@dataclass(frozen=True)
class Ratios:
    plain_s: float
    """A training step of the plain network, in seconds."""
    of: dict[str, float]
    """How many of them a step takes, by form and estimator: of its weights, of its architecture, and the mean of both,
    as they alternate."""


def rows(samples: Path, *, steps: int) -> list[Row | Left]:
    """Of the paper's widths: a step of the weights and one of the architecture, on average; and NNI's of ours."""
    found = ratios(samples, candidates=WIDTHS, layers=3, batch=64, steps=steps)
    what, plain = (
        "a step of the search, of a training step of the widest plain network",
        f"{1000 * found.plain_s:.0f} ms",
    )
    out: list[Row | Left] = [
        Row(f"search, {form} {estimator}", what, found.of[f"{form} {estimator}"], "times", MOST[form], detail=plain)
        for form, estimator in FORMS
    ]
    if NNI.lacking:
        return [*out, Left("search, NNI", f"{NNI.name}: {NNI.lacking}")]
    both = [found.of[f"{NNI.name}, {learns}"] for learns in ("weights", "architecture")]
    for form, estimator in FORMS:
        ours, theirs = found.of[f"{form} {estimator}"], float(np.mean(both))
        detail = f"{1000 * ours * found.plain_s:.0f} and {1000 * theirs * found.plain_s:.0f} ms"
        name, what = f"search, {form} {estimator}, NNI", f"a step of {NNI.name}, of ours"
        out.append(Row(name, what, theirs / ours, "times", least=1.0, detail=detail))
    return out


def ratios(samples: Path, *, candidates: str, layers: int, batch: int, steps: int) -> Ratios:
    """By the candidate widths, with commas, on taught samples; `steps` batches are timed, after one that is not."""
    schema, stats = load_schema(samples), load_stats(samples)
    arm = Arm(
        "benchmark",
        tuple(feature.name for feature in schema.features if not feature.teacher_only),
        (max(widths(candidates)),) * layers,
        strategies=tuple(samples_manifest(samples)["strategies"]),
        distill=Distill(score=1.0),
        optim=Optim(batch=batch),
    )
    features = schema.select(arm.features, where=arm.name)
    files = files_of(samples, "train")
    reader = Reader(files, columns(arm, "teacher_score"), batch, epoch_steps=steps + 1)
    tables = islice(reader.epoch(0), steps + 1)
    batches = [training_batch(table, arm, features, 0, "teacher_score") for table in tables]
    turns = {"plain": _plain(features, arm, stats)}
    for form, estimator in FORMS:
        search = replace(Search(), form=form, estimator=estimator, widths=candidates, layers=layers)
        turns |= _search(Spec(arm, search, Latency(), _made_up(features, widths(candidates)), 1000.0), schema, stats)
    turns |= _nni(features, widths(candidates), layers, arm, stats)
    median = _medians(turns, batches)
    of = {name: taken / median["plain"] for name, taken in median.items()}
    for form, estimator in FORMS:
        both = [of[f"{form} {estimator}, {learns}"] for learns in ("weights", "architecture")]
        of[f"{form} {estimator}"] = float(np.mean(both))
    return Ratios(median["plain"], of)


def _medians(turns: dict[str, Turn], batches: list[Batch]) -> dict[str, float]:
    """Seconds of a step; the first batch only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for step, batch in enumerate(batches):
        for name, turn in turns.items():
            start = time.perf_counter()
            turn(batch, step)
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(taken[1:])) for name, taken in seconds.items()}


def _plain(features: tuple[Feature, ...], arm: Arm, stats: Stats) -> Turn:
    module = Distiller(Ranker(features, arm.widths, stats), arm)
    optimizer = loop.make_optimizer(module, arm)

    def turn(batch: Batch, step: int) -> None:
        loss, _ = module(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()

    return turn


def _search(spec: Spec, schema: Schema, stats: Stats) -> dict[str, Turn]:
    """A turn of the weights and one of the architecture, of one method."""
    method = AutoFAS(spec, schema, stats)
    take = partial(take_turn, method, make_optimizer(method, spec.arm, spec.search))
    name = f"{spec.search.form} {spec.search.estimator}"
    return {
        f"{name}, weights": lambda batch, step: take(batch, step, 1.0, "weights", clip=5.0),
        f"{name}, architecture": lambda batch, step: take(batch, step, 1.0, "architecture", clip=5.0),
    }


def _nni(
    features: tuple[Feature, ...], hidden: tuple[int, ...], layers: int, arm: Arm, stats: Stats
) -> dict[str, Turn]:
    if NNI.lacking:
        return {}
    from prerank.benchmarks.peers.nni_step import turns_of  # late: it is not installed everywhere

    return {f"{NNI.name}, {learns}": turn for learns, turn in turns_of(features, hidden, layers, arm, stats).items()}


def _made_up(features: tuple[Feature, ...], hidden: tuple[int, ...]) -> Table:
    """A table to reckon with: what it says does not change how long a step takes."""
    ins = (1, sum(feature.width for feature in features) + max(hidden))
    outs = tuple(sorted({HEAD, *(width for width in hidden if width)}))
    inputs = dict.fromkeys((feature.name for feature in features), 1.0)
    return Table("onnxruntime", 1000, 1, 10.0, inputs, ins, outs, ((1.0,) * len(outs), (9.0,) * len(outs)), "made up")
