"""Features of the request (user, query, context) that differ from item to item, where one value of each can be kept.

N rows of R requests.
"""

import numpy as np
import pyarrow as pa

from prerank.core.arrow import lengths
from prerank.core.nested import flat_numpy, offsets_of, segment_of
from prerank.logs.encoding import encode
from prerank.logs.schema import Schema
from prerank.logs.types import is_list

BLOCK = 8192
"""Rows whose lists are compared at a time, so that they stay in the cache."""


def varying(requests: pa.Table, rows: pa.Table, schema: Schema) -> dict[str, int]:
    """In how many requests the items have different values, by feature of the request; none where they never have.

    `row` of the requests holds the rows of their items. What counts is what the network would read (`encode`), but only
    rows whose own values differ are encoded, of clean logs none.
    """
    row_N, request_N = flat_numpy(requests["row"]), segment_of(offsets_of(requests["row"]))
    # In the order of the logs rows of a request mostly lie together, and need not be gathered.
    place = np.full(rows.num_rows, -1, np.int32)
    place[row_N] = request_N
    in_logs = place if len(row_N) == len(place) else place[place >= 0]
    together = np.count_nonzero(np.diff(in_logs)) < requests.num_rows
    if together:
        row_N, request_N = np.flatnonzero(place >= 0), in_logs
    same_N = np.append(False, request_N[1:] == request_N[:-1])[: len(row_N)]
    found = {}
    for feature in (feature for feature in schema.features if feature.of_request):
        column = rows[feature.name].combine_chunks()
        in_order = column if together and len(row_N) == len(column) else column.take(pa.array(row_N))
        suspects = np.unique(request_N[unlike_the_last(in_order) & same_N])
        if len(suspects):
            at = np.flatnonzero(np.isin(request_N, suspects))
            differing = pa.table({feature.name: column.take(pa.array(row_N[at]))})
            read, _ = encode(differing, Schema((feature,), {}))
            differs = unlike_the_last(read[feature.name].combine_chunks())
            suspects = np.unique(request_N[at][differs & same_N[at]])
        if len(suspects):
            found[feature.name] = len(suspects)
    return found


def unlike_the_last(values: pa.Array) -> np.ndarray:
    """bool [N]: whether a value, a number, a text or a list of these, differs from the one before it.

    Null and NaN are like each other, and a null list is like an empty one.
    """
    out = np.zeros(len(values), bool)
    if not is_list(values.type):
        x = _comparable(values)
        out[1:] = _unlike(x[1:], x[:-1])
        return out
    for start in range(1, len(values), BLOCK):
        block = values.slice(start - 1, BLOCK + 1)
        out[start : start + BLOCK] = _lists_unlike_the_last(block)[1:]
    return out


def _lists_unlike_the_last(values: pa.Array) -> np.ndarray:
    length_N = lengths(values).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int32)
    out = np.diff(length_N, prepend=length_N[0]) != 0
    x = _comparable(values.flatten())
    before = np.arange(len(x), dtype=np.int32) - np.repeat(length_N, length_N)  # its place in a list as long as its own
    apart = np.flatnonzero(_unlike(x, x.take(before, mode="clip")))
    out[np.searchsorted(np.cumsum(length_N), apart, side="right")] = True
    return out


def _comparable(values: pa.Array) -> np.ndarray:
    if pa.types.is_floating(values.type):
        return values.fill_null(np.nan).to_numpy(zero_copy_only=False)
    if values.null_count or not pa.types.is_primitive(values.type):
        return values.dictionary_encode().indices.fill_null(-1).to_numpy()
    return values.to_numpy(zero_copy_only=False)


def _unlike(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    apart = x != y
    return apart & ~(np.isnan(x) & np.isnan(y)) if x.dtype.kind == "f" and apart.any() else apart
