"""Labels beside the click: from impressions into samples, counted by hand, and refused where they say nothing."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labels_fixture import declare
from samples_fixture import build, rows_of

from prerank.core.errors import InputError
from prerank.logs.folder import open_logs
from prerank.logs.schema import parse_schema


def impressions(folder, change):
    for path in sorted((folder / "impressions").glob("*.parquet")):
        pq.write_table(change(pq.read_table(path)), path)


def liked_of(table, every: int = 3):
    """Every third row; of these every fifth is null."""
    values = [None if row % (5 * every) == 0 else True for row in range(0, table.num_rows, every)]
    flags = [values[row // every] if row % every == 0 else False for row in range(table.num_rows)]
    return table.append_column("liked", pa.array(flags, pa.bool_()))


def test_a_label_is_a_column_of_the_samples(logs, tmp_path):
    folder = declare(logs, tmp_path / "logs", ["liked", "converted"])
    impressions(folder, liked_of)
    samples = build(folder, tmp_path / "samples")
    shown = pa.concat_tables(pq.read_table(path) for path in (folder / "impressions").glob("*.parquet")).to_pylist()
    liked = {(row["request_id"], row["item_id"]) for row in shown if row["liked"]}
    manifest = json.loads((samples / "manifest.json").read_text())
    found, seen = set(), set()
    for split in ("train", "val"):
        for row in rows_of(samples, split):
            seen |= {(row["request_id"], item) for item in row["item_id"]}
            found |= {
                (row["request_id"], item) for item, flag in zip(row["item_id"], row["liked"], strict=True) if flag
            }
    assert found == liked & seen and found
    requests = {row["request_id"] for row in rows_of(samples, "train")}
    said = manifest["counts"]["labels"]["liked"]
    of_days = [row for row in shown if row["request_id"] in requests]
    assert said["true"] == sum(bool(row["liked"]) for row in of_days)
    assert said["true"] + said["false"] == len(of_days)
    assert said["requests"] == len({row["request_id"] for row in of_days if row["liked"]})
    assert manifest["counts"]["noted"]["liked_null"]["rows"] > 0


@pytest.mark.slow
def test_without_labels_nothing_changes(logs, samples, tmp_path):
    """But for the schema, rows and counts are those of logs that declare none."""
    folder = declare(logs, tmp_path / "logs", ["converted"])
    labelled = build(folder, tmp_path / "samples")
    assert rows_of(labelled, "train").__repr__() == rows_of(samples, "train").__repr__()
    counts = [json.loads((one / "manifest.json").read_text())["counts"] for one in (samples, labelled)]
    assert counts[1].pop("labels")["converted"]["true"] > 0 and counts[0] == counts[1]
    assert "labels" not in (samples / "schema.json").read_text()


def test_a_label_that_is_not_there_or_says_nothing_is_refused_before_anything_is_read(logs, tmp_path):
    folder = declare(logs, tmp_path / "logs", ["liked"])
    with pytest.raises(InputError, match="column 'liked' is missing; expected booleans"):
        open_logs(folder)
    impressions(folder, lambda table: table.append_column("liked", pa.array([2] * table.num_rows)))
    with pytest.raises(InputError, match="'liked' holds 2; expected true and false"):
        open_logs(folder)
    for value in (False, True):
        same = pa.array([value] * 10_000)
        impressions(folder, lambda table, same=same: table.drop("liked").append_column("liked", same[: len(table)]))
        with pytest.raises(InputError, match=f"label 'liked' is {value} in every row: there is nothing to learn"):
            open_logs(folder)


def test_a_label_that_the_training_days_lack_is_refused_by_the_build(logs, tmp_path):
    folder = declare(logs, tmp_path / "logs", ["liked"])
    last = max(
        row["request_id"]
        for path in (folder / "impressions").glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    )

    def late(table):
        return table.append_column("liked", pa.array([id == last for id in table["request_id"].to_pylist()]))

    impressions(folder, late)
    with pytest.raises(InputError, match="label 'liked' is False for all exposed items of the training days"):
        build(folder, tmp_path / "samples")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["click"], "clicks are the first objective"),
        (["clicked"], "clicks are the first objective"),
        (["price"], "a feature has this name"),
        (["exposed"], "is a column of the logs or samples"),
        (["score"], "the served network's output"),
        (["liked", "liked"], "labels names 'liked' 2 times"),
        (["a=b"], "a label has no ="),
        ("liked", "'labels' must be a list of names of columns"),
    ],
)
def test_names_that_another_column_or_output_has(labels, said):
    feature = {"name": "price", "side": "item", "kind": "dense", "source": "F", "fetch_us": 1}
    raw = {"fetch": {"F": {"per_feature_us": 1.0}}, "features": [feature]}
    with pytest.raises(InputError, match=said):
        parse_schema(raw | {"labels": labels}, "schema.json")
    named = {**raw, "features": [feature, {**feature, "name": "click"}]}
    with pytest.raises(InputError, match="a feature is named 'click'"):
        parse_schema(named | {"labels": ["liked"]}, "schema.json")
    assert parse_schema(named, "schema.json").labels == ()
    assert parse_schema(raw | {"labels": ["converted"]}, "schema.json").objectives == ("click", "converted")
