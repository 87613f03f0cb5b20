"""Storage that fails some writes, and disks that fill."""

import json
import threading
import time
import uuid
from collections import Counter
from contextlib import contextmanager

import pytest
from driver_fixture import Driver, environment
from nodes_fixture import Watch, content, tmpfs
from storage_fixture import new_bucket, s3_server
from training_fixture import ALL, BASE, ONE, assert_same

from prerank.core import cli
from prerank.core.outputs import read_manifest
from prerank.samples import job
from prerank.tracking import runs, server
from prerank.training.group import fit
from workflows import build_samples, train_student

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]
FULL_KIB, ROOMY_KIB = 16, 64 << 10
"""Of a disk that takes a lock file and no samples, and of one that takes all."""


@contextmanager
def meanwhile(act, *conditions):
    """Calls `act` with each condition as soon as it holds."""

    def run():
        for condition in conditions:
            while not (found := condition()) and not left.is_set():
                time.sleep(0.02)
            if not left.is_set():
                act(found)

    left = threading.Event()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    left.set()
    thread.join()


def called(monkeypatch, capsys, main, config_type, *flags) -> tuple[int, str]:
    """The command line in this process: its exit code and its last word."""
    monkeypatch.setattr("sys.argv", ["prog", *map(str, flags)])
    try:
        cli.run(main, config_type)
    except SystemExit as stopped:
        return stopped.code, capsys.readouterr().err.rstrip().splitlines()[-1]
    return 0, ""


def test_a_write_that_fails_is_tried_again(ray_cluster, logs, samples, tmp_path, monkeypatch):
    """The disk is full when the parts are written, and gets room once a task has seen that."""
    disk = tmp_path / "disk"
    seen, roomy = tmp_path / "seen", tmp_path / "roomy"
    seen.mkdir()
    whole = job.build_fine_lists

    def build_fine_lists(*parts):
        try:
            return whole(*parts)
        except OSError:
            (seen / uuid.uuid4().hex).touch()
            while not roomy.exists():
                time.sleep(0.05)
            raise

    def make_room(_):
        resize(ROOMY_KIB)
        roomy.touch()

    monkeypatch.setattr(job, "build_fine_lists", build_fine_lists)
    with tmpfs(disk, FULL_KIB) as resize, meanwhile(make_room, lambda: list(seen.iterdir())):
        build_samples.main(build_samples.BuildSamples(logs, disk / "samples"))
        assert list(seen.iterdir()) and content(disk / "samples") == content(samples)
        assert [path.name for path in disk.iterdir()] == ["samples"]


def test_samples_on_a_disk_that_is_full(ray_cluster, logs, samples, tmp_path, monkeypatch, capsys):
    disk = tmp_path / "disk"
    build = monkeypatch, capsys, build_samples.main, build_samples.BuildSamples, "--logs", logs, "--out"
    with tmpfs(disk, FULL_KIB) as resize, Watch({disk / "samples": "samples"}):
        code, said = called(*build, disk / "samples")
        assert code == 2 and said.startswith(f"error: {disk}/samples: no space left on its disk")
        assert list(disk.iterdir()) == []
        resize(ROOMY_KIB)
        assert called(*build, disk / "samples") == (0, "")
        assert content(disk / "samples") == content(samples)


def test_an_object_store_that_fails_some_writes(logs, samples, tmp_path, monkeypatch):
    """The first times that a part is sent, more often than the client tries by itself (31 requests of a write)."""
    refused, times = Counter(), 40

    def failing(app):
        def answer(environ, start_response):
            path = environ["PATH_INFO"]
            if environ["REQUEST_METHOD"] == "PUT" and path.endswith(".parquet") and refused[path] < times:
                refused[path] += 1
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response("500 Internal Server Error", [("Content-Length", "0")])
                return [b""]
            return app(environ, start_response)

        return answer

    with s3_server(failing) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        out = new_bucket() / "samples"
        command = ["workflows.build_samples", "--logs", logs, "--out", out]
        with Driver(tmp_path / "log", environment(), *command) as driver:
            driver.ends_well()
        assert content(out) == content(samples)
    assert len(refused) == len(read_manifest(samples, kind="samples")["rows"]) and set(refused.values()) == {times}


def ballast(disk):
    """Fills what is left of a disk."""
    with open(disk / "ballast", "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))


def settled(work):
    """Whether Ray Train's list of checkpoints names the latest, so that its controller is not about to write."""

    def condition():
        for snapshot in work.glob("*/checkpoint_manager_snapshot.json"):
            latest = max(path.name for path in snapshot.parent.glob("checkpoint_2*"))
            try:
                return json.loads(snapshot.read_text())["latest_checkpoint_result"]["checkpoint_dir_name"] == latest
            except ValueError:
                return False  # it is being written

    return condition


@pytest.fixture
def marks(tmp_path):
    """What a worker tells the test where it would log its second epoch, and waits for."""
    folder = tmp_path / "marks"
    folder.mkdir()

    class Marks:  # within a function, so that it is shipped whole: the workers do not have this module
        def metrics(self, values, step):
            if step == 1:
                mark = folder / uuid.uuid4().hex
                mark.touch()
                while mark.exists():
                    time.sleep(0.05)

        def waiting(self):
            return list(folder.iterdir())

        def release(self):
            for mark in folder.iterdir():
                mark.unlink()

    return Marks()


def test_a_checkpoint_that_cannot_be_written_costs_no_more_than_its_epoch(undisturbed, taught, marks, tmp_path):
    disk, times = tmp_path / "disk", []

    def act(_):
        """Fills the disk the first time that the worker comes to its second epoch, and empties it the next time."""
        times.append(1)
        ballast(disk) if len(times) == 1 else (disk / "ballast").unlink()
        marks.release()

    with tmpfs(disk, 4096):
        ready = settled(disk / "work")
        with meanwhile(act, lambda: marks.waiting() and ready(), marks.waiting):
            trained = fit([BASE, ALL], taught, disk / "work", compute=ONE, k=10, runs={"all": marks})
    assert len(times) == 2
    assert_same(trained, undisturbed, 0, 0)


def test_a_training_on_a_disk_that_fills(ray_cluster, taught, marks, tmp_path, monkeypatch, capsys):
    """In its second epoch, for good; with room again it goes on."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    disk = tmp_path / "disk"
    flags = f"--samples {taught} --widths 8 --k 10 --optim.batch 16 --optim.epochs 3 --compute.max-failures 0"
    flags += " --optim.epoch-steps 1"
    train = monkeypatch, capsys, train_student.main, train_student.TrainStudent, *flags.split(), "--out"
    assert called(*train, tmp_path / "student") == (0, "")

    class Marked(runs.Run):
        def metrics(self, values, step=0):
            marks.metrics(values, step)
            super().metrics(values, step)

    def act(_):
        ballast(disk)
        marks.release()

    with tmpfs(disk, 4096), Watch({disk / "student": "student"}):
        ready = settled(disk / ".student.work")
        with monkeypatch.context() as patched, meanwhile(act, lambda: marks.waiting() and ready()):
            patched.setattr(runs, "Run", Marked)
            code, said = called(*train, disk / "student")
        assert code == 2 and said.startswith(f"error: {disk}/student: no space left on its disk")
        assert not (disk / "student").exists()
        (disk / "ballast").unlink()
        assert called(*train, disk / "student") == (0, "")
        history = read_manifest(disk / "student", kind="student")["history"]
        assert history == read_manifest(tmp_path / "student", kind="student")["history"]
        assert [path.name for path in disk.iterdir()] == ["student"]
    client = server.connect(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "student"]
    found = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in found] == ["FINISHED", "FINISHED"]
