"""Boosted trees on the student's own numbers: 100 of 31 leaves, which learn the teacher's scores.

Shapes: N items, F numbers.
"""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import lightgbm
import numpy as np
import pyarrow as pa
import torch

from prerank.benchmarks.peer import Peer
from prerank.core.nested import flat_numpy
from prerank.evaluation.metrics import Candidates, Validation
from prerank.logs.schema import Feature
from prerank.samples.batches import scoring_batch
from prerank.samples.files import files_of
from prerank.samples.reader import sequential
from prerank.samples.taught import scored_columns, teacher_column

TREES, LEAVES = 100, 31
COMPILED = Peer("LightGBM, compiled", ("treelite", "tl2cgen"), program="gcc")

Score = Callable[[pa.Table], np.ndarray]
"""Of every item of request rows, [N]."""


def numbers_of(table: pa.Table, features: list[Feature]) -> np.ndarray:
    """float32 [N, F] of every item of request rows."""
    batch = scoring_batch(table, tuple(features))
    request_I, columns = batch.request_I.numpy(), []
    for feature in features:
        value = cast(torch.Tensor, batch.features[feature.name]).numpy()
        columns.append(value[request_I] if feature.of_request else value)
    return np.concatenate(columns, axis=1)


def trees_of(features: list[Feature], samples: Path) -> tuple[lightgbm.Booster, np.ndarray]:
    """The trees, and the rows that they have learned from."""
    label = teacher_column(samples) or "clicked"
    table = next(sequential(files_of(samples, "train"), (*(feature.name for feature in features), "item_id", label)))
    rows_NF = numbers_of(table, features)
    params = {"num_leaves": LEAVES, "num_threads": 1, "verbose": -1, "deterministic": True, "seed": 0}
    return lightgbm.train(params, lightgbm.Dataset(rows_NF, flat_numpy(table[label])), TREES), rows_NF


def recall_of(score: Score, features: list[Feature], samples: Path, k: int) -> float | None:
    """The share of the teacher's best k that are among those of the scores, over the validation days; None where no
    teacher has scored them or no request has more than k candidates."""
    teacher = teacher_column(samples, "val")
    if teacher is None:
        return None
    found: list[np.ndarray] = []
    for table in sequential(files_of(samples, "val"), scored_columns(tuple(features), teacher)):
        measure = Validation(Candidates.of(table), flat_numpy(table[teacher]), k=k)
        found.append(measure(score(table))["recall"])
    recall_R = np.concatenate(found)
    return None if np.isnan(recall_R).all() else float(np.nanmean(recall_R))
