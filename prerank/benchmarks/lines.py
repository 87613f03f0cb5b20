"""Whole commands: a sweep beside the same trials as processes, an evaluation as it grows, the demo by steps."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prerank.benchmarks import driver
from prerank.benchmarks.memory import watch
from prerank.benchmarks.rows import Row, in_turns, medians

OF_PROCESSES, FLAT = 1.5, 1.3
"""Of the trials an hour of plain processes, at least; of the peak memory at a quarter of the requests, at most."""
SPACE = "smoke"
SIMULATED = (250_000, 1_000_000)
"""Requests of the simulated evaluation."""


@dataclass(frozen=True)
class Made:
    """What a demo has made."""

    logs: Path
    samples: Path
    """Taught."""
    teacher: Path
    student: Path


def sweep(made: Made, *, trials: int, epochs: int, rounds: int) -> list[Row]:
    """`workflows.tune`, its last training and evaluation included, against the same trials, a process a core at a time:
    each a command, or all those of a process by Optuna."""
    learns = ["--samples", str(made.samples), "--optim.epochs", str(epochs), "--distill.score", "1"]

    def tuned() -> None:
        with _tracked() as (folder, environment):
            flags = ["--space", SPACE, "--trials", str(trials), "--sampler", "random", "--scheduler", "none"]
            flags += ["--logs", str(made.logs), "--teacher", str(made.teacher), "--out", f"{folder}/sweep"]
            _run(["workflows.tune", *flags, *learns], environment)

    def processes() -> None:
        with _tracked() as (folder, environment), ThreadPoolExecutor(os.cpu_count()) as pool:
            each = [["workflows.train_student", "--out", f"{folder}/{n}", *learns] for n in range(trials)]
            list(pool.map(lambda command: _run(command, environment), each))

    def alone() -> None:
        with _tracked() as (folder, environment):
            flags = [str(made.samples), f"{folder}/sweep", str(trials), str(epochs)]
            _run(["prerank.benchmarks.peers.optuna_sweep", *flags], environment)

    turns = {"tune": tuned, "train_student as processes": processes, "Optuna alone": alone}
    took = medians(in_turns(turns, rounds, warm=0))  # each starts anew
    an_hour = {name: 3600 * trials / seconds for name, seconds in took.items()}
    ours, rows = an_hour.pop("tune"), []
    for name, theirs in an_hour.items():
        what, detail = f"trials an hour of {trials} on Ray Tune, of {name}", f"{ours:,.0f} and {theirs:,.0f}"
        rows.append(Row(f"sweep, {name}", what, ours / theirs, "times", least=OF_PROCESSES, detail=detail))
    return rows


def evaluation(made: Made, *, requests: int, rounds: int) -> list[Row]:
    """The peak of `workflows.evaluate` on simulated logs of so many test requests, and of four times as many."""
    peaks: dict[int, float] = {}
    for tested in (requests, 4 * requests):
        with _tracked() as (folder, environment):
            flags = ["--requests", str(6 * tested), "--eval-requests", str(tested), "--out", f"{folder}/logs"]
            _run(["workflows.make_logs", *flags], environment)
            taken = []
            for turn in range(rounds):
                flags = ["--logs", f"{folder}/logs", "--teacher", str(made.teacher), "--student", str(made.student)]
                taken.append(watch("workflows.evaluate", [*flags, "--out", f"{folder}/{turn}.json"])[1])
            peaks[tested] = sorted(taken)[rounds // 2]
    few, many = peaks.values()
    what, detail = "peak memory of evaluate at x4 test requests, of x1's", _mib(peaks)
    return [Row("memory, evaluate", what, many / few, "times", FLAT, detail=detail), _driver()]


def _driver() -> Row:
    """Once each: what is held does not differ from run to run."""
    peaks = {requests: watch("prerank.benchmarks.driver", [f"{requests}"])[1] for requests in SIMULATED}
    few, many = peaks.values()
    what = f"its driver's by simulation, {driver.CANDIDATES:,} candidates, {len(driver.MODELS)} models"
    return Row("memory, evaluate's driver", what, many / few, "times", FLAT, detail=_mib(peaks))


def _mib(peaks: Mapping[int, float]) -> str:
    return ", ".join(f"{requests:,} requests: {peak:,.0f} MiB" for requests, peak in peaks.items())


def pipeline() -> list[Row]:
    """`make demo` without its set-up, once: what each step takes is the time between what the steps leave."""
    with _tracked() as (folder, environment):
        begun = time.time()
        _run(["workflows.make_logs", "--out", f"{folder}/logs"], environment)
        _run(["workflows.pipeline", "--logs", f"{folder}/logs", "--out", f"{folder}/demo"], environment)
        steps = _steps(folder, begun)
    total = sum(steps.values())
    said = ", ".join(f"{name} {seconds:.0f}" for name, seconds in steps.items())
    return [Row("pipeline", "make demo after set-up", total, "s", detail=f"s: {said}")]


def _steps(folder: Path, begun: float) -> dict[str, float]:
    """Seconds until each step's last file, from the step before it, in the order of their ends."""
    demo = folder / "demo"
    ends = {"logs": _latest(folder / "logs")}
    ends |= {name: _latest(demo / name) for name in ("samples", "teacher", "taught", "students", "search")}
    ends |= {"latency": (demo / "latency.json").stat().st_mtime, "evaluation and report": _latest(demo)}
    out: dict[str, float] = {}
    for name, end in sorted(ends.items(), key=lambda step: step[1]):
        out[name], begun = end - begun, end
    return out


def _latest(path: Path) -> float:
    return max(file.stat().st_mtime for file in path.rglob("*") if file.is_file())


@contextmanager
def _tracked() -> Iterator[tuple[Path, dict[str, str]]]:
    """An empty folder and the environment of commands whose runs in MLflow are kept there."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name), {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{name}/mlflow.db"}


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    module, *flags = command
    subprocess.run([sys.executable, "-m", module, *flags], env=environment, check=True, stdout=subprocess.DEVNULL)
