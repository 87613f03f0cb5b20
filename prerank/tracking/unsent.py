"""What could not be sent yet: a queue of JSON lines on disk that several processes fill and one at a time empties.

A line begins with a blank while it waits and with `#` once it is sent, so a process that dies leaves the queue as it
is: at most one entry is sent twice, and half a line is passed over.

Ours, as persist-queue is for the threads of one process alone, and diskcache's queue, last released in 2023, would keep
neither the files that go with an entry nor what was refused.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from prerank.core.locks import hold
from prerank.tracking.entry import Entry, Waiting


class Refused(Exception):
    """What a sender raises for an entry that will never be accepted: it is put aside, and the queue goes on."""


@dataclass(frozen=True)
class Spool:
    """The queue in `folder`, which is made when something has to wait, and removed by `tidy`."""

    folder: Path

    @property
    def queue(self) -> Path:
        return self.folder / "queue.jsonl"

    @property
    def refused(self) -> Path:
        return self.folder / "refused.jsonl"

    def empty(self) -> bool:
        try:
            return self.queue.stat().st_size == 0
        except FileNotFoundError:
            return True

    def __len__(self) -> int:
        return sum(line.startswith(b" ") for line in self.queue.read_bytes().splitlines()) if not self.empty() else 0

    def add(self, entry: Entry, file: Path | None = None) -> None:
        """Appends an entry, with a copy of the file or folder that belongs to it."""
        line: Waiting = {**entry}
        with self._locked("queue"):
            if file is not None:
                copy = self.folder / "files" / uuid.uuid4().hex / file.name
                copy.parent.mkdir(parents=True)
                shutil.copytree(file, copy) if file.is_dir() else shutil.copy2(file, copy)
                line["file"] = str(copy.relative_to(self.folder))
            _append(self.queue, line)

    def drain(self, send: Callable[[Entry, Path | None], object], *, seconds: float, wait: bool = False) -> int:
        """Sends what waits, oldest first, for so long; how many entries were refused.

        Where another process is at it: waits for it, or leaves it to it. Whatever `send` raises but `Refused` ends the
        draining; the entry still waits.
        """
        refused, at, deadline = 0, 0, time.monotonic() + seconds
        with self._locked("drain", wait=wait) as mine:
            while mine and not self.empty() and time.monotonic() < deadline:
                with self._locked("queue"), open(self.queue, "rb") as file:
                    file.seek(at)
                    line = file.readline()
                    if not line.endswith(b"\n"):  # the end, or what a killed process left of a line
                        os.truncate(self.queue, 0)
                        break
                entry = _parsed(line)
                if entry is not None:
                    copy = self.folder / entry["file"] if "file" in entry else None
                    try:
                        send(entry, copy)
                    except Refused as error:
                        refused += 1
                        _append(self.refused, {**entry, "because": str(error)})
                        copy = None
                    with open(self.queue, "r+b") as file:
                        file.seek(at)
                        file.write(b"#")
                    if copy is not None:
                        shutil.rmtree(copy.parent)
                at += len(line)
        return refused

    def tidy(self) -> None:
        """Removes the folder, unless something in it waits or was refused."""
        if self.folder.exists():
            with self._locked("drain"), self._locked("queue"):
                if self.empty() and not self.refused.exists():
                    shutil.rmtree(self.folder)

    @contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Whether the lock is held, which the kernel takes back from a process that dies."""
        file = self._lock(self.folder / f"{name}.lock", wait)
        try:
            yield file is not None
        finally:
            if file is not None:
                os.close(file)

    def _lock(self, path: Path, wait: bool) -> int | None:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another process has tidied up since
                return hold(path, wait=wait)


def _append(path: Path, entry: Waiting) -> None:
    with open(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
        cut = b"\n" if end and file.read(1) != b"\n" else b""  # ends what a killed process left of a line
        file.write(cut + b" " + json.dumps(entry).encode() + b"\n")


def _parsed(line: bytes) -> Waiting | None:
    """The entry of a line that waits; None where it is sent already, or is half a line."""
    try:
        return json.loads(line) if line.startswith(b" ") else None
    except ValueError:
        return None
