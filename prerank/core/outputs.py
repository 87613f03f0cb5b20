"""Every step writes one folder, whole or not at all.

A step locks its destination, writes beside it and publishes by one rename; `manifest.json`, written last, names the
files, what made them and from what. Readers refuse a folder without one, so nothing half-written is ever read. The
same command on the same folder finds its own manifest and does nothing; a different one is refused.

Object storage has no rename and no lock: there a step writes in place, an object `.partial` first and the manifest
last. Two drivers that write one folder at once are not kept apart there.
"""

import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import TypedDict, cast

from prerank.core.documents import load_json
from prerank.core.errors import InputError
from prerank.core.locks import hold
from prerank.core.storage import Remote, rmtree, sizes, whole

MANIFEST = "manifest.json"
MARKER = ".partial"
"""Beside no manifest: what a killed run left in object storage."""
LONGEST_BESIDE = 40
"""Characters that are added to the name of an output for what stands beside it while it is made."""


class Manifest(TypedDict):
    """What every manifest says; each room adds what it has to say of its outputs."""

    kind: str
    config: dict[str, object]
    """By dotted key: what a second run is held against."""
    inputs: dict[str, str]
    """Fingerprints by name."""
    files: dict[str, int]
    """Bytes by name."""
    fingerprint: str
    """Of all the rest."""


class Days(TypedDict):
    """First instants of the validation and of the test days, of which training sees nothing."""

    val_from: str
    test_from: str


def fingerprint(value: object) -> str:
    """A short hash of anything that JSON can hold, the same in every process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_manifest(folder: Path, *, kind: str) -> Manifest:
    """The manifest of a finished output; raises InputError if it is unfinished, of another kind, or lacks files."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{folder}: no {MANIFEST}: not a finished output of this program; expected {kind}; run that step again"
        )
    manifest = load_json(path)
    if not isinstance(manifest, dict) or not {"kind", "config", "inputs", "fingerprint"} <= {*manifest}:
        raise InputError(f"{path}: not written by this program, or changed; expected {kind}; run that step again")
    if manifest["kind"] != kind:
        raise InputError(f"{folder}: holds {manifest['kind']}, expected {kind}")
    lacking = sorted({*manifest.get("files", ())} - _names(folder, manifest["fingerprint"]))
    if lacking:
        _names.cache_clear()
        raise InputError(
            f"{folder}: {lacking[0]} is missing, one of {len(lacking)} files of {MANIFEST} that are not there; copy "
            "the folder again, or run the step that made it"
        )
    return cast("Manifest", cast(object, manifest))


@lru_cache(maxsize=1000)
def _names(folder: Path, _fingerprint: str) -> frozenset[str]:
    """Of the files of a finished output, listed once a process."""
    return frozenset(sizes(folder))


def is_done(out: Path, *, kind: str, config: Mapping[str, object], inputs: Mapping[str, str]) -> bool:
    """Whether `out` already holds exactly this run.

    Raises InputError if it holds anything else, naming the first key that differs.
    """
    check_place(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())) or is_left_over(out):
        return False
    if not (out / MANIFEST).is_file():
        raise InputError(f"{out}: not empty and not an output of this program; name another --out")
    manifest = read_manifest(out, kind=kind)
    for what, old, new in (("config", manifest["config"], config), ("input", manifest["inputs"], inputs)):
        old, new = (json.loads(json.dumps(side, default=str)) for side in (old, new))
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                raise InputError(
                    f"{out}: already holds another run: {what} {key} was {old.get(key)!r}, now {new.get(key)!r}; "
                    "name another --out, or delete the folder"
                )
    return True


def is_left_over(folder: Path) -> bool:
    """Whether it is what a run in object storage has not finished."""
    return (folder / MARKER).is_file() and not (folder / MANIFEST).is_file()


@contextmanager
def publish(
    out: Path, *, kind: str, config: Mapping[str, object], inputs: Mapping[str, str]
) -> Iterator[tuple[Path, dict[str, object]]]:
    """Gives `(folder to write into, extra)`; on leaving, `extra` goes into the manifest and `out` is there as a whole.

    On an exception nothing is published; what a killed run left behind is replaced by the next. `.*.partial` files,
    which a killed task leaves, are removed. Raises InputError where another process writes `out`, or has written it
    meanwhile; in object storage it sees the latter alone.
    """
    extra: dict[str, object] = {}
    with nullcontext() if isinstance(out, Remote) else _locked(out, f".{out.name}.lock"):
        if is_done(out, kind=kind, config=config, inputs=inputs):
            raise InputError(f"{out}: another process has just finished it; run the same command again to use it")
        with _in_place(out) if isinstance(out, Remote) else _beside(out) as staging:
            yield staging, extra
            for left_over in staging.rglob(".*.partial"):
                left_over.unlink()
            files = {name: size for name, size in sizes(staging).items() if name != MARKER}
            manifest = {"kind": kind, "config": config, "inputs": inputs, "files": files, **extra}
            manifest["fingerprint"] = fingerprint(manifest)
            write_json(staging / MANIFEST, manifest)


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    staging = out.parent / f".{out.name}.partial"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        yield staging
        if out.is_dir():
            out.rmdir()  # is_done let only an empty folder through
        os.rename(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _in_place(out: Remote) -> Iterator[Remote]:
    (out / MARKER).write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
    try:
        _clear(out)
        yield out
    except BaseException:
        with suppress(OSError):
            _clear(out)  # but for the marker: a task that has not stopped yet may still write
        raise
    (out / MARKER).unlink()


def _clear(out: Remote) -> None:
    """Deletes all but the marker, the manifest first."""
    (out / MANIFEST).unlink(missing_ok=True)
    for path in out.iterdir():
        if path.is_dir():
            rmtree(path)
        elif path.name != MARKER:
            path.unlink()


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Holds the right to make `out` for a whole command, of which `publish` may be the last moment.

    Raises InputError where another command makes it; none is kept from it in object storage.
    """
    if isinstance(out, Remote) or _is_kept(out):
        yield
        return
    with _locked(out, f".{out.name}.command"):
        yield


def _is_kept(out: Path) -> bool:
    """Whether nothing is to be made: it is there, where no file can be added."""
    return out.exists() and not os.access(out.parent, os.W_OK)


@contextmanager
def _locked(out: Path, name: str) -> Iterator[None]:
    """Holds the right to write `out`, which the kernel takes back from a process that dies."""
    check_place(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.parent / name
    file = hold(path, wait=False)
    if file is None:
        holder = ""
        with suppress(OSError):
            holder = path.read_text()
        raise InputError(f"{out}: being written by {holder or 'another process'}; wait for it, or name another --out")
    try:
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def check_place(out: Path) -> None:
    """Raises InputError where `out`, or the files beside it on the way there, cannot be made."""
    if isinstance(out, Remote):
        return
    try:
        _is_there(out.with_name(f".{out.name}{'x' * LONGEST_BESIDE}"))  # the file system says whether it is too long
        if _is_there(out):
            return
        above = next(folder for folder in out.absolute().parents if _is_there(folder))
        with tempfile.TemporaryFile(dir=above):
            pass
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{out}: cannot be made: {why}; name another --out") from error


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def write_json(path: Path, value: object) -> None:
    """A reader sees the old file or the new one, never a part."""
    text = json.dumps(value, indent=1, default=str, allow_nan=False)
    with whole(path) as file:
        file.write(f"{text}\n".encode())
