"""The columns that the logs must have, of which types, and the types in which they are read."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from prerank.core.errors import InputError
from prerank.logs import clock, types
from prerank.logs.clock import TS
from prerank.logs.encoding import expected, fits, is_id
from prerank.logs.schema import Feature, Schema
from prerank.logs.types import convertible, deep, leaf, merged, plain


@dataclass(frozen=True)
class Need:
    """What a column has to be."""

    fits: Callable[[pa.DataType], bool]
    """Takes a type without its encoding, see `plain`."""
    words: str
    """The types that fit."""
    read_as: Callable[[pa.DataType], pa.DataType]
    """The type in which values are read that were written in another."""
    empty: pa.DataType
    """Where no file has a value."""
    required: bool = True
    is_flag: bool = False
    """Whether all that it may hold is false and true."""


def requirements(table: str, schema: Schema) -> dict[str, Need]:
    """By column of a table of the logs."""
    key = Need(is_id, "integers or strings", types.key, pa.int64())
    whole = partial(Need, _is_whole, "integers", types.key, pa.int64())
    keys = {"request_id": key, "item_id": key}
    if table == "impressions":
        flag = partial(Need, _is_flag, "booleans, or 0 and 1", lambda _: pa.int8(), pa.int8(), is_flag=True)
        flags = {"clicked": flag(), "converted": flag(required=False)} | {name: flag() for name in schema.labels}
        return keys | {"shown_position": whole(), **flags}
    needs = keys | {"ts": Need(clock.fits, clock.WORDS, lambda _: TS, TS)}
    if table == "fine_lists":
        needs["fine_position"] = whole(required=False)
        needs["fine_score"] = Need(types.is_number, "numbers", types.number, pa.float32(), required=False)
    return needs | {f.name: _of_feature(f) for f in schema.features}


def _of_feature(feature: Feature) -> Need:
    is_of_ids = feature.kind in ("id", "ids")
    read_as, value = (types.identity, pa.int64()) if is_of_ids else (types.number, pa.float32())
    is_listed = feature.kind in ("ids", "embedding") or (feature.kind == "dense" and feature.size > 1)
    return Need(partial(fits, feature), expected(feature), read_as, pa.list_(value) if is_listed else value)


def _is_whole(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_null(type_)


def _is_flag(type_: pa.DataType) -> bool:
    return pa.types.is_boolean(type_) or _is_whole(type_)


def checked(path: Path, found: pa.Schema, needs: Mapping[str, Need]) -> pa.Schema:
    """The columns that we read, with types that do not depend on how a writer encoded them."""
    fields = []
    for column, need in needs.items():
        at = found.get_field_index(column)
        if at < 0:
            refuse_absent(path, found, column, need)
            continue
        type_ = found.field(at).type
        read_as = deep(need.read_as, plain(type_))
        if not need.fits(plain(type_)) or not (read_as == TS or convertible(type_, read_as)):
            raise InputError(f"{path}: column {column!r} has type {_words(type_)}, expected {need.words}; write it so")
        fields.append(pa.field(column, read_as))
    return pa.schema(fields)


def _words(type_: pa.DataType) -> str:
    return str(type_).replace("\n", " ")


def refuse_absent(path: Path, found: pa.Schema, column: str, need: Need) -> None:
    """Raises InputError for a column that a file lacks, unless it is optional and stands neither in its folder's name
    nor under a name that looks the same."""
    if found.names.count(column) > 1:
        raise InputError(f"{path}: column {column!r} stands in it {found.names.count(column)} times; keep one of them")
    for part in path.parts[:-1]:
        if unquote(part).startswith(f"{column}="):
            raise InputError(
                f"{path}: column {column!r} stands in the name of its folder alone ({part}), expected {need.words} in "
                "the file; write the files with this column"
            )
    alike = [name for name in found.names if _folded(name) == _folded(column)]
    if alike:
        raise InputError(f"{path}: column {column!r} is missing, and {alike[0]!a} is there; rename it in the file")
    if need.required:
        there = ", ".join(sorted(found.names)[:30])
        raise InputError(f"{path}: column {column!r} is missing; expected {need.words}; found {there}")


def _folded(name: str) -> str:
    """What is left of a name without case, blanks, marks that are not seen, and another spelling of its letters."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if unicodedata.category(c) != "Cf")
    return seen.strip()


def common(paths: Sequence[Path], columns: Sequence[pa.Schema]) -> pa.Schema:
    """The columns of all files of a table in types that hold the values of each; null where no file has a value."""
    shared = {field.name: field.type for field in columns[0]}
    whose = dict.fromkeys(shared, paths[0])
    last = columns[0]
    for path, schema in zip(paths, columns, strict=True):
        if schema == last:
            continue
        last = schema
        if set(schema.names) != set(shared):
            differ = ", ".join(sorted(set(schema.names) ^ set(shared)))
            raise InputError(
                f"{path}: column {differ} is in some files of the table and not in others, as {paths[0]}; write it "
                "into all of them, or into none"
            )
        for field in schema:
            before, type_ = shared[field.name], merged(shared[field.name], field.type)
            if type_ is None:
                raise InputError(
                    f"{path}: types differ from those of {whose[field.name]}: column {field.name!r} is {field.type}, "
                    f"and there {before}; write it alike in all files"
                )
            if pa.types.is_null(leaf(before)):
                whose[field.name] = path
            shared[field.name] = type_
    return pa.schema(list(shared.items()))


def agreed(folder: Path, tables: Mapping[str, pa.Schema], schema: Schema) -> dict[str, pa.Schema]:
    """The columns of each table; what is null in all files of one is of the type of the others.

    Raises InputError where an id is text in one table and a number in another: it would be two ids.
    """
    needs = {name: need for table in tables for name, need in requirements(table, schema).items()}
    shared: dict[str, pa.DataType] = {}
    for name in needs:
        found = {table: columns.field(name).type for table, columns in tables.items() if name in columns.names}
        type_: pa.DataType | None = pa.null()
        for other in found.values():
            type_ = type_ and merged(type_, other)
        if type_ is None:
            types_ = ", ".join(f"{type_} in {table}" for table, type_ in found.items())
            raise InputError(
                f"{folder}: column {name!r} must have one type in all tables, found {types_}; write it as text in all, "
                "or as integers in all: as an id 7 is not '7'"
            )
        shared[name] = needs[name].empty if pa.types.is_null(leaf(type_)) else type_
    settled = {table: [_settled(field, shared[field.name]) for field in columns] for table, columns in tables.items()}
    return {table: pa.schema(fields) for table, fields in settled.items()}


def _settled(field: pa.Field, type_: pa.DataType) -> pa.Field:
    return pa.field(field.name, type_) if pa.types.is_null(leaf(field.type)) else field
