"""A head and two raylets: what is built and learned there is what one node builds and learns."""

import pytest
from driver_fixture import Driver, tail
from logs_fixture import write_logs
from nodes_fixture import assert_same_student, content
from nodes_host import CPUS

from prerank.core.outputs import read_manifest

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.parametrize("shuffled", [False, True], ids=["clustered", "shuffled"])
def test_data_tasks_are_spread_and_build_what_one_node_builds(nodes, logs, samples, tmp_path, shuffled):
    if shuffled:
        write_logs(tmp_path / "logs", requests=240, days=4, shuffled=True)
        logs = tmp_path / "logs"
    flags = ["--logs", logs, "--out", tmp_path / "samples", "--blocks", 6]
    with Driver(tmp_path / "log", nodes.env, "drive", "workflows.build_samples", *flags) as driver:
        driver.ends_well()
    assert {node for node, _ in nodes.held.been("part")} == set(nodes.alive)
    assert content(tmp_path / "samples") == content(samples)
    counts = [read_manifest(folder, kind="samples")["counts"] for folder in (samples, tmp_path / "samples")]
    assert counts[0] == counts[1]


def test_two_workers_on_two_nodes_learn_what_one_does(nodes, tracked, one_worker, tmp_path):
    """The stated tolerance of the losses is 1e-4; of the weights it is a few steps of Adam, as in test_fit.py."""
    command, student = one_worker
    command = [*command, "--out", tmp_path / "student", "--compute.workers", 2, "--compute.cpus", CPUS]
    with Driver(tmp_path / "log", tracked, "drive", *command) as driver:
        driver.ends_well()
    assert {node for node, _ in nodes.held.been("worker")} == set(nodes.alive)
    assert_same_student(tmp_path / "student", student, losses=1e-4, weights=5e-3)


def test_sqlite_is_refused_on_several_nodes(nodes, taught, tmp_path):
    flags = ["--samples", taught, "--out", tmp_path / "student", "--k", "12"]
    with Driver(tmp_path / "log", nodes.env, "workflows.train_student", *flags) as driver:
        assert driver.end() == 2
    assert "error: MLflow at sqlite:///" in tail(driver.log) and "cannot be shared by 3 nodes" in tail(driver.log)
