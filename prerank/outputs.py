"""Every step writes one folder, whole or not at all.

A step locks its destination, writes beside it and publishes by one rename; `manifest.json`, written last, names the
files, what made them and from what. Readers refuse a folder without one, so nothing half-written is ever read. The
same command on the same folder finds its own manifest and does nothing; a different one is refused.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prerank.errors import InputError

MANIFEST = "manifest.json"


def fingerprint(value: Any) -> str:
    """A short hash of anything that JSON can hold, the same in every process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_manifest(folder: Path, *, kind: str) -> dict[str, Any]:
    """The manifest of a finished output; raises InputError if the folder is unfinished or of another kind."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{folder}: no {MANIFEST}: not a finished output of this program; expected {kind}; run that step again"
        )
    manifest = json.loads(path.read_text())
    if manifest["kind"] != kind:
        raise InputError(f"{folder}: holds {manifest['kind']}, expected {kind}")
    return manifest


def is_done(out: Path, *, kind: str, config: dict[str, Any], inputs: dict[str, str]) -> bool:
    """Whether `out` already holds exactly this run.

    Raises InputError if it holds anything else, naming the first key that differs.
    """
    out = Path(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
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


@contextmanager
def publish(
    out: Path, *, kind: str, config: dict[str, Any], inputs: dict[str, str]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Gives `(staging folder, extra)`; on leaving, `extra` goes into the manifest and the folder is published as `out`.

    On an exception nothing is published; what a killed run left behind is replaced by the next. `*.partial` files,
    which a killed task leaves in the staging folder, are removed. Raises InputError where another process writes `out`,
    or has written it meanwhile.
    """
    out = Path(out)
    staging = out.parent / f".{out.name}.partial"
    extra: dict[str, Any] = {}
    with _locked(out):
        if is_done(out, kind=kind, config=config, inputs=inputs):
            raise InputError(f"{out}: another process has just finished it; run the same command again to use it")
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            yield staging, extra
            for left_over in staging.rglob("*.partial"):
                left_over.unlink()
            written = [path for path in sorted(staging.rglob("*")) if path.is_file()]
            files = {str(path.relative_to(staging)): path.stat().st_size for path in written}
            manifest = {"kind": kind, "config": config, "inputs": inputs, "files": files, **extra}
            manifest["fingerprint"] = fingerprint(manifest)
            write_json(staging / MANIFEST, manifest)
            if out.is_dir():
                out.rmdir()  # is_done let only an empty folder through
            os.rename(staging, out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Holds the right to write `out`, which the kernel takes back from a process that dies."""
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.parent / f".{out.name}.lock"
    file = _lock(path, out)
    try:
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _lock(path: Path, out: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except BlockingIOError:
            holder = os.read(file, 1000).decode() or "another process"
            os.close(file)
            raise InputError(f"{out}: being written by {holder}; wait for it, or name another --out") from None
        except FileNotFoundError:
            pass  # whoever held the lock has removed its file since it was opened
        os.close(file)


def write_json(path: Path, value: Any) -> None:
    """Writes beside and renames, so that a reader sees the old file or the new one, never a part."""
    beside = path.with_name(f".{path.name}.partial")
    with open(beside, "w") as file:
        json.dump(value, file, indent=1, default=str, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
