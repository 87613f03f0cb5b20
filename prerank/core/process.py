"""What a command makes sure of before anything else: text in UTF-8, streams that take it, and a stop that stops.

`workflows/__init__.py` calls `begin` where a workflow is run, before the imports that take seconds: so this file
imports nothing that is not light.
"""

import io
import locale
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STOPPED = "error: stopped by a signal before the end"
STOPPED_CODE = 130
"""What shells give a command that Ctrl-C has ended."""
PATIENCE_S = 15.0
"""After a signal, until a process that has not ended by itself is ended: where a library has swallowed the
exception, or cleaning up waits for a cluster that is gone."""
AGAIN_S = 1.0
"""A second signal sooner than that is of the same stop: `ray job stop` tells the process and its group."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object] | int | None

_told_at: list[float] = []
"""When the first signal came, by the monotonic clock."""
_begun = threading.Event()


def begin() -> None:
    """For a process of its own: sets it in UTF-8, mends its streams, and has `SIGNALS` end it from now on."""
    _into_utf8()
    _mend_streams()
    _refuse_without_docstrings()
    _keep_warnings()
    _handle(_end)
    _watch()
    _begun.set()


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, the first of `SIGNALS` raises KeyboardInterrupt, and a second one ends the process at once."""
    before = _handle(_raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped() -> bool:
    """Whether a signal has come: whatever is raised after it is its consequence."""
    return bool(_told_at)


def leave() -> NoReturn:
    """Ends what a signal has stopped, with its line.

    A process of its own ends without what Python does at its exit: with its cluster gone, Ray aborts there.
    """
    if _begun.is_set():
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        end()
    print(STOPPED, file=sys.stderr)
    sys.exit(STOPPED_CODE)


def _handle(handler: Handler) -> dict[signal.Signals, Handler]:
    """Sets the handler and returns those before it; one that the parent wants ignored (`nohup`, `&`) stays so."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: known for number, known in before.items() if known not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, handler)
    return before


def _raise(_number: int, _frame: FrameType | None) -> None:
    if not _told_at:
        _told_at.append(time.monotonic())
        raise KeyboardInterrupt
    if time.monotonic() - _told_at[0] > AGAIN_S:
        end()


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    end()


def end() -> NoReturn:
    """Ends the process without another word from anybody; what it started ends with it."""
    with suppress(OSError):
        os.write(2, f"{STOPPED}\n".encode())
    os._exit(STOPPED_CODE)


def _watch() -> None:
    """Has a thread end the process a while after a signal: it is told, whatever the main thread waits for."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)

    def wait() -> None:
        while os.read(told, 1)[0] not in SIGNALS:
            pass
        threading.Event().wait(PATIENCE_S)
        end()

    threading.Thread(target=wait, daemon=True, name="stop").start()


def _into_utf8() -> None:
    """Begins again in Python's UTF-8 mode where the locale has another encoding: files and paths here are UTF-8."""
    encoding = locale.getencoding().lower().replace("-", "")
    if sys.flags.utf8_mode or encoding == "utf8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"  # workers too
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _refuse_without_docstrings() -> None:
    """Ray's imports and our own flags read docstrings, which `python -OO` leaves out."""
    if sys.flags.optimize > 1:
        print(
            "error: PYTHONOPTIMIZE=2 (python -OO) leaves out the docstrings, which Ray and --help are made of; "
            "unset it, or set it to 1",
            file=sys.stderr,
        )
        sys.exit(2)


def _keep_warnings() -> None:
    """Has warnings be no errors, whatever the environment: libraries and Ray's own processes would end by them."""
    if any(option.startswith("e") for option in sys.warnoptions):
        os.environ.pop("PYTHONWARNINGS", None)
        sys.warnoptions.clear()
        warnings.simplefilter("ignore")
        print(
            "note: warnings are not made errors here, as -W or PYTHONWARNINGS asks: Ray ends by them", file=sys.stderr
        )


class _Lasting(io.FileIO):
    """A stream whose reader may go away (`| head`): what it no longer takes is dropped, and the work goes on."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _mend_streams() -> None:
    """Opens those that were closed, whose numbers a file would get; lets output be what its encoding can say."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout, sys.stderr = _mended(1, sys.stdout), _mended(2, sys.stderr)


def _mended(number: int, stream: TextIO | None) -> io.TextIOWrapper:
    raw = io.BufferedWriter(_Lasting(number, "wb", closefd=False))
    return io.TextIOWrapper(
        raw,
        encoding=stream.encoding if stream else "utf-8",
        errors="replace",
        line_buffering=number == 2 or getattr(stream, "line_buffering", False),
        write_through=getattr(stream, "write_through", False),
    )
