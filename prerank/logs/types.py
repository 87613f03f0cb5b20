"""Types that writers give to the same values, and the one type of each column in which they are read.

A writer may encode as it likes: dictionaries, large or view layouts, lists of a fixed size, tensors of Ray and Arrow,
numbers of any width, decimals, booleans, a column or list of nothing but nulls. What is decided here follows from types
alone, so it is known from the footers.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prerank.core.arrow import lengths


def plain(type_: pa.DataType) -> pa.DataType:
    """Without its encoding: values as such, text as string, lists as list or as lists of a fixed size."""
    if isinstance(type_, pa.BaseExtensionType):
        return plain(type_.storage_type)
    if pa.types.is_dictionary(type_):
        return plain(type_.value_type)
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if is_list(type_):
        return listed(type_, plain(type_.value_type))
    if _is_ragged_tensor(type_):
        return plain(type_.field(0).type)
    return type_


def is_list(type_: pa.DataType) -> bool:
    lists = pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
    return lists or _is_view(type_)


def _is_view(type_: pa.DataType) -> bool:
    return pa.types.is_list_view(type_) or pa.types.is_large_list_view(type_)


def _is_ragged_tensor(type_: pa.DataType) -> bool:
    """What Ray makes of arrays whose lengths differ from row to row: their values in one list, and their shapes."""
    if not pa.types.is_struct(type_) or [type_.field(i).name for i in range(type_.num_fields)] != ["data", "shape"]:
        return False
    return is_list(type_.field(0).type)


def listed(type_: pa.DataType, value: pa.DataType) -> pa.DataType:
    """A list of `value`, of a fixed size where `type_` is."""
    return pa.list_(value, type_.list_size) if pa.types.is_fixed_size_list(type_) else pa.list_(value)


def leaf(type_: pa.DataType) -> pa.DataType:
    """Of the values: of a list those within."""
    return leaf(type_.value_type) if is_list(type_) else type_


def leaves(type_: pa.DataType) -> int:
    """How many columns a footer has of a column."""
    if isinstance(type_, pa.BaseExtensionType):
        return leaves(type_.storage_type)
    return sum(leaves(type_.field(i).type) for i in range(type_.num_fields)) or 1


def deep(function: Callable[[pa.DataType], pa.DataType], type_: pa.DataType) -> pa.DataType:
    """`function` of a plain type's values, in lists as they are; null stays null."""
    if is_list(type_):
        return listed(type_, deep(function, type_.value_type))
    return type_ if pa.types.is_null(type_) else function(type_)


def key(type_: pa.DataType) -> pa.DataType:
    """Of request_id and item_id, and of positions: text or 64 bits, so that all tables agree."""
    return pa.int64() if pa.types.is_integer(type_) else type_


def identity(type_: pa.DataType) -> pa.DataType:
    """Of the ids of a feature. An id above 2^63 is read by its 64 bits, as one that another writer holds as signed."""
    return pa.int64() if pa.types.is_uint64(type_) else type_


def is_number(type_: pa.DataType) -> bool:
    """Of a plain type."""
    numbers = pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)
    return numbers or pa.types.is_boolean(type_) or pa.types.is_null(type_)


def number(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_decimal(type_):
        return pa.float64()
    if pa.types.is_float16(type_):
        return pa.float32()
    return pa.int8() if pa.types.is_boolean(type_) else type_


def merged(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both, which are as `deep` makes them; None for text and numbers."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if is_list(one) and is_list(other):
        value = merged(one.value_type, other.value_type)
        alike = pa.types.is_fixed_size_list(one) and listed(one, pa.null()) == listed(other, pa.null())
        return value and (listed(one, value) if alike else pa.list_(value))
    if is_list(one) or is_list(other) or pa.types.is_string(one) or pa.types.is_string(other):
        return None
    if pa.types.is_uint64(one) or pa.types.is_uint64(other):
        return pa.float64()  # no integer holds both, and Arrow would take int64
    schemas = [pa.schema([pa.field("", type_)]) for type_ in (one, other)]
    return pa.unify_schemas(schemas, promote_options="permissive").field(0).type


def converted(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    """A column as it was written, in the type in which it is read; raises ArrowInvalid where a value would change.

    An unsigned id keeps its 64 bits. A list without a type, [] or [null], holds nothing: it is missing if it is empty.
    """
    column = decoded(column)
    if column.type == type_:
        return column
    if is_list(column.type) and pa.types.is_null(leaf(column.type)):
        some = pc.call_function("greater", [lengths(column), pa.scalar(0)])
        column = pc.call_function("if_else", [some, column, pa.scalar(None, column.type)])
    bits = pa.types.is_uint64(leaf(column.type)) and pa.types.is_int64(leaf(type_))
    return column.cast(type_, safe=not bits)


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if isinstance(column.type, pa.BaseExtensionType):
        storage = [chunk.storage for chunk in column.chunks]
        return decoded(pa.chunked_array(storage, column.type.storage_type))
    if _is_ragged_tensor(column.type):
        return decoded(column.flatten()[0])
    if _is_view(column.type):
        lists = pa.large_list(column.type.value_type)
        return pa.chunked_array([_list_of(chunk) for chunk in column.chunks], lists)
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _list_of(view: pa.Array) -> pa.Array:
    """A list_view as a list: Arrow's own cast (25.0) takes the last offset from behind the end, and loses that list."""
    ends = np.cumsum(lengths(view).fill_null(0).to_numpy(), dtype=np.int64)
    return pa.LargeListArray.from_arrays(np.append(0, ends), view.flatten(), mask=view.is_null())


@lru_cache(maxsize=1000)
def convertible(found: pa.DataType, type_: pa.DataType) -> bool:
    """Whether Arrow knows how to convert a column that was written as `found`, whatever its values."""
    try:
        converted(pa.chunked_array([], found), type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return False
    return True
