"""Stores of MLflow as other people leave them: made at once by several, of other versions, deleted, unwritable."""

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from server_fixture import free_port

import prerank
from prerank.core.errors import InputError
from prerank.tracking import experiment, runs, server
from prerank.tracking.runs import git_commit, open_run, run, tracking_uri

ROOT = Path(prerank.__file__).parents[1]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def opened(folder: Path, name: str = "job", **options):
    return run(name, out=folder / "out", state=folder / f".{name}.json", params={"a": 1}, **options)


SEVERAL = """
import sys, time
from pathlib import Path
from prerank.tracking import run
folder, at, name = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
time.sleep(max(0, at - time.time()))
with run("job", out=folder / name, state=folder / f".{name}.json", params={"n": name}) as one:
    one.metrics({"x": 1.0})
"""


@pytest.mark.slow
def test_several_commands_that_begin_at_once_make_one_store(tmp_path):
    at, names = time.time() + 6, "abcd"
    command = [sys.executable, "-c", SEVERAL, str(tmp_path), str(at)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    said = [one.communicate(timeout=200)[0] for one in [subprocess.Popen([*command, n], **options) for n in names]]
    assert said == [""] * len(names)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (found,) = (one for one in client.search_experiments() if one.name != "Default")
    ended = client.search_runs([found.experiment_id])
    assert found.name == "job" and [one.info.status for one in ended] == ["FINISHED"] * len(names)
    assert {one.data.params["n"] for one in ended} == {*names}
    assert not list(tmp_path.glob(".mlflow.db.lock"))


OPENS = """
import sys
from pathlib import Path
from prerank.core.errors import InputError
from prerank.tracking import run
folder = Path(sys.argv[1])
try:
    run("job", out=folder / "out", state=folder / "state", params={}).__enter__()
except InputError as error:
    print(error)
"""
LOOKS = """
import sys
from prerank.core.errors import InputError
from prerank.tracking.find import connect
try:
    connect(f"sqlite:///{sys.argv[1]}/mlflow.db")
except InputError as error:
    print(error)
"""


@pytest.mark.slow  # as all that make a store
def test_a_store_of_another_version(tmp_path):
    with opened(tmp_path):
        pass
    database, uri = tmp_path / "mlflow.db", f"sqlite:///{tmp_path}/mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("update alembic_version set version_num = 'cbc13b556ace'")
    (tmp_path / ".job.json").unlink()
    for code in (OPENS, LOOKS):  # in processes that have not seen the store before
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
        said = f"MLflow at {uri}: its tables are of another version of MLflow: back them up and run `mlflow db upgrade"
        assert done.stderr == "" and done.stdout.startswith(f"{said} {uri}`") and done.stdout.count("\n") == 1


@pytest.mark.slow
def test_what_was_deleted_and_is_written_to_again_is_restored(tmp_path, capsys):
    with opened(tmp_path) as first:
        pass
    client = MlflowClient(first.uri)
    client.delete_run(first.run_id)
    with opened(tmp_path) as again:
        assert client.get_run(first.run_id).info.status == "RUNNING"
        client.delete_run(first.run_id)  # in the middle
        again.metrics({"x": 1.0})
    assert again.run_id == first.run_id
    assert client.get_run(first.run_id).info.lifecycle_stage == "active"
    assert client.get_run(first.run_id).data.metrics == {"x": 1.0}
    assert capsys.readouterr().err == f"note: run {first.run_id} was deleted in MLflow, and is restored\n" * 2

    client.delete_experiment(first.experiment_id)
    (tmp_path / ".job.json").unlink()
    with opened(tmp_path) as other:  # by its name
        assert other.experiment_id == first.experiment_id and other.run_id != first.run_id
        client.delete_experiment(first.experiment_id)
        with opened(tmp_path, "step", parent=other):
            pass
    assert client.get_experiment(first.experiment_id).lifecycle_stage == "active"
    assert len(client.search_runs([first.experiment_id], run_view_type=ViewType.ACTIVE_ONLY)) == 3
    said = capsys.readouterr().err
    assert said.count("note: the experiment 'job' was deleted in MLflow, and is restored\n") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sp ace/und größe", "%", "a'b", "Default", " padded ", "", "日本" * 50])
def test_names_of_experiments(tmp_path, monkeypatch, name):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    with opened(tmp_path) as one:
        pass
    assert MlflowClient(one.uri).get_experiment(one.experiment_id).name == (name.strip() or "job")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x" * 501, "\udc80"])
def test_names_that_no_experiment_can_have(tmp_path, monkeypatch, name):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    with pytest.raises(InputError, match=r"MLFLOW_EXPERIMENT_NAME .*name another experiment, or unset it") as caught:
        opened(tmp_path).__enter__()
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_experiment_that_another_command_makes_meanwhile(tmp_path):
    with opened(tmp_path) as one:
        pass

    class Late:
        """A client that looks just before the other has made it."""

        def __init__(self) -> None:
            self.client, self.looked = MlflowClient(one.uri), 0

        def get_experiment_by_name(self, name: str):
            self.looked += 1
            return None if self.looked == 1 else self.client.get_experiment_by_name(name)

        def create_experiment(self, name: str, artifact_location: str):
            return self.client.create_experiment(name, artifact_location)

    assert experiment.experiment_of(Late(), one.uri, "job", tmp_path / "out") == one.experiment_id


def refused(monkeypatch, uri: str, folder: Path, said: str) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    began = time.monotonic()
    with pytest.raises(InputError, match=said) as caught:
        opened(folder).__enter__()
    assert "\n" not in str(caught.value) and time.monotonic() - began < 20
    return str(caught.value)


def test_files_that_are_no_store(tmp_path, monkeypatch):
    (tmp_path / "text.db").write_text("no database, and long enough to see that" * 30)
    refused(monkeypatch, f"sqlite:///{tmp_path}/text.db", tmp_path, "text.db: file is not a database; mend it, or set")
    (tmp_path / "folder.db").mkdir()
    refused(monkeypatch, f"sqlite:///{tmp_path}/folder.db", tmp_path, "folder.db: unable to open database file")
    refused(monkeypatch, "sqlite:////proc/nowhere/x.db", tmp_path, "/proc/nowhere/x.db: .*No such file")
    refused(monkeypatch, f"sqlite:///{tmp_path}/text.db/x.db", tmp_path, "x.db: .*(Not a directory|File exists)")


def test_a_store_that_cannot_be_written(tmp_path, monkeypatch):
    def readonly(path):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(server, "_refuse_unwritable", readonly)
    refused(monkeypatch, f"sqlite:///{tmp_path}/x.db", tmp_path, "x.db: attempt to write a readonly database; mend it")


@pytest.mark.slow
def test_a_store_that_another_process_holds_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "PROBE_S", 0.2)
    holder = sqlite3.connect(tmp_path / "x.db")
    holder.execute("BEGIN IMMEDIATE")
    said = refused(
        monkeypatch, f"sqlite:///{tmp_path}/x.db", tmp_path, r"is down \(database is locked\): another process"
    )
    assert said.endswith("wait for it, and run the same command again")
    holder.close()


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2", "mysql+pymysql"])
def test_databases_that_are_down(tmp_path, monkeypatch, scheme):
    uri = f"{scheme}://me:secret@127.0.0.1:{free_port()}/mlflow"
    said = refused(monkeypatch, uri, tmp_path, r"\*\*\*@127.0.0.1:\d+/mlflow is down .*start it, or unset")
    assert "secret" not in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize("uri", ["nonsense://x", "s3://bucket/x", "sqlite:/x", "sqlite://", "sqlite:///"])
def test_addresses_that_are_none(tmp_path, monkeypatch, uri):
    refused(monkeypatch, uri, tmp_path, "MLflow at ")


@pytest.mark.parametrize("name", ["%", "a%b", "#", "sp ace", "größe", ";", "&"])
def test_odd_folders(tmp_path, name):
    path = tmp_path / name
    assert tracking_uri(path / "out") == f"sqlite:///{path}/mlflow.db"


@pytest.mark.parametrize("name", ["?", "a?b=c", "a%20b", "%3f"])
def test_folders_that_no_address_can_name(tmp_path, name):
    with pytest.raises(InputError, match="no address of MLflow can name a SQLite file in it"):
        tracking_uri(tmp_path / name / "out")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a%b", "# größe"])
def test_what_is_logged_into_an_odd_folder_is_there(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    with opened(folder) as one:
        one.artifact(Path(__file__))
    client = MlflowClient(one.uri)
    assert (folder / "mlflow.db").is_file() and [file.path for file in client.list_artifacts(one.run_id)] == [
        Path(__file__).name
    ]
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_a_run_whose_parent_failed_is_no_fault_of_the_store(tmp_path, monkeypatch):
    """Only the first run of a command says what is wrong with the store; later faults are raised as they are."""

    def fails(*args, **options):
        raise MlflowException.invalid_parameter_value("no")

    monkeypatch.setattr(runs, "send", fails)
    parent = runs.Run("http://host", "r", "0")
    with pytest.raises(MlflowException):
        open_run("step", out=tmp_path / "out", state=tmp_path / "s.json", params={}, parent=parent)


@pytest.mark.parametrize("path", ["/nowhere", "", "/proc"])
def test_no_git(monkeypatch, path):
    monkeypatch.setenv("PATH", path)
    assert git_commit() == "unknown"


def test_a_git_that_fails(monkeypatch, tmp_path):
    for code in ("exit 128", "not a program"):
        (tmp_path / "git").write_text(f"#!/bin/sh\n{code}\n" if "exit" in code else code)
        (tmp_path / "git").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert git_commit() == "unknown"
    (tmp_path / "git").chmod(0o000)
    assert git_commit() == "unknown"


@pytest.mark.slow
def test_the_room_gives_its_run_and_waits_with_mlflow():
    code = (
        "import sys, prerank.tracking; assert 'mlflow' not in sys.modules; from prerank.tracking import run; print(run)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.startswith("<function run at")
    with pytest.raises(ImportError):
        from prerank.tracking import walk  # noqa: F401
