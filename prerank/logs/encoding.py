"""Features: from what the logs hold to what a network reads.

N rows in, N values out: dense and embedding float32, ids int32 where `size` is the row of the unknown.
"""

from collections import Counter

import numpy as np
import pyarrow as pa

from prerank.core.arrow import is_in, lengths
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids, mix
from prerank.logs.schema import Feature, Schema
from prerank.logs.types import is_list, is_number

PADDING, UNKNOWN = -(2**63), -(2**63) + 1
"""Integers that are no ids where ids are hashed: what a served network takes for no id, and for an unknown one."""


def fits(feature: Feature, type_: pa.DataType) -> bool:
    """Whether a column of the logs of this type, without its encoding (`plain`), can hold the feature."""
    if pa.types.is_null(type_):
        return True
    if feature.kind == "id":
        return is_id(type_) and _as_declared(feature, type_)
    if feature.kind == "ids":
        return is_list(type_) and is_id(type_.value_type) and _as_declared(feature, type_.value_type)
    if feature.kind == "dense" and feature.size == 1:
        return is_number(type_)
    if pa.types.is_fixed_size_list(type_) and type_.list_size != feature.size:
        return False
    return is_list(type_) and is_number(type_.value_type)


def expected(feature: Feature) -> str:
    """The types that `fits` takes, in words."""
    if feature.kind in ("id", "ids"):
        ids = "integers or strings"
        if feature.hash:
            ids = 'integers (by "hash": true; strings are hashed without it)'
        elif feature.missing:
            ids = f'{"strings" if isinstance(feature.missing[0], str) else "integers"} (as those of its "missing")'
        return ids if feature.kind == "id" else f"a list of {ids}"
    return "numbers" if feature.kind == "dense" and feature.size == 1 else f"a list of {feature.size} numbers"


def _as_declared(feature: Feature, type_: pa.DataType) -> bool:
    """Whether ids of this type are what `hash` and `missing` are for."""
    text = pa.types.is_string(type_)
    return pa.types.is_null(type_) or (
        not (feature.hash and text) and all(isinstance(value, str) == text for value in feature.missing)
    )


def is_id(type_: pa.DataType) -> bool:
    """Of a plain type."""
    return pa.types.is_integer(type_) or pa.types.is_string(type_) or pa.types.is_null(type_)


def encoded_type(feature: Feature) -> pa.DataType:
    if feature.kind == "id":
        return pa.int32()
    if feature.kind == "ids":
        return pa.list_(pa.int32())
    vector = feature.kind == "embedding" or feature.size > 1
    return pa.list_(pa.float32(), feature.size) if vector else pa.float32()


def encode(table: pa.Table, schema: Schema) -> tuple[pa.Table, dict[str, Counter[str]]]:
    """The feature columns of `table` [N], each of its `encoded_type`, and what was found by feature.

    Counts are of elements: `declared_missing` (one of the feature's `missing` values), `not_finite` (else null, NaN or
    infinite) and `unknown_id` (else null, or an integer outside 0..size-1 that is not hashed). Numbers of the first two
    are NaN, imputed in the network. Raises InputError naming the feature where a vector's length is wrong or ids are
    not of the type that its `hash` or `missing` is for.
    """
    counts: dict[str, Counter[str]] = {"not_finite": Counter(), "unknown_id": Counter(), "declared_missing": Counter()}
    columns = {}
    for feature in schema.features:
        column = _plain(table[feature.name])
        if feature.kind in ("id", "ids"):
            column, ids, declared = (_id_column if feature.kind == "id" else _id_lists)(column, feature)
            columns[feature.name] = column
            _note(counts["unknown_id"], feature, int((ids == feature.size).sum()) - declared)
        else:
            values = _encode_numbers(column, feature)
            bad = ~np.isfinite(values)
            _note(counts["not_finite"], feature, int(bad.sum()))
            values[bad] = np.nan
            declared = sum(_forget(values, value) for value in feature.missing)
            flat = pa.array(values.reshape(-1))
            vector = pa.types.is_fixed_size_list(encoded_type(feature))
            columns[feature.name] = pa.FixedSizeListArray.from_arrays(flat, feature.size) if vector else flat
        _note(counts["declared_missing"], feature, declared)
    return pa.table(columns), counts


def _note(counter: Counter[str], feature: Feature, n: int) -> None:
    if n:
        counter[feature.name] += n


def _forget(values: np.ndarray, missing: float | int | str) -> int:
    """Makes NaN of a value wherever it stands, and says how often it did."""
    here = values == np.float32(missing)
    values[here] = np.nan
    return int(here.sum())


def _plain(column: pa.ChunkedArray) -> pa.Array:
    column = column.combine_chunks()
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _encode_ids(ids: pa.Array, feature: Feature) -> tuple[np.ndarray, int]:
    """int32 [N], and how many are declared missing: strings, and integers where `hash` says so, by hash, other integers
    inside the vocabulary as they are, everything else `size`."""
    size = feature.size
    unknown = ids.is_null().to_numpy(zero_copy_only=False)
    if unknown.all():  # a column without a value may be of any type
        return np.full(len(ids), size, np.int32), 0
    _check_ids(feature, ids.type)
    declared = _declared(ids, feature) if feature.missing else np.False_
    if pa.types.is_integer(ids.type):
        values = ids.fill_null(0).cast(pa.int64(), safe=False).to_numpy()
        if feature.hash:
            unknown = unknown | (values <= UNKNOWN)
            values = mix(values.view(np.uint64)) % np.uint64(size)
        else:
            unknown = unknown | (values < 0) | (values >= size)
    else:
        values = hash_ids(ids) % np.uint64(size)
    return np.where(unknown | declared, size, values).astype(np.int32), int(declared.sum())


def _declared(ids: pa.Array, feature: Feature) -> np.ndarray:
    """bool [N]: whether an id is one of `missing`, integers by their 64 bits."""
    if pa.types.is_integer(ids.type):
        bits = np.array([int(value) % 2**64 for value in feature.missing], np.uint64)
        ids, missing = ids.cast(pa.int64(), safe=False), pa.array(bits.view(np.int64))
    else:
        missing = pa.array(feature.missing, ids.type)
    return is_in(ids, missing).fill_null(False).to_numpy(zero_copy_only=False)


def _check_ids(feature: Feature, type_: pa.DataType) -> None:
    text = not pa.types.is_integer(type_)
    where, found = f"feature {feature.name!r}", "text" if text else "integers"
    if feature.hash and text:
        raise InputError(
            f'{where}: "hash" is for integers; the logs hold text, which is hashed without it: take it out'
        )
    for value in feature.missing:
        if isinstance(value, str) != text:
            right = f'"{value}"' if text else "an integer"
            raise InputError(f"{where}: missing has {value!r}, and the logs hold {found}; write {right} in schema.json")


def _id_column(ids: pa.Array, feature: Feature) -> tuple[pa.Array, np.ndarray, int]:
    encoded, declared = _encode_ids(ids, feature)
    return pa.array(encoded), encoded, declared


def _id_lists(lists: pa.Array, feature: Feature) -> tuple[pa.Array, np.ndarray, int]:
    """list<int32> [N], a null list as an empty one, its values, and how many of these are declared missing."""
    lengths_N = lengths(lists).fill_null(0).to_numpy()
    values, declared = _encode_ids(_plain(pa.chunked_array([lists.flatten()])), feature)
    offsets = np.concatenate([[0], np.cumsum(lengths_N)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)), values, declared


def _encode_numbers(column: pa.Array, feature: Feature) -> np.ndarray:
    """float32 [N, size], NaN for null."""
    if not is_list(column.type):
        return _float32(column).reshape(-1, 1)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    found_N = lengths(column.drop_null()).to_numpy()
    if (found_N != feature.size).any():
        found = int(found_N[found_N != feature.size][0])
        raise InputError(
            f"feature {feature.name!r}: expected lists of {feature.size} numbers (its 'size' in schema.json), "
            f"found one of {found}; correct the size, or the logs"
        )
    out = np.full((len(column), feature.size), np.nan, np.float32)
    out[valid] = _float32(column.flatten()).reshape(-1, feature.size)
    return out


def _float32(values: pa.Array) -> np.ndarray:
    """A writable copy; numbers beyond float32 become infinite, which counts as not finite."""
    with np.errstate(over="ignore"):
        return values.cast(pa.float32(), safe=False).fill_null(np.nan).to_numpy().copy()
