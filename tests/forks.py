"""A server that has imported what the processes of the tests import, from which they are forked.

A training on Ray starts eight processes, each of which imports a thousand modules and more, torch and MLflow most of
all: 17 s of CPU, of which 1 s is the training. A fork is as the process that asks for it would be: its arguments,
environment, search path, folder and first three files are that one's, its module is `__main__`, its session its own.
It imports Ray itself, which keeps the environment that it finds as it is imported.

    python forks.py NUMBER      serves the socket of that number until its standard input ends
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

import server_fixture

SOCKET = "PRERANK_TESTS_FORKS"
"""Names the server's socket to all processes of the tests."""
IMPORTED = "torch._dynamo torch.distributed mlflow.tracking mlflow.store.tracking.sqlalchemy_store matplotlib.figure"
IMPORTED += " pandas pyarrow.dataset pyarrow.fs scipy.optimize scipy.stats optuna pydantic rich.console jinja2 tyro"
IMPORTED += " prerank.tracking.runs prerank.models.distill prerank.evaluation.metrics prerank.samples.batches"
LONGEST = 1 << 20
"""Bytes of a message."""


class Fork:
    """A process that runs the arguments of a Python interpreter, such as `-m workflows.tune`; its id is `pid`."""

    def __init__(self, arguments: list[str], env: dict[str, str], files: tuple[int, ...] = (0, 1, 2)) -> None:
        path = [place for place in sys.path if place]
        asked = {"arguments": arguments, "env": env, "path": path, "folder": os.getcwd()}
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server.connect(os.environ[SOCKET])
        socket.send_fds(self.server, [json.dumps(asked).encode()], files)
        self.pid = int(self.server.recv(LONGEST))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, seconds: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self.server], [], [], seconds)[0]:
                raise subprocess.TimeoutExpired("fork", seconds or 0)
            self.returncode = int(self.server.recv(LONGEST) or b"1")
            self.server.close()
        return self.returncode


@contextmanager
def served(path: Path):
    """A server at `path` for the processes that this one starts; it imports nothing before the first asks."""
    env = os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray reads it as it is imported; see `environment`
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(64)
        number = listener.fileno()
        options = {"stdin": subprocess.PIPE, "pass_fds": [number], "start_new_session": True}
        server = subprocess.Popen([sys.executable, __file__, str(number)], env=env, **options)
    with server:
        os.environ[SOCKET] = str(path)
        yield
        del os.environ[SOCKET]
        server.stdin.close()


def serve(listener: socket.socket) -> Callable[[], None]:
    """What is left to do: in the server nothing, in a fork all that it was asked for."""
    ended, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    askers: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([sys.stdin, listener, ended], [], [])
        if sys.stdin in ready:
            return lambda: None
        if ended in ready:
            ended.recv(LONGEST)
            for pid in list(askers):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    with suppress(OSError), askers.pop(pid) as asker:
                        asker.send(str(os.waitstatus_to_exitcode(status)).encode())
        if listener in ready:
            asker, _ = listener.accept()
            asked, files, _, _ = socket.recv_fds(asker, LONGEST, 3)
            prepare()
            pid = os.fork()
            if not pid:
                for other in (listener, ended, wake, asker, *askers.values()):
                    other.close()
                return lambda: become(**json.loads(asked), files=files)
            for file in files:
                os.close(file)
            askers[pid] = asker
            with suppress(OSError):
                asker.send(str(pid).encode())


def prepare() -> None:
    """Imports what the forks would."""
    if "torch" in sys.modules:
        return
    gc.disable()
    for name in IMPORTED.split():
        importlib.import_module(name)
    assert "ray" not in sys.modules
    server_fixture.copy_stores()
    gc.collect()
    gc.freeze()
    gc.enable()


def keep_process() -> None:
    """Has Ray's script that sets up a worker become it, rather than replace its process by another."""
    from ray._private.runtime_env.context import RuntimeEnvContext

    def become_worker(context, arguments, language):
        os.environ.update(context.env_vars)
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")

    RuntimeEnvContext.exec_worker = become_worker


def become(arguments: list[str], env: dict[str, str], path: list[str], folder: str, files: list[int]) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ |= env
    while arguments[0].startswith("-") and arguments[0] != "-m":
        del arguments[0]
    as_module = arguments[0] == "-m"
    sys.argv = arguments[as_module:]
    sys.path[:] = [folder if as_module else str(Path(arguments[0]).parent), *path]
    code = 0
    try:
        if as_module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            if sys.argv[0].endswith("/setup_worker.py"):
                keep_process()
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:  # what an interpreter does at its end, but for the libraries' own: they wait for threads of the server
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))()
