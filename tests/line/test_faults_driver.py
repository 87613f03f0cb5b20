"""Drivers that are killed, and started again."""

import json
from contextlib import nullcontext

import pytest
from driver_fixture import Driver
from nodes_fixture import Watch, assert_none_doubled, content, left_behind, runs_of

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]
FLAGS = "--search.method autofas "
FLAGS += "--k 12 --search.epochs 3 --search.warmup-epochs 1 --optim.batch 16 --optim.epoch-steps 1 --optim.epochs 2"
FLAGS += " --teacher-optim.batch 16 --teacher-optim.epoch-steps 1 --teacher-optim.epochs 2 --compute.cpus 0.5"


def rows(out) -> dict:
    """What results.json says of each arm, but for times; what is searched depends on the times measured."""
    found = {row["name"]: row for row in json.loads((out / "results.json").read_text())["rows"]}
    del found["searched"]
    return {
        name: {key: value for key, value in row.items() if not key.endswith("_us") and key != "vs_searched"}
        for name, row in found.items()
    }


@pytest.fixture(scope="module")
def undisturbed(cluster, mlflow_server, logs, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    env = cluster.env | {"MLFLOW_TRACKING_URI": mlflow_server.uri}
    command = ["workflows.pipeline", "--logs", logs, "--out", out, *FLAGS.split()]
    with Driver(out.parent / "log", env, "drive", *command) as driver:
        driver.ends_well()
    return out


def test_a_pipeline_killed_three_times(nodes, tracked, mlflow_server, undisturbed, logs, tmp_path):
    """While it builds samples, in the second epoch of the teacher, and among the students."""
    out, log = tmp_path / "run", tmp_path / "log"
    command = ["drive", "workflows.pipeline", "--logs", logs, "--out", out, *FLAGS.split()]
    students = {out / "students" / name: "student" for name in ("base", "all")}
    outputs = {out / "samples": "samples", out / "taught": "samples", out / "teacher": "teacher"}
    moments = {
        "part": lambda: nodes.held.been("part"),
        "epoch1": lambda: nodes.held.been("epoch1"),
        "": lambda: list(out.glob(".students.work/*/checkpoint_*")),
    }
    with Watch(outputs | students | {out / "results.json": "json"}):
        for point, reached in moments.items():
            with Driver(log, tracked, *command) as driver, nodes.held.at(point) if point else nullcontext():
                driver.wait_for(reached, point or "a checkpoint of the students")
                driver.kill()
        assert (out / "taught").exists() and not (out / "students" / "all").exists()
        with Driver(log, tracked, *command) as driver:
            driver.ends_well()
    for name in ("samples", "taught"):
        assert content(out / name) == content(undisturbed / name)
    assert rows(out) == rows(undisturbed)
    parent, children = runs_of(mlflow_server.uri, out / "run.json")
    steps = {"build_samples", "teach", "profile_latency", "search", "evaluate"}
    assert parent.info.status == "FINISHED"
    assert_none_doubled(children, {*steps, "searched", *rows(out)})
    assert left_behind(out) == []
