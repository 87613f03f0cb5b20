"""One Ray cluster and one set of small samples for all tests."""

import pytest
from hypothesis import HealthCheck, settings
from logs_fixture import write_logs

# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


SHARED = ("cluster", "ray_cluster", "s3_environment")
"""Fixtures whose tests stay together where two workers of pytest-xdist share the tests; others stay with their file."""


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in the same hook
def pytest_collection_modifyitems(items):
    for item in items:
        shared = next((name for name in SHARED if name in item.fixturenames), None)
        item.add_marker(pytest.mark.xdist_group(shared or item.path.stem))


@pytest.fixture(scope="session")
def ray_cluster():
    import ray

    from prerank.core.cluster.start import start_ray

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
def cluster(tmp_path_factory):
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
    from nodes_fixture import Driver

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
