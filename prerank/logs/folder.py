"""The logs folder: checked from the Parquet footers before any row is read; row groups read in the table's types."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from prerank.core.arrow import bounds, lengths
from prerank.core.errors import InputError
from prerank.core.outputs import fingerprint, is_left_over
from prerank.logs import clock
from prerank.logs.columns import agreed
from prerank.logs.files import column_batches, first_line, read_columns
from prerank.logs.schema import Schema, load_schema
from prerank.logs.table import LogFile, RowGroup, Table, TableName, open_table, refuse_no_flag
from prerank.logs.types import converted, leaf

DAY = np.timedelta64(1, "D")
TABLES = ("fine_lists", "impressions", "candidates", "truth")
"""Folders below that of the logs, the last two optional."""


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
        """Of the names, sizes and footers of all files: of what they hold, as far as it is known without reading it."""
        files = {name: [file.bytes, file.rows, file.footer] for name, file in self._files()}
        return fingerprint([files, self.schema.to_json()])

    @cached_property
    def fingerprint_of_sizes(self) -> str:
        """The fingerprint that earlier versions kept, which does not know of values."""
        return fingerprint([{name: [file.bytes, file.rows] for name, file in self._files()}, self.schema.to_json()])

    @cached_property
    def modified(self) -> tuple[str, str]:
        """When a file was last modified, by the clock of its storage, and which."""
        at, name = max((file.modified, name) for name, file in self._files())
        return str(np.datetime64(at, "ns")), name

    def _files(self) -> list[tuple[str, LogFile]]:
        return [(f"{name}/{path}", file) for name, table in self.tables.items() for path, file in table.files.items()]


def open_logs(folder: Path) -> Logs:
    """Reads schema.json and every footer; raises InputError naming the file and column at fault."""
    if is_left_over(folder):
        raise InputError(f"{folder}: half-written: what makes these logs was killed, or is at it; run it again")
    schema = load_schema(folder)
    wanted: list[TableName] = ["fine_lists", "impressions"]
    if (folder / "candidates").is_dir():
        wanted.append("candidates")
    for name in TABLES:
        if not (folder / name).is_dir():
            _refuse_other(folder, name)
    tables = {name: open_table(folder / name, name, schema) for name in wanted}
    columns = agreed(folder, {name: table.columns for name, table in tables.items()}, schema)
    clocks = {name: clock.words(table.clock) for name, table in tables.items() if table.clock}
    if len(set(clocks.values())) > 1:
        found = ", ".join(f"{words} in {name}" for name, words in clocks.items())
        raise InputError(f"{folder}: column 'ts' must go by one clock in all tables, found {found}")
    unsigned = all(table.unsigned for table in tables.values())
    for name, table in tables.items():
        groups = table.groups if unsigned else tuple(map(_signed, table.groups))
        tables[name] = replace(table, columns=columns[name], groups=groups, unsigned=unsigned)
    return Logs(folder, schema, tables)


def _refuse_other(folder: Path, table: str) -> None:
    """Raises InputError where the table is there, and not as a folder of that name: it would be passed over."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = path.name.lower().removesuffix(".parquet")
        if (name not in TABLES and difflib.get_close_matches(name, [table], cutoff=0.8)) or name == table:
            raise InputError(
                f"{path}: expected {folder}/{table}, a folder of *.parquet files; rename it, or take it away"
            )


def _signed(group: RowGroup) -> RowGroup:
    """With bounds of signed integers, as unsigned ones are read by their 64 bits."""
    low, high = group.keys or (0, 0)
    if not isinstance(low, int) or not isinstance(high, int) or high < 2**63:
        return group
    return replace(group, keys=(low - 2**64, high - 2**64) if low >= 2**63 else (-(2**63), 2**63 - 1))


def overlaps(group: RowGroup, since: np.datetime64 | None, until: np.datetime64 | None) -> bool:
    """Whether a row group may hold rows with since <= ts < until."""
    if since is None and until is None:
        return True
    first, last = group.first_and_last
    return bool((since is None or last >= since) and (until is None or first < until))


def read_groups(table: Table, groups: tuple[RowGroup, ...], columns: list[str] | None = None) -> pa.Table:
    """Rows of the given row groups in the table's types, or only some columns of them.

    Raises InputError naming the file and the column that is damaged, or does not fit.
    """
    names = columns or table.columns.names
    wanted = pa.schema([table.columns.field(name) for name in names])
    parts = [wanted.empty_table()]
    by_file: dict[Path, list[int]] = {}
    for group in groups:
        by_file.setdefault(group.file, []).append(group.index)
    for path, indices in by_file.items():
        parts.append(_fitted(read_columns(path, indices, names), wanted, path, table))
    return pa.concat_tables(parts)


def group_batches(table: Table, group: RowGroup, rows: int) -> Iterator[pa.Table]:
    """The rows of a row group, as `read_groups` has them, so many at a time; at least one part."""
    if group.rows <= rows:
        yield read_groups(table, (group,))
        return
    for batch in column_batches(group.file, group.index, table.columns.names, rows):
        yield _fitted(batch, table.columns, group.file, table)


def _fitted(part: pa.Table, wanted: pa.Schema, path: Path, table: Table) -> pa.Table:
    return pa.table([_cast(part[field.name], field, path, table) for field in wanted], schema=wanted)


def _cast(column: pa.ChunkedArray, field: pa.Field, path: Path, table: Table) -> pa.ChunkedArray:
    try:
        if field.name == "ts":
            return clock.wall(column, table.clock or clock.UTC)
        column = converted(column, field.type)
        if pa.types.is_string(leaf(field.type)):
            column.validate(full=True)  # that it is UTF-8, which writers promise
    except pa.ArrowException as error:
        raise InputError(
            f"{path}: column {field.name!r} does not fit {field.type}: {first_line(error)}; correct it there"
        ) from error
    if field.name in table.flags:
        for value in bounds(column):
            if value is not None:
                refuse_no_flag(path, field.name, value)
    size = table.sizes.get(field.name)
    if size and not pa.types.is_fixed_size_list(field.type):
        for found in bounds(lengths(column)):
            if found not in (size, None):
                raise InputError(
                    f"{path}: column {field.name!r} holds a list of {found}, expected {size} numbers (its 'size' in "
                    "schema.json), or null; correct the size, or the logs"
                )
    return column
