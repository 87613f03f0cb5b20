"""Secrets come from the environment, and nothing that a run writes or prints holds one."""

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from logs_fixture import write_logs
from samples_fixture import build, made_up_latency, random_teacher, teach_here
from server_fixture import started

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
SMALL = ("--k", "12", "--optim.batch", "16", "--optim.epoch-steps", "1", "--optim.epochs", "2", "--compute.cpus", "0.5")
SEARCH = ("--search.method", "autofas", "--search.epochs", "3", "--search.warmup-epochs", "1")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Logs, a server that asks for no password and is given one, and planted secrets by name."""
    folder = tmp_path_factory.mktemp("secrets")
    write_logs(folder / "logs", requests=240)
    planted = {name: secrets.token_hex(16) for name in ("password", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN")}
    with started(f"sqlite:///{folder}/server.db", folder / "artifacts") as url:
        host = url.removeprefix("http://")
        yield folder, host, planted


@pytest.mark.parametrize("what", ["pipeline", "tune"])
def test_no_secret_is_written_or_printed(workplace, what):
    folder, host, planted = workplace
    out = folder / what
    if what == "pipeline":
        command = ["pipeline", "--logs", folder / "logs", "--out", out, *SMALL, *SEARCH]
    else:
        samples = build(folder / "logs", folder / "samples")
        teacher = random_teacher(samples, folder / "teacher")
        taught = teach_here(samples, teacher, folder / "taught")
        table = made_up_latency(folder / "latency.json", taught, candidates=48)
        command = ["tune", "--space", "smoke", "--trials", "2", "--samples", taught, "--teacher", teacher]
        command += ["--logs", folder / "logs", "--latency-table", table, "--latency.candidates", "48", "--out", out]
        command += ["--widths", "8"]
        command += SMALL
    with tempfile.TemporaryDirectory(prefix="prerank-") as of_ray:  # Ray's own logs
        env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_"))}
        env |= {name: value for name, value in planted.items() if name != "password"}
        env |= {"MLFLOW_TRACKING_URI": f"http://prerank:{planted['password']}@{host}", "PYTHONPATH": str(ROOT)}
        env |= {"RAY_TMPDIR": of_ray, "RAY_AUTH_MODE": "token", "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
        run = [sys.executable, "-m", f"workflows.{command[0]}", *map(str, command[1:])]
        ran = subprocess.run(run, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert ran.returncode == 0, ran.stdout.decode()[-5000:]
        places = [folder, Path(of_ray)]
        files = [path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
        said = {"what was printed": ran.stdout} | {str(path): path.read_bytes() for path in files}
    for name, value in planted.items():
        forms = value.encode(), value.encode().hex().encode()  # Ray writes some pickles in hexadecimal
        assert [where for where, data in said.items() if any(form in data for form in forms)] == [], name
    # What would hold the secrets was looked at: the address beside the password, and Ray's logs.
    assert any(f"***@{host}".encode() in data for where, data in said.items() if where.startswith(str(out)))
    assert any(where.startswith(of_ray) for where in said) and any(where.endswith("server.db") for where in said)
