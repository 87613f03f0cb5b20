"""A served network against torch: made-up and real requests as a server feeds them, and torch's scores of the same.

Shapes: N candidates of one request, I items over all requests of a batch. A feed is what a server hands to the network:
one array an input, as `prerank.serving.graph.ranker_graph` has them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from prerank.core.hashing import unmix
from prerank.core.nested import nest
from prerank.logs.encoding import encode
from prerank.logs.schema import Feature, Schema
from prerank.models.batch import Bags, Inputs
from prerank.models.stats import Stats
from prerank.samples import batches
from prerank.samples.files import files_of
from prerank.samples.reader import sequential
from prerank.serving.signature import PADDING, padding, unknown

Feed = dict[str, np.ndarray]
Scores = Callable[[Inputs, Tensor], tuple[Tensor, object]]
"""A model: score_I, or whatever there is a row an item of, from the features and the row of each item's request."""

TOLERANCE = 1e-4
"""Largest difference of two scores, as a share of the largest score (of 1 where that is less)."""
HARD_REQUESTS = 32
REAL_REQUESTS = 32


class Parity(TypedDict):
    """How far a network is from torch."""

    requests: int
    scores: int
    largest_score: float
    worst: float
    """The largest difference, as in `TOLERANCE`."""


def draw_feed(
    features: tuple[Feature, ...],
    stats: Stats,
    candidates: int,
    rng: np.random.Generator,
    *,
    hard: bool = False,
) -> Feed:
    """Made-up inputs for one request: numbers by the training split's mean and spread, ids uniformly, 0 to 4 in a list.

    `hard`: a fifth of the numbers missing, declared missing, infinite or huge, a third of the ids outside the
    vocabulary, or of the unknown.
    """
    feed: Feed = {}
    for feature in features:
        rows = 1 if feature.of_request else candidates
        if feature.dim:
            low, high = (-(2**63), 2**63 - 1) if feature.hash else (0, feature.size)
            ids = rng.integers(low, high, (rows, 1 if feature.kind == "id" else 4))
            if hard:
                ids = np.where(rng.random(ids.shape) < 1 / 3, rng.choice(_unseen(feature), ids.shape), ids)
            if feature.kind == "ids":
                ids[np.arange(4) >= rng.integers(0, 5, (rows, 1))] = padding(feature)
            feed[feature.name] = ids
            continue
        mean, std = np.array(stats[feature.name]["mean"]), np.array(stats[feature.name]["std"])
        values = mean + std * rng.normal(size=(rows, feature.size)) * (4 if hard else 1)
        if hard:
            fault = rng.choice([np.nan, np.inf, -np.inf, 3e38, -3e38, *map(float, feature.missing)], values.shape)
            values = np.where(rng.random(values.shape) < 0.2, fault, values)
        feed[feature.name] = values.astype(np.float32)
    return feed


def _unseen(feature: Feature) -> np.ndarray:
    """Ids that few items have: beyond the vocabulary, or small where any is inside, and the declared missing."""
    beyond = [0, 1, -1, 2**40] if feature.hash else [feature.size, feature.size + 1, 2**31, 2**32 - 1, 2**40]
    below = [-1, -7, -(2**32), -(2**40)] if feature.kind == "id" and not feature.hash else []
    declared = [value for value in feature.missing if isinstance(value, int)]
    bits = [value % 2**64 for value in (*beyond, *below, *declared, unknown(feature))]
    return np.array(bits, np.uint64).view(np.int64)


def as_trained(feed: Feed, features: tuple[Feature, ...]) -> Inputs:
    """The inputs of a Ranker by the encoding that its training data went through: not by the graph's."""
    inputs: dict[str, Tensor | Bags] = {}
    for of_request in (True, False):
        here = tuple(_of_integers(feature) for feature in features if feature.of_request is of_request)
        if here:
            table, _ = encode(pa.table({f.name: _as_logged(feed[f.name], f) for f in here}), Schema(here, {}))
            if not of_request:
                one_list = np.array([0, table.num_rows])
                table = pa.table({name: nest(table[name].combine_chunks(), one_list) for name in table.column_names})
            inputs |= batches.encode(table, here, None)
    return inputs


def _of_integers(feature: Feature) -> Feature:
    """As a feed has it: of texts the hashes."""
    return replace(feature, missing=tuple(value for value in feature.missing if not isinstance(value, str)))


def _as_logged(values: np.ndarray, feature: Feature) -> pa.Array:
    if feature.kind == "ids":
        kept = values != PADDING if padding(feature) == PADDING else values >= 0
        return nest(values[kept], np.concatenate([[0], np.cumsum(kept.sum(1))]))
    flat = pa.array(values.reshape(-1))
    vector = feature.kind == "embedding" or (feature.kind == "dense" and feature.size > 1)
    return pa.FixedSizeListArray.from_arrays(flat, feature.size) if vector else flat


def hard_cases(
    ranker: Scores, features: tuple[Feature, ...], stats: Stats, *, seed: int = 0
) -> Iterator[tuple[Feed, np.ndarray]]:
    """Feeds with missing values and unseen ids, the first ones of a single candidate, and torch's scores of them."""
    rng = np.random.default_rng(seed)
    for index in range(HARD_REQUESTS):
        feed = draw_feed(features, stats, 1 if index < HARD_REQUESTS // 4 else index, rng, hard=True)
        candidates = next(len(feed[feature.name]) for feature in features if not feature.of_request)
        with torch.no_grad():
            score_N, _ = ranker(as_trained(feed, features), torch.zeros(candidates, dtype=torch.long))
        yield feed, score_N.numpy()


def real_cases(ranker: Scores, features: tuple[Feature, ...], samples: Path) -> Iterator[tuple[Feed, np.ndarray]]:
    """The first requests of the validation day of the samples, and torch's scores of them."""
    files = files_of(samples, "val")
    names = (*(feature.name for feature in features), "item_id")
    for table in sequential(files[:1], names):
        batch = batches.scoring_batch(table.slice(0, REAL_REQUESTS), features)
        with torch.no_grad():
            score_I, _ = ranker(batch.features, batch.request_I)
        for request in range(batch.requests):
            items = np.flatnonzero(batch.request_I.numpy() == request)
            feed = {f.name: _rows(batch.features[f.name], f, [request] if f.of_request else items) for f in features}
            yield feed, score_I.numpy()[items]
        return


def _rows(values: Tensor | Bags, feature: Feature, rows: list[int] | np.ndarray) -> np.ndarray:
    if isinstance(values, Bags):
        bags = torch.tensor_split(values.values, values.offsets[1:])
        chosen = [_raw(bags[row].numpy(), feature) for row in rows]
        padded = np.full((len(chosen), max(map(len, chosen))), padding(feature))
        for row, ids in enumerate(chosen):
            padded[row, : len(ids)] = ids
        return padded
    found = values.numpy()[rows].reshape(len(rows), -1)
    return _raw(found, feature) if feature.kind == "id" else found


def _raw(ids: np.ndarray, feature: Feature) -> np.ndarray:
    """Ids of samples as they may have been logged; of the many that have one hash, one."""
    ids = np.where(ids == feature.size, unknown(feature), ids)
    logged = unmix(ids.astype(np.uint64)).view(np.int64)
    known = ids >= 0 if feature.hash else np.zeros(ids.shape, bool)
    return np.where(known, logged, ids)


def compare(score: Callable[[Feed], np.ndarray], cases: Iterable[tuple[Feed, np.ndarray]]) -> Parity:
    """Of what `score` gives; raises RuntimeError where that departs too far, or a score is not finite."""
    requests, scores, largest, difference = 0, 0, 1.0, 0.0
    for feed, expected_N in cases:
        score_N = score(feed)
        if score_N.shape != expected_N.shape or not np.isfinite(score_N).all():
            raise RuntimeError(f"ONNX Runtime gives {score_N} for {len(expected_N)} candidates; not exported")
        requests, scores = requests + 1, scores + len(score_N)
        largest = max(largest, float(np.abs(expected_N).max()))
        difference = max(difference, float(np.abs(score_N - expected_N).max()))
    if not difference <= TOLERANCE * largest:
        raise RuntimeError(
            f"ONNX Runtime and torch differ by {difference:.3g} where scores reach {largest:.3g}; not exported"
        )
    return {"requests": requests, "scores": scores, "largest_score": largest, "worst": difference / largest}
