"""Object storage against local folders: the same tree, the same samples, models and line; whole or not at all."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs_fixture import write_logs
from ray import cloudpickle
from samples_fixture import build, random_teacher, teach_here

from prerank.core import cli
from prerank.core.errors import InputError
from prerank.core.outputs import is_done, publish, read_manifest, write_json
from prerank.core.storage import Remote, fetched, parquet, place, rmtree, sizes, staged, whole
from prerank.logs.folder import open_logs
from prerank.models.checkpoint import load_model
from prerank.models.options import Distill, Optim
from prerank.samples.draw import DrawConfig
from prerank.samples.files import LOGS
from prerank.tracking import runs
from prerank.tracking.runs import Run
from prerank.training.options import Compute
from workflows import build_samples, evaluate, make_logs, teach, train_student, train_teacher

RUN = {"kind": "samples", "config": {"seed": 0}, "inputs": {"logs": "abc"}}
TREE = {"a.json": "{}", "b.parquet": "bb", "part/c.parquet": "ccc", "part/deep/d.txt": "dddd", "part-2/é.txt": "é"}


@pytest.fixture
def trees(bucket, tmp_path):
    """The same files in a local folder and in object storage."""
    for root in (tmp_path / "tree", bucket / "tree"):
        for name, text in TREE.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    return tmp_path / "tree", bucket / "tree"


def names(paths, root):
    return sorted(str(path.relative_to(root)) for path in paths)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TREE, "part", "part/deep", "part-2", "par", "nothing", "."])
def test_what_is_there_is_what_a_path_says(trees, name):
    local, remote = (root / name for root in trees)
    for ask in ("exists", "is_file", "is_dir"):
        assert getattr(remote, ask)() == getattr(local, ask)(), ask
    if local.is_file():
        assert remote.read_text() == local.read_text() and remote.read_bytes() == local.read_bytes()
        assert remote.stat().st_size == local.stat().st_size
    if local.is_dir():
        assert names(remote.iterdir(), remote) == names(local.iterdir(), local)
        assert sizes(remote) == sizes(local)
        assert list(sizes(remote)) == list(sizes(local))
    for pattern in ("*", "*.parquet", "*.*", "?", "nothing*"):
        assert names(remote.glob(pattern), remote) == names(local.glob(pattern), local), pattern
        assert names(remote.rglob(pattern), remote) == names(local.rglob(pattern), local), pattern
    if not local.exists():
        for path in (local, remote):
            for fails in (path.stat, path.read_bytes, path.unlink):
                with pytest.raises(FileNotFoundError):
                    fails()
            path.unlink(missing_ok=True)
            rmtree(path)


def test_what_is_deleted_is_gone(trees):
    for root in trees:
        (root / "a.json").unlink()
        rmtree(root / "part")
    local, remote = trees
    assert sizes(remote) == sizes(local) == {"b.parquet": 2, "part-2/é.txt": 2}


def test_a_file_is_replaced_whole_or_left(trees):
    for root in trees:
        with pytest.raises(OSError, match="No space"), whole(root / "a.json") as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        assert (root / "a.json").read_text() == "{}"
        write_json(root / "new" / "a.json", {"µ": [1.5, None]})
        assert json.loads((root / "new" / "a.json").read_text()) == {"µ": [1.5, None]}
    assert sizes(trees[0]) == sizes(trees[1])


def test_names_and_copies():
    path = Remote("s3://bucket/runs/x.json")
    assert str(path) == f"{path}" == os.fspath(path) == "s3://bucket/runs/x.json"
    assert path.key == "bucket/runs/x.json" and path.name == "x.json" and path.suffix == ".json"
    assert str(path.parent / ".x.work") == "s3://bucket/runs/.x.work"
    assert str(path.with_suffix(".requests.parquet")) == "s3://bucket/runs/x.requests.parquet"
    assert str(path.relative_to(path.parent)) == "x.json"
    assert path.resolve() == path and {path: 1}[Remote("s3://bucket/runs", "x.json")] == 1
    assert json.dumps(path, default=str) == '"s3://bucket/runs/x.json"'
    for copy in (pickle.loads(pickle.dumps(path)), cloudpickle.loads(cloudpickle.dumps(path)), place(path)):
        assert type(copy) is Remote and copy == path and str(copy) == str(path)


@dataclass(frozen=True)
class Flags:
    """Do it."""

    logs: Path
    out: Path
    arch: Path | None = None


def test_flags_and_yaml_name_object_storage(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("logs: s3://bucket/logs\narch: gs://other/day=1/arch.json\n")
    config = cli.parse(Flags, ["--out", "s3://bucket/runs/x", "--config", str(file)])
    assert [str(p) for p in (config.logs, config.out, config.arch)] == [
        "s3://bucket/logs",
        "s3://bucket/runs/x",
        "gs://other/day=1/arch.json",
    ]
    assert {type(path) for path in vars(config).values()} == {Remote}
    local = cli.parse(Flags, ["--logs", "runs/logs", "--out", "/mnt/s3/x"])
    assert local == Flags(Path("runs/logs"), Path("/mnt/s3/x"))


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:secret@bucket/x",
        "s3://bucket/x?endpoint_override=here",
        "s3://bucket",
        "gs://bucket/a b",
        "s3://b/%20",
    ],
)
def test_a_uri_is_a_bucket_and_a_folder_alone(uri):
    with pytest.raises(InputError, match=r"expected (s3|gs)://BUCKET/FOLDER.*from the environment") as raised:
        place(uri)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("uri", ["hdfs://host/x", "file:///tmp/x", "https://host/x"])
def test_other_schemes_are_refused(uri):
    with pytest.raises(InputError, match="expected a path, or one of s3://, gs://"):
        place(Path(uri))


def test_what_the_storage_refuses_is_one_line(bucket):
    nowhere = Remote("s3://no-such-bucket-here/x")
    with pytest.raises(InputError, match=r"s3://no-such-bucket-here/x: .*NO_SUCH_BUCKET.*environment"):
        nowhere.write_text("x")
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI"), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        runs.tracking_uri(bucket / "out")


@pytest.mark.slow
def test_published_whole(bucket):
    out = bucket / "runs" / "out"
    assert not is_done(out, **RUN)
    with publish(out, **RUN) as (folder, extra):
        (folder / "train" / "x").write_text("x")
        extra["rows"] = 3
        with pytest.raises(InputError, match="not a finished output"):
            read_manifest(out, kind="samples")
        assert not is_done(out, **RUN)
    manifest = read_manifest(out, kind="samples")
    assert manifest["files"] == {"train/x": 1} and manifest["rows"] == 3
    assert is_done(out, **RUN)
    assert set(sizes(out)) == {"manifest.json", "train/x"}
    with pytest.raises(InputError, match="another process has just finished it"), publish(out, **RUN):
        pass
    assert is_done(out, **RUN)


@pytest.mark.slow
def test_a_failure_publishes_nothing(bucket):
    out = bucket / "out"
    with pytest.raises(ZeroDivisionError), publish(out, **RUN) as (folder, _):
        (folder / "train" / "x").write_text("half")
        raise ZeroDivisionError
    assert sizes(out).keys() == {".partial"}
    (out / "train" / "y").write_text("of a task that had not stopped")
    with pytest.raises(ZeroDivisionError), publish(out, **RUN) as (folder, _), staged(folder) as here:
        (here / "x").write_text("half")
        assert sizes(out).keys() == {".partial"}
        raise ZeroDivisionError
    assert sizes(out).keys() == {".partial"} and not is_done(out, **RUN)


KILLED = """
import sys, time
from prerank.core.outputs import publish
from prerank.core.storage import place
with publish(place(sys.argv[1]), kind="samples", config={"seed": 0}, inputs={"logs": "abc"}) as (folder, _):
    (folder / "train" / "old").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_what_a_killed_run_left_is_begun_again(bucket):
    out = bucket / "out"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "ready\n"
        first.kill()
    assert set(sizes(out)) == {".partial", "train/old"}
    with pytest.raises(InputError, match="not a finished output"):
        read_manifest(out, kind="samples")
    with pytest.raises(InputError, match="half-written"):
        open_logs(out)
    assert not is_done(out, **RUN)
    with publish(out, **RUN) as (folder, _):
        assert set(sizes(folder)) == {".partial"}
        (folder / "new").write_text("x")
    assert set(sizes(out)) == {"manifest.json", "new"}


def test_foreign_folders_are_left_alone(bucket):
    (bucket / "out" / "mine").write_text("precious")
    with pytest.raises(InputError, match="not an output of this program"), publish(bucket / "out", **RUN):
        pass
    assert (bucket / "out" / "mine").read_text() == "precious"


def test_local_copies(trees):
    for root in trees:
        with fetched(root / "b.parquet") as file:
            assert file.name == "b.parquet" and file.read_text() == "bb"
        with fetched(root / "part") as folder:
            assert sizes(folder) == {"c.parquet": 3, "deep/d.txt": 4}


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but the one that says when the logs were modified."""
    return {name: (folder / name).read_bytes() for name in sizes(folder) if name != LOGS}


@pytest.mark.slow
def test_samples_models_and_taught_samples_are_those_of_local_folders(bucket, tmp_path):
    made = {}
    for root in (tmp_path, bucket / "runs"):
        with staged(root / "logs") as here:
            write_logs(here)
        samples = build(root / "logs", root / "samples")
        teacher = random_teacher(samples, root / "teacher")
        taught = teach_here(samples, teacher, root / "taught")
        made[root] = [contents(folder) for folder in (samples, teacher, taught)]
        score = load_model(teacher, kind="teacher").ranker.state_dict()
        made[root] += [{key: value.tolist() for key, value in score.items()}, open_logs(root / "logs").fingerprint]
    assert made[tmp_path] == made[bucket / "runs"]
    assert {name.partition("/")[0] for name in made[tmp_path][0]} >= {"train", "val", "manifest.json"}


def test_parquet_reads_the_same(bucket, tmp_path):
    table = pa.table({"x": list(range(1000)), "y": [[i] for i in range(1000)]})
    for root in (tmp_path, bucket):
        with whole(root / "x.parquet") as file:
            pq.write_table(table, file, row_group_size=100)
        with parquet(root / "x.parquet") as file:
            assert file.num_row_groups == 10 and file.read().equals(table)
            assert file.read_row_group(3, columns=["y"]).equals(table.slice(300, 100).select(["y"]))
    assert contents(tmp_path) == contents(bucket)


def test_artifacts_and_the_unsent_queue_of_remote_outputs(bucket, tmp_path, monkeypatch):
    """While the server is down a copy waits on this machine; no part of it is in object storage."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (bucket / "out" / "arch.json").write_text("{}")
    down = "http://127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    queue = runs._spool(down, bucket / "out")
    assert queue.is_relative_to(tmp_path) and queue != runs._spool(down, bucket / "other")
    Run(down, "run", "0", queue).artifact(bucket / "out" / "arch.json")
    [waiting] = queue.glob("files/*/arch.json")
    assert waiting.read_text() == "{}" and set(sizes(bucket)) == {"out/arch.json"}


def line(root: Path) -> list:
    """What the steps from simulated logs to an evaluated student say, all in `root`."""
    sizes = dict(requests=180, candidates=60, fine_list=30, items=900, users=80, days=3, eval_requests=20, seed=5)
    make_logs.main(make_logs.MakeLogs(out=root / "logs", **sizes))
    draw = DrawConfig(tail_negatives=3, rank_items=4, bin_items=1, uniform_items=40)
    built = build_samples.main(build_samples.BuildSamples(root / "logs", root / "samples", blocks=2, draw=draw))
    training = dict(k=20, optim=Optim(batch=16, epoch_steps=1, epochs=2), compute=Compute(cpus=0.5))
    train_teacher.main(train_teacher.TrainTeacher(root / "samples", root / "teacher", widths="16", **training))
    taught = teach.main(teach.Teach(root / "samples", root / "teacher", root / "taught"))
    student = train_student.TrainStudent(root / "taught", root / "student", distill=Distill(score=1.0), **training)
    best = train_student.main(student)
    assert train_student.main(student) == best
    models = str(root / "teacher"), root / "student"
    results = evaluate.main(evaluate.Evaluate(root / "logs", *models, root / "results.json", k=20, blocks=2))
    return json.loads(json.dumps([built, taught, best, results], default=str))


@pytest.mark.ray
@pytest.mark.slow
def test_the_line_from_storage_to_storage(ray_cluster, bucket, tmp_path, monkeypatch):
    found = []
    for root in (tmp_path / "local", bucket / "runs"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{root.name}.db")
        found.append(line(root))
    local, remote = found
    assert remote == local
    written = {name for name in sizes(bucket / "runs") if not name.startswith(".")}
    assert written == {name for name in sizes(tmp_path / "local") if not name.startswith("mlartifacts/")}
    for name in written:
        if name.endswith((".parquet", ".safetensors")):
            assert (bucket / "runs" / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name
