"""A command in a process of its own: streams that are closed or go away, other locales, signals at any moment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prerank.core import process

pytestmark = pytest.mark.slow  # starts processes

ROOT = Path(process.__file__).parents[2]
STOPPED = f"{process.STOPPED}\n"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

COMMAND = """
import sys, time
from prerank.core.process import begin
begin()
import dataclasses, os, signal
from pathlib import Path
from prerank.core import cli, process

@dataclasses.dataclass(frozen=True)
class Config:
    out: Path = Path("out")

def main(config):
{main}

cli.run(main, Config)
{after}
"""


def written(folder: Path, main: str, after: str = "") -> list[str]:
    """The command line of a command with that body."""
    body = "".join(f"    {line}\n" for line in main.strip().splitlines())
    (folder / "command.py").write_text(COMMAND.replace("{main}", body).replace("{after}", after))
    return [sys.executable, "command.py"]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def ended(folder: Path, command: list[str] | str, **options) -> subprocess.CompletedProcess[str]:
    options = {"env": environment(), "capture_output": True, "text": True, "timeout": 100} | options
    return subprocess.run(command, cwd=folder, shell=isinstance(command, str), check=False, **options)


def test_without_docstrings_it_is_refused_in_one_line(tmp_path):
    done = ended(tmp_path, written(tmp_path, "print(1)"), env=environment(PYTHONOPTIMIZE="2"))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: PYTHONOPTIMIZE=2") and len(done.stderr.splitlines()) == 1
    assert ended(tmp_path, written(tmp_path, "print(1)"), env=environment(PYTHONOPTIMIZE="1")).stdout == "1\n"


@pytest.mark.parametrize("asked", ["error", "ignore,error::DeprecationWarning", "e"])
def test_warnings_are_no_errors(tmp_path, asked):
    main = 'import warnings\nwarnings.warn("old", DeprecationWarning)\nprint(os.environ.get("PYTHONWARNINGS"))'
    done = ended(tmp_path, written(tmp_path, main), env=environment(PYTHONWARNINGS=asked))
    assert (done.returncode, done.stdout) == (0, "None\n")
    assert done.stderr.startswith("note: warnings are not made errors here")


def stopped(folder: Path, command: list[str], *signals: signal.Signals, after: float = 0.0) -> tuple[int, str, float]:
    """The exit code, all that was said, and the seconds it took from the first signal, sent once `ready` is there."""
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        while not (folder / "ready").exists():
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        time.sleep(after)
        began = time.monotonic()
        for number in signals:
            running.send_signal(number)
            time.sleep(1.2 if len(signals) > 1 else 0)
        try:
            said, _ = running.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            running.kill()
            raise
        return running.returncode, said, time.monotonic() - began


PRINTS = """
Path("ready").touch()
print("µ ─ 中文 \\udc80")
print("\\N{MICRO SIGN}", file=sys.stderr)
for i in range(3000): print("line", i, flush=i % 500 == 0)
os.close(os.open("data", os.O_CREAT | os.O_WRONLY))
Path("done").write_text(" ".join(str(os.fstat(n).st_ino == os.stat("data").st_ino) for n in range(3)))
"""


TAILS = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "| head -1", "2>&1 | head -c 1", "| true", "> /dev/full", "2> /dev/full"]


@pytest.mark.slow
@pytest.mark.parametrize("tail", TAILS)
def test_streams_that_are_closed_or_go_away(tmp_path, tail):
    command = f"{' '.join(written(tmp_path, PRINTS))} {tail}; exit ${{PIPESTATUS[0]}}"
    done = ended(tmp_path, command, executable="/bin/bash", errors="replace")
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr and "Exception ignored" not in done.stderr
    # No file that the command opened has the number of a stream.
    assert (tmp_path / "done").read_text() == "False False False"


WRITES = """
import subprocess
Path("größe").write_text("µ ─ 中文")
assert Path("größe").read_text() == "µ ─ 中文"
code = "import locale, sys; print(sys.flags.utf8_mode, locale.getencoding())"
inner = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout  # as a worker of Ray
assert "utf" in inner.lower() or inner.startswith("1"), inner
print("µ ─ \\udc80", file=sys.stderr)
print("µ ─ \\udc80")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict", "LC_ALL": "C.UTF-8"},
        {"LANG": "xx_XX.nowhere", "LC_ALL": ""},
    ],
)
def test_other_locales(tmp_path, locale):
    done = ended(tmp_path, written(tmp_path, WRITES), env=environment(**locale), errors="replace")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "größe").read_bytes().decode("utf-8") == "µ ─ 中文"


TIDIES = """
try:
    Path("ready").touch(); time.sleep(60)
finally:
    Path("tidied").touch()
"""
FAILS_ON_THE_WAY = """
try:
    Path("ready").touch(); time.sleep(60)
finally:
    raise ConnectionError("the cluster is gone")
"""
WAITS_FOR_A_THREAD = """
import threading
thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
thread.start()
Path("ready").touch()
thread.join()
"""
AT_EXIT = """
import atexit
atexit.register(lambda: (Path("ready").touch(), time.sleep(60)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("main", "after"),
    [
        ('Path("ready").touch(); time.sleep(60)', ""),
        ('Path("ready").touch()\nwhile True: pass', ""),
        (WAITS_FOR_A_THREAD, ""),
        (TIDIES, ""),
        (FAILS_ON_THE_WAY, ""),
        ("pass", AT_EXIT),
    ],
    ids=["sleeps", "reckons", "waits", "tidies", "fails", "at_exit"],
)
def test_a_signal_ends_it_with_one_line(tmp_path, number, main, after):
    code, said, took = stopped(tmp_path, written(tmp_path, main, after), number, after=0.05)
    assert (code, said) == (process.STOPPED_CODE, STOPPED) and took < 5
    assert ("tidied" in main) == (tmp_path / "tidied").exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_the_imports_end(tmp_path, number):
    """`python -m workflows.NAME`, as it is run: the package sets the handlers before it imports what takes seconds."""
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "__init__.py").write_text((ROOT / "workflows" / "__init__.py").read_text())
    slow = "from pathlib import Path\nPath('ready').touch()\nimport time; time.sleep(60)"
    (tmp_path / "workflows" / "slow.py").write_text(slow)
    code, said, took = stopped(tmp_path, [sys.executable, "-m", "workflows.slow"], number)
    assert (code, said) == (process.STOPPED_CODE, STOPPED) and took < 2


def test_other_programs_that_import_the_workflows_keep_their_handlers(tmp_path):
    code = "import signal, sys, workflows; print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, *sys.modules)"
    first, *modules = ended(tmp_path, [sys.executable, "-c", code]).stdout.split()
    assert first == "True" and "workflows" in modules and "prerank.core.process" not in modules


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_what_tidies_up_for_long(tmp_path, number):
    main = 'try:\n    Path("ready").touch(); time.sleep(60)\nfinally:\n    time.sleep(60)'
    code, said, took = stopped(tmp_path, written(tmp_path, main), number, number)
    assert (code, said) == (process.STOPPED_CODE, STOPPED) and took < 5


def test_signals_of_one_stop_do_not_keep_it_from_tidying_up(tmp_path):
    """`ray job stop` tells the process and its group."""
    main = """
import threading
threading.Timer(0.01, lambda: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(20)]).start()
try:
    Path("ready").touch(); time.sleep(60)
finally:
    time.sleep(0.5); Path("tidied").touch()
"""
    done = ended(tmp_path, written(tmp_path, main))
    assert (done.returncode, done.stderr) == (process.STOPPED_CODE, STOPPED) and (tmp_path / "tidied").exists()


SWALLOWS = """
process.PATIENCE_S = 0.5
Path("ready").touch()
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
"""
LOCKS_IN_C = """
process.PATIENCE_S = 0.5
import ctypes
libc = ctypes.CDLL(None)
lock = ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(lock)
Path("ready").touch()
libc.pthread_mutex_lock(lock)
"""


@pytest.mark.slow
@pytest.mark.parametrize("main", [SWALLOWS, LOCKS_IN_C], ids=["swallows", "locks"])
def test_what_takes_no_notice_is_ended_all_the_same(tmp_path, main):
    code, said, took = stopped(tmp_path, written(tmp_path, main), signal.SIGINT, after=0.05)
    assert (code, said) == (process.STOPPED_CODE, STOPPED) and took < 5


def test_a_handler_that_a_library_leaves_behind_is_none_of_ours(tmp_path):
    """Within `stoppable` the handlers are ours, and before and after it those that were there."""
    before = signal.getsignal(signal.SIGINT)
    with process.stoppable():
        assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is process._raise
    assert signal.getsignal(signal.SIGINT) is before


def test_what_the_parent_wants_ignored_stays_so(tmp_path):
    """As a shell has it for `&` in a script: Ctrl-C is for what runs in front."""
    command = written(tmp_path, 'Path("ready").touch(); os.kill(os.getpid(), signal.SIGINT); print("went on")')
    done = ended(tmp_path, f"trap '' INT; {' '.join(command)}", executable="/bin/bash")
    assert (done.returncode, done.stdout) == (0, "went on\n")
