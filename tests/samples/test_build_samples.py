"""The whole step on a small cluster: the same samples whatever the parts, and what it refuses."""

import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs_fixture import write_logs
from ray import cloudpickle

from prerank.core.errors import InputError
from prerank.logs import parts
from prerank.logs.folder import open_logs
from prerank.logs.tiles import cut
from prerank.samples.draw import DrawConfig
from prerank.samples.files import sample_files
from workflows.build_samples import BuildSamples, main

pytestmark = pytest.mark.ray

DRAW = DrawConfig(tail_negatives=3, rank_items=4, bin_items=1, uniform_items=3)


def config(folder: Path, **changes) -> BuildSamples:
    return replace(BuildSamples(logs=folder / "logs", out=folder / "samples", draw=DRAW), **changes)


def iterate_samples(folder: Path, name: str) -> Iterator[pa.Table]:
    """Request rows of a split, some at a time."""
    for path, _ in sample_files(folder, name):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(128):
                yield pa.Table.from_batches([batch])


def split(folder: Path, name: str) -> pa.Table:
    return pa.concat_tables(iterate_samples(folder, name)).sort_by("request_id")


@pytest.fixture(scope="module")
def built(ray_cluster, tmp_path_factory):
    """Samples of clustered logs in one part."""
    folder = tmp_path_factory.mktemp("built")
    write_logs(folder / "logs")
    return folder, main(config(folder, blocks=1))


def test_what_is_built(built):
    folder, manifest = built
    train, val = split(folder / "samples", "train"), split(folder / "samples", "val")
    assert manifest["counts"]["built"]["requests"] == train.num_rows == 30
    assert sum(rows for _, rows in sample_files(folder / "samples", "train")) == 30
    assert set(train.schema.names) - set(val.schema.names) == {"fine_score"}, "the logs of candidates have none"
    assert manifest["split"] == {"val_from": "2024-03-03T00:00:00.000000", "test_from": "2024-03-04T00:00:00.000000"}
    assert train["ts"].to_numpy().max() < np.datetime64("2024-03-03") <= val["ts"].to_numpy().min()
    assert val["ts"].to_numpy().max() < np.datetime64("2024-03-04")
    assert val.num_rows == 15 and {len(items) for items in val["item_id"].to_pylist()} == {48}
    assert {stage for stages in val["stage"].to_pylist() for stage in stages} == {0, 2, 3, 4}
    assert manifest["val_table"] == "candidates" and manifest["counts"]["candidates"]["read"]["requests"] == 15
    assert manifest["positions"] and manifest["draw"]["rank_items"] == 4
    assert DrawConfig(**manifest["draw"]) == DRAW


def test_features_are_those_of_the_logs(built):
    """Every value against the row of the logs, found by ids."""
    folder, _ = built
    of_row = {}
    for path in (folder / "logs/fine_lists").iterdir():
        of_row |= {(row["request_id"], row["item_id"]): row for row in pq.read_table(path).to_pylist()}
    for row in split(folder / "samples", "train").to_pylist():
        for at, item in enumerate(row["item_id"]):
            logged = of_row[row["request_id"], item]
            assert row["position"][at] == logged["fine_position"]
            assert row["fine_score"][at] == pytest.approx(logged["fine_score"], rel=1e-6)
            assert row["item_tags"][at] == logged["item_tags"]
            assert row["brand"][at] == min(logged["brand"], 12)
            assert row["user_tags"] == logged["user_tags"]
            for name in ("price", "quality", "item_vector", "match"):
                assert row[name][at] == pytest.approx(logged[name], rel=1e-6)
            for name in ("user_age", "user_vector", "hour"):
                assert row[name] == pytest.approx(logged[name], rel=1e-6, nan_ok=True)


def test_statistics_are_those_of_the_training_rows(built):
    folder, _ = built
    found = json.loads((folder / "samples/stats.json").read_text())
    train = split(folder / "samples", "train")
    age, vector = train["user_age"].to_numpy(), np.concatenate(train["item_vector"].to_pylist())
    assert set(found) == {"user_age", "user_vector", "hour", "price", "quality", "item_vector", "match", "secret"}
    assert found["user_age"]["mean"] == pytest.approx([np.nanmean(age)], rel=1e-5)
    assert found["user_age"]["missing"] == pytest.approx(np.isnan(age).mean(), abs=1e-6)
    assert found["item_vector"]["mean"] == pytest.approx(vector.mean(0), rel=1e-4, abs=1e-6)
    assert found["item_vector"]["std"] == pytest.approx(vector.std(0), rel=1e-4)


@pytest.mark.parametrize("layout", ["clustered", "shuffled", "row groups without room"])
def test_the_same_samples_whatever_the_parts(built, tmp_path, monkeypatch, capsys, layout):
    folder, manifest = built
    write_logs(tmp_path / "logs", shuffled=layout == "shuffled")
    logs = open_logs(tmp_path / "logs")
    assert (cut(logs, "fine_lists", tiles=7) is None) == (layout == "shuffled")
    blocks = 7
    if layout == "row groups without room":
        largest = max(group.bytes for group in logs.tables["fine_lists"].groups)
        monkeypatch.setattr(parts, "room_of_a_task", lambda: largest / 2)
        monkeypatch.setattr(parts, "TILE_BYTES", largest // 4)
        blocks = None
    again = main(config(tmp_path, blocks=blocks))
    said = "a task has room for 0: all rows are shuffled" in capsys.readouterr().out
    assert said == (layout == "row groups without room")
    assert len(again["rows"]) > len(manifest["rows"])
    for name in ("train", "val"):
        assert repr(split(tmp_path / "samples", name).to_pylist()) == repr(split(folder / "samples", name).to_pylist())
    assert (tmp_path / "samples/stats.json").read_bytes() == (folder / "samples/stats.json").read_bytes()
    assert again["counts"] == manifest["counts"]


def test_done_already_or_another_run(built, capsys):
    folder, manifest = built
    assert main(config(folder, blocks=5)) == manifest
    assert "already done" in capsys.readouterr().out
    with pytest.raises(InputError, match="already holds another run: config seed was 0, now 1"):
        main(config(folder, seed=1))


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_task_is_shipped_its_own_part_alone(ray_cluster, tmp_path, monkeypatch, shuffled):
    write_logs(tmp_path / "logs", files=5, shuffled=shuffled)
    logs = open_logs(tmp_path / "logs")
    name, shipped = "streams" if shuffled else "tasks", []
    send = getattr(parts, name)

    def spy(jobs, function):
        shipped.extend(jobs)
        assert b".parquet" not in cloudpickle.dumps(function), "what all tasks get names no file"
        return send(jobs, function)

    monkeypatch.setattr(parts, name, spy)
    rows = parts.whole_requests(logs, "fine_lists", lambda rows, shown: rows.select(["request_id"]), blocks=10)
    assert sum(row["request_id"] > 0 for row in rows.iter_rows()) == 60 * 24
    assert len(shipped) >= 10 and max(len(pickle.dumps(job)) for job in shipped) < 3000
    assert parts.slim(logs).tables["fine_lists"].groups == ()


def test_no_part_holds_the_days(ray_cluster, tmp_path):
    write_logs(tmp_path / "logs")
    logs = open_logs(tmp_path / "logs")
    rows = parts.whole_requests(logs, "fine_lists", lambda rows, shown: rows, since=np.datetime64("2025-01-01"))
    assert list(rows.iter_rows()) == []


def test_candidates_of_other_days_alone(ray_cluster, tmp_path, capsys):
    """Validation falls back on the fine lists; where these are unusable too, it says so and publishes nothing."""
    write_logs(tmp_path / "logs")
    day = np.datetime64("2024-03-03"), np.datetime64("2024-03-04")
    for path in (tmp_path / "logs/candidates").iterdir():
        rows = pq.read_table(path)
        pq.write_table(rows.filter(pa.array(rows["ts"].to_numpy() >= day[1])), path)
    manifest = main(config(tmp_path, val_requests=4))
    val = split(tmp_path / "samples", "val")
    assert val.num_rows == 4 and {len(items) for items in val["item_id"].to_pylist()} == {24}
    assert manifest["val_table"] == "fine_lists" and "candidates" not in manifest["counts"]
    assert (
        "no candidates of the validation days in candidates/: validation on the fine lists" in capsys.readouterr().out
    )

    for path in (tmp_path / "logs/fine_lists").iterdir():
        rows = pq.read_table(path)
        lost = (rows["ts"].to_numpy() >= day[0]) & (rows["ts"].to_numpy() < day[1])
        position = np.where(lost, 0, rows["fine_position"].to_numpy())
        at = rows.column_names.index("fine_position")
        pq.write_table(rows.set_column(at, "fine_position", pa.array(position)), path)
    with pytest.raises(InputError, match="no usable request of 2024-03-03T00:00 until 2024-03-04T00:00"):
        main(config(tmp_path, out=tmp_path / "other", max_dropped=1.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "samples"]


def test_logs_without_positions_and_candidates(ray_cluster, tmp_path, capsys):
    write_logs(tmp_path / "logs", positions=False, candidates=False)
    manifest = main(config(tmp_path, val_requests=4))
    assert "note: no candidates in the logs: validation on the fine lists" in capsys.readouterr().out
    assert manifest["val_table"] == "fine_lists"
    train, val = split(tmp_path / "samples", "train"), split(tmp_path / "samples", "val")
    assert not manifest["positions"] and manifest["strategies"] == [
        "exposed",
        "low_rank_negatives",
        "rank_pairs",
        "bin_pairs",
    ]
    assert {len(items) for items in train["item_id"].to_pylist()} == {24}
    assert val.num_rows == 4 and train.schema == val.schema
    assert {p for row in train["position"].to_pylist() for p in row} == {-1}


def test_faults_stop_it_with_one_sentence_and_nothing_is_published(ray_cluster, tmp_path):
    write_logs(tmp_path / "logs")
    for path in (tmp_path / "logs/fine_lists").iterdir():
        table = pq.read_table(path)
        worse = table["fine_position"].to_numpy().copy()
        worse[::100] += 1
        pq.write_table(
            table.set_column(table.column_names.index("fine_position"), "fine_position", pa.array(worse)), path
        )
    with pytest.raises(InputError, match=r"fine_lists: .* rows dropped for faults \(positions_not_a_permutation"):
        main(config(tmp_path))
    assert not (tmp_path / "samples").exists()
    assert main(config(tmp_path, max_dropped=0.9))["counts"]["dropped"]["positions_not_a_permutation"]["requests"] > 0

    shutil.rmtree(tmp_path / "logs/impressions")
    (tmp_path / "logs/impressions").mkdir()
    none_clicked = {"request_id": [1000], "item_id": ["item-0"], "shown_position": [0], "clicked": [False]}
    pq.write_table(pa.table(none_clicked), tmp_path / "logs/impressions/0.parquet")
    with pytest.raises(InputError, match="strategy 'exposed' built no pair"):
        main(config(tmp_path, out=tmp_path / "other", max_dropped=1.0))


def test_a_fault_inside_a_task_arrives_as_itself(ray_cluster, tmp_path):
    from prerank.core.cli import _input_error

    write_logs(tmp_path / "logs")
    path = tmp_path / "logs/fine_lists/part-1.parquet"
    table = pq.read_table(path)
    longer = pa.array([[1.0, 2.0, 3.0]] * len(table), pa.list_(pa.float32()))
    pq.write_table(table.set_column(table.column_names.index("quality"), "quality", longer), path)
    with pytest.raises(Exception) as caught:
        main(config(tmp_path))
    assert "column 'quality' holds a list of " in str(_input_error(caught.value))
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
