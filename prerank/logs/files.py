"""The files of a table, as any writer may leave them: found below its folder, their footers read, damage named."""

import hashlib
import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prerank.core.errors import InputError
from prerank.core.storage import Remote, fetched, opened, parquet
from prerank.logs.types import leaves, plain

MAGIC = (b"PAR1", b"PARE")
"""A Parquet file begins and ends with one of these."""
_TAIL = 64 << 10
"""Bytes read from the end of a file: most footers are shorter."""
_ROWS = 1 << 16
"""Of a column at a time, where it is decoded to see whether it can be."""

_CONTROL = re.compile("[\\x00-\\x1f\\x7f\\ud800-\\udfff]")
"""What no message can hold in one line: control characters, and what is no UTF-8."""

LAKES = {
    "Delta": re.compile("_delta_log"),
    "Hudi": re.compile(r"\.hoodie(_partition_metadata)?"),
    "Iceberg": re.compile(r".*\.metadata\.json"),
    "Hive (ACID)": re.compile(r"delete_delta_\d+_.*"),
    "Paimon": re.compile(r"changelog-[0-9a-f-]{36}-\d+\..*|manifest-list-[0-9a-f-]{36}-\d+"),
}
"""Names that tell that a folder holds, among its files, rows that were deleted or replaced."""


@dataclass(frozen=True)
class Found:
    """A file below the folder of a table."""

    path: Path
    bytes: int
    modified: int
    """Nanoseconds since 1970, by the clock of its storage."""


def table_files(folder: Path) -> tuple[list[Found], list[Found]]:
    """The `*.parquet` files below a folder, and its other files; what begins with _ or . is none of either, but for
    folders of a partition column (`_date=2024-03-04`).

    Folders are read through whatever their names (`dt=2024-03-04`, `part.parquet`), and so are links; a file or folder
    that is there anyway is not read again through a link. Raises InputError naming what leads nowhere, cannot be listed
    or is no file, and where another program would have to say which of the rows are valid.
    """
    found = list(_remote(folder) if isinstance(folder, Remote) else _local(folder))
    found.sort(key=lambda file: file.path)
    tables = [file.path.suffix == ".parquet" for file in found]
    return (
        [file for file, is_table in zip(found, tables, strict=True) if is_table],
        [file for file, is_table in zip(found, tables, strict=True) if not is_table],
    )


def _remote(folder: Remote) -> Iterator[Found]:
    for path, info in folder.infos(recursive=True).items():
        names = path.relative_to(folder).parts
        for name in names:
            _refuse_lake(folder, name)
        if info.is_file and not any(map(_is_hidden, names)):
            yield Found(path, info.size, info.mtime_ns or 0)


def _local(folder: Path) -> Iterator[Found]:
    """First what lies below the folder, then what links lead to."""
    real = os.path.realpath(folder)
    links: list[os.DirEntry[str]] = []
    seen = {str(above) for above in Path(real).parents}  # a link upwards would lead in a circle
    yield from _below(folder, real, seen, links)
    for link in links:  # grows, where a folder behind a link holds links
        target = os.path.realpath(link.path)
        if target not in seen:
            seen.add(target)
            yield from _entry(link, target, seen, links)


def _below(folder: Path | str, real: str, seen: set[str], links: list[os.DirEntry[str]]) -> Iterator[Found]:
    seen.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}; expected a folder of Parquet files") from error
    for entry in entries:
        _refuse_lake(folder, entry.name)
        if _is_hidden(entry.name):
            continue
        if entry.is_symlink():
            links.append(entry)
            continue
        target = f"{real}/{entry.name}"
        seen.add(target)
        yield from _entry(entry, target, seen, links)


def _entry(entry: os.DirEntry[str], target: str, seen: set[str], links: list[os.DirEntry[str]]) -> Iterator[Found]:
    try:
        info = entry.stat()
    except OSError as error:
        raise InputError(
            f"{entry.path}: leads nowhere ({error.strerror}); remove it, or bring back what it stands for"
        ) from error
    if stat.S_ISDIR(info.st_mode):
        yield from _below(entry.path, target, seen, links)
    elif stat.S_ISREG(info.st_mode):
        yield Found(Path(entry.path), info.st_size, info.st_mtime_ns)
    else:
        raise InputError(f"{entry.path}: neither a file nor a folder; remove it")


def _is_hidden(name: str) -> bool:
    return name[0] == "." or (name[0] == "_" and "=" not in name)


def _refuse_lake(folder: Path | str, name: str) -> None:
    if _CONTROL.search(name):
        raise InputError(f"{folder}: a name in it cannot be printed: {name!a}; rename it")
    lake = next((lake for lake, names in LAKES.items() if names.fullmatch(name)), None)
    if lake:
        raise InputError(
            f"{folder}: {name} tells of a table of {lake}, whose files keep rows that were deleted or replaced; "
            "write the table out as plain Parquet files, and name their folder"
        )


def refuse_parquet(files: Iterable[Found]) -> None:
    """Raises InputError for a Parquet file among those that are not read for their names, as Hive and others leave."""
    for file in files:
        if file.bytes < 12:
            continue
        with opened(file.path) as source:
            ends = source.read_at(4, 0), source.read_at(4, file.bytes - 4)
        if ends[0] in MAGIC and ends[1] in MAGIC:
            raise InputError(
                f"{file.path}: a Parquet file whose name does not end in .parquet; rename it, or have its name begin "
                "with _ where it is no part of the logs"
            )


@dataclass(frozen=True)
class Footer:
    columns: pa.Schema
    """As the file has them."""
    metadata: pq.FileMetaData
    digest: str
    """Of the footer's bytes: sizes, places and statistics of all row groups."""


def read_footer(file: Found) -> Footer:
    """Raises InputError where there is none."""
    try:
        tail = _tail(file.path)
        # Parsed from the bytes that the digest is of, which are read once.
        parsed = pq.ParquetFile(pa.BufferReader(tail), coerce_int96_timestamp_unit="us")
        return Footer(parsed.schema_arrow, parsed.metadata, hashlib.blake2b(tail, digest_size=16).hexdigest())
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{file.path}: cannot be read as a Parquet file ({file.bytes} bytes): {first_line(error)}; where it is "
            "truncated or still being written, write it again or remove it; where its storage did not answer, run the "
            "same command again"
        ) from error


def _tail(path: Path) -> bytes:
    """The footer, its length and the magic, where the file has them."""
    with opened(path) as source:
        size = source.size()
        tail = source.read_at(min(size, _TAIL), max(size - _TAIL, 0))
        length = int.from_bytes(tail[-8:-4], "little") + 8
        return source.read_at(length, size - length) if len(tail) < length <= size else tail[-length:]


def read_columns(path: Path, groups: list[int], names: list[str]) -> pa.Table:
    """Some columns of some row groups; raises InputError naming those that are damaged, OSError of the storage."""
    with _damage_named(path, groups, names):
        return _read(path, groups, names)


def column_batches(path: Path, group: int, names: list[str], rows: int) -> Iterator[pa.Table]:
    """The same of one row group, so many rows at a time, so that all of it is never held."""
    with _damage_named(path, [group], names):
        yield from _streamed(path, group, names, rows)


@contextmanager
def _damage_named(path: Path, groups: list[int], names: list[str]) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None):
            raise  # of the file system; what Arrow cannot decode has no number
        raise _damage(path, groups, names) or error from error


def _read(path: Path, groups: list[int], names: list[str]) -> pa.Table:
    with parquet(path) as file:
        lists = _with_nulls(file, groups, names)
        found = file.read_row_groups(groups, columns=[name for name in names if name not in lists], use_threads=False)
    if lists:
        with parquet(path, metadata=_without_sizes(path)) as file:
            vectors = file.read_row_groups(groups, columns=lists, use_threads=False)
        found = _beside(found, vectors)
    return found


def _streamed(path: Path, group: int, names: list[str], rows: int) -> Iterator[pa.Table]:
    with ExitStack() as stack:
        file = stack.enter_context(parquet(path, streamed=True))
        lists = _with_nulls(file, [group], names)
        others = [name for name in names if name not in lists]
        several = [_batches(file, group, others, rows)] if others else []
        if lists:
            file = stack.enter_context(parquet(path, streamed=True, metadata=_without_sizes(path)))
            several.append(_batches(file, group, lists, rows))
        for batches in zip(*several, strict=True):
            yield reduce(_beside, batches)


def _batches(file: pq.ParquetFile, group: int, names: list[str], rows: int) -> Iterator[pa.Table]:
    for batch in file.iter_batches(rows, [group], columns=names, use_threads=False):
        yield pa.table(batch)


def _beside(found: pa.Table, others: pa.Table) -> pa.Table:
    for name in others.column_names:
        found = found.append_column(name, others[name])
    return found


def _without_sizes(path: Path) -> pq.FileMetaData:
    """By which vectors are read as lists: such as are null in part Arrow can write with a fixed size, not read (25.0).

    The size stands in a schema of Arrow's beside Parquet's own, which under another name is not heeded.
    """
    return pq.read_metadata(pa.BufferReader(_tail(path).replace(b"ARROW:schema", b"-----:schema")))


def _with_nulls(file: pq.ParquetFile, groups: list[int], names: list[str]) -> list[str]:
    """The columns of vectors of a fixed size that may have nulls in these row groups."""
    columns = file.schema_arrow
    fixed = [name for name in names if pa.types.is_fixed_size_list(plain(columns.field(name).type))]
    if not fixed:
        return []
    at, chunks = places(columns, file.metadata, fixed), [file.metadata.row_group(group) for group in groups]
    known = {name: [chunk.column(at[name]).statistics for chunk in chunks] for name in fixed}
    return [name for name, stats in known.items() if any(stat is None or stat.null_count != 0 for stat in stats)]


def places(columns: pa.Schema, metadata: pq.FileMetaData, names: list[str]) -> dict[str, int]:
    """Of each column its place among the footer's, which has those within structs one by one."""
    if len(columns) == metadata.num_columns:
        return {name: columns.get_field_index(name) for name in names}
    starts = [0, *accumulate(leaves(field.type) for field in columns)]
    return {name: starts[columns.get_field_index(name)] for name in names}


def _damage(path: Path, groups: list[int], names: list[str]) -> InputError | None:
    """Which column of which row group cannot be decoded from bytes that are here; None where all can by now."""
    with fetched(path) as here:
        for group in groups:
            for name in names:
                try:
                    deque(_streamed(here, group, [name], _ROWS), maxlen=0)
                except (pa.ArrowException, OSError) as error:
                    return InputError(
                        f"{path}: column {name!r} of row group {group} cannot be read: {first_line(error)}; the file "
                        "is damaged: bring or write it again, or remove it"
                    )
    return None


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
