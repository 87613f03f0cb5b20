"""Functions of `pyarrow.compute` by name: pyarrow makes them as it is imported, where no type checker sees them."""

from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

Column: TypeAlias = pa.Array | pa.ChunkedArray


def lengths(lists: Column) -> Column:
    """int [R] of a list column, null for a null list."""
    return pc.call_function("list_value_length", [lists])


def bounds(column: Column) -> tuple[object, object]:
    """The least and the greatest value, as Python has them; None without one."""
    found = pc.call_function("min_max", [column]).as_py()
    return found["min"], found["max"]


def between(column: Column, low: object, high: object) -> Column:
    """bool [N]: low <= value < high, where None bounds nothing, not both; null for null."""
    above = None if low is None else pc.call_function("greater_equal", [column, pa.scalar(low, column.type)])
    below = None if high is None else pc.call_function("less", [column, pa.scalar(high, column.type)])
    return above if below is None else below if above is None else pc.call_function("and", [above, below])


def inverted(mask: Column) -> Column:
    return pc.call_function("invert", [mask])


def is_in(column: Column, values: pa.Array) -> Column:
    """bool [N]: whether a value is among `values`."""
    return pc.call_function("is_in", [column], pc.SetLookupOptions(value_set=values))
