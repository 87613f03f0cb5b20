"""`ray job submit` as a cluster gets it: what is shipped, exit codes, logs, and jobs that are stopped."""

import json
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from driver_fixture import PATIENCE_S, ROOT, environment, tail
from mlflow.tracking import MlflowClient
from nodes_fixture import Watch, assert_none_doubled, left_behind, runs_of
from server_fixture import answering, free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]
RAY = Path(sys.executable).parent / "ray"
OF_A_JOB = ("ray::TrainController", "ray::RayTrainWorker", "ray::Board", "ray::Map")


class Head:
    """A head on loopback that asks for a token, and `ray job` against its dashboard."""

    def __init__(self, folder: Path, short: str) -> None:
        self.token, self.log = folder / "token", folder / "head.log"
        self.token.write_text(secrets.token_hex(16))
        dashboard, client, agent = (free_port() for _ in range(3))  # those of other heads on this machine are taken
        self.url = f"http://127.0.0.1:{dashboard}"
        self.env = environment() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}
        self.env |= {"RAY_JOB_STOP_WAIT_TIME_S": "60", "RAY_API_SERVER_ADDRESS": self.url, "PYTHONPATH": ""}
        flags = "--head --block --port 0 --node-ip-address 127.0.0.1 --dashboard-host 127.0.0.1 --num-cpus 2"
        flags += (
            f" --dashboard-port {dashboard} --dashboard-agent-listen-port {agent} --ray-client-server-port {client}"
        )
        flags += f" --min-worker-port 0 --max-worker-port 0 --temp-dir {short} --disable-usage-stats"
        self.command = [str(RAY), "start", *flags.split()]

    def job(self, *what: object, **env: str) -> subprocess.CompletedProcess:
        command = [str(RAY), "job", *map(str, what)]
        options = {"capture_output": True, "text": True, "timeout": PATIENCE_S, "check": False}
        return subprocess.run(command, cwd=ROOT, env=self.env | env, **options)

    def submit(self, name: str, *command: object, wait: bool = True) -> subprocess.CompletedProcess:
        flags = ["--working-dir", ".", "--runtime-env", "cluster/runtime_env.yaml", "--submission-id", name]
        flags += [] if wait else ["--no-wait"]
        return self.job("submit", *flags, "--", "python", "-m", *command)

    def wait_for(self, condition, what):
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() - begun < PATIENCE_S, f"{what}:\n{tail(self.log)}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    with tempfile.TemporaryDirectory(prefix="prerank-") as short:
        head = Head(tmp_path_factory.mktemp("head"), short)
        try:
            with answering(head.command, f"{head.url}/api/version", head.log, head.env):
                yield head
        finally:
            for process, _ in processes(head):  # a worker that waits for its dead head can do so for minutes
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def test_a_job_that_is_stopped_and_the_same_again(head, logs, tmp_path):
    out = tmp_path / "run"
    command = [
        "workflows.pipeline",
        "--logs",
        logs,
        "--out",
        out,
        *["--k", "12", "--search.method", "autofas", "--search.epochs", "3"],
    ]
    command += ["--search.warmup-epochs", "1", "--optim.batch", "16", "--optim.epoch-steps", "1"]
    command += ["--optim.epochs", "2", "--compute.cpus", "0.5", "--teacher-optim.batch", "16"]
    command += ["--teacher-optim.epoch-steps", "1", "--teacher-optim.epochs", "2"]
    outputs = {out / "samples": "samples", out / "teacher": "teacher", out / "taught": "samples"}
    with Watch(outputs | {out / "results.json": "json"}):
        begun = head.submit("stopped", *command, wait=False)
        assert begun.returncode == 0, begun.stdout + begun.stderr
        head.wait_for(lambda: list(out.glob(".teacher.work/*/checkpoint_*")), "a checkpoint")
        stopped = head.job("stop", "stopped")
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        assert "was stopped" in head.job("status", "stopped").stdout
        head.wait_for(lambda: not left_running(head), "processes of the job")
        said = head.job("logs", "stopped").stdout
        assert said.rstrip().endswith("error: stopped by a signal before the end"), said
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        parent, children = runs_of(uri, out / "run.json")
        assert parent.info.status == "KILLED" and not (out / "results.json").exists()
        ended = {run.info.status for runs in children.values() for run in runs}
        assert ended <= {"FINISHED", "KILLED"} and left_behind(out) == []

        again = head.submit("again", *command)
        assert again.returncode == 0, again.stdout + again.stderr
    results = json.loads((out / "results.json").read_text())
    said = head.job("logs", "again").stdout
    assert "Recall@12" in said and "Strategies and scores together keep" in said and f"{out}/report.html" in said
    parent, children = runs_of(uri, out / "run.json")
    assert parent.info.status == "FINISHED"
    steps = {"build_samples", "teach", "profile_latency", "search", "evaluate"}
    assert_none_doubled(children, {*steps, *(row["name"] for row in results["rows"])})
    assert len(MlflowClient(uri).search_runs([parent.info.experiment_id])) == 1 + len(children)
    assert left_behind(out) == []
    written = [path for path in [head.log, *out.rglob("*")] if path.is_file()]
    secret = head.token.read_bytes()
    assert not [path for path in written if secret in path.read_bytes()] and secret.decode() not in said


def processes(head: Head) -> list[tuple[psutil.Process, str]]:
    """All that run with this head's token, with their command lines."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("RAY_AUTH_TOKEN_PATH") == str(head.token):
                found.append((process, " ".join(process.cmdline())))
    return found


def left_running(head: Head) -> list[str]:
    return [line for _, line in processes(head) if "workflows." in line or line.startswith(OF_A_JOB)]


def test_a_fault_of_the_input_is_the_last_line(head, logs):
    """An output within the job's copy of the working directory would be lost with it."""
    done = head.submit("lost", "workflows.build_samples", "--logs", logs, "--out", "runs/samples")
    assert done.returncode != 0 and "error: --out runs/samples: lies in the job's own copy" in done.stdout
    last = head.job("logs", "lost").stdout.rstrip().splitlines()[-1]
    assert last.startswith("error: --out runs/samples: lies in the job's own copy of the working directory")


def test_another_token_is_refused(head, tmp_path):
    other = tmp_path / "token"
    other.write_text(secrets.token_hex(16))
    refused = head.job("list", RAY_AUTH_TOKEN_PATH=str(other))
    assert refused.returncode != 0 and "Authentication" in refused.stdout + refused.stderr
    assert other.read_text() not in refused.stdout + refused.stderr
