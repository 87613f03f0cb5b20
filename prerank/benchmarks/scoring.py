"""Scoring a request's candidates on one thread: the exported student against the teacher, torch and boosted trees.

The trees, 100 of 31 leaves, learn the teacher's scores on the student's own numbers, and LightGBM predicts by them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import lightgbm
import numpy as np
import torch

from prerank.benchmarks.rows import Row
from prerank.core.nested import flat_numpy
from prerank.logs.schema import Feature
from prerank.models.checkpoint import Model, load_model
from prerank.models.stats import Stats, load_stats
from prerank.samples.batches import scoring_batch
from prerank.samples.reader import sequential
from prerank.serving.export import runs_of
from prerank.serving.parity import as_trained, draw_feed
from prerank.serving.served import graph_of
from prerank.serving.session import open_session
from prerank.serving.timing import FRESH, Run, stat, timed
from prerank.training.worker import files_of, teacher_column

CANDIDATES = (200, 1000, 2000)
TREES, LEAVES = 100, 31
OF_TEACHER, OF_TREES = 10.0, 3.0
"""How many times faster the student should be."""


@dataclass(frozen=True)
class Scorer:
    """A finished model, as it is served and as it is trained."""

    model: Model
    features: tuple[Feature, ...]
    stats: Stats

    @classmethod
    def of(cls, folder: Path, kind: str) -> "Scorer":
        model = load_model(folder, kind=kind)
        return cls(model, model.schema.select(model.arch.features, where="arch.json"), load_stats(folder))

    @property
    def numbers(self) -> list[Feature]:
        return [feature for feature in self.features if not feature.dim]

    def exported(self, candidates: int, rng: np.random.Generator) -> Run:
        session = open_session(graph_of(self.model.ranker, self.features), 1)
        return runs_of(session, self.features, self.stats, candidates, rng)

    def eager(self, candidates: int, rng: np.random.Generator) -> Run:
        """By torch, as it was trained."""
        request_I, ranker = torch.zeros(candidates, dtype=torch.long), self.model.ranker.eval()
        drawn = [draw_feed(self.features, self.stats, candidates, rng) for _ in range(FRESH)]
        inputs = [as_trained(feed, self.features) for feed in drawn]

        def run(k: int) -> None:
            with torch.inference_mode():
                ranker(inputs[k % FRESH], request_I)

        return run


def score(student: Path, teacher: Path, samples: Path, *, repeats: int) -> list[Row]:
    """p50 of each other's time as a multiple of the student's; p99 behind it."""
    rng, ours, theirs = np.random.default_rng(0), Scorer.of(student, "student"), Scorer.of(teacher, "teacher")
    trees = _trees(ours.numbers, samples)
    rows = []
    for candidates in CANDIDATES:
        drawn = [rng.normal(size=(candidates, sum(f.size for f in ours.numbers))) for _ in range(FRESH)]
        runs: dict[str, Run] = {
            "student": ours.exported(candidates, rng),
            "teacher": theirs.exported(candidates, rng),
            "torch, eager": ours.eager(candidates, rng),
            "LightGBM": lambda k, drawn=drawn: trees.predict(drawn[k % FRESH], num_threads=1),
        }
        times = dict(zip(runs, map(stat, timed(list(runs.values()), repeats)), strict=True))
        own = times.pop("student")
        for name, of in times.items():
            detail = f"p50 {of['p50']:.0f} and {own['p50']:.0f} µs, p99 {of['p99']:.0f} and {own['p99']:.0f}"
            least = {"teacher": OF_TEACHER, "LightGBM": OF_TREES}.get(name)
            what = f"{name}'s time, of the exported student's"
            rows.append(Row(f"score {candidates:,}", what, of["p50"] / own["p50"], "times", least=least, detail=detail))
    return rows


def _trees(features: list[Feature], samples: Path) -> lightgbm.Booster:
    """Of float64 [N, numbers]."""
    label = teacher_column(samples) or "clicked"
    table = next(sequential(files_of(samples, "train"), (*(feature.name for feature in features), "item_id", label)))
    batch = scoring_batch(table, tuple(features))
    request_I, columns = batch.request_I.numpy(), []
    for feature in features:
        value = cast(torch.Tensor, batch.features[feature.name]).numpy()
        columns.append(value[request_I] if feature.of_request else value)
    params = {"num_leaves": LEAVES, "num_threads": 1, "verbose": -1, "deterministic": True, "seed": 0}
    data = lightgbm.Dataset(np.concatenate(columns, axis=1), flat_numpy(table[label]))
    return lightgbm.train(params, data, TREES)
