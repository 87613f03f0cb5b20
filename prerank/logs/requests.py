"""From rows of the logs to one row a request: lists checked, labels joined, everything that is dropped counted.

Ids are compared by their 64-bit hashes (`hash_ids`). N rows of R requests, M impressions.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prerank.core.counts import Checked, Read, count
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.core.nested import find_within, nest, offsets_from, rank_within

CANDIDATE, FINE_LIST, EXPOSED, CLICKED, CONVERTED = range(5)

LONGEST = np.timedelta64(6, "h")
"""Rows of one request lie closer together than that: ids that start again each day are told from a request by it."""


def to_requests(
    rows: pa.Table, impressions: pa.Table, *, sampled: bool = False, labels: Sequence[str] = ()
) -> tuple[pa.Table, Checked]:
    """Checks lists of items, joins what was shown: one row a request, items by ascending hash, `row` [N] their origin.

    Faults are dropped and counted in rows and requests. An item is kept once: the row of the best position, then of the
    highest fine_score, then the earliest; rows that repeat request, item and position (logged at least once) do not
    count where positions are checked. A request whose rows lie `LONGEST` or more apart is several under one id. An
    impression whose click is null says neither that it was clicked nor that it was not.

    Positions are an order: distinct ones from 0 upwards that are not 0..n-1 (they begin at 1, or some were filtered
    out) are closed up, and noted. A fine_score that is null, NaN or infinite is noted and becomes the lowest finite one
    of its request, 0 where there is none; a request in which the score rises with the position is noted, as is one
    whose items all have one score, and a conversion of what was not clicked.

    `sampled` lists (candidates) have no positions, start at stage 0, and impressions of other requests are no fault;
    clicks on items that are not among them are noted as `clicks_outside_candidates` (rows: clicks). `labels` are
    further flags of the impressions, which become columns; one that is null is noted, and counts as false. Raises
    InputError for a click or a label that is neither 0 nor 1.
    """
    with_positions = "fine_position" in rows.column_names and not sampled

    request, item = hash_ids(rows["request_id"]), hash_ids(rows["item_id"])
    null = _null(rows["request_id"])
    broken = _null(rows["item_id"]) | _null(rows["ts"])
    position = rows["fine_position"].fill_null(-1).to_numpy() if with_positions else np.full(len(request), -1)
    ts = rows["ts"].to_numpy().astype("datetime64[us]")
    score = _finite(rows["fine_score"]) if "fine_score" in rows.column_names else np.zeros(len(request))
    keys = position, item, request
    order = np.lexsort(keys)
    if _repeated(*(key[order] for key in keys)).any():
        order = np.lexsort((ts, -score, broken, *keys))  # of copies, the one to keep comes first
    order = order[~null[order]]
    ids, code = _runs(request[order])
    item, position, broken = item[order], position[order], broken[order]
    repeated = _repeated(position, item, code)
    read: Read = {"rows": rows.num_rows, "requests": len(ids), "impressions": impressions.num_rows}
    counts: Checked = {"dropped": {}, "noted": {}, "read": read}

    once = ~repeated
    several = _span(ts[order], code, len(ids))[code] >= LONGEST
    faulty, gaps = _order(position[once], code[once], len(ids)) if with_positions else (np.zeros(len(ids), bool),) * 2
    unusable = faulty[code] & once & ~several
    broken &= ~unusable & ~several
    twice = repeated & ~broken & ~several
    left = np.flatnonzero(~unusable & ~broken & ~twice & ~several)
    twice[left[1:]] = (np.diff(code[left]) == 0) & (item[left[1:]] == item[left[:-1]])
    left = left[~twice[left]]
    single = np.zeros(len(code), bool)
    single[left] = (np.bincount(code[left], minlength=len(ids)) == 1)[code[left]]
    dropped = {
        "request_spans_hours": several,
        "positions_not_a_permutation": unusable,
        "null_key": broken,
        "duplicate_item": twice,
        "single_item": single,
    }
    for reason, rows_N in dropped.items():
        count(counts["dropped"], reason, int(rows_N.sum()), len(np.unique(code[rows_N])))
    count(counts["dropped"], "null_key", int(null.sum()), 0)

    left = left[~single[left]]
    with_gaps = gaps[code[left]]
    count(counts["noted"], "positions_with_gaps", int(with_gaps.sum()), len(np.unique(code[left[with_gaps]])))
    order, item, position, known = order[left], item[left], position[left], ids
    ids, code = _runs(request[order])
    if with_positions and (twice.any() or broken.any() or with_gaps.any()):
        position = rank_within(code, position)
    offsets = offsets_from(code, len(ids))

    found, shown = _labels(impressions, ids, offsets, item, known, counts, sampled=sampled, more=labels)
    first = order[offsets[:-1]]
    ts = np.minimum.reduceat(ts[order], offsets[:-1]) if len(ids) else ts[order]
    columns = {
        "request_id": rows["request_id"].combine_chunks().take(pa.array(first)),
        "ts": pa.array(ts, pa.timestamp("us")),
        "item_id": nest(rows["item_id"].combine_chunks().take(pa.array(order)), offsets),
        "position": nest(position.astype(np.int32), offsets),
        **{name: nest(values, offsets) for name, values in found.items()},
        "shown_position": nest(shown, offsets),
    }
    stage = np.full(len(item), CANDIDATE if sampled else FINE_LIST, np.int8)
    for code_, name in ((EXPOSED, "exposed"), (CLICKED, "clicked"), (CONVERTED, "converted")):
        stage[found[name]] = code_
    columns["stage"] = nest(stage, offsets)
    if "fine_score" in rows.column_names:
        if with_positions:
            against = _against(score[order], position, offsets, code)
            count(counts["noted"], "fine_score_against_position", int(against[code].sum()), int(against.sum()))
        scores = _imputed(score[order].astype(np.float32), code, offsets, counts)
        columns["fine_score"] = nest(scores, offsets)
        if len(ids):
            alike = np.minimum.reduceat(scores, offsets[:-1]) == np.maximum.reduceat(scores, offsets[:-1])
            count(counts["noted"], "fine_score_one_value", int(alike[code].sum()), int(alike.sum()))
    columns["row"] = nest(order, offsets)

    for label, reason in (("clicked", "without_click"), *(() if sampled else [("exposed", "without_impression")])):
        none = np.add.reduceat(found[label], offsets[:-1], dtype=np.int64) == 0 if len(ids) else np.empty(0, bool)
        count(counts["noted"], reason, int(np.diff(offsets)[none].sum()), int(none.sum()))
    alone = found["converted"] & ~found["clicked"]
    count(counts["noted"], "converted_without_click", int(alone.sum()), len(np.unique(code[alone])))
    return pa.table(columns), counts


def _repeated(*keys: np.ndarray) -> np.ndarray:
    """bool [N]: whether an element equals the one before it in all keys."""
    repeated = np.zeros(len(keys[0]), bool)
    repeated[1:] = np.logical_and.reduce([key[1:] == key[:-1] for key in keys])
    return repeated


def _finite(scores: pa.ChunkedArray) -> np.ndarray:
    """float64 [N], NaN for what is null or not finite as float32."""
    values = pc.cast(scores, pa.float64(), safe=False).fill_null(np.nan).to_numpy()
    return np.where(np.abs(values) <= np.finfo(np.float32).max, values, np.nan)


def _imputed(score: np.ndarray, code: np.ndarray, offsets: np.ndarray, counts: Checked) -> np.ndarray:
    bad = np.isnan(score)
    count(counts["noted"], "fine_score_not_finite", int(bad.sum()), len(np.unique(code[bad])))
    if not bad.any():
        return score
    lowest = np.fmin.reduceat(score, offsets[:-1])
    return np.where(bad, np.nan_to_num(lowest)[code], score)


def _runs(ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, and for each element which of them it is."""
    starts = np.ones(len(ascending), bool)
    starts[1:] = ascending[1:] != ascending[:-1]
    return ascending[starts], np.cumsum(starts) - 1


def _span(ts: np.ndarray, code: np.ndarray, n: int) -> np.ndarray:
    """timedelta [R] between the first and the last row of each request that has a time; `code` ascends."""
    starts = offsets_from(code, n)[:-1]
    if not n:
        return np.empty(0, "timedelta64[us]")
    return np.fmax.reduceat(ts, starts) - np.fmin.reduceat(ts, starts)


def _order(position: np.ndarray, code: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two bool [R]: positions of a request that are no order, below 0 or twice there; and orders that have gaps."""
    offsets = offsets_from(code, n)
    sizes = np.diff(offsets)
    inside = (position >= 0) & (position < sizes[code])
    slots = np.bincount((offsets[code] + position)[inside], minlength=len(position))
    gaps = np.bincount(code, weights=slots == 1, minlength=n) != sizes
    faulty = np.bincount(code[position < 0], minlength=n) > 0
    odd = np.flatnonzero(gaps[code])  # few, as a rule: only these are sorted
    here, place = code[odd], position[odd]
    by_place = np.lexsort((place, here))
    twice = _repeated(place[by_place], here[by_place]) if len(odd) else np.empty(0, bool)
    faulty[here[by_place][twice]] = True
    return faulty, gaps & ~faulty


def _against(score: np.ndarray, position: np.ndarray, offsets: np.ndarray, code: np.ndarray) -> np.ndarray:
    """bool [R]: whether of a request's items half a list apart more have the higher score below than above.

    Signs, so that no outlier decides; half a list, so that a ranker's small disagreements do not. Positions are 0..n-1,
    so each item's partner is found without sorting.
    """
    ordered = np.empty(len(score))
    ordered[offsets[code] + position] = score
    half = np.diff(offsets) // 2
    upper = np.flatnonzero(np.arange(len(score)) - offsets[code] + half[code] < np.diff(offsets)[code])
    signs = np.sign(ordered[upper] - ordered[upper + half[code[upper]]])
    return np.bincount(code[upper], weights=np.nan_to_num(signs), minlength=len(half)) < 0


def _labels(
    impressions: pa.Table,
    ids: np.ndarray,
    offsets: np.ndarray,
    item: np.ndarray,
    known: np.ndarray,
    counts: Checked,
    *,
    sampled: bool,
    more: Sequence[str],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """exposed, clicked, converted, and `more` labels: bool [N]; and the place at which an item was shown (the first, of
    several), int32 [N], -1 where it was not or nobody knows; `ids` are the requests kept, `known` all that had a list.
    """
    request_M, item_M = hash_ids(impressions["request_id"]), hash_ids(impressions["item_id"])
    null = _null(impressions["request_id"]) | _null(impressions["item_id"])
    count(counts["dropped"], "impression_null_key", int(null.sum()), 0)
    unknown = _null(impressions["clicked"]) & ~null
    count(counts["dropped"], "impression_null_click", int(unknown.sum()), len(np.unique(request_M[unknown])))
    null |= unknown
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

    names = tuple(dict.fromkeys(("clicked", "converted", *more)))
    flags = {name: _flags(impressions, name) for name in names if name in impressions.column_names}
    for name in [name for name in flags if name != "clicked"]:
        unsaid = _null(impressions[name])[used]
        count(counts["noted"], f"{name}_null", int(unsaid.sum()), len(np.unique(request_M[used[unsaid]])))
    if sampled:
        outside = np.unique(np.stack([request_M, item_M])[:, missing[flags["clicked"][missing]]], axis=1)
        count(counts["noted"], "clicks_outside_candidates", outside.shape[1], len(np.unique(outside[0])))
    labels = {name: np.zeros(len(item), bool) for name in ("exposed", *names)}
    labels["exposed"][place] = True
    for name, flags_M in flags.items():
        labels[name][place[flags_M[used]]] = True
    shown = np.full(len(item), -1, np.int32)
    if "shown_position" in impressions.column_names:
        at = impressions["shown_position"].fill_null(-1).to_numpy()[used]
        count(counts["noted"], "shown_position_unknown", int((at < 0).sum()), len(np.unique(request_M[used[at < 0]])))
        known = np.flatnonzero(at >= 0)
        known = known[np.argsort(-at[known], kind="stable")]  # the lowest is written last
        shown[place[known]] = at[known].clip(max=np.iinfo(np.int32).max)
    return labels, shown


def _flags(impressions: pa.Table, name: str) -> np.ndarray:
    """bool [M], false for null."""
    flags = impressions[name].fill_null(0).to_numpy()
    wrong = flags[(flags != 0) & (flags != 1)]
    if len(wrong):
        raise InputError(f"impressions: column {name!r} holds {wrong[0]}; expected true and false, or 0 and 1")
    return flags == 1


def _null(column: pa.ChunkedArray) -> np.ndarray:
    return column.is_null().to_numpy()


def is_in(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """bool [N]: whether a value is among the ascending ones."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    return ascending[np.searchsorted(ascending, values).clip(max=len(ascending) - 1)] == values
