"""Scoring a request's candidates on one thread: the exported student against what else could score them."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import torch

from prerank.benchmarks import boosted, quantised
from prerank.benchmarks.boosted import COMPILED
from prerank.benchmarks.click_models import RECHUB
from prerank.benchmarks.rows import Left, Row
from prerank.benchmarks.training import Pupil, students
from prerank.logs.schema import Feature
from prerank.models.checkpoint import Model, load_model
from prerank.models.stats import Stats, load_stats
from prerank.samples.batches import scoring_batch
from prerank.serving.export import runs_of
from prerank.serving.parity import as_trained, draw_feed, real_cases
from prerank.serving.served import graph_of
from prerank.serving.session import open_session
from prerank.serving.timing import FRESH, Run, Stat, stat, timed

CANDIDATES = (200, 1000, 2000)
STUDENT, PACKED = "exported student", "exported student, packed"
LEAST = {"teacher": 10.0, "teacher, packed": 10.0, COMPILED.name: 3.0}
"""How many times faster the student should be."""
AGAINST = {"teacher, packed": PACKED}
"""What is compared with another than the student as it is exported by default: an input a feature."""


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

    def exported(self, candidates: int, rng: np.random.Generator, *, packed: bool = False) -> Run:
        session = open_session(graph_of(self.model.ranker, self.features, packed=packed), 1)
        return runs_of(session, self.features, self.stats, candidates, rng, packed=packed)

    def eager(self, candidates: int, rng: np.random.Generator) -> Run:
        """By torch, as it was trained."""
        request_I, ranker = torch.zeros(candidates, dtype=torch.long), self.model.ranker.eval()
        drawn = [draw_feed(self.features, self.stats, candidates, rng) for _ in range(FRESH)]
        inputs = [as_trained(feed, self.features) for feed in drawn]

        def run(k: int) -> None:
            with torch.inference_mode():
                ranker(inputs[k % FRESH], request_I)

        return run

    def score(self, table: pa.Table) -> np.ndarray:
        batch = scoring_batch(table, self.features)
        with torch.inference_mode():
            return self.model.ranker(batch.features, batch.request_I)[0].float().numpy()


def score(student: Path, teacher: Path, samples: Path, *, k: int, repeats: int) -> list[Row | Left]:
    """Each other's `p5` as a multiple of the student's, with p50 and p99 behind it; then recall at `k`, and parity."""
    rng, ours, theirs = np.random.default_rng(0), Scorer.of(student, "student"), Scorer.of(teacher, "teacher")
    graph = graph_of(ours.model.ranker, ours.features)
    fewer_bits = quantised.graphs_of(graph)
    feeds = [feed for feed, _ in islice(real_cases(ours.model.ranker, ours.features, samples), 32)]
    said = {name: quantised.changed(graph, other, feeds) for name, other in fewer_bits.items()}
    rows: list[Row | Left] = [
        Left("score", f"{peer.name}: {peer.lacking}") for peer in (COMPILED, RECHUB) if peer.lacking
    ]
    with tempfile.TemporaryDirectory() as folder:
        by_rows = _by_rows(ours, samples, Path(folder))
        rechub = None if RECHUB.lacking else _rechub(samples, k, Path(folder))
        for candidates in CANDIDATES:
            runs = {
                STUDENT: ours.exported(candidates, rng),
                PACKED: ours.exported(candidates, rng, packed=True),
                "teacher": theirs.exported(candidates, rng),
                "teacher, packed": theirs.exported(candidates, rng, packed=True),
                "torch, eager": ours.eager(candidates, rng),
            }
            for name, other in fewer_bits.items():
                runs[name] = runs_of(open_session(other, 1), ours.features, ours.stats, candidates, rng)
            width = sum(feature.size for feature in ours.numbers)
            drawn = [rng.normal(size=(candidates, width)) for _ in range(FRESH)]
            for name, predict in by_rows.items():
                runs[name] = lambda k, predict=predict, drawn=drawn: predict(drawn[k % FRESH])
            if rechub:
                runs[RECHUB.name] = rechub(candidates)
            times = dict(zip(runs, map(stat, timed(list(runs.values()), repeats)), strict=True))
            rows += _times(candidates, times, {name: str(of) for name, of in said.items()})
    rows += [_bound(name, of) for name, of in said.items()]
    return [*rows, *_recall(ours, samples, k)]


def _times(candidates: int, times: dict[str, Stat], said: dict[str, str]) -> list[Row]:
    rows = []
    for name, of in times.items():
        if name != STUDENT:
            against = AGAINST.get(name, STUDENT)
            own = times[against]
            detail = f"p50 {of['p50']:.0f} and {own['p50']:.0f} µs, p99 {of['p99']:.0f} and {own['p99']:.0f}"
            what, least = f"{name}'s time, of the {against}'s", LEAST.get(name)
            detail += f"; {said[name]}" if name in said else ""
            value = of["p5"] / own["p5"]
            short = name.removeprefix(f"{STUDENT}, ")
            rows.append(Row(f"score {candidates:,}, {short}", what, value, "times", least=least, detail=detail))
    return rows


def _bound(name: str, of: quantised.Changed) -> Row:
    what = "largest difference of a score from float32's, of the largest score"
    return Row(f"score, parity of {name}", what, of.worst, "share", most=quantised.WORST[name], detail=str(of))


def _by_rows(ours: Scorer, samples: Path, folder: Path) -> dict[str, Callable[[np.ndarray], object]]:
    """What scores a matrix of the student's numbers."""
    trees, rows_NF = boosted.trees_of(ours.numbers, samples)
    out: dict[str, Callable[[np.ndarray], object]] = {"LightGBM": lambda x_NF: trees.predict(x_NF, num_threads=1)}
    if not COMPILED.lacking:
        from prerank.benchmarks.peers.compiled_trees import compiled  # late: of the extra

        out[COMPILED.name] = compiled(trees, rows_NF, folder)
    return out


def _rechub(samples: Path, k: int, folder: Path) -> Callable[[int], Run]:
    """torch-rechub's network of the student's features and widths, by its own export; it has learned nothing."""
    from prerank.benchmarks.peers import rechub_train  # late: of the extra
    from prerank.benchmarks.peers.items import items_of

    pupil = Pupil.of(students(samples)["score"], samples, k)
    features = pupil.lesson.features
    columns, _ = items_of([next(pupil.batches(packed=False))], features)
    sizes = {feature.name: (feature.size, feature.dim) for feature in features if feature.dim}
    trainer = rechub_train.trainer_of(columns, sizes, list(pupil.lesson.arm.widths))
    rechub_train.write_onnx(trainer, columns, folder / "rechub.onnx")
    session = open_session(onnx.load(folder / "rechub.onnx"), 1)

    def runs(candidates: int) -> Run:
        rng = np.random.default_rng(0)
        drawn = [rng.integers(0, len(next(iter(columns.values()))), candidates) for _ in range(FRESH)]
        named = {given.name: given.type for given in session.get_inputs()}
        feeds = [{name: rechub_train.as_fed(columns[name][at], kind) for name, kind in named.items()} for at in drawn]
        return lambda turn: session.run(None, feeds[turn % FRESH])

    return runs


def _recall(ours: Scorer, samples: Path, k: int) -> list[Row | Left]:
    trees, _ = boosted.trees_of(ours.numbers, samples)
    mine = boosted.recall_of(ours.score, list(ours.features), samples, k)
    other = boosted.recall_of(
        lambda table: np.asarray(trees.predict(boosted.numbers_of(table, ours.numbers), num_threads=1)),
        ours.numbers,
        samples,
        k,
    )
    if mine is None or not other:
        return [Left("score, recall", f"no teacher's score, or no more than {k} candidates, in {samples}/val")]
    what = f"recall at {k} on the validation days, of LightGBM's on the same numbers"
    detail = f"{mine:.4f} and {other:.4f}"
    return [Row("score, recall", what, mine / other, "times", least=1.0, detail=detail)]
