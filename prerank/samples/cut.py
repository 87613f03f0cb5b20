"""Batches that are made at once and cut apart: the same tensors as of each made alone, for a third less of the time.

Arrays of one batch are short, so that what making it takes is mostly Python's; and a thread that works ahead takes
Python from the training step at each of its calls. Draws are keyed by request, so nothing depends on who is beside.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from prerank.core.nested import flat
from prerank.logs.schema import Feature
from prerank.models.batch import Bags, Batch, Inputs
from prerank.models.embed import NUMBERS
from prerank.models.options import Arm
from prerank.samples.anew import Redraw
from prerank.samples.batches import REDRAW, training_batch

AT_ONCE = 1 << 15
"""Items of the samples that batches are made of at once, at least, where there are as many."""
BYTES = 64 << 20
"""Of samples that are wide, of which fewer are made at once."""


def training_batches(
    tables: Iterable[tuple[int, pa.Table]],
    arm: Arm,
    features: tuple[Feature, ...],
    teacher_score: str | None = None,
    redraw: Redraw = REDRAW,
    packed: Callable[[Inputs], dict[str, Tensor | Bags]] = dict,
) -> Iterator[list[Batch]]:
    """`training_batch` of each table, with the number of its pass, some at once; its inputs as the network's `Embed`
    has them `packed`."""
    for number, together in _together(tables):
        whole = training_batch(pa.concat_tables(together), arm, features, number, teacher_score, redraw)
        whole = replace(whole, features=packed(whole.features))
        yield cut(whole, [table.num_rows for table in together], features)


def _together(tables: Iterable[tuple[int, pa.Table]]) -> Iterator[tuple[int, list[pa.Table]]]:
    """Tables in a row of one pass: the first alone, so that it is not waited for, then twice as many each time."""
    group: list[pa.Table] = []
    items = size = least = of = 0
    for number, table in tables:
        if group and (number != of or items >= least or size >= BYTES):
            yield of, group
            group, items, size, least = [], 0, 0, min(AT_ONCE, max(least, 2 * items))
        group.append(table)
        items, size, of = items + len(flat(table["exposed"])), size + table.nbytes, number
    if group:
        yield of, group


def cut(batch: Batch, rows: Sequence[int], features: tuple[Feature, ...]) -> list[Batch]:
    """A batch into as many as there are `rows`, of so many of its requests each.

    What is not in the order of the requests, pairs and lists by strategy, keeps its order within each.
    """
    if len(rows) == 1:
        return [batch]
    edge_B = np.cumsum([0, *rows])
    item_B = np.searchsorted(batch.request_I.numpy(), edge_B)
    of_request = {feature.name for feature in features if feature.of_request} | {NUMBERS[0]}
    inputs = {name: _inputs(x, edge_B if name in of_request else item_B) for name, x in batch.features.items()}
    first, *others = (_labels(of, rows, edge_B, item_B) for of in (batch, *batch.heads))
    return [
        replace(one, features={name: parts[n] for name, parts in inputs.items()}, heads=tuple(of[n] for of in others))
        for n, one in enumerate(first)
    ]


def _labels(batch: Batch, rows: Sequence[int], edge_B: np.ndarray, item_B: np.ndarray) -> list[Batch]:
    """What one head learns from, in parts."""
    parts: dict[str, list[Any]] = {"request_I": _shifted(_parts(batch.request_I, item_B), edge_B)}
    there = [field.name for field in fields(batch) if isinstance(getattr(batch, field.name), Tensor)]
    parts |= {name: _parts(getattr(batch, name), item_B) for name in there if name.endswith("_I") and name not in parts}
    if batch.teacher_ID is not None:
        assert batch.contrasted_I is not None
        seen_B = np.append(0, np.cumsum(batch.contrasted_I.numpy()))[item_B]
        parts["teacher_ID"] = _parts(batch.teacher_ID, seen_B)
    group_B = edge_B * (batch.groups // batch.requests)
    for group in ("group_P", "group_L"):
        if group not in there:
            continue
        part_X = np.searchsorted(group_B, getattr(batch, group).numpy(), side="right") - 1
        order_X = torch.from_numpy(np.argsort(part_X, kind="stable"))
        end_B = np.append(0, np.cumsum(np.bincount(part_X, minlength=len(rows))))
        parts |= {name: _parts(getattr(batch, name)[order_X], end_B) for name in there if name[-2:] == group[-2:]}
        parts[group] = _shifted(parts[group], group_B)
    parts |= {name: _shifted(parts[name], item_B) for name in ("hi_P", "lo_P", "listed_L") if name in parts}
    groups = np.diff(group_B).tolist()
    return [
        Batch({}, requests=n, groups=groups[i], **{name: of[i] for name, of in parts.items()})
        for i, n in enumerate(rows)
    ]


def _parts(values: Tensor, edges: np.ndarray) -> list[Tensor]:
    """From each edge to the next."""
    return [values[start:end] for start, end in zip(edges.tolist(), edges[1:].tolist(), strict=False)]


def _inputs(values: Tensor | Bags, edges: np.ndarray) -> list[Tensor] | list[Bags]:
    if not isinstance(values, Bags):
        return _parts(values, edges)
    start_B = np.append(values.offsets.numpy(), len(values.values))[edges]
    ids, offsets = _parts(values.values, start_B), _shifted(_parts(values.offsets, edges), start_B)
    return [Bags(*both) for both in zip(ids, offsets, strict=True)]


def _shifted(parts: list[Tensor], by: np.ndarray) -> list[Tensor]:
    """Each counted from its own start."""
    return [part - int(start) for part, start in zip(parts, by, strict=False)]
