"""Nodes that are lost, and a tracking server that goes down, on a cluster of several nodes."""

import json

import pytest
from driver_fixture import Driver
from logs_fixture import write_logs
from mlflow.tracking import MlflowClient
from nodes_fixture import Watch, assert_none_doubled, assert_same_student, content, left_behind, runs_of
from nodes_host import CPUS

from prerank.core.outputs import read_manifest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]


@pytest.mark.parametrize("shuffled", [False, True], ids=["clustered", "shuffled"])
def test_a_node_lost_while_samples_are_built(nodes, logs, samples, tmp_path, shuffled):
    """Its tasks have written their parts, and die before they could say so."""
    if shuffled:
        write_logs(tmp_path / "logs", requests=240, days=4, shuffled=True)
        logs = tmp_path / "logs"
    out = tmp_path / "built" / "samples"
    command = ["workflows.build_samples", "--logs", logs, "--out", out, "--blocks", 6]
    with Watch({out: "samples"}), Driver(tmp_path / "log", nodes.env, "drive", *command) as driver:
        with nodes.held.at("part"):
            node, _ = driver.wait_for(lambda: nodes.held.been("part"), "a part")[0]
            nodes.lose(node)
        driver.ends_well()
    assert content(out) == content(samples)
    counts = [read_manifest(folder, kind="samples")["counts"] for folder in (samples, out)]
    assert counts[0] == counts[1]
    assert left_behind(out.parent) == []


@pytest.mark.parametrize(
    ("workers", "cpus", "tolerances"),
    [(1, 1, {"losses": 0, "weights": 0}), (2, CPUS, {"losses": 1e-4, "weights": 5e-3})],
    ids=["one worker", "two workers"],
)
def test_a_node_lost_in_training(nodes, tracked, mlflow_server, one_worker, tmp_path, workers, cpus, tolerances):
    """In mid-epoch, after a checkpoint. Two workers need both nodes, so another one has to come."""
    command, student = one_worker
    out = tmp_path / "student"
    command = [*command, "--out", out, "--compute.workers", workers, "--compute.cpus", cpus]
    with Watch({out: "student"}), Driver(tmp_path / "log", tracked, "drive", *command) as driver:
        with nodes.held.at("epoch1"):
            node, _ = driver.wait_for(lambda: nodes.held.been("epoch1"), "the second epoch")[0]
            nodes.lose(node)
            if workers == 2:
                nodes.fill()
        driver.ends_well()
    assert len(nodes.held.been("worker")) == 2 * workers
    assert_same_student(out, student, **tolerances)
    assert left_behind(tmp_path) == []
    experiment = MlflowClient(mlflow_server.uri).get_experiment_by_name("student").experiment_id
    runs = MlflowClient(mlflow_server.uri).search_runs([experiment], f"tags.out = '{out}'")
    assert [run.info.status for run in runs] == ["FINISHED"]


@pytest.fixture(scope="module")
def sweep(cluster, mlflow_server, logs, samples, taught, tmp_path_factory):
    """The flags of a small sweep whose draws and results do not depend on timing, and what it comes to undisturbed."""
    folder = tmp_path_factory.mktemp("sweep")
    teacher = taught.parent / "teacher"
    flags = f"--space smoke --samples {taught} --logs {logs} --teacher {teacher} --trials 3 --sampler random"
    flags += " --scheduler none --widths 8 --k 12 --optim.batch 16 --optim.epoch-steps 1 --optim.epochs 3"
    flags += " --distill.projection 4"
    command = ["workflows.tune", *flags.split()]
    env = cluster.env | {"MLFLOW_TRACKING_URI": mlflow_server.uri}
    with Driver(folder / "log", env, "drive", *command, "--model", "quiet", "--out", folder / "out") as driver:
        driver.ends_well()
    return command, outcome(folder / "out")


def outcome(out):
    """What a sweep found, without names and times."""
    results = json.loads((out / "results.json").read_text())
    trials = json.loads((out / "trials.json").read_text())
    found = sorted((trial["drawn"]["optim.lr"], trial["value"], trial["epochs"], trial["status"]) for trial in trials)
    return found, results["best"]["value"], {k: v for k, v in results["test"].items() if k.startswith("recall")}


def assert_a_run_a_trial(mlflow_server, out):
    parent, children = runs_of(mlflow_server.uri, out / "run.json")
    assert parent.info.status == "FINISHED"
    trials = {trial["name"] for trial in json.loads((out / "trials.json").read_text())}
    assert len(trials) == 3
    assert_none_doubled(children, {*trials, "student", "export"})
    client = MlflowClient(mlflow_server.uri)
    for name in trials:
        points = client.get_metric_history(children[name][0].info.run_id, "val/recall_at_12")
        assert sorted({point.step for point in points}) == [1, 2, 3]
        assert len({(point.step, point.value) for point in points}) == 3


def test_a_node_lost_in_a_sweep(nodes, tracked, mlflow_server, sweep, tmp_path):
    """With a trial in its second epoch."""
    command, expected = sweep
    command = [*command, "--model", "lost", "--out", tmp_path / "out"]
    with (
        Watch({tmp_path / "out" / "results.json": "json"}),
        Driver(tmp_path / "log", tracked, "drive", *command) as driver,
    ):
        with nodes.held.at("epoch2"):
            node, _ = driver.wait_for(lambda: nodes.held.been("epoch2"), "a second epoch")[0]
            nodes.lose(node)
        driver.ends_well()
    assert outcome(tmp_path / "out") == expected
    assert sum(trial["failures"] for trial in json.loads((tmp_path / "out" / "trials.json").read_text())) >= 1
    assert_a_run_a_trial(mlflow_server, tmp_path / "out")


def test_the_tracking_server_goes_down_in_a_sweep(nodes, tracked, mlflow_server, sweep, tmp_path):
    """From the second epoch of the trials to their third."""
    command, expected = sweep
    command = [*command, "--model", "down", "--out", tmp_path / "out"]
    with Driver(tmp_path / "log", tracked, "drive", *command) as driver:
        with nodes.held.at("epoch3"):
            with nodes.held.at("epoch2"):
                driver.wait_for(lambda: len(nodes.held.been("epoch2")) == 3, "second epochs")
                mlflow_server.down()
            driver.wait_for(lambda: len(nodes.held.been("epoch3")) == 3, "third epochs")
            assert list(tmp_path.glob(".out.unsent-*/queue.jsonl"))
            mlflow_server.up()
        driver.ends_well()
    assert outcome(tmp_path / "out") == expected
    assert_a_run_a_trial(mlflow_server, tmp_path / "out")
    assert not list(tmp_path.glob(".out.unsent-*"))
