"""The columns that the logs must have, of which types, and the types in which they are read."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa

from prerank.core.errors import InputError
from prerank.logs.encoding import expected, fits, is_id, is_list
from prerank.logs.schema import Schema

TS = pa.timestamp("us")


def requirements(table: str, schema: Schema) -> dict[str, tuple[Callable[[pa.DataType], bool], str, bool]]:
    """By column: the test of its type, the type in words, whether it must be there."""
    keys = {"request_id": (is_id, "integers or strings", True), "item_id": (is_id, "integers or strings", True)}
    number = (lambda t: pa.types.is_integer(t) or pa.types.is_floating(t), "numbers", False)
    flag = (lambda t: pa.types.is_boolean(t) or pa.types.is_integer(t), "booleans, or 0 and 1")
    if table == "impressions":
        shown = (pa.types.is_integer, "integers", True)
        return keys | {"shown_position": shown, "clicked": (*flag, True), "converted": (*flag, False)}
    needs = keys | {"ts": (pa.types.is_timestamp, "timestamps", True)}
    if table == "fine_lists":
        needs |= {"fine_position": (pa.types.is_integer, "integers", False), "fine_score": number}
    return needs | {f.name: (partial(fits, f), expected(f), True) for f in schema.features}


def checked(path: Path, found: pa.Schema, needs: dict) -> pa.Schema:
    """The columns that we read, with types that do not depend on how a writer encoded them."""
    fields = []
    for column, (test, words, required) in needs.items():
        if column not in found.names:
            if required:
                there = ", ".join(sorted(found.names)[:30])
                raise InputError(f"{path}: column {column!r} is missing; expected {words}; found {there}")
            continue
        type_ = found.field(column).type
        if not test(type_):
            raise InputError(f"{path}: column {column!r} has type {type_}, expected {words}")
        fields.append(pa.field(column, _canonical(column, type_)))
    return pa.schema(fields)


def _canonical(column: str, type_: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type_):
        return _canonical(column, type_.value_type)
    if column == "ts":
        return TS
    if pa.types.is_large_string(type_):
        return pa.string()
    if column in ("request_id", "item_id", "fine_position", "shown_position") and pa.types.is_integer(type_):
        return pa.int64()
    if column in ("clicked", "converted"):
        return pa.int8()
    if is_list(type_) and not pa.types.is_fixed_size_list(type_):
        return pa.list_(_canonical("", type_.value_type))
    return type_


def common(paths: list[Path], columns: list[pa.Schema]) -> pa.Schema:
    shared = columns[0]
    for path, schema in zip(paths, columns, strict=True):
        if set(schema.names) != set(shared.names):
            differ = ", ".join(sorted(set(schema.names) ^ set(shared.names)))
            raise InputError(
                f"{path}: column {differ} is in some files of {path.parent.name} and not in others, as {paths[0]}"
            )
        try:
            shared = pa.unify_schemas([shared, schema], promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            raise InputError(f"{path}: types differ from those of {paths[0]}: {error}") from error
    return shared
