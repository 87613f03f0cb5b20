"""A table of the logs, known from the footers of its files before any row is read."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prerank.core.errors import InputError
from prerank.logs.clock import Days, bounds_of, first_and_last, words
from prerank.logs.columns import Need, checked, common, refuse_absent, requirements
from prerank.logs.files import Footer, Found, places, read_footer, refuse_parquet, table_files
from prerank.logs.schema import Schema
from prerank.logs.types import is_list, leaf, plain

TableName = Literal["fine_lists", "impressions", "candidates"]

_OFFSET, _TEXT = 4, 20
"""Bytes: where a value of variable length ends, and a text at least, as far as a footer tells."""
_EXACT = 2**53
"""Up to here a double holds every whole number."""


class Key(Protocol):
    """A request_id: an integer in all files, or a string in all."""

    def __lt__(self, other: Any, /) -> bool: ...
    def __ge__(self, other: Any, /) -> bool: ...


@dataclass(frozen=True)
class RowGroup:
    file: Path
    index: int
    rows: int
    keys: tuple[Key, Key] | None
    """Bounds of request_id; None where the footer has no statistics."""
    nulls: bool
    """Whether a request_id may be null."""
    bytes: int
    """In memory, as Arrow, of the columns that are read."""
    days: tuple[np.datetime64, np.datetime64] | None = None
    """Bounds of ts; None for impressions."""

    @property
    def span(self) -> tuple[Key, Key]:
        """`keys`, where `cut` has made sure of them."""
        assert self.keys is not None
        return self.keys

    @property
    def first_and_last(self) -> tuple[np.datetime64, np.datetime64]:
        """`days`, of a table with a ts."""
        assert self.days is not None
        return self.days


@dataclass(frozen=True)
class LogFile:
    bytes: int
    rows: int
    footer: str
    """Of what the footer says: the sizes, places and statistics of its row groups."""
    modified: int
    """Nanoseconds since 1970, by the clock of its storage."""


@dataclass(frozen=True)
class Table:
    name: TableName
    columns: pa.Schema
    """What is read: keys, labels and the features of schema.json, in types that all files share."""
    groups: tuple[RowGroup, ...]
    files: dict[str, LogFile]
    """By name within the folder of the table."""
    clock: str | None
    """Of `ts`, see `prerank.logs.clock`; None for impressions."""
    unsigned: bool
    """Whether request_id is an unsigned integer of 64 bits in all files, of which the bounds of `groups` are then."""
    passed_over: tuple[str, ...]
    """Names of files that are no Parquet, and are not read."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """How long every list of a column of vectors must be."""
    flags: tuple[str, ...] = ()
    """Columns that hold false and true alone."""

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)

    @cached_property
    def bytes(self) -> int:
        return sum(group.bytes for group in self.groups)

    @property
    def copies(self) -> tuple[tuple[str, str], ...]:
        """Names of files that are each the same as another one, as far as footers and sizes tell, and of these."""
        first: dict[tuple[int, str], str] = {}
        of = [
            (name, first.setdefault((file.bytes, file.footer), name)) for name, file in self.files.items() if file.rows
        ]
        return tuple((name, other) for name, other in of if name != other)


@dataclass(frozen=True)
class _Opened:
    """What is known of one file."""

    columns: pa.Schema
    groups: list[RowGroup]
    clocks: set[str]
    unsigned: bool
    footer: str
    seen: dict[str, set[object]] = field(default_factory=dict)
    """By flag the values that it has, None among them where a footer does not tell."""


def refuse_no_flag(path: Path, name: str, value: object) -> None:
    """Raises InputError for a click or another label that is neither false nor true."""
    if value not in (0, 1):
        raise InputError(f"{path}: column {name!r} holds {value}; expected true and false, or 0 and 1; write it so")


def open_table(folder: Path, name: TableName, schema: Schema) -> Table:
    """Raises InputError naming the file and the column at fault; `columns` may still be null, where all files are."""
    found, others = table_files(folder)
    refuse_parquet(others)
    if not found:
        raise InputError(
            f"{folder}: no *.parquet files; expected the table {name!r} of the logs (see the README); what begins with "
            "_ or . is not read"
        )
    needs = requirements(name, schema)
    with ThreadPoolExecutor(16) as pool:
        opened = list(pool.map(partial(_open_file, needs=needs, known=[]), found))
    some = [(file, of_file) for file, of_file in zip(found, opened, strict=True) if of_file.groups]
    if not some:
        raise InputError(f"{folder}: {len(found)} files without a row")
    groups = tuple(group for _, of_file in some for group in of_file.groups if group.rows)
    columns = common([file.path for file, _ in some], [of_file.columns for _, of_file in some])
    _refuse_inexact(some, columns)
    _refuse_one_value(folder, [of_file for _, of_file in some], [label for label in schema.labels if label in needs])
    files = {
        file.path.relative_to(folder).as_posix(): LogFile(
            file.bytes, sum(group.rows for group in of_file.groups), of_file.footer, file.modified
        )
        for file, of_file in zip(found, opened, strict=True)
    }
    unsigned = all(of_file.unsigned for _, of_file in some)
    passed_over = tuple(file.path.relative_to(folder).as_posix() for file in others)
    flags = tuple(column for column, need in needs.items() if need.is_flag and column in columns.names)
    return Table(name, columns, groups, files, _clock(some), unsigned, passed_over, _sizes(columns, schema), flags)


def _refuse_one_value(folder: Path, opened: list[_Opened], labels: list[str]) -> None:
    """Raises InputError for a label that the footers say is the same in all rows: nothing can be learned from it."""
    for label in labels:
        seen = set[object]().union(*(of_file.seen[label] for of_file in opened))
        if len(seen) == 1 and None not in seen:
            raise InputError(
                f"{folder}: label {label!r} is {bool(*seen)} in every row: there is nothing to learn from it; correct "
                "the column, or leave it out of 'labels' in schema.json"
            )


def _sizes(columns: pa.Schema, schema: Schema) -> dict[str, int]:
    vectors = [feature for feature in schema.features if not feature.dim and feature.name in columns.names]
    return {feature.name: feature.size for feature in vectors if is_list(columns.field(feature.name).type)}


def _clock(opened: list[tuple[Found, _Opened]]) -> str | None:
    """The one clock of all files; raises InputError where there are two."""
    clock, whose = None, opened[0][0].path
    for file, of_file in opened:
        for other in of_file.clocks:
            if clock not in (None, other):
                raise InputError(
                    f"{file.path}: column 'ts' goes by {words(other)}, and by {words(clock)} in {whose}; "
                    "write the times of all files alike"
                )
            if clock is None:
                clock, whose = other, file.path
    return clock


def _refuse_inexact(opened: list[tuple[Found, _Opened]], columns: pa.Schema) -> None:
    """Raises InputError where a file has a whole number that the column's double, of other files, would not hold."""
    doubles = [field.name for field in columns if pa.types.is_float64(leaf(field.type))]
    for file, of_file in opened:
        wide = [name for name in doubles if leaf(of_file.columns.field(name).type) in (pa.int64(), pa.uint64())]
        if not wide:
            continue
        footer = read_footer(file)
        at = places(footer.columns, footer.metadata, wide)
        for index in range(footer.metadata.num_row_groups):
            for name in wide:
                for bound in bounds_of(footer.metadata.row_group(index).column(at[name])) or ():
                    if abs(bound) > _EXACT:
                        raise InputError(
                            f"{file.path}: column {name!r} holds {bound}, and is of fractions or of other integers in "
                            "other files: as a double, which holds them all, it would be another number beyond 2^53; "
                            "write it alike in all files"
                        )


@dataclass(frozen=True)
class _Layout:
    """What follows from the schema of a file, which most files of a table share."""

    found: pa.Schema
    columns: pa.Schema
    """As they are read."""
    at: dict[str, int]
    """Places in the footer."""
    flags: tuple[str, ...]
    unsigned: bool

    @classmethod
    def of(cls, path: Path, footer: Footer, needs: Mapping[str, Need]) -> "_Layout":
        columns = checked(path, footer.columns, needs)
        at = places(footer.columns, footer.metadata, columns.names)
        flags = tuple(name for name in columns.names if needs[name].is_flag)
        unsigned = pa.types.is_uint64(plain(footer.columns.field("request_id").type))
        return cls(footer.columns, columns, at, flags, unsigned)

    @cached_property
    def widths(self) -> list[tuple[int, bool, int | None]]:
        """Of each column: its place, whether it is of lists, and the bytes of a value, which are None of text."""
        values = [(field, leaf(field.type)) for field in self.columns]
        fixed = {field.name: max(value.bit_width // 8, 1) for field, value in values if pa.types.is_primitive(value)}
        return [(self.at[field.name], is_list(field.type), fixed.get(field.name)) for field in self.columns]


def _open_file(file: Found, needs: Mapping[str, Need], known: list[_Layout]) -> _Opened:
    """`known`: the layouts so far, of which the last is tried. A file without a row may have any columns."""
    footer = read_footer(file)
    if not footer.metadata.num_rows:
        return _Opened(pa.schema([]), [], set(), False, footer.digest)
    layout = known[-1] if known and known[-1].found == footer.columns else None
    if layout is None:
        layout = _Layout.of(file.path, footer, needs)
        known.append(layout)
    for name, need in needs.items():
        if name not in layout.at:
            refuse_absent(file.path, footer.columns, name, need)  # anew: of each file the names of its folders
    groups, clocks = [], set[str]()
    seen = {name: set[object]() for name in layout.flags}
    for index in range(footer.metadata.num_row_groups):
        raw = footer.metadata.row_group(index)
        days = None
        if "ts" in layout.at and raw.num_rows:
            type_ = footer.columns.field("ts").type
            days, clock = first_and_last(file.path, index, type_, raw.column(layout.at["ts"]))
            clocks.add(clock)
        groups.append(_row_group(file.path, index, raw, layout, days))
        for name in layout.flags if raw.num_rows else ():
            bounds = bounds_of(raw.column(layout.at[name])) or (None,)
            for bound in bounds:
                if bound is not None:
                    refuse_no_flag(file.path, name, bound)
            seen[name].update(bounds)
    return _Opened(layout.columns, groups, clocks, layout.unsigned, footer.digest, seen)


def _row_group(path: Path, index: int, raw: pq.RowGroupMetaData, layout: _Layout, days: Days | None) -> RowGroup:
    size = sum(_bytes(raw, *column) for column in layout.widths)
    chunk = raw.column(layout.at["request_id"])
    nulls = chunk.statistics is None or chunk.statistics.null_count != 0
    return RowGroup(path, index, raw.num_rows, bounds_of(chunk), nulls, size, days)


def _bytes(raw: pq.RowGroupMetaData, place: int, listed: bool, width: int | None) -> int:
    """Of a column of a row group in memory. Parquet's own sizes are of dictionaries and run lengths: a lower bound."""
    if width and not listed:
        return raw.num_rows * width
    chunk = raw.column(place)
    offsets = _OFFSET * raw.num_rows if listed else 0
    if width:
        return offsets + chunk.num_values * width
    bounds = bounds_of(chunk) or ("", "")  # the texts themselves may stand in a dictionary
    text = max(_TEXT, *(len(bound) for bound in bounds if isinstance(bound, (str, bytes))))
    return offsets + max(chunk.num_values * (_OFFSET + text), chunk.total_uncompressed_size)
