"""Whole commands from times and peaks that are known."""

import os
from types import SimpleNamespace

import pytest

from prerank.benchmarks import driver, lines, rows, starting
from prerank.benchmarks.peers import optuna_sweep
from prerank.training.student import load_student

pytestmark = pytest.mark.slow  # starts processes


@pytest.fixture
def made(tmp_path):
    return lines.Made(*(tmp_path / name for name in ("logs", "samples", "teacher", "student")))


@pytest.fixture
def now(monkeypatch):
    clock = SimpleNamespace(s=0.0)
    monkeypatch.setattr(rows.time, "perf_counter", lambda: clock.s)
    return clock


def test_a_sweep_is_held_against_as_many_processes(made, now, monkeypatch):
    commands = []

    def run(command, environment):
        assert environment["MLFLOW_TRACKING_URI"].startswith("sqlite:///")
        commands.append(command)
        now.s += {"workflows.tune": 40.0, "workflows.train_student": 10.0}.get(command[0], 30.0)

    monkeypatch.setattr(lines, "_run", run)
    monkeypatch.setattr(lines.os, "cpu_count", lambda: 1)
    of_commands, of_optuna = lines.sweep(made, trials=8, epochs=3, rounds=2)
    assert of_commands.value == pytest.approx(2.0) and of_commands.reached and of_commands.detail == "720 and 360"
    assert of_optuna.value == pytest.approx(0.75) and not of_optuna.reached
    students = [command for command in commands if command[0] == "workflows.train_student"]
    of_workflows = [command for command in commands if command[0].startswith("workflows.")]
    assert len(students) == 8 * 2 and all(c[c.index("--optim.epochs") + 1] == "3" for c in of_workflows)
    assert [c[-2:] for c in commands if c[0].endswith("optuna_sweep")] == [["8", "3"]] * 2
    assert len({command[command.index("--out") + 1] for command in students}) == len(students)


def test_optuna_alone_trains_as_many_trials_in_its_processes(taught, tmp_path, monkeypatch):
    monkeypatch.setattr(optuna_sweep.os, "cpu_count", lambda: 2)
    study = optuna_sweep.sweep(taught, tmp_path / "sweep", 3, 1, k=12)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert len({trial.params["optim.lr"] for trial in study.trials}) == 3
    best = {trial.number: load_student(tmp_path / "sweep" / str(trial.number)).model.manifest for trial in study.trials}
    for trial in study.trials:
        assert best[trial.number]["best"]["val/recall_at_12"] == trial.value


def test_an_evaluation_is_watched_as_requests_grow(made, monkeypatch):
    asked = []
    monkeypatch.setattr(lines, "_run", lambda command, _: asked.append(int(command[command.index("--requests") + 1])))
    peaks = {
        "workflows.evaluate": lambda _: 500.0 + asked[-1] / 6,
        "prerank.benchmarks.driver": lambda n: 80 + int(n) / 1e6,
    }
    monkeypatch.setattr(lines, "watch", lambda module, flags: (1.0, peaks[module](flags[0])))
    row, of_driver = lines.evaluation(made, requests=100, rounds=3)
    assert asked == [600, 2400] and row.value == pytest.approx(900 / 600) and not row.reached
    assert of_driver.value == pytest.approx(81 / 80.25) and of_driver.reached


def test_a_driver_of_an_evaluation_holds_the_requests_that_are_drawn(monkeypatch):
    monkeypatch.setattr(driver, "CANDIDATES", 300)
    monkeypatch.setattr("prerank.evaluation.evaluate.MOST_REQUESTS", 250)
    monkeypatch.setattr("prerank.evaluation.evaluate.POOLED", 300 * 125)
    assert [driver.simulate(requests) for requests in (120, 1_000)] == [120, 250]


def test_steps_are_told_apart_by_what_they_leave(tmp_path):
    def wrote(name, at):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        os.utime(path, (at, at))

    wrote("logs/fine_lists/0.parquet", 1010)
    ends = {"samples": 1030, "teacher": 1100, "taught": 1110, "students": 1200, "search": 1250}
    for name, at in ends.items():
        wrote(f"demo/{name}/manifest.json", at)
    wrote("demo/latency.json", 1045)
    wrote("demo/report.html", 1260)
    steps = lines._steps(tmp_path, 1000)
    assert steps == {
        **{"logs": 10, "samples": 20, "latency": 15, "teacher": 55, "taught": 10, "students": 90, "search": 50},
        "evaluation and report": 10,
    }


@pytest.mark.slow
def test_a_start_is_until_a_file_is_there(tmp_path, monkeypatch):
    """The command goes on to its end after the file."""
    source = "import pathlib, sys, time; time.sleep(.2); pathlib.Path(sys.argv[1], 'a').touch(); time.sleep(.4)"
    (tmp_path / "sleeps.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    at = tmp_path / "at"
    at.mkdir()
    first = starting._until(["-m", "sleeps", str(at)], at, "*", dict(os.environ))
    whole = starting._until(["-m", "sleeps", str(at)], at, "", dict(os.environ))
    assert 0.2 < first < whole and whole > 0.6


def test_the_first_of_several_rounds_does_not_count():
    said = iter([100.0, 1.0, 2.0, 9.0, 7.0])
    assert (starting._uncounted(3), starting._uncounted(1)) == (1, 0)
    assert starting._medians({"a": lambda: next(said)}, 3, warm=1) == {"a": 2.0}
    assert starting._medians({"a": lambda: next(said)}, 1, warm=0) == {"a": 7.0}
