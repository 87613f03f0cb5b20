"""What features are worth to trees that pay for each of them: LightGBM's cost-aware splits (Peter et al., NIPS 2017).

Shapes: I items of a batch, C columns.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prerank.logs.schema import Feature
from prerank.models.batch import Bags, Batch
from prerank.models.losses import Segments, standardised

ITEMS = 100_000
"""That trees learn from, at most, or a batch more."""
ROUNDS = 100
LEAVES = 31


def tree_values(
    batches: Sequence[Batch], features: Sequence[Feature], cost_M: np.ndarray, penalty: float, seed: int
) -> dict[str, float]:
    """By feature the loss that trees take off by it, 0 where they never pay for it.

    The trees learn the teacher's scores, standardised within each request, or without a teacher the pairs: how often an
    item is above another less how often below. The first split by a feature pays `penalty` · cost, as a share of the
    whole loss (`cegb_penalty_feature_coupled`). An id is a category; of a list of ids, how many there are, and the
    first; a vector's numbers share its price.
    """
    taken: list[Batch] = []
    items = 0
    for batch in batches:
        if items >= ITEMS:
            break
        taken.append(batch)
        items += len(batch.request_I)
    y_I = torch.cat([_target(batch) for batch in taken]).numpy()
    y_I = (y_I - y_I.mean()) / max(float(y_I.std()), 1e-6)
    columns, owner, categories = [], [], []
    for place, feature in enumerate(features):
        x_IC = np.concatenate([_columns(batch, feature) for batch in taken])
        if feature.dim:
            categories.append(len(owner) + x_IC.shape[1] - 1)
        columns.append(x_IC)
        owner += [place] * x_IC.shape[1]
    owner_C = np.array(owner)
    price_C = penalty * len(y_I) * cost_M[owner_C] / np.bincount(owner_C)[owner_C]
    options = {
        "objective": "regression",
        "num_leaves": LEAVES,
        "verbosity": -1,
        "num_threads": torch.get_num_threads(),
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "cegb_penalty_feature_coupled": price_C.tolist(),
    }
    import lightgbm  # late: it imports scikit-learn, which takes as long as half of torch

    data = lightgbm.Dataset(np.concatenate(columns, axis=1), y_I, categorical_feature=categories)
    gain_C = lightgbm.train(options, data, num_boost_round=ROUNDS).feature_importance("gain")
    gain_M = np.bincount(owner_C, gain_C, minlength=len(features)) / len(y_I)
    return {feature.name: float(gain) for feature, gain in zip(features, gain_M, strict=True)}


def _target(batch: Batch) -> Tensor:
    segments = Segments(batch.request_I, batch.requests)
    if batch.teacher_I is not None:
        return standardised(batch.teacher_I, segments)
    above_I = torch.zeros(len(batch.request_I))
    if batch.hi_P is not None and batch.lo_P is not None:
        one_P = torch.ones(len(batch.hi_P))
        above_I = above_I.index_add(0, batch.hi_P, one_P).index_add(0, batch.lo_P, -one_P)
    return above_I


def _columns(batch: Batch, feature: Feature) -> np.ndarray:
    """float64 [I, C]; the last is a category where the feature is an id."""
    x = batch.features[feature.name]
    if isinstance(x, Bags):
        ends = torch.cat([x.offsets[1:], torch.tensor([len(x.values)])])
        count = ends - x.offsets
        padded = torch.cat([x.values, torch.tensor([feature.size])])
        first = torch.where(count > 0, padded[x.offsets], feature.size)
        x = torch.stack([count, first], dim=1)
    x = x.reshape(len(x), -1)
    return (x[batch.request_I] if feature.of_request else x).double().numpy()
