"""The logs folder: checked from the Parquet footers before any row is read; row groups read in the table's types."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prerank.core.errors import InputError
from prerank.core.outputs import fingerprint, is_left_over
from prerank.core.storage import parquet
from prerank.logs.columns import TS, Need, checked, common, requirements
from prerank.logs.encoding import is_list
from prerank.logs.schema import Schema, load_schema

TableName = Literal["fine_lists", "impressions", "candidates"]

DAY = np.timedelta64(1, "D")
_OFFSET, _TEXT = 4, 20
"""Bytes: where a value of variable length ends, and a text at least, as far as a footer tells."""


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
class Table:
    name: TableName
    columns: pa.Schema
    """What is read: keys, labels and the features of schema.json, in types that all files share."""
    groups: tuple[RowGroup, ...]
    files: dict[str, tuple[int, int]]
    """Bytes and rows by file name."""

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)

    @cached_property
    def bytes(self) -> int:
        return sum(group.bytes for group in self.groups)


@dataclass(frozen=True)
class Logs:
    folder: Path
    schema: Schema
    tables: Mapping[str, Table]

    @property
    def has_positions(self) -> bool:
        return "fine_position" in self.tables["fine_lists"].columns.names

    @property
    def has_scores(self) -> bool:
        return "fine_score" in self.tables["fine_lists"].columns.names

    @property
    def has_candidates(self) -> bool:
        return "candidates" in self.tables

    @cached_property
    def days(self) -> tuple[np.datetime64, np.datetime64]:
        """First and last day (datetime64[D]) of the fine lists."""
        days = [group.first_and_last for group in self.tables["fine_lists"].groups]
        return min(lo for lo, _ in days).astype("datetime64[D]"), max(hi for _, hi in days).astype("datetime64[D]")

    @cached_property
    def fingerprint(self) -> str:
        files = {f"{name}/{file}": sizes for name, table in self.tables.items() for file, sizes in table.files.items()}
        return fingerprint([files, self.schema.to_json()])


def open_logs(folder: Path) -> Logs:
    """Reads schema.json and every footer; raises InputError naming the file and column at fault."""
    if is_left_over(folder):
        raise InputError(f"{folder}: half-written: what makes these logs was killed, or is at it; run it again")
    schema = load_schema(folder)
    wanted: list[TableName] = ["fine_lists", "impressions"]
    if (folder / "candidates").is_dir():
        wanted.append("candidates")
    tables = {name: _open_table(folder / name, name, schema) for name in wanted}
    key_types = {name: table.columns.field("request_id").type for name, table in tables.items()}
    item_types = {name: table.columns.field("item_id").type for name, table in tables.items()}
    for column, types in (("request_id", key_types), ("item_id", item_types)):
        if len(set(types.values())) > 1:
            found = ", ".join(f"{type_} in {name}" for name, type_ in types.items())
            raise InputError(f"{folder}: column {column!r} must have one type in all tables, found {found}")
    return Logs(folder, schema, tables)


def _open_table(folder: Path, name: TableName, schema: Schema) -> Table:
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise InputError(f"{folder}: no *.parquet files; expected the table {name!r} of the logs (see the README)")
    with ThreadPoolExecutor(16) as pool:
        opened = list(pool.map(partial(_open_file, needs=requirements(name, schema)), paths))
    groups = tuple(group for _, of_file, _ in opened for group in of_file if group.rows)
    if not groups:
        raise InputError(f"{folder}: {len(paths)} files without a row")
    rows = [sum(group.rows for group in of_file) for _, of_file, _ in opened]
    files = {path.name: (size, n) for path, (_, _, size), n in zip(paths, opened, rows, strict=True)}
    return Table(name, common(paths, [columns for columns, _, _ in opened]), groups, files)


def _open_file(path: Path, needs: Mapping[str, Need]) -> tuple[pa.Schema, list[RowGroup], int]:
    """What is read of a file, its row groups and its bytes."""
    size = path.stat().st_size
    try:
        with parquet(path) as file:
            found, leaves, footer = file.schema_arrow, [column.path for column in file.schema], file.metadata
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as a Parquet file ({size} bytes): {error}; where it is truncated or still being "
            "written, write it again or remove it; where its storage did not answer, run the same command again"
        ) from error
    columns = checked(path, found, needs)
    at = {name: _leaf(name, leaves) for name in columns.names}
    groups = [_row_group(path, i, footer.row_group(i), at, columns) for i in range(footer.num_row_groups)]
    return columns, groups, size


def _leaf(name: str, leaves: list[str]) -> int:
    """Index of the leaf that holds a column's values: of a list it is called `name.list.element`, or the like."""
    return leaves.index(name if name in leaves else next(leaf for leaf in leaves if leaf.startswith(f"{name}.")))


def _row_group(path: Path, index: int, raw: pq.RowGroupMetaData, at: dict[str, int], columns: pa.Schema) -> RowGroup:
    size = sum(_bytes(field.type, raw, at[field.name]) for field in columns)
    chunk = raw.column(at["request_id"])
    keys, nulls = _bounds(chunk), chunk.statistics is None or chunk.statistics.null_count != 0
    days = None
    if "ts" in at and raw.num_rows:
        days = _days(raw.column(at["ts"])) or _scanned_days(path, index)
    return RowGroup(path, index, raw.num_rows, keys, nulls, size, days)


def _bytes(type_: pa.DataType, raw: pq.RowGroupMetaData, leaf: int) -> int:
    """Of a column of a row group in memory. Parquet's own sizes are of dictionaries and run lengths: a lower bound."""
    value = type_.value_type if is_list(type_) else type_
    if pa.types.is_primitive(value) and not is_list(type_):
        return raw.num_rows * max(value.bit_width // 8, 1)
    chunk = raw.column(leaf)
    offsets = _OFFSET * raw.num_rows if is_list(type_) else 0
    if pa.types.is_primitive(value):
        return offsets + chunk.num_values * max(value.bit_width // 8, 1)
    bounds = _bounds(chunk) or ("", "")  # the texts themselves may stand in a dictionary
    text = max(_TEXT, *(len(bound) for bound in bounds if isinstance(bound, (str, bytes))))
    return offsets + max(chunk.num_values * (_OFFSET + text), chunk.total_uncompressed_size)


def _bounds(chunk: pq.ColumnChunkMetaData) -> tuple[Any, Any] | None:
    """Of the column's own type; None where the footer has no statistics."""
    statistics = chunk.statistics
    return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else None


def _days(chunk: pq.ColumnChunkMetaData) -> tuple[np.datetime64, np.datetime64] | None:
    found = _bounds(chunk)
    if found is None:
        return None
    first, last = (np.datetime64(value.replace(tzinfo=None), "us") for value in found)
    return first, last


def _scanned_days(path: Path, index: int) -> tuple[np.datetime64, np.datetime64]:
    with parquet(path) as file:
        times = file.read_row_group(index, columns=["ts"])["ts"].cast(TS, safe=False).drop_null().to_numpy()
    if not len(times):
        raise InputError(f"{path}: column 'ts' holds nothing but nulls in row group {index}; expected timestamps")
    return times.min(), times.max()


def overlaps(group: RowGroup, since: np.datetime64 | None, until: np.datetime64 | None) -> bool:
    """Whether a row group may hold rows with since <= ts < until."""
    if since is None and until is None:
        return True
    first, last = group.first_and_last
    return bool((since is None or last >= since) and (until is None or first < until))


def read_groups(table: Table, groups: tuple[RowGroup, ...], columns: list[str] | None = None) -> pa.Table:
    """Rows of the given row groups in the table's types, or only some columns of them."""
    names = columns or table.columns.names
    wanted = pa.schema([table.columns.field(name) for name in names])
    parts = [wanted.empty_table()]
    by_file: dict[Path, list[int]] = {}
    for group in groups:
        by_file.setdefault(group.file, []).append(group.index)
    for path, indices in by_file.items():
        with parquet(path) as file:
            part = file.read_row_groups(indices, columns=names, use_threads=False)
        columns_ = [_cast(part[field.name], field, path) for field in wanted]
        parts.append(pa.table(columns_, schema=wanted))
    return pa.concat_tables(parts)


def _cast(column: pa.ChunkedArray, field: pa.Field, path: Path) -> pa.ChunkedArray:
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type, safe=field.type != TS)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: column {field.name!r} does not fit {field.type}: {error}") from error
