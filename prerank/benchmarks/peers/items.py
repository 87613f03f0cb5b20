"""The items of training batches as rows of a table, one an item, as libraries of click models take them.

Shapes: N items of all batches, L the longest list of ids.
"""

from collections.abc import Sequence

import numpy as np

from prerank.logs.schema import Feature
from prerank.models.batch import Bags, Batch

Columns = dict[str, np.ndarray]
"""By name: of a number float32 [N], one a dimension; of an id int64 [N]; of ids int64 [N, L], 0 where there are fewer,
as all ids are one higher."""


def items_of(batches: Sequence[Batch], features: Sequence[Feature]) -> tuple[Columns, np.ndarray]:
    """The columns, and whether each item was clicked, float32 [N]."""
    columns: Columns = {}
    for feature in features:
        values = np.concatenate(_padded([_rows(batch, feature) for batch in batches]))
        if feature.dim:
            columns[feature.name] = 1 + (values[:, 0] if feature.kind == "id" else values).astype(np.int64)
        else:
            values = np.nan_to_num(values.astype(np.float32))
            columns |= {f"{feature.name}_{at}": values[:, at] for at in range(values.shape[1])}
    return columns, np.concatenate([_clicked(batch) for batch in batches])


def _rows(batch: Batch, feature: Feature) -> np.ndarray:
    """[items, size] of a batch, those of its requests repeated."""
    values = batch.features[feature.name]
    if isinstance(values, Bags):
        ends = np.append(values.offsets.numpy(), len(values.values))
        length = np.diff(ends)
        rows = np.full((len(length), max(1, int(length.max(initial=0)))), -1)
        rows[np.arange(rows.shape[1]) < length[:, None]] = values.values.numpy()
    else:
        rows = values.numpy().reshape(len(values), -1)
    return rows[batch.request_I.numpy()] if feature.of_request else rows


def _padded(parts: list[np.ndarray]) -> list[np.ndarray]:
    width = max(part.shape[1] for part in parts)
    return [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1) for part in parts]


def _clicked(batch: Batch) -> np.ndarray:
    assert batch.target_I is not None
    return batch.target_I.numpy().astype(np.float32)
