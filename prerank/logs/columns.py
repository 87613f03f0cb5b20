"""The columns that the logs must have, of which types, and the types in which they are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from prerank.core.errors import InputError
from prerank.logs.encoding import expected, fits, is_id, is_list
from prerank.logs.schema import Schema

TS = pa.timestamp("us")


@dataclass(frozen=True)
class Need:
    """What a column has to be."""

    fits: Callable[[pa.DataType], bool]
    words: str
    """The types that fit."""
    required: bool = True


def requirements(table: str, schema: Schema) -> dict[str, Need]:
    """By column of a table of the logs."""
    id_ = Need(is_id, "integers or strings")
    keys = {"request_id": id_, "item_id": id_}
    if table == "impressions":
        flag = partial(Need, lambda t: pa.types.is_boolean(t) or pa.types.is_integer(t), "booleans, or 0 and 1")
        shown = Need(pa.types.is_integer, "integers")
        return keys | {"shown_position": shown, "clicked": flag(), "converted": flag(required=False)}
    needs = keys | {"ts": Need(pa.types.is_timestamp, "timestamps")}
    if table == "fine_lists":
        needs["fine_position"] = Need(pa.types.is_integer, "integers", required=False)
        number = Need(lambda t: pa.types.is_integer(t) or pa.types.is_floating(t), "numbers", required=False)
        needs["fine_score"] = number
    return needs | {f.name: Need(partial(fits, f), expected(f)) for f in schema.features}


def checked(path: Path, found: pa.Schema, needs: Mapping[str, Need]) -> pa.Schema:
    """The columns that we read, with types that do not depend on how a writer encoded them."""
    fields = []
    for column, need in needs.items():
        if column not in found.names:
            if need.required:
                there = ", ".join(sorted(found.names)[:30])
                raise InputError(f"{path}: column {column!r} is missing; expected {need.words}; found {there}")
            continue
        type_ = found.field(column).type
        if not need.fits(type_):
            raise InputError(f"{path}: column {column!r} has type {type_}, expected {need.words}")
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
