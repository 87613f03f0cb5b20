"""What all tests share: one Ray cluster, one set of samples, one student, and a start of each server.

Two workers of pytest-xdist go through the tests side by side, and each has its own of what it needs: what needs the
same is given to the same worker.
"""

import gc
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import forks
import pytest
import quick  # noqa: F401
import server_fixture

CLUSTERS = ("ray_cluster", "cluster")
"""Fixtures whose tests stay together where two workers share the tests; the others stay with their file."""


def pytest_configure(config):
    """A server of forks and a store of MLflow, which xdist's workers find in their environment."""
    # In the background of a shell, or under nohup, they are ignored, and so they would be by all that is started here.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    if not hasattr(config, "workerinput"):
        shared = ExitStack()
        folder = Path(shared.enter_context(tempfile.TemporaryDirectory(prefix="prerank-")))
        os.environ[server_fixture.STORE] = str(folder / "mlflow.db")
        shared.enter_context(forks.served(folder / "forks"))
        config.add_cleanup(shared.close)
    if hasattr(config, "workerinput") or config.getoption("dist", "no") == "no":  # this process runs tests
        from hypothesis import HealthCheck, settings

        # How long an example takes is the machine's affair.
        settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
        settings.load_profile("untimed")


def cluster_of(item):
    return next((name for name in CLUSTERS if name in item.fixturenames), None)


def pytest_itemcollected(item):
    item.add_marker(pytest.mark.xdist_group(cluster_of(item) or item.path.stem))


def pytest_collection_modifyitems(config, items):
    """Where two workers share the tests, what takes longest begins first."""
    if not getattr(config.option, "loadgroup", False):
        return
    turns = {}
    for item in items:
        slow = any(item.get_closest_marker(name) for name in ("ray", "slow", "browser"))
        turns[item] = CLUSTERS.index(cluster_of(item)) if cluster_of(item) else len(CLUSTERS) + (not slow)
    items.sort(key=turns.get)


def pytest_collection_finish(session):
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("this pytest-xdist keeps no groups together with this pytest; see pyproject.toml")
    gc.collect()
    gc.freeze()
    gc.enable()
    if "mlflow" in sys.modules:  # its import takes seconds
        server_fixture.copy_stores()


@pytest.fixture(scope="session")
def forked():
    """The server of forks has imported all, before Ray begins to count how long its workers take to come."""
    forks.Fork(["-m", "quick"], dict(os.environ)).wait()


@pytest.fixture(scope="session")
def ray_cluster(s3_environment, forked):
    """A cluster on this machine, whose workers know the S3 server."""
    import ray

    from prerank.core.cluster.start import start_ray

    with mock.patch.dict(os.environ, s3_environment):
        start_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_environment():
    """The environment that leads to an S3 server on loopback."""
    from storage_fixture import s3_server

    with s3_server() as environment:
        yield environment


@pytest.fixture
def bucket(s3_environment, monkeypatch):
    """An empty bucket, to which the environment leads."""
    from storage_fixture import new_bucket

    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    return new_bucket()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory, forked):
    """Three nodes on this machine."""
    from nodes_fixture import Nodes

    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    yield nodes
    nodes.close()


@pytest.fixture
def nodes(cluster):
    """Those nodes, all of them there, and nobody held."""
    cluster.fill()
    cluster.held.forget()
    return cluster


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    """A tracking server, as several nodes need one."""
    from server_fixture import Server

    server = Server(tmp_path_factory.mktemp("mlflow"))
    yield server
    server.down()


@pytest.fixture
def tracked(nodes, mlflow_server):
    """The environment of a driver that joins the nodes and logs to the server, which is up."""
    mlflow_server.up()
    return nodes.env | {"MLFLOW_TRACKING_URI": mlflow_server.uri}


@pytest.fixture(scope="session")
def one_worker(cluster, mlflow_server, taught, tmp_path_factory):
    """The flags of a small training, and the student that one worker makes of it without a disturbance."""
    from driver_fixture import Driver

    folder = tmp_path_factory.mktemp("one")
    flags = f"--samples {taught} --widths 16,8 --features price,quality,brand,match,user_tags --k 10 --optim.batch 16"
    flags += " --optim.epoch-steps 1 --optim.epochs 3 --compute.checkpoint_steps 2"
    flags += " --distill.score 0.5 --distill.contrast 0.5"
    command = ["workflows.train_student", *flags.split(), "--distill.projection", 8]
    env = cluster.env | {"MLFLOW_TRACKING_URI": mlflow_server.uri}
    with Driver(folder / "log", env, "drive", *command, "--out", folder / "student") as driver:
        driver.ends_well()
    return command, folder / "student"


@pytest.fixture(scope="session")
def logs(tmp_path_factory):
    """Logs of 240 requests on 4 days, 24 items a fine list, 48 candidates."""
    from logs_fixture import write_logs

    folder = tmp_path_factory.mktemp("logs")
    write_logs(folder, requests=240, days=4)
    return folder


@pytest.fixture(scope="session")
def samples(logs, tmp_path_factory):
    """Samples of those logs, built in this process."""
    from samples_fixture import build

    return build(logs, tmp_path_factory.mktemp("samples") / "samples")


@pytest.fixture(scope="session")
def taught(samples, tmp_path_factory):
    """The samples taught by a small teacher with random weights."""
    from samples_fixture import random_teacher, teach_here

    folder = tmp_path_factory.mktemp("taught")
    return teach_here(samples, random_teacher(samples, folder / "teacher"), folder / "taught")


@pytest.fixture(scope="session")
def undisturbed(ray_cluster, taught, tmp_path_factory):
    """What one worker of Ray Train learns of the two arms without a disturbance."""
    from training_fixture import ALL, BASE, ONE

    from prerank.training.group import fit

    return fit([BASE, ALL], taught, tmp_path_factory.mktemp("one"), compute=ONE, k=10, runs={})
