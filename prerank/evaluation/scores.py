"""What a finished model says of request rows, on this machine's CPUs."""

from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from prerank.models.batch import Inputs
from prerank.models.checkpoint import Model
from prerank.models.ranker import Ranker
from prerank.samples.batches import scoring_batch

Scores = Callable[[Inputs, Tensor], tuple[Tensor, Tensor]]
SCORED_AT_ONCE = 64
"""Requests in one forward pass."""


def scores_of(table: pa.Table, model: Model) -> np.ndarray:
    """float32 [N]: the score of every item of request rows with encoded features."""
    return np.concatenate([np.empty(0, np.float32), *_scored(table, model, model.ranker)])


def head_scores_of(table: pa.Table, model: Model) -> dict[str, np.ndarray]:
    """float32 [N] of each head; none of a model that has one score."""
    heads = model.arch.fusion.heads
    if not heads:
        return {}
    parts = _scored(table, model, cast(Ranker, model.ranker).heads)
    head_NH = np.concatenate([np.empty((0, len(heads)), np.float32), *parts])
    return {head: np.ascontiguousarray(head_NH[:, place]) for place, head in enumerate(heads)}


def _scored(table: pa.Table, model: Model, scores: Scores) -> Iterator[np.ndarray]:
    features = model.schema.select(model.arch.features, where="model")
    for start in range(0, table.num_rows, SCORED_AT_ONCE):
        batch = scoring_batch(table.slice(start, SCORED_AT_ONCE).combine_chunks(), features)
        with torch.inference_mode():
            yield scores(batch.features, batch.request_I)[0].numpy()
