"""Locks that the kernel takes back from a process that dies: a file that is held, and removed afterwards."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def hold(path: Path, *, wait: bool) -> int | None:
    """Holds the lock of that name, in a folder that is there: the open file, or None where another process has it.

    Closing the file lets go. Whoever holds it may remove it: one that was opened before and held after that is no
    longer the lock, and it is tried again.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except BlockingIOError:
            os.close(file)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Waits for the lock, holds it, and removes its file."""
    file = hold(path, wait=True)
    assert file is not None  # as it waits
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)
