"""Tables with one row a request and lists over its items, seen as flat arrays.

R requests, N items in all, the items of a request contiguous; `offsets` int64 [R+1], `request` int64 [N].
"""

import numpy as np
import pyarrow as pa


def offsets_of(lists: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """int64 [R+1], from 0, whatever slice the column is of."""
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0]


def flat(lists: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The values [N] of a list column."""
    return (lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists).flatten()


def flat_numpy(lists: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return flat(lists).to_numpy(zero_copy_only=False)


def nest(values: pa.Array | np.ndarray, offsets: np.ndarray) -> pa.ListArray:
    """A list column of R rows from values [N]."""
    values = pa.array(values) if isinstance(values, np.ndarray) else values
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)


def segment_of(offsets: np.ndarray) -> np.ndarray:
    """int64 [N]: which request an item is of."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def offsets_from(segment: np.ndarray, n_segments: int) -> np.ndarray:
    """int64 [n_segments + 1] of an ascending `segment_of`; segments may be empty."""
    return np.concatenate([[0], np.cumsum(np.bincount(segment, minlength=n_segments))]).astype(np.int64)


def rank_within(segment: np.ndarray, value: np.ndarray) -> np.ndarray:
    """int64 [N]: 0 for the lowest value of its segment; ties in the order given. Segments need not be contiguous."""
    return _places(segment, np.lexsort((value, segment)))


def lowest_within(segment: np.ndarray, uniform: np.ndarray, k: int | np.ndarray) -> np.ndarray:
    """bool [N]: the k lowest of each segment (< 2^24) by numbers in [0, 1) that are compared to 40 bits.

    k [N] has a segment's own number at each of its elements. Of equal numbers the first are lower. Values are sorted
    and not their places, and the k-th of each segment is where it ends: a tenth of the time of `rank_within`.
    """
    if not len(segment):
        return np.zeros(0, bool)
    key = segment.astype(np.uint64) << np.uint64(40) | (uniform * 2**40).astype(np.uint64)
    size = np.bincount(segment)
    most = np.broadcast_to(np.int64(0), len(size)).copy()
    most[segment] = k
    most = np.clip(most, 0, size)
    ordered, after = np.sort(key), np.cumsum(size) - size + most
    last = ordered[np.maximum(after - 1, 0)]
    split = (most > 0) & (most < size) & (ordered[np.minimum(after, len(key) - 1)] == last)
    if split.any():  # equal numbers, some of which are in
        return _places(segment, np.argsort(key, kind="stable")) < k
    return (key <= last[segment]) & (most > 0)[segment]


def _places(segment: np.ndarray, order: np.ndarray) -> np.ndarray:
    place = np.arange(len(order))
    starts = np.ones(len(order), bool)
    starts[1:] = np.diff(segment[order]) != 0
    rank = np.empty(len(order), np.int64)
    rank[order] = place - np.maximum.accumulate(np.where(starts, place, 0))
    return rank


def find_within(values: np.ndarray, offsets: np.ndarray, segment: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """int64 [M]: flat index of `wanted` in its segment, whose values ascend; -1 where it is not there.

    A binary search of all M at once.
    """
    low, end = offsets[segment], offsets[segment + 1]
    high = end.copy()
    while (low < high).any():
        middle = (low + high) // 2
        below = np.zeros(len(low), bool)
        open_ = low < high
        below[open_] = values[middle[open_]] < wanted[open_]
        low, high = np.where(below, middle + 1, low), np.where(open_ & ~below, middle, high)
    found = low < end
    found[found] = values[low[found]] == wanted[found]
    return np.where(found, low, -1)
