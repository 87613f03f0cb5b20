"""Pairs and rank bins of the pool of a sample, anew in each pass: what was drawn once is soon learned by heart.

The strategies of `prerank.samples.draw` draw from the pool as they drew from the fine list, keyed by (seed, strategy,
pass, request, place in the pool): the same for any number of workers and after any interruption. R requests, N items
of their pools.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from prerank.core.hashing import hash_ids
from prerank.core.nested import flat_numpy, offsets_of, segment_of
from prerank.models.options import Arm
from prerank.samples.draw import NEED_POSITIONS, STRATEGIES, DrawConfig, Lists, capped, rank_bins

LEAST_SHARE = 0.02
"""Of a list, that a rank bin around K begins at, but for the first, which begins with the list."""


@dataclass(frozen=True)
class Redraw:
    """How."""

    draw: DrawConfig = DrawConfig()
    shares: tuple[float, ...] = ()
    """Where the rank bins of the contrast begin, as rising shares of the list from 0; none: the bins of `draw`."""
    top: float = 0.1
    """K's share of the candidates, and so of a list."""

    def bins(self, position: np.ndarray, length: np.ndarray) -> np.ndarray:
        """int64 [N]: the bin of a position in a list of that length, 0 = best."""
        if not self.shares:
            return rank_bins(position, length, self.draw).astype(np.int64)
        return np.searchsorted(np.array(self.shares), (position + 0.5) / length, side="right") - 1


def shares_around(k: int, candidates: int) -> tuple[float, ...]:
    """Shares of a list at which rank bins begin: K of the candidates is one, and each is twice the one before.

    So bins are finer at the top, and none has both an item that pre-ranking should keep and one that it should not.

    >>> shares_around(100, 1000)
    (0.0, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
    """
    share = min(1.0, k / candidates)
    doubled = [share * 2.0**power for power in range(-30, 31)]
    return (0.0, *(edge for edge in doubled if LEAST_SHARE <= edge < 1))


def reads_places(arm: Arm) -> bool:
    """Whether the arm learns from places in the fine lists."""
    of_pairs = arm.by_strategy and any(name in NEED_POSITIONS for name in arm.strategies)
    return of_pairs or bool(arm.distill.contrast)


def positions_of(table: pa.Table, teacher_score: str | None) -> np.ndarray:
    """int64 [N]: the place of each item in its fine list, by the order of the column `teacher_score`, or as logged.

    A pool is some of a list, so the teacher's order of the pool is laid over the places that it has: the item with the
    pool's highest score has the best of them. Of a whole list that is its rank. Ties stand in the order of the pool.
    """
    logged = flat_numpy(table["position"]).astype(np.int64)
    if teacher_score is None:
        return logged
    request = segment_of(offsets_of(table["position"]))
    score = flat_numpy(table[teacher_score])
    score = score if score.dtype == np.float32 else score.astype(np.float64)
    out = np.empty_like(logged)
    out[_ordered(request, -score)] = logged[_ordered(request, logged)]
    return out


def _ordered(request: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Indices of the items by request, and within it by value; ties as they stand.

    By one number of 64 bits where the value has 32, as scores and places have: a quarter of the time of `lexsort`.
    """
    if value.dtype == np.float32:
        bits = (value + np.float32(0)).view(np.int32)  # of floats below 0 the other bits fall as the number rises
        value = np.where(bits < 0, bits ^ np.int32(2**31 - 1), bits)
    if value.dtype.kind not in "iu" or value.min(initial=0) < -(2**31) or value.max(initial=0) >= 2**31:
        return np.lexsort((value, request))
    key = request << 32 | (value.astype(np.int64) + 2**31)
    order = np.argsort(key)
    in_order = key[order]
    return np.argsort(key, kind="stable") if (in_order[1:] == in_order[:-1]).any() else order


def pool_of(table: pa.Table, position: np.ndarray, seed: int, number: int) -> Lists:
    """The pools as lists to draw from in the pass of that number; an item's place stands for its id.

    A list is as long as the last place in its pool says.
    """
    offsets = offsets_of(table["clicked"])
    request = segment_of(offsets)
    exposed, clicked = (flat_numpy(table[name]).astype(bool) for name in ("exposed", "clicked"))
    keys = hash_ids(table["request_id"])[request], (np.arange(len(request)) - offsets[request]).astype(np.uint64)
    length = np.zeros(len(offsets) - 1, np.int64)
    np.maximum.at(length, request, position + 1)
    salt = f" of pass {number}"
    return Lists(offsets, request, position, exposed, clicked, *keys, seed, salt, length[request])


Grouped = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Indices of the better and the worse item of each pair, and the (request, strategy) that it is of."""


def pairs_anew(lists: Lists, strategies: tuple[str, ...], redraw: Redraw) -> Grouped:
    """Indices of the better and the worse item of each pair, and the (request, strategy) that it is of."""
    bins = np.zeros(len(lists.request), np.int16)
    if any(name in NEED_POSITIONS for name in strategies):
        bins = rank_bins(lists.position, lists.length, redraw.draw)
    better, worse, group = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for slot, name in enumerate(strategies):
        _, hi, lo = STRATEGIES[name](lists, redraw.draw, bins)
        hi, lo = capped(lists, hi, lo, redraw.draw.max_pairs, name)
        better.append(hi)
        worse.append(lo)
        group.append(lists.request[hi] * len(strategies) + slot)
    return np.concatenate(better), np.concatenate(worse), np.concatenate(group)
