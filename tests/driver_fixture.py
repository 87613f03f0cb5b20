"""Workflows as processes of their own, which can be killed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import Fork

ROOT = Path(__file__).parents[1]
PATIENCE_S = 600


def environment() -> dict[str, str]:
    """This process's, with the code and the tests to import, and without what points to a cluster or a store."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_ADDRESS", "RAY_AUTH", "MLFLOW_"))}
    env |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # for which a driver on 127.0.0.1 joins under that address
    return env


class Driver:
    """A workflow as a process of its own, with its output in a file."""

    def __init__(self, log: Path, env: dict[str, str], *command: Any) -> None:
        self.log = log
        with open(log, "a") as file, open(os.devnull) as nothing:
            files = nothing.fileno(), file.fileno(), file.fileno()
            self.process = Fork(["-m", *map(str, command)], env, files)

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        """What the condition says at last; fails with the output where it does not come, or the driver ends before."""
        begun = time.monotonic()
        while not (found := condition()):
            if self.process.poll() is not None:
                pytest.fail(f"{what}: the driver ended with {self.process.returncode} before:\n{tail(self.log)}")
            if time.monotonic() - begun > PATIENCE_S:
                pytest.fail(f"{what}: not within {PATIENCE_S} s:\n{tail(self.log)}")
            time.sleep(0.05)
        return found

    def end(self) -> int:
        """The exit code."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"does not end:\n{tail(self.log)}")

    def ends_well(self) -> None:
        assert self.end() == 0, tail(self.log)

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *_: Any) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def tail(log: Path) -> str:
    return log.read_text()[-5000:]
