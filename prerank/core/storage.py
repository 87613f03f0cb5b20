"""Object storage, `s3://` and `gs://`, as paths with the methods of pathlib that are used here; through pyarrow.

A mounted file system is a plain path. Credentials and endpoints come from the environment alone (AWS_*,
GOOGLE_APPLICATION_CREDENTIALS). There an object is whole or not there, and nothing can be renamed or locked.

Ours, as universal-pathlib needs s3fs and gcsfs: second clients beside pyarrow's, which reads the Parquet anyway, in 19
packages, one of which holds botocore back.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, copy_files

from prerank.core.errors import InputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SCHEMES = ("s3", "gs")
REFUSALS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "INVALID_CLIENT_TOKEN", "SIGNATURE_DOES_NOT_MATCH")
REFUSALS += ("EXPIRED_TOKEN", "PERMISSION_DENIED", "UNAUTHENTICATED")
"""What a storage says that will say the same of the next try."""
STREAM_BYTES = 1 << 20
"""Of each column at a time, where a row group is not to be held whole."""

# A type checker lets a Remote go wherever a Path does. It is none: of a method that it lacks, Path's would look for a
# local file of its name.
_Base = Path if TYPE_CHECKING else PurePosixPath


class Remote(_Base):
    """`s3://BUCKET/KEY` or `gs://BUCKET/KEY`. A folder is what keys begin with: it is there with its first object."""

    def __str__(self) -> str:
        scheme, slash, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest}" if slash else scheme

    @property
    def filesystem(self) -> FileSystem:
        return _filesystem(*self.parts[:2])

    @property
    def key(self) -> str:
        """`BUCKET/KEY`, as pyarrow names it."""
        return "/".join(self.parts[1:])

    def infos(self, *, recursive: bool) -> "dict[Remote, FileInfo]":
        """What is in the folder, in order; nothing where there is none."""
        selector = FileSelector(self.key, allow_not_found=True, recursive=recursive)
        with _refusals(self):
            found = {Remote(self.parts[0], i.path): i for i in self.filesystem.get_file_info(selector)}
        return dict(sorted(found.items()))

    def _info(self) -> FileInfo:
        with _refusals(self):
            return self.filesystem.get_file_info(self.key)

    def exists(self) -> bool:
        return self._info().type != FileType.NotFound

    def is_file(self) -> bool:
        return self._info().type == FileType.File

    def is_dir(self) -> bool:
        return self._info().type == FileType.Directory

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """`st_size`, and zeros; raises FileNotFoundError."""
        info = self._info()
        if info.type == FileType.NotFound:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return os.stat_result((0, 0, 0, 0, 0, 0, info.size, 0, 0, 0))

    def iterdir(self) -> "Generator[Remote]":
        """Nothing, rather than an error, where there is no such folder."""
        yield from self.infos(recursive=False)

    def glob(self, pattern: str) -> "Generator[Remote]":
        """By a pattern of one name, such as `*.parquet`."""
        yield from (path for path in self.infos(recursive=False) if path.match(pattern))

    def rglob(self, pattern: str) -> "Generator[Remote]":
        yield from (path for path in self.infos(recursive=True) if path.match(pattern))

    def read_bytes(self) -> bytes:
        with _refusals(self), self.filesystem.open_input_file(self.key) as file:
            return file.readall()

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: "ReadableBuffer") -> int:
        with _refusals(self), self.filesystem.open_output_stream(self.key) as file:
            return file.write(data)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with _refusals(self):
                self.filesystem.delete_file(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing to do."""

    def resolve(self, strict: bool = False) -> "Remote":
        return self


def place(path: Path | str) -> Path:
    """The path that was named: of object storage as `Remote`, also where a parser has made `s3:/bucket/x` of it.

    Raises InputError for other schemes, and for anything in a URI but a bucket and a folder.
    """
    uri = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*):/+(.*)", str(path))
    if uri is None:
        return Path(path)
    scheme, rest = uri.groups()
    if scheme not in SCHEMES:
        raise InputError(f"{scheme}://: expected a path, or one of {', '.join(f'{s}://' for s in SCHEMES)}")
    # No @ and no ?, behind which pyarrow takes keys and endpoints; no escapes, which Ray and pyarrow read differently.
    if not re.fullmatch(r"[A-Za-z0-9._-]+(/+[A-Za-z0-9._=+,~-]+)+/*", rest):
        raise InputError(
            f"{scheme}://...: expected {scheme}://BUCKET/FOLDER, in letters, digits and . _ - = + , ~ alone; "
            "credentials and endpoints come from the environment"
        )
    return Remote(f"{scheme}:", rest)


@lru_cache
def _filesystem(scheme: str, bucket: str) -> FileSystem:
    """One a process: it holds the connections."""
    return FileSystem.from_uri(f"{scheme}//{bucket}")[0]


@contextmanager
def _refusals(path: Remote) -> Iterator[None]:
    """Raises InputError where the storage will not have it; an outage stays an OSError, which may pass."""
    try:
        yield
    except OSError as error:
        if any(refusal in str(error) for refusal in REFUSALS):
            where = "credentials and endpoint come from the environment (AWS_*, GOOGLE_APPLICATION_CREDENTIALS)"
            raise InputError(f"{path}: {error}; {where}") from error
        raise


@contextmanager
def whole(path: Path) -> Iterator[pa.NativeFile]:
    """A file to write that replaces `path` in the end, never in part; an exception leaves what was there."""
    if isinstance(path, Remote):
        buffer = pa.BufferOutputStream()
        yield buffer
        path.write_bytes(buffer.getvalue())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with pa.OSFile(str(beside), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_parquet(table: pa.Table, path: Path) -> None:
    """One table as a file, whole or not at all."""
    with whole(path) as file:
        pq.write_table(table, file)


def parquet(
    path: Path, *, kept: bool = False, streamed: bool = False, metadata: pq.FileMetaData | None = None
) -> pq.ParquetFile:
    """A Parquet file to read.

    `kept`: for long and for several threads: mapped where it is local; in object storage without Arrow's buffer of a
    row group, which stays as long as the file and is not for two threads at once.
    `streamed`: for `iter_batches`: of each column `STREAM_BYTES` or a page at a time, where else all of a row group.
    `metadata`: of its footer, if it is known.
    """
    # Pages that a writer has given a checksum, as Spark does, are held against it. Times of 12 bytes (INT96), Spark's
    # too, may be of any year, and as nanoseconds would wrap around.
    options = {"page_checksum_verification": True, "coerce_int96_timestamp_unit": "us", "metadata": metadata}
    if streamed:  # what Arrow reads before it is asked for is a whole row group, and does not heed the size
        options |= {"buffer_size": STREAM_BYTES, "pre_buffer": False}
    elif isinstance(path, Remote):
        options |= {"pre_buffer": not kept}
    if isinstance(path, Remote):
        return pq.ParquetFile(path.key, filesystem=path.filesystem, **options)
    return pq.ParquetFile(path, memory_map=kept, **options)


def opened(path: Path) -> pa.NativeFile:
    """A file to read bytes of."""
    if isinstance(path, Remote):
        return path.filesystem.open_input_file(path.key)
    return pa.OSFile(str(path))


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of all files below the folder, by their names within it, in order."""
    if isinstance(folder, Remote):
        infos = folder.infos(recursive=True).items()
        return {str(path.relative_to(folder)): info.size for path, info in infos if info.is_file}
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in found}


def rmtree(folder: Path) -> None:
    """Deletes a folder, if it is there."""
    if folder.exists():
        folder.filesystem.delete_dir(folder.key) if isinstance(folder, Remote) else shutil.rmtree(folder)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder on this machine whose files come to `folder` in the end; on an exception none does.

    For what is written by libraries that know local files alone.
    """
    if not isinstance(folder, Remote):
        yield folder
        return
    with tempfile.TemporaryDirectory() as here:
        yield Path(here)
        with _refusals(folder):
            copy_files(here, folder.key, destination_filesystem=folder.filesystem)


@contextmanager
def fetched(path: Path) -> Iterator[Path]:
    """The file or folder on this machine: itself, or a copy that goes away again."""
    if not isinstance(path, Remote):
        yield path
        return
    with tempfile.TemporaryDirectory() as here:
        with _refusals(path):
            copy_files(path.key, f"{here}/{path.name}", source_filesystem=path.filesystem)
        yield Path(here) / path.name
