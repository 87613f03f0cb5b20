"""Servers for tests, on loopback or a private socket: `mlflow server`, a PostgreSQL cluster, any that answers HTTP."""

import functools
import inspect
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

PATIENCE_S = 180  # a first start sets up the store: 20 s, on a busy machine a minute


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def answering(command: list[str], url: str, log: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    """A server in the background, from when `url` answers until the block is left; fails with its log."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # mlflow calls uvicorn by its name
    env = (env or os.environ) | {"PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(log, "a") as file:
        server = subprocess.Popen(command, env=env, start_new_session=True, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{url} does not answer:\n{log.read_text()}")
            time.sleep(0.2)
        yield
    finally:
        stop(server)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401  # it asks for a token
    except OSError:
        return False


def stop(server: subprocess.Popen, with_signal: signal.Signals = signal.SIGTERM) -> None:
    """Ends a server and the group of processes that it leads."""
    try:
        os.killpg(server.pid, with_signal)
        server.wait(20)
    except ProcessLookupError:
        pass
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


STORE = "PRERANK_TESTS_STORE"
"""Names a SQLite file that MLflow has set up, by a hundred migrations; tests and their processes start from copies."""


def set_up_store() -> Path:
    """That file, which is made the first time."""
    template = Path(os.environ[STORE])
    if not template.exists():
        from mlflow.store.db import utils
        from sqlalchemy import create_engine

        mine = template.with_suffix(f".{os.getpid()}")
        engine = create_engine(f"sqlite:///{mine}")
        inspect.unwrap(utils._initialize_tables)(engine)
        engine.dispose()
        mine.rename(template)
    return template


def copy_stores() -> None:
    """Has MLflow fill a new SQLite file from that one, for as long as this process lives."""
    from mlflow.store.db import utils

    set_up = utils._initialize_tables

    @functools.wraps(set_up)
    def copy(engine):
        if engine.dialect.name != "sqlite":
            return set_up(engine)
        with closing(sqlite3.connect(set_up_store())) as whole, closing(engine.raw_connection()) as empty:
            whole.backup(empty.driver_connection)

    utils._initialize_tables = copy


@contextmanager
def started(store_uri: str, artifacts: Path, port: int | None = None) -> Iterator[str]:
    """`mlflow server` on `store_uri`; its URL. Give `port` to start it again where it was."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store_uri, "--artifacts-destination", str(artifacts)]
    artifacts.mkdir(parents=True, exist_ok=True)
    file = Path(store_uri.removeprefix("sqlite:///"))
    if store_uri.startswith("sqlite:") and not file.exists():
        shutil.copy(set_up_store(), file)
    with answering(command, f"{url}/health", artifacts.parent / f"{artifacts.name}.server.log"):
        yield url


class Server:
    """`mlflow server` on a SQLite file in `folder`, which can be taken down for a while; its URL is `uri`."""

    def __init__(self, folder: Path) -> None:
        self.where = f"sqlite:///{folder}/server.db", folder / "artifacts", free_port()
        self._start()

    def _start(self) -> None:
        self.running = ExitStack()
        self.uri = self.running.enter_context(started(*self.where))

    def down(self) -> None:
        self.running.close()

    def up(self) -> None:
        """Where it was, unless it is there."""
        if not _answers(f"{self.uri}/health"):
            self._start()


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A new PostgreSQL cluster that only a private socket reaches, its log in `folder`; its URI for SQLAlchemy.

    Skips the test where the machine has no PostgreSQL. As root, which PostgreSQL refuses, it runs as user `postgres`.
    """
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: int(place.parent.name))
    found = {name: shutil.which(name, path=str(places[-1]) if places else None) for name in ("initdb", "postgres")}
    if None in found.values():
        pytest.skip("no PostgreSQL on this machine (Debian: apt-get install postgresql)")
    as_user = []
    if os.getuid() == 0:
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    log = folder / "postgres.log"
    # A folder of its own: the user postgres cannot enter pytest's, and a socket's path is short.
    with tempfile.TemporaryDirectory(prefix="prerank-pg-") as place, open(log, "w") as file:
        if as_user:
            shutil.chown(place, "postgres", "postgres")
        output = {"cwd": place, "stdout": file, "stderr": file, "start_new_session": True}
        options = ["-D", f"{place}/data", "-U", "prerank", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run([*as_user, found["initdb"], *options], check=True, **output)
        options = ["-D", f"{place}/data", "-k", place, "-c", "listen_addresses=", "-c", "fsync=off"]
        server = subprocess.Popen([*as_user, found["postgres"], *options], **output)
        try:
            while "ready to accept connections" not in log.read_text():
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
            yield f"postgresql+psycopg2://prerank@/postgres?host={place}"
        finally:
            stop(server, signal.SIGINT)  # PostgreSQL's fast shutdown: it ends its connections
