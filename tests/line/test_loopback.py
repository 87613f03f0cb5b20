"""Nothing listens beyond loopback by default."""

import os
import sys
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
KNOWN = ("gcs_server", "raylet", "ray::")


def listeners(process):
    """(process name, address) of every port that the process and its children listen on."""
    found = set()
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended meanwhile
            named = one.name()
            found |= {(named, c.laddr.ip) for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return found


def test_a_command_listens_on_loopback_alone(taught, tmp_path):
    """A training, with what Ray and torch open for it."""
    command = ["train_student", "--samples", taught, "--out", tmp_path / "student", "--k", "12", "--optim.batch", "16"]
    command += ["--optim.epoch-steps", "1", "--optim.epochs", "5"]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_", "GLOO_"))}
    env |= {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-m", f"workflows.{command[0]}", *map(str, command[1:])]
    found: set[tuple[str, str]] = set()
    with open(tmp_path / "log", "w") as log, psutil.Popen(run, cwd=ROOT, env=env, stdout=log, stderr=log) as process:
        while process.poll() is None:
            found |= listeners(process)
            time.sleep(0.3)
    assert process.returncode == 0, (tmp_path / "log").read_text()[-5000:]
    assert all(any(known in name for name, _ in found) for known in KNOWN)
    beyond = {(name, address) for name, address in found if not _loopback(address)}
    assert beyond == set()


def _loopback(address: str) -> bool:
    ip = ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback
