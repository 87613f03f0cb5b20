"""Runs in MLflow: one an output, gone on with where it is still there, never doubled, whole after an outage."""

import errno
import json
import multiprocessing
import pickle
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient
from server_fixture import free_port, started

from prerank.core.errors import InputError
from prerank.tracking import faults, runs, server
from prerank.tracking.runs import Run, open_run, run, send_unsent
from prerank.tracking.unsent import Spool


def opened(folder, name="job", **options):
    return run(name, out=folder / "out", state=folder / f"{name}.json", params={"a.b": 1, "form": "x"}, **options)


@pytest.mark.slow  # a new SQLite store takes seconds to set up
def test_runs_are_resumed_nested_and_end_in_their_state(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with opened(tmp_path) as first:
        first.metrics({"x": 1.0, "nothing": None, "nan": float("nan")}, step=3)
        with opened(tmp_path, "step", parent=first, tags={"samples": "abc"}) as step:
            pass
    client = MlflowClient(first.uri)
    with pytest.raises(KeyboardInterrupt), opened(tmp_path):
        raise KeyboardInterrupt
    assert client.get_run(first.run_id).info.status == "KILLED"
    with pytest.raises(KeyError), opened(tmp_path) as again:
        raise KeyError
    assert again == first
    data = client.get_run(first.run_id).data
    assert data.params == {"a.b": "1", "form": "x"} and data.metrics == {"x": 1.0}
    assert client.get_run(first.run_id).info.status == "FAILED"
    child = client.get_run(step.run_id)
    assert child.info.status == "FINISHED" and child.data.tags["samples"] == "abc"
    assert child.data.tags["mlflow.parentRunId"] == first.run_id
    assert len(client.search_runs([first.experiment_id])) == 2
    assert client.get_experiment(first.experiment_id).name == "job"

    state = tmp_path / "job.json"
    known = json.loads(state.read_text())
    state.write_text(json.dumps(known | {"run_id": "0" * 32}))
    with opened(tmp_path) as new:
        assert new.run_id not in (first.run_id, "0" * 32)

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere/other.db")
    with opened(tmp_path) as other:
        assert other.uri.endswith("other.db") and other.run_id != new.run_id


@pytest.mark.slow
@pytest.mark.parametrize("written", [0, 1])
def test_a_run_that_could_not_be_remembered_is_not_made_twice(tmp_path, monkeypatch, written):
    """The disk is full when the state is written: before there is a run, or once there is one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with opened(tmp_path) as parent:
        pass
    write, calls = runs.write_json, []

    def full(*args):
        calls.append(args)
        if len(calls) > written:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(runs, "write_json", full)
        opened(tmp_path, "step", parent=parent).__enter__()
    client = MlflowClient(parent.uri)
    assert len(client.search_runs([parent.experiment_id])) == 1 + written
    with opened(tmp_path, "step", parent=parent):
        pass
    ended = [one.info.status for one in client.search_runs([parent.experiment_id])]
    assert ended == ["FINISHED", "FINISHED"]


class Answering(BaseHTTPRequestHandler):
    """Answers every request with the status of its server."""

    def do_GET(self):
        self.send_response(self.server.status)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_which_faults_are_an_outage():
    answering = HTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=answering.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{answering.server_port}"
    entry = {"run": "0", "experiment": "0", "tags": {"a": "b"}}

    def fault(uri):
        with pytest.raises(MlflowException) as caught:
            server.send(uri, entry, None)
        return faults.is_down(caught.value), faults.is_refusal(caught.value)

    try:
        for answering.status in (429, 502, 503, 504):
            assert fault(uri) == (True, False)
        answering.status = 500  # goes by the next try, or never
        assert fault(uri) == (True, True)
        for answering.status in (400, 404):
            assert fault(uri) == (False, True)
        for answering.status in (401, 403):  # an expired token is no reason to put entries aside
            assert fault(uri) == (False, False)
    finally:
        answering.shutdown()
        answering.server_close()
    began = time.monotonic()
    assert fault(uri) == (True, False)
    assert time.monotonic() - began < 3


def test_a_server_that_is_down_at_the_start_is_named_without_its_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(InputError, match=r"http://\*\*\*@127.0.0.1:\d+ is down .*unset MLFLOW_TRACKING_URI") as caught:
        opened(tmp_path).__enter__()
    assert time.monotonic() - began < 8 and "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_secrets_are_masked():
    for said, shown in (
        ("to https://u:p%40s@host/x?token=t&a=1 failed", "to https://***@host/x?token=***&a=1 failed"),
        ("postgresql+psycopg2://u:p@ss@host/db", "postgresql+psycopg2://***@host/db"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
    ):
        assert faults.masked(said) == shown


@pytest.fixture
def fake(monkeypatch):
    """A store in memory that can be down."""

    class Fake:
        def __init__(self):
            self.down, self.unmade, self.refuses, self.got, self.tries = False, False, (), [], 0

        def probe(self, uri):
            self.tries += 1
            if self.down:
                raise MlflowException("no connection to http://me:secret@host", TEMPORARILY_UNAVAILABLE)

        def send(self, uri, entry, file, *, again=False):
            self.probe(uri)
            if self.unmade:
                raise MlflowException("no such run", RESOURCE_DOES_NOT_EXIST)
            for kind in self.refuses:
                if kind in entry:
                    raise MlflowException.invalid_parameter_value("no")
            self.got.append({k: v for k, v in entry.items() if k not in ("time", "experiment")} | {"again": again})
            return entry["run"]

    fake = Fake()
    monkeypatch.setattr(runs, "probe", fake.probe)
    monkeypatch.setattr(runs, "send", fake.send)
    monkeypatch.setattr(runs, "TRY_AGAIN_S", 0.2)
    return fake


@pytest.mark.slow
def test_an_outage_is_waited_out(tmp_path, fake, capsys):
    here = pickle.loads(pickle.dumps(Run("http://me:secret@host", "r", "0", tmp_path / "spool", top=True)))
    here.tags({"a": "1"})
    fake.down = True
    for step in range(50):
        here.metrics({"x": step}, step=step)
    here.end()
    assert fake.tries < 10 and len(Spool(here.spool)) == 51  # not at every call
    said = capsys.readouterr().err
    assert said.count("waits in") == 1 and "51 entries wait in" in said and "secret" not in said
    fake.down = False
    here.tags({"b": "2"})
    time.sleep(0.3)
    here.tags({"c": "3"})
    assert [entry.pop("again") for entry in fake.got] == [False, *[True] * 53]
    first, *waited = fake.got
    assert first == {"run": "r", "tags": {"a": "1"}}
    assert [entry["metrics"][0][3] for entry in waited[:50]] == list(range(50))
    assert waited[50:] == [{"run": "r", "ended": "FINISHED"}] + [
        {"run": "r", "tags": t} for t in ({"b": "2"}, {"c": "3"})
    ]
    here.end()
    assert fake.got[-1]["ended"] == "FINISHED" and not here.spool.exists()


def test_the_same_command_sends_what_the_last_one_could_not(tmp_path, fake, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    here = Run("http://host", "r", "0", runs._spool("http://host", tmp_path / "out"), top=True)
    fake.down = True
    here.metrics({"x": 1.0})
    here.end()
    send_unsent(tmp_path / "out")
    assert capsys.readouterr().err.count("2 entries wait in") == 2 and not fake.got
    fake.down = False
    send_unsent(tmp_path / "out")
    assert [entry["run"] for entry in fake.got] == ["r", "r"] and not list(tmp_path.iterdir())
    send_unsent(tmp_path / "out")
    assert len(fake.got) == 2


def test_faults_that_are_no_outage(tmp_path, fake, capsys):
    here = Run("http://host", "r", "0", tmp_path / "spool", top=True)
    fake.refuses = ("tags",)
    with pytest.raises(MlflowException):
        here.tags({"a": "1"})
    fake.down = True
    here.tags({"a": "1"})
    here.metrics({"x": 1.0})
    with pytest.raises(InputError, match="http://host is down; start it"):
        here.online()
    fake.down = False
    assert here.online() == here
    here.end()
    assert "refused 1 entries: see" in capsys.readouterr().err
    assert [set(entry) - {"run", "again"} for entry in fake.got] == [{"metrics"}, set(), {"ended"}]


@pytest.mark.slow
def test_a_run_that_another_queue_has_yet_to_make_is_waited_for(tmp_path, fake):
    """Of an output in object storage every node has a queue of its own."""
    late, deleted = (Run("http://host", name, "0", tmp_path / name) for name in (f"{server.KEYED}1", "r"))
    fake.unmade = True
    with pytest.raises(MlflowException):
        deleted.metrics({"x": 1.0})
    late.metrics({"x": 1.0})
    time.sleep(0.3)
    late.metrics({"y": 2.0})  # tries again
    assert len(Spool(late.spool)) == 2 and not Spool(late.spool).refused.exists()
    fake.unmade = False
    time.sleep(0.3)
    late.metrics({"z": 3.0})
    assert [entry["metrics"][0][0] for entry in fake.got] == ["x", "y", "z"]


def log_from_another_process(here, who, ready, go_on):
    """Before an outage, while it lasts, and after."""
    here.metrics({who: 0.0}, step=0)
    ready.touch()
    while not go_on.exists():
        time.sleep(0.1)
    for step in range(1, 21):
        here.metrics({who: step / 2}, step=step)


def history(client, run_id, key):
    return [(entry.step, entry.value) for entry in client.get_metric_history(run_id, key)]


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 120
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow  # a server starts, twice
def test_all_that_is_logged_while_the_server_is_down_is_there_once(tmp_path, monkeypatch, capfd):
    server = f"sqlite:///{tmp_path}/server.db", tmp_path / "artifacts", free_port()
    spawn, report = multiprocessing.get_context("spawn"), tmp_path / "report.html"
    go_on, ready = tmp_path / "go_on", [tmp_path / f"{who}.ready" for who in "ab"]
    with started(*server) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        parent = open_run("job", out=tmp_path / "out", state=tmp_path / "job.json", params={"a": 1})
        client = MlflowClient(uri)
        workers = [
            spawn.Process(target=log_from_another_process, args=(parent, path.stem, path, go_on)) for path in ready
        ]
        for worker in workers:
            worker.start()
        wait_for(*ready)
        parent.metrics({"x": 0.5})
    began = time.time()
    go_on.touch()
    children = {"out": tmp_path / "out", "params": {"b": 2}, "parent": parent}
    child = open_run("child", state=tmp_path / "child.json", **children)
    grandchild = open_run("grandchild", state=tmp_path / "grandchild.json", **children | {"parent": child})
    assert open_run("child", state=tmp_path / "child.json", **children) == child
    report.write_text("as it was")
    child.artifact(report, "pages")
    report.unlink()
    child.figures({"drawn": Figure()})
    child.metrics({"y": 1.5}, step=3)
    child.tags({"kind": "trial"})
    with open(Spool(parent.spool).queue, "ab") as file:
        file.write(b' {"run": "of a process that was kil')
    child.end("KILLED")
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert time.time() - began < 60 and len(Spool(parent.spool)) > 45
    down_until = time.time()
    with started(*server):
        runs._next_try.clear()
        while not Spool(parent.spool).empty():
            parent.metrics({"x": 0.25}, step=1)  # a part is sent with every call
        with run("child", state=tmp_path / "child.json", **children) as again:
            again.metrics({"y": 2.5}, step=4)
        grandchild.end()
        parent.end()
        assert not parent.spool.exists()

        for who in "ab":
            assert history(client, parent.run_id, who) == [(step, step / 2) for step in range(21)]
        assert history(client, parent.run_id, "x")[0] == (0, 0.5)
        named = {one.info.run_name: one for one in client.search_runs([parent.experiment_id])}
        assert len(client.search_runs([parent.experiment_id])) == 3
        assert named["child"].data.tags["mlflow.parentRunId"] == parent.run_id
        assert named["grandchild"].data.tags["mlflow.parentRunId"] == named["child"].info.run_id
        assert named["child"].data.params == {"b": "2"} and named["child"].data.tags["kind"] == "trial"
        assert all(one.info.status == "FINISHED" for one in named.values())
        run_id = named["child"].info.run_id
        assert again.run_id == run_id == child.online().run_id
        assert history(client, run_id, "y") == [(3, 1.5), (4, 2.5)]
        (logged, _) = client.get_metric_history(run_id, "y")
        assert 1000 * began < logged.timestamp < 1000 * down_until
        assert 1000 * began - 1000 < named["child"].info.start_time < 1000 * down_until
        assert Path(client.download_artifacts(run_id, "pages/report.html")).read_text() == "as it was"
        assert Path(client.download_artifacts(run_id, "figures/drawn.png")).read_bytes().startswith(b"\x89PNG")
    said = capfd.readouterr().err
    assert "is down" in said and "refused" not in said


@pytest.mark.slow  # a new SQLite store takes seconds to set up
def test_a_locked_sqlite_file_is_an_outage(tmp_path, monkeypatch):
    import sqlite3

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with opened(tmp_path) as here:
        lock = sqlite3.connect(tmp_path / "mlflow.db")
        lock.execute("BEGIN IMMEDIATE")
        here.metrics({"x": 1.0})
        assert len(Spool(here.spool)) == 1
        lock.rollback()
        lock.close()
    assert history(MlflowClient(here.uri), here.run_id, "x") == [(0, 1.0)] and not here.spool.exists()
