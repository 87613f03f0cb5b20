"""How long a command takes before it does anything: its imports, Ray's start, its first block, its first step."""

import itertools
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from prerank.benchmarks.memory import ITEMS, write_logs
from prerank.benchmarks.rows import Row, in_turns, medians

IMPORTS_S, OF_RAY, JOINED_S = 2.0, 1.5, 5.0
"""What is to be reached: of each command's imports, of Ray's own start, of a command on a cluster that runs."""
TRAIN = """
import pathlib, ray.train.torch, sys
ray.init(log_to_driver=False, logging_level="WARNING")
folder = sys.argv[1]
def begun():
    pathlib.Path(folder, "begun").touch()
kept = ray.train.RunConfig(storage_path=folder, name="run")
ray.train.torch.TorchTrainer(begun, run_config=kept, scaling_config=ray.train.ScalingConfig(num_workers=1)).fit()
"""
"""What any training on Ray Train waits for before its function begins."""
RAY = """
import pathlib, ray, sys
ray.init(log_to_driver=False, logging_level="WARNING")
pathlib.Path(sys.argv[1], str(ray.get(ray.remote(lambda: 1).remote()))).touch()
"""
"""What any program on a Ray of its own waits for."""
HEAD = """
import ray, sys
from prerank.core.cluster.private import listen_on_loopback
listen_on_loopback()
ray.init(include_dashboard=False, log_to_driver=False, logging_level="WARNING")
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
FEW = 50 * ITEMS
"""Rows of the logs that the first block is of."""


def imports(modules: tuple[str, ...], *, rounds: int) -> list[Row]:
    """Seconds to import each, once the operating system has the files in its cache."""
    turns = {name: partial(_python, f"import {name}") for name in ("sys", *modules)}
    took = medians(in_turns(turns, rounds, warm=_uncounted(rounds)))
    python = took.pop("sys")
    what = "seconds to import, Python's own start left out"
    detail = f"Python alone {python:.2f} s"
    return [
        Row(f"start, {name}", what, max(0.0, seconds - python), "s", IMPORTS_S, detail=detail)
        for name, seconds in took.items()
    ]


def commands(samples: Path, *, rounds: int) -> list[Row]:
    """From the command to its first block and first training step, of Ray's own start; and a command that joins."""
    with tempfile.TemporaryDirectory() as folder, _tracked(Path(folder)) as tracked:
        logs, numbers = Path(folder) / "logs", itertools.count()
        write_logs(logs, FEW // ITEMS, False)

        def fresh() -> Path:
            """A folder that nothing was written to."""
            made = Path(folder) / str(next(numbers))
            made.mkdir()
            return made

        def ray() -> float:
            at = fresh()
            return _until(["-c", RAY, str(at)], at, "*", tracked)

        def ray_train() -> float:
            at = fresh()
            return _until(["-c", TRAIN, str(at)], at, "begun", tracked)

        def build(until: str, environment: Mapping[str, str]) -> float:
            at = fresh()
            command = ["-m", "workflows.build_samples", "--logs", str(logs), "--out", f"{at}/out"]
            return _until(command, at, until, environment)

        def train() -> float:
            at = fresh()
            flags = ["--samples", str(samples), "--out", f"{at}/out", "--optim.epochs", "1"]
            flags += ["--compute.checkpoint-steps", "1"]  # the first step leaves a checkpoint
            flags += ["--optim.epoch-steps", "1", "--optim.batch", "1024"]  # and few come after it
            return _until(["-m", "workflows.train_student", *flags], at, "**/*.latest.safetensors", tracked)

        first = {"block": lambda: build("*/train/*.parquet", tracked), "training step": train}
        took = _medians({"Ray": ray, "Ray Train": ray_train, **first}, rounds, warm=_uncounted(rounds))
        with _head(tracked, Path(folder) / "token") as joined:
            took |= _medians({"second": lambda: build("", joined)}, rounds, warm=1)
    what, rows = "from the command on, of Ray's own start and a task", []
    for name in first:
        detail = f"{took[name]:.1f} and {took['Ray']:.1f} s"
        rows.append(Row(f"start, first {name}", what, took[name] / took["Ray"], "times", OF_RAY, detail=detail))
    whole, bare = took["training step"], took["Ray Train"]
    what, detail = "the same, of an empty function's on Ray Train", f"{whole:.1f} and {bare:.1f} s"
    rows.append(Row("start, of Ray Train's", what, whole / bare, "times", detail=detail))
    what = f"build_samples of {FEW:,} rows, whole, at a RAY_ADDRESS that it was at before"
    return [*rows, Row("start, second command", what, took["second"], "s", JOINED_S, detail="its imports included")]


def _uncounted(rounds: int) -> int:
    """Of several rounds, one before them fills the operating system's cache."""
    return int(rounds > 1)


def _medians(turns: Mapping[str, Callable[[], float]], rounds: int, *, warm: int) -> dict[str, float]:
    """Of the seconds that turns say themselves, after `warm` rounds that do not count."""
    said: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(warm + rounds):
        for name, turn in turns.items():
            said[name].append(turn())
    return {name: statistics.median(seconds[warm:]) for name, seconds in said.items()}


@contextmanager
def _tracked(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a command, whose runs in MLflow are in the folder."""
    yield {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}


@contextmanager
def _head(environment: Mapping[str, str], token: Path) -> Iterator[Mapping[str, str]]:
    """The environment of a command that joins a Ray, which runs while the block lasts and asks for that token."""
    token.write_text(secrets.token_hex(32))
    environment = {**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with subprocess.Popen([sys.executable, "-c", HEAD], stdin=-1, stdout=-1, text=True, env=environment) as head:
        assert head.stdout
        yield {**environment, "RAY_ADDRESS": head.stdout.readline().strip()}


def _python(source: str) -> None:
    subprocess.run([sys.executable, "-c", source], check=True)


def _until(command: list[str], where: Path, pattern: str, environment: Mapping[str, str]) -> float:
    """Seconds until a file of that pattern is there, or without one until the end; it runs to its end either way."""
    begun = time.perf_counter()
    run = subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL)
    first = None
    while run.poll() is None:
        if pattern and first is None and any(where.glob(pattern)):
            first = time.perf_counter() - begun
        time.sleep(0.02)
    assert run.returncode == 0
    if pattern:
        assert first is not None, f"{command[1]}: no {pattern} was seen"
        return first
    return time.perf_counter() - begun
