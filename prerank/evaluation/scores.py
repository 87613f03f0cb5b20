"""What a finished model says of request rows, on this machine's CPUs."""

import numpy as np
import pyarrow as pa
import torch

from prerank.models.checkpoint import Model
from prerank.samples.batches import scoring_batch

SCORED_AT_ONCE = 64
"""Requests in one forward pass."""


def scores_of(table: pa.Table, model: Model) -> np.ndarray:
    """float32 [N]: the score of every item of request rows with encoded features."""
    features = model.schema.select(model.arch.features, where="model")
    parts = [np.empty(0, np.float32)]
    for start in range(0, table.num_rows, SCORED_AT_ONCE):
        batch = scoring_batch(table.slice(start, SCORED_AT_ONCE).combine_chunks(), features)
        with torch.inference_mode():
            parts.append(model.ranker(batch.features, batch.request_I)[0].numpy())
    return np.concatenate(parts)
