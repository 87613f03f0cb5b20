"""One Ray cluster and one set of small samples for all tests."""

import pytest
from logs_fixture import write_logs


@pytest.fixture(scope="session")
def ray_cluster():
    import ray

    from prerank.data import start_ray

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
