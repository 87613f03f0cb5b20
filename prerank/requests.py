"""From rows of the logs to one row a request: lists checked, labels joined, everything that is dropped counted.

Ids are compared by their 64-bit hashes (`hash_ids`). N rows of R requests, M impressions.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prerank.counts import count
from prerank.errors import InputError
from prerank.hashing import hash_ids
from prerank.nested import find_within, nest, offsets_from, rank_within

CANDIDATE, FINE_LIST, EXPOSED, CLICKED, CONVERTED = range(5)


def to_requests(rows: pa.Table, impressions: pa.Table, *, sampled: bool = False) -> tuple[pa.Table, dict]:
    """Checks lists of items, joins what was shown: one row a request, items by ascending hash, `row` [N] their origin.

    Faults are dropped and counted in rows and requests. `sampled` lists (candidates) have no positions, start at stage
    0, and impressions of other requests are no fault. Raises InputError for a click that is neither 0 nor 1.
    """
    counts: dict[str, Any] = {"dropped": {}, "noted": {}}
    with_positions = "fine_position" in rows.column_names and not sampled

    request, item = hash_ids(rows["request_id"]), hash_ids(rows["item_id"])
    null = _null(rows["request_id"])
    broken = _null(rows["item_id"]) | _null(rows["ts"])
    position = rows["fine_position"].fill_null(-1).to_numpy() if with_positions else np.full(len(request), -1)
    order = np.lexsort((position, item, request))
    order = order[~null[order]]
    ids, code = _runs(request[order])
    item, position, broken = item[order], position[order], broken[order]
    counts["read"] = {"rows": rows.num_rows, "requests": len(ids), "impressions": impressions.num_rows}

    faulty = ~_permutations(position, code, len(ids)) if with_positions else np.zeros(len(ids), bool)
    unusable = faulty[code]
    broken &= ~unusable
    left = np.flatnonzero(~unusable & ~broken)
    twice = np.zeros(len(code), bool)
    twice[left[1:]] = (np.diff(code[left]) == 0) & (item[left[1:]] == item[left[:-1]])  # the best position comes first
    left = left[~twice[left]]
    single = np.zeros(len(code), bool)
    single[left] = (np.bincount(code[left], minlength=len(ids)) == 1)[code[left]]
    dropped = {
        "positions_not_a_permutation": unusable,
        "null_key": broken,
        "duplicate_item": twice,
        "single_item": single,
    }
    for reason, rows_N in dropped.items():
        count(counts["dropped"], reason, int(rows_N.sum()), len(np.unique(code[rows_N])))
    count(counts["dropped"], "null_key", int(null.sum()), 0)

    left = left[~single[left]]
    order, item, position, known = order[left], item[left], position[left], ids
    ids, code = _runs(request[order])
    if with_positions and (twice.any() or broken.any()):
        position = rank_within(code, position)  # closes the gaps that they left
    offsets = offsets_from(code, len(ids))

    labels = _labels(impressions, ids, offsets, item, known, counts, sampled=sampled)
    first = order[offsets[:-1]]
    ts = rows["ts"].to_numpy().astype("datetime64[us]")[order]
    ts = np.minimum.reduceat(ts, offsets[:-1]) if len(ids) else ts
    columns = {
        "request_id": rows["request_id"].combine_chunks().take(pa.array(first)),
        "ts": pa.array(ts, pa.timestamp("us")),
        "item_id": nest(rows["item_id"].combine_chunks().take(pa.array(order)), offsets),
        "position": nest(position.astype(np.int32), offsets),
        **{name: nest(values, offsets) for name, values in labels.items()},
    }
    stage = np.full(len(item), CANDIDATE if sampled else FINE_LIST, np.int8)
    for code_, name in ((EXPOSED, "exposed"), (CLICKED, "clicked"), (CONVERTED, "converted")):
        stage[labels[name]] = code_
    columns["stage"] = nest(stage, offsets)
    if "fine_score" in rows.column_names:
        score = pc.cast(rows["fine_score"], pa.float32(), safe=False).fill_null(np.nan).to_numpy()
        columns["fine_score"] = nest(score[order], offsets)
    columns["row"] = nest(order, offsets)

    clicks = np.add.reduceat(labels["clicked"], offsets[:-1], dtype=np.int64) if len(ids) else np.empty(0)
    count(counts["noted"], "without_click", int(np.diff(offsets)[clicks == 0].sum()), int((clicks == 0).sum()))
    return pa.table(columns), counts


def _runs(ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, and for each element which of them it is."""
    starts = np.ones(len(ascending), bool)
    starts[1:] = ascending[1:] != ascending[:-1]
    return ascending[starts], np.cumsum(starts) - 1


def _permutations(position: np.ndarray, code: np.ndarray, n: int) -> np.ndarray:
    """bool [R]: whether the positions of a request are 0..n-1, each once."""
    offsets = offsets_from(code, n)
    inside = (position >= 0) & (position < np.diff(offsets)[code])
    slots = np.bincount((offsets[code] + position)[inside], minlength=len(position))
    return np.bincount(code, weights=slots == 1, minlength=n) == np.diff(offsets)


def _labels(
    impressions: pa.Table,
    ids: np.ndarray,
    offsets: np.ndarray,
    item: np.ndarray,
    known: np.ndarray,
    counts: dict,
    *,
    sampled: bool,
) -> dict[str, np.ndarray]:
    """exposed, clicked, converted: bool [N]; `ids` are the requests kept, `known` all that had a list."""
    request_M, item_M = hash_ids(impressions["request_id"]), hash_ids(impressions["item_id"])
    null = _null(impressions["request_id"]) | _null(impressions["item_id"])
    count(counts["dropped"], "impression_null_key", int(null.sum()), 0)
    if not sampled:
        orphan = ~null & ~is_in(request_M, known)
        count(counts["dropped"], "impression_without_list", int(orphan.sum()), len(np.unique(request_M[orphan])))
    used = np.flatnonzero(~null & is_in(request_M, ids))
    place = find_within(item, offsets, np.searchsorted(ids, request_M[used]), item_M[used])
    missing = used[place < 0]
    count(counts["dropped"], "impression_not_in_list", len(missing), len(np.unique(request_M[missing])))
    used, place = used[place >= 0], place[place >= 0]
    again = len(place) - len(np.unique(place))
    count(counts["noted"], "duplicate_impression", again, 0)

    labels = {name: np.zeros(len(item), bool) for name in ("exposed", "clicked", "converted")}
    labels["exposed"][place] = True
    for name in ("clicked", "converted"):
        if name in impressions.column_names:
            flags = impressions[name].fill_null(0).to_numpy()
            if ((flags != 0) & (flags != 1)).any():
                wrong = int(flags[(flags != 0) & (flags != 1)][0])
                raise InputError(f"impressions: column {name!r} holds {wrong}; expected true and false, or 0 and 1")
            labels[name][place[flags[used] == 1]] = True
    return labels


def _null(column: pa.ChunkedArray) -> np.ndarray:
    return column.is_null().to_numpy()


def is_in(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """bool [N]: whether a value is among the ascending ones."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    return ascending[np.searchsorted(ascending, values).clip(max=len(ascending) - 1)] == values
