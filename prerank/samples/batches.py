"""From sample rows (one a request, lists of items) to tensors, without a Python loop over requests or items.

Shapes: R requests of a batch, I items over all of them, P pairs, D the width of the teacher's representation.
"""

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from prerank.core.hashing import hash_ids, keyed_uniform
from prerank.core.nested import flat, flat_numpy, offsets_of, rank_within, segment_of
from prerank.logs.schema import CLICK, Feature
from prerank.models.batch import Bags, Batch
from prerank.models.options import Arm
from prerank.models.place import bucket
from prerank.samples.anew import Grouped, Redraw, pairs_anew, pool_of, positions_of, reads_places
from prerank.samples.draw import UNIFORM, Lists
from prerank.samples.dropout import Keys, gone, large
from prerank.samples.heads import label_of, of_label, teacher_of
from prerank.samples.listed import gain_of, listed

T = TypeVar("T")
REDRAW = Redraw()


def columns(arm: Arm, teacher_score: str | None) -> tuple[str, ...]:
    """The columns of the samples that training this arm reads; without a `teacher_score`, none of the teacher's."""
    names, distill = [*arm.features, *map(label_of, arm.heads or (CLICK,)), "exposed", "request_id"], arm.distill
    if not arm.by_strategy:
        names += ["item_id", "drawn"]
    if reads_places(arm):
        names.append("position")
    if arm.by_place:
        names.append("shown_position")
    if teacher_score and (distill.active or (reads_places(arm) and arm.positions == "teacher")):
        names += [teacher_of(head, teacher_score) for head in arm.heads or (CLICK,)]
    if teacher_score and distill.reads_representation:
        names.append("teacher_repr")
    return tuple(names)


def training_batch(
    table: pa.Table,
    arm: Arm,
    features: tuple[Feature, ...],
    number: int,
    teacher_score: str | None = None,
    redraw: Redraw = REDRAW,
) -> Batch:
    """The batch that `arm` learns from in the pass of that number over the samples; items that none of its losses
    reads are left out before any is encoded.

    Without a `teacher_score` column the batch has no teacher's side: a joint search puts its own in. Of several heads
    each has its `Batch.heads`, as a model of its objective alone has it, but for the items that another one reads.
    """
    lessons = [
        _Lesson.of(of_label(table, head), arm, number, teacher_score and teacher_of(head, teacher_score), redraw)
        for head in arm.heads or (CLICK,)
    ]
    keep_I = np.logical_or.reduce([lesson.keep_I for lesson in lessons])
    made = [lesson.batch(keep_I, arm, number, redraw) for lesson in lessons]
    inputs = encode(table, features, None if keep_I.all() else np.flatnonzero(keep_I))
    if arm.id_dropout:
        lists = lessons[0].lists
        keys = hash_ids(table["request_id"]), lists.request_hash[keep_I], lists.item_hash[keep_I]
        inputs |= _dropped(inputs, features, keys, arm, number)
    return replace(made[0], features=inputs, heads=tuple(made) if arm.heads else ())


@dataclass(frozen=True)
class _Lesson:
    """What one head learns from in a batch, of the items that are kept for all."""

    table: pa.Table
    teacher_score: str | None
    request_I: np.ndarray
    lists: Lists
    pairs: Grouped | None
    keep_I: np.ndarray
    """bool [I]: what its losses read."""

    @classmethod
    def of(cls, table: pa.Table, arm: Arm, number: int, teacher_score: str | None, redraw: Redraw) -> "_Lesson":
        request_I, distill = segment_of(offsets_of(table["clicked"])), arm.distill
        lists = pool_of(table, _positions(table, arm, teacher_score, len(request_I)), arm.seed, number)
        pairs = None if not arm.by_strategy else pairs_anew(lists, arm.strategies, redraw)
        if pairs is None:
            keep_I = _sampled(table, arm, request_I, number)
        else:
            hi_P, lo_P, _ = pairs
            keep_I = np.zeros(len(request_I), dtype=bool)
            keep_I[hi_P] = keep_I[lo_P] = True
        if distill.kl or distill.reads_representation or (distill.score and distill.items == "all"):
            keep_I[:] = True
        elif distill.score:
            keep_I |= flat_numpy(table["exposed"])
        return cls(table, teacher_score, request_I, lists, pairs, keep_I)

    def batch(self, keep_I: np.ndarray, arm: Arm, number: int, redraw: Redraw) -> Batch:
        """Without the features."""
        distill, lists, labels = arm.distill, self.lists, dict[str, Any]()
        new_I = np.cumsum(keep_I) - 1
        if self.pairs is not None:
            hi_P, lo_P, group_P = self.pairs
            labels |= {"hi_P": tensor(new_I[hi_P]), "lo_P": tensor(new_I[lo_P]), "group_P": tensor(group_P)}
            labels["groups"] = self.table.num_rows * len(arm.strategies)
            if arm.hard == "lambda":
                labels["gain_P"] = tensor(gain_of(lists, self.pairs, arm.strategies))
            elif arm.hard != "pairwise":
                of_lists = listed(lists, self.pairs, arm.strategies, redraw.top)
                of_lists["listed_L"] = new_I[of_lists["listed_L"]]
                labels |= {name: tensor(values) for name, values in of_lists.items()}
        if self.teacher_score and distill.active:
            labels["teacher_I"] = tensor(flat_numpy(self.table[self.teacher_score])[keep_I].astype(np.float32))
        if arm.by_place:
            labels["shown_I"] = tensor(bucket(flat_numpy(self.table["shown_position"])[keep_I]))
        if distill.contrast:
            labels["bin_I"] = tensor(redraw.bins(lists.position, lists.length)[keep_I] // distill.merge_bins)
        if distill.reads_representation and self.teacher_score:
            contrasted_I = _in_turn(lists, distill.contrasted, number)  # of all items, as the others are kept with them
            labels["contrasted_I"] = tensor(contrasted_I)
            width = self.table["teacher_repr"].type.value_type.list_size
            repr_ID = flat(self.table["teacher_repr"]).flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
            labels["teacher_ID"] = tensor(repr_ID[contrasted_I].astype(np.float32))
        return Batch(
            features={},
            request_I=tensor(self.request_I[keep_I]),
            requests=self.table.num_rows,
            exposed_I=tensor(flat_numpy(self.table["exposed"])[keep_I]),
            target_I=tensor(flat_numpy(self.table["clicked"])[keep_I]),
            **labels,
        )


def _positions(table: pa.Table, arm: Arm, teacher_score: str | None, items: int) -> np.ndarray:
    """int64 [I]: of the items in their fine lists, 0 where the arm does not learn from it."""
    if not reads_places(arm):
        return np.zeros(items, np.int64)
    return positions_of(table, teacher_score if arm.positions == "teacher" else None)


def _in_turn(lists: Lists, most: int, number: int) -> np.ndarray:
    """bool [I]: so many items of each request at most, others in the next pass until it was each one's turn."""
    every_R = np.maximum(1, -(-np.diff(lists.offsets) // most))
    place = np.arange(len(lists.request)) - lists.offsets[lists.request]
    return (place + number) % every_R[lists.request] == 0


def scoring_batch(table: pa.Table, features: tuple[Feature, ...]) -> Batch:
    """Every item of every request, to be scored."""
    request_I = segment_of(offsets_of(table["item_id"]))
    return Batch(encode(table, features, None), tensor(request_I), table.num_rows)


def _sampled(table: pa.Table, arm: Arm, request_I: np.ndarray, number: int) -> np.ndarray:
    """Exposed items and `unexposed_ratio` times as many of the uniform draw, of the requests with a click: bool [I]."""
    clicked_I, exposed_I = flat_numpy(table["clicked"]), flat_numpy(table["exposed"])
    drawn = np.flatnonzero((flat_numpy(table["drawn"]) & UNIFORM > 0) & ~exposed_I)
    request_hash = hash_ids(table["request_id"])[request_I[drawn]]
    item_hash = hash_ids(flat(table["item_id"]))[drawn]
    rank = rank_within(
        request_I[drawn], keyed_uniform(arm.seed, f"negatives of epoch {number}", request_hash, item_hash)
    )
    wanted_R = np.round(arm.unexposed_ratio * np.bincount(request_I[exposed_I], minlength=table.num_rows))
    keep_I = exposed_I.copy()
    keep_I[drawn[rank < wanted_R[request_I[drawn]]]] = True
    return keep_I & (np.bincount(request_I[clicked_I], minlength=table.num_rows) > 0)[request_I]


def encode(table: pa.Table, features: tuple[Feature, ...], items: np.ndarray | None) -> dict[str, Tensor | Bags]:
    """The inputs of `prerank.models.embed.Embed`, of all items or of those at the given indices."""
    return {feature.name: _encode(table[feature.name], feature, items) for feature in features}


def _encode(column: pa.ChunkedArray, feature: Feature, items: np.ndarray | None) -> Tensor | Bags:
    values = column.combine_chunks()
    if not feature.of_request:
        values = values.flatten()
        if items is not None:
            values = values.take(pa.array(items))
    if feature.kind == "ids":
        return Bags(tensor(flat_numpy(values).astype(np.int64)), tensor(offsets_of(values)[:-1]))
    rows = len(values)
    if pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    array = values.to_numpy(zero_copy_only=False)
    return tensor(array.astype(np.int64) if feature.kind == "id" else array.reshape(rows, feature.size))


def _dropped(
    inputs: dict[str, Tensor | Bags], features: tuple[Feature, ...], keys: Keys, arm: Arm, number: int
) -> dict[str, Tensor | Bags]:
    """The ids of large tables, some of which are the unknown, `size`."""
    out: dict[str, Tensor | Bags] = {}
    for feature in large(features):
        ids, bags = inputs[feature.name], None
        if isinstance(ids, Bags):
            ids, bags = ids.values, ids.offsets
        offsets = None if bags is None else np.append(bags.numpy(), len(ids))
        drawn = gone(feature, keys, offsets, share=arm.id_dropout, seed=arm.seed, number=number)
        left = ids.masked_fill(torch.from_numpy(drawn), feature.size)
        out[feature.name] = left if bags is None else Bags(left, bags)
    return out


def tensor(array: np.ndarray) -> Tensor:
    """A tensor of its own: Arrow's buffers are read-only."""
    return torch.from_numpy(array if array.flags.writeable and array.flags.owndata else array.copy())


def ahead(items: Iterable[T]) -> Generator[T]:
    """Makes the next item in a thread while the caller works on one."""
    iterator = iter(items)

    def take() -> list[T]:
        """The next item, or none."""
        return list(islice(iterator, 1))

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(take)
        while taken := made.result():
            made = pool.submit(take)
            yield taken[0]
