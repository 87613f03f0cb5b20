"""Features: from what the logs hold to what a network reads, and their statistics over the training items.

N rows in, N values out: dense and embedding float32, ids int32 where `size` is the row of the unknown.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pyarrow as pa

from prerank.core.arrow import lengths
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.logs.schema import Feature, Schema
from prerank.logs.types import is_list, is_number


def fits(feature: Feature, type_: pa.DataType) -> bool:
    """Whether a column of the logs of this type, without its encoding (`plain`), can hold the feature."""
    if pa.types.is_null(type_):
        return True
    if feature.kind == "id":
        return is_id(type_)
    if feature.kind == "ids":
        return is_list(type_) and is_id(type_.value_type)
    if feature.kind == "dense" and feature.size == 1:
        return is_number(type_)
    if pa.types.is_fixed_size_list(type_) and type_.list_size != feature.size:
        return False
    return is_list(type_) and is_number(type_.value_type)


def expected(feature: Feature) -> str:
    """The types that `fits` takes, in words."""
    if feature.kind in ("id", "ids"):
        return "integers or strings" if feature.kind == "id" else "a list of integers or strings"
    return "numbers" if feature.kind == "dense" and feature.size == 1 else f"a list of {feature.size} numbers"


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

    Counts are of elements: `not_finite` (null, NaN or infinite: NaN now, imputed in the network) and `unknown_id`
    (null, negative or beyond the vocabulary). Raises InputError naming the feature where a vector's length is wrong.
    """
    counts: dict[str, Counter[str]] = {"not_finite": Counter(), "unknown_id": Counter()}
    columns = {}
    for feature in schema.features:
        column = _plain(table[feature.name])
        if feature.kind in ("id", "ids"):
            columns[feature.name], ids = (_id_column if feature.kind == "id" else _id_lists)(column, feature.size)
            _note(counts["unknown_id"], feature, int((ids == feature.size).sum()))
            continue
        values = _encode_numbers(column, feature)
        bad = ~np.isfinite(values)
        _note(counts["not_finite"], feature, int(bad.sum()))
        values[bad] = np.nan
        flat = pa.array(values.reshape(-1))
        vector = pa.types.is_fixed_size_list(encoded_type(feature))
        columns[feature.name] = pa.FixedSizeListArray.from_arrays(flat, feature.size) if vector else flat
    return pa.table(columns), counts


def _note(counter: Counter[str], feature: Feature, n: int) -> None:
    if n:
        counter[feature.name] += n


def _plain(column: pa.ChunkedArray) -> pa.Array:
    column = column.combine_chunks()
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _encode_ids(ids: pa.Array, size: int) -> np.ndarray:
    """int32 [N]: integers inside the vocabulary as they are, strings by hash, everything else `size`."""
    null = ids.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_integer(ids.type):
        values = ids.fill_null(0).cast(pa.int64(), safe=False).to_numpy()
        return np.where(null | (values < 0) | (values >= size), size, values).astype(np.int32)
    return np.where(null, size, hash_ids(ids) % np.uint64(size)).astype(np.int32)


def _id_column(ids: pa.Array, size: int) -> tuple[pa.Array, np.ndarray]:
    encoded = _encode_ids(ids, size)
    return pa.array(encoded), encoded


def _id_lists(lists: pa.Array, size: int) -> tuple[pa.Array, np.ndarray]:
    """list<int32> [N], a null list as an empty one, and its values."""
    lengths_N = lengths(lists).fill_null(0).to_numpy()
    values = _encode_ids(_plain(pa.chunked_array([lists.flatten()])), size)
    offsets = np.concatenate([[0], np.cumsum(lengths_N)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)), values


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


@dataclass
class Moments:
    """Sums over the finite values of one feature that merge in any order; per element of its vector.

    Means and squared deviations rather than raw sums: no digits are lost where the mean is large (Chan et al., 1983).
    """

    seen: int
    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Moments":
        """Of float32 [N, size]."""
        values = values.astype(np.float64)
        count = np.isfinite(values).sum(0)
        mean = np.nansum(values, 0) / np.maximum(count, 1)
        return cls(len(values), count, mean, np.nansum((values - mean) ** 2, 0))

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * share * self.count
        return Moments(self.seen + other.seen, count, self.mean + apart * share, squares)


def moments(samples: pa.Table, schema: Schema) -> dict[str, Moments]:
    """Of the dense features and embeddings of sample rows: one value a request, or one an item, as the side says."""
    out = {}
    for feature in schema.features:
        if feature.kind in ("dense", "embedding"):
            column = samples[feature.name].combine_chunks()
            while is_list(column.type):
                column = column.flatten()
            out[feature.name] = Moments.of(column.to_numpy().reshape(-1, feature.size))
    return out


class Stat(TypedDict):
    """Of one feature; a value for each element of its vector."""

    mean: list[float]
    std: list[float]
    missing: float
    """Share of the elements that were null or not finite."""


def statistics(sums: Mapping[str, Moments]) -> dict[str, Stat]:
    """By feature, to six digits, so that no order of summing shows.

    A feature that never varies has std 1, one without a finite value mean 0: standardising is then harmless.
    """
    out: dict[str, Stat] = {}
    for name, total in sums.items():
        std = np.sqrt(total.squares / np.maximum(total.count, 1))
        scale = np.maximum(np.abs(total.mean), std)
        std = np.where(std <= 1e-9 * scale, 0.0, std)
        mean = _round(total.mean, scale)
        elements = max(total.seen * len(total.count), 1)
        out[name] = {
            "mean": mean.tolist(),
            "std": np.where(std == 0, 1.0, _round(std, std)).tolist(),
            "missing": round(1 - float(total.count.sum()) / elements, 6) if total.seen else 0.0,
        }
    return out


def _round(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """To six significant digits of `scale`: the mean of a centred feature is rounding noise around zero."""
    digits = [0 if s == 0 else 5 - int(np.floor(np.log10(s))) for s in scale]
    return np.array([round(float(v), d) + 0.0 for v, d in zip(values, digits, strict=True)])
