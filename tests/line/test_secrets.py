"""Secrets come from the environment, and nothing that a run writes or prints holds one."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from logs_fixture import write_logs
from server_fixture import started

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
SMALL = ("--k", "12", "--optim.batch", "16", "--optim.epoch-steps", "1", "--optim.epochs", "2", "--compute.cpus", "0.5")
TEACHER = ("--teacher-optim.batch", "16", "--teacher-optim.epoch-steps", "1", "--teacher-optim.epochs", "2")
SEARCH = ("--search.method", "autofas", "--search.epochs", "3", "--search.warmup-epochs", "1")


BOTH = """
import json, runpy, sys
for command in json.loads(sys.argv[1]):
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Ran:
    """What both commands wrote and printed, and the secrets by name."""

    out: Path
    of_ray: Path
    host: str
    planted: dict[str, str]
    said: dict[str, bytes]
    """By what was printed, and by file."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A pipeline and a sweep of its students in one process, whose server asks for no password and is given one."""
    folder = tmp_path_factory.mktemp("secrets")
    write_logs(folder / "logs", requests=240)
    planted = {name: secrets.token_hex(16) for name in ("password", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN")}
    out = folder / "out"
    made = out / "pipeline"
    pipeline = ["workflows.pipeline", "--logs", folder / "logs", "--out", made, *SMALL, *TEACHER, *SEARCH]
    tune = ["workflows.tune", "--space", "smoke", "--trials", "2", "--samples", made / "taught", "--out", out / "tune"]
    tune += ["--teacher", made / "teacher", "--logs", folder / "logs", "--latency-table", made / "latency.json"]
    tune += ["--latency.candidates", "48", *SMALL]
    with (
        started(f"sqlite:///{folder}/server.db", folder / "artifacts") as url,
        tempfile.TemporaryDirectory(prefix="prerank-") as of_ray,  # Ray's own logs
    ):
        host = url.removeprefix("http://")
        others = ("RAY_AUTH", "RAY_ADDRESS", "MLFLOW_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        env |= {name: value for name, value in planted.items() if name != "password"}
        env |= {"MLFLOW_TRACKING_URI": f"http://prerank:{planted['password']}@{host}"}
        env |= {"RAY_TMPDIR": of_ray, "RAY_AUTH_MODE": "token"}
        command = [sys.executable, "-c", BOTH, json.dumps([list(map(str, one)) for one in (pipeline, tune)])]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        ended = subprocess.run(command, cwd=ROOT, env=env, check=False, **output)
        assert ended.returncode == 0, ended.stdout.decode()[-5000:]
        places = [folder, Path(of_ray)]
        files = [path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
        said = {"what was printed": ended.stdout} | {str(path): path.read_bytes() for path in files}
        yield Ran(out, Path(of_ray), host, planted, said)


def test_no_secret_is_written_or_printed(ran):
    for name, value in ran.planted.items():
        forms = value.encode(), value.encode().hex().encode()  # Ray writes some pickles in hexadecimal
        assert [where for where, data in ran.said.items() if any(form in data for form in forms)] == [], name


@pytest.mark.parametrize("what", ["pipeline", "tune"])
def test_what_would_hold_the_secrets_was_looked_at(ran, what):
    """The address beside the password, and Ray's logs."""
    out = str(ran.out / what)
    assert any(f"***@{ran.host}".encode() in data for where, data in ran.said.items() if where.startswith(out))
    assert any(where.startswith(str(ran.of_ray)) for where in ran.said)
    assert any(where.endswith("server.db") for where in ran.said)
