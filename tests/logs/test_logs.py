import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from logs_fixture import SCHEMA, write_logs

from prerank.core.errors import InputError
from prerank.logs.folder import group_batches, open_logs, read_groups
from prerank.logs.tiles import cut, read_tile


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clustered")
    write_logs(folder)
    return folder


@pytest.fixture
def logs(clustered, tmp_path):
    return shutil.copytree(clustered, tmp_path / "logs")


def rewrite(path, change):
    pq.write_table(change(pq.read_table(path)), path)


def test_a_folder_of_logs(clustered):
    logs = open_logs(clustered)
    assert {name: table.rows for name, table in logs.tables.items()} == {
        "fine_lists": 60 * 24, "impressions": 60 * 6, "candidates": 60 * 48,
    }  # fmt: skip
    assert logs.has_positions and logs.has_scores and logs.has_candidates
    assert logs.days == (np.datetime64("2024-03-01"), np.datetime64("2024-03-04"))


def test_what_is_optional(tmp_path):
    write_logs(tmp_path, positions=False, candidates=False)
    logs = open_logs(tmp_path)
    assert not (logs.has_positions or logs.has_scores or logs.has_candidates)


def test_fingerprint_is_of_the_content(logs, tmp_path):
    before = open_logs(logs).fingerprint
    assert open_logs(shutil.copytree(logs, tmp_path / "elsewhere")).fingerprint == before
    rewrite(logs / "impressions/part-1.parquet", lambda table: table[:-1])
    shorter = open_logs(logs).fingerprint
    (logs / "schema.json").write_text(json.dumps(SCHEMA | {"hand_picked": ["price"]}))
    assert len({before, shorter, open_logs(logs).fingerprint}) == 3


def test_missing_column_is_named(logs):
    rewrite(logs / "fine_lists/part-1.parquet", lambda table: table.drop_columns("brand"))
    with pytest.raises(InputError, match=r"part-1.parquet: column 'brand' is missing; expected integers or strings"):
        open_logs(logs)


@pytest.mark.parametrize(
    ("table", "column", "values", "message"),
    [
        ("fine_lists", "price", pa.array(["dear"]), r"'price' has type string, expected numbers"),
        ("fine_lists", "ts", pa.array([0.5]), r"'ts' has type double, expected timestamps"),
        (
            "fine_lists",
            "user_vector",
            pa.array([[1.0]], pa.list_(pa.float64(), 1)),
            r"'user_vector' .* a list of 3 numbers",
        ),
        ("fine_lists", "item_tags", pa.array([1]), r"'item_tags' .* a list of integers or strings"),
        ("impressions", "clicked", pa.array([0.5]), r"'clicked' has type double, expected booleans, or 0 and 1"),
        ("candidates", "request_id", pa.array([0.5]), r"'request_id' has type double"),
    ],
)
def test_wrong_type_is_named(logs, table, column, values, message):
    def change(rows):
        wrong = pa.chunked_array([values.take(pa.array(np.zeros(len(rows), int)))])
        return rows.set_column(rows.column_names.index(column), column, wrong)

    rewrite(logs / table / "part-2.parquet", change)
    with pytest.raises(InputError, match=f"part-2.parquet: column {message}"):
        open_logs(logs)


def test_types_that_differ_between_files_or_tables(logs):
    def as_string(rows):
        return rows.set_column(0, "request_id", rows["request_id"].cast(pa.string()))

    rewrite(logs / "candidates/part-0.parquet", as_string)
    with pytest.raises(InputError, match=r"part-1.parquet: types differ from those of .*part-0.parquet"):
        open_logs(logs)
    for part in (1, 2):
        rewrite(logs / f"candidates/part-{part}.parquet", as_string)
    with pytest.raises(InputError, match="'request_id' must have one type in all tables, found int64 in fine_lists"):
        open_logs(logs)


def test_widths_of_numbers_may_differ_between_files(logs):
    def narrower(rows):
        rows = rows.set_column(0, "request_id", rows["request_id"].cast(pa.int32()))
        return rows.set_column(1, "item_id", rows["item_id"].dictionary_encode())

    rewrite(logs / "fine_lists/part-0.parquet", narrower)
    table = open_logs(logs).tables["fine_lists"]
    rows = read_groups(table, table.groups)
    assert rows["request_id"].type == pa.int64() and rows["item_id"].type == pa.string()


def test_optional_column_in_some_files_only(logs):
    rewrite(logs / "fine_lists/part-1.parquet", lambda table: table.drop_columns("fine_score"))
    with pytest.raises(InputError, match=r"part-1.parquet: column fine_score is in some files"):
        open_logs(logs)


@pytest.mark.parametrize("keep", [0, 100, -200])
def test_broken_file_is_named(logs, keep):
    path = logs / "impressions/part-1.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"part-1.parquet: cannot be read as a Parquet file \(\d+ bytes"):
        open_logs(logs)


def test_files_without_rows_are_fine_unless_all_are(logs):
    rewrite(logs / "fine_lists/part-1.parquet", lambda table: table[:0])
    assert open_logs(logs).tables["fine_lists"].rows == 40 * 24
    for part in (0, 2):
        rewrite(logs / f"fine_lists/part-{part}.parquet", lambda table: table[:0])
    with pytest.raises(InputError, match="fine_lists: 3 files without a row"):
        open_logs(logs)


def test_no_table_at_all(logs):
    shutil.rmtree(logs / "impressions")
    with pytest.raises(InputError, match=r"impressions: no \*.parquet files"):
        open_logs(logs)


def test_days_without_statistics_are_read(logs):
    before = open_logs(logs).days
    for path in (logs / "fine_lists").iterdir():
        pq.write_table(pq.read_table(path), path, write_statistics=False)
    assert open_logs(logs).days == before
    assert cut(open_logs(logs), "fine_lists", tiles=4) is None, "nothing proves where a request is"


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_any_unit_of_time(logs, unit, zone):
    def change(rows):
        return rows.set_column(2, "ts", rows["ts"].cast(pa.timestamp(unit, zone)))

    for path in (logs / "fine_lists").iterdir():
        rewrite(path, change)
    found = open_logs(logs)
    assert found.days == (np.datetime64("2024-03-01"), np.datetime64("2024-03-04"))
    assert read_groups(found.tables["fine_lists"], found.tables["fine_lists"].groups)["ts"].type == pa.timestamp("us")


def keys(table):
    return sorted(zip(table["request_id"].to_pylist(), table["item_id"].to_pylist(), strict=True), key=str)


@pytest.mark.parametrize(("tiles", "row_groups_a_tile"), [(1, 6), (2, 3), (3, 2), (6, 1)])
def test_tiles_hold_every_row_once_and_whole_requests(clustered, tiles, row_groups_a_tile):
    logs = open_logs(clustered)
    made = cut(logs, "fine_lists", tiles=tiles)
    assert [len(tile.groups) for tile in made] == [row_groups_a_tile] * tiles
    parts = [read_tile(logs, "fine_lists", tile) for tile in made]
    for name, of_name in zip(("fine_lists", "impressions"), zip(*parts, strict=True), strict=True):
        everything = read_groups(logs.tables[name], logs.tables[name].groups)
        assert keys(pa.concat_tables(of_name)) == keys(everything)
        requests = [set(part["request_id"].to_pylist()) for part in of_name]
        assert sum(map(len, requests)) == len(set.union(*requests)), "a request is in one tile"
        assert any(requests)


def test_requests_that_straddle_row_groups_stay_whole(logs):
    whole = pa.concat_tables(pq.read_table(logs / f"fine_lists/part-{part}.parquet") for part in range(3))
    for part in range(3):
        (logs / f"fine_lists/part-{part}.parquet").unlink()
    for part, first in enumerate(range(0, len(whole), 490)):  # 490 is no multiple of a list's 24
        pq.write_table(whole[first : first + 490], logs / f"fine_lists/{part}.parquet", row_group_size=245)
    opened = open_logs(logs)
    made = cut(opened, "fine_lists", tiles=3)
    assert len(made) == 3
    for tile in made:
        rows, _ = read_tile(opened, "fine_lists", tile)
        assert set(pc.value_counts(rows["request_id"]).field("counts").to_pylist()) == {24}


def test_rows_without_a_request_are_in_one_tile(logs):
    def change(rows):
        ids = rows["request_id"].to_pylist()
        return rows.set_column(0, "request_id", pa.array([None, *ids[1:]], pa.int64()))

    rewrite(logs / "fine_lists/part-2.parquet", change)
    opened = open_logs(logs)
    parts = [read_tile(opened, "fine_lists", tile)[0] for tile in cut(opened, "fine_lists", tiles=3)]
    assert [part["request_id"].null_count for part in parts] == [1, 0, 0]
    assert sum(map(len, parts)) == 60 * 24


def test_shuffled_logs_need_a_shuffle(tmp_path):
    write_logs(tmp_path, shuffled=True)
    logs = open_logs(tmp_path)
    assert cut(logs, "fine_lists", tiles=6) is None
    assert len(cut(logs, "fine_lists", tiles=1)) == 1, "what fits one task needs none"


@pytest.mark.parametrize("vectors_with_nulls", [False, True])
def test_a_row_group_in_parts_is_the_whole(logs, vectors_with_nulls):
    def change(rows):
        flat = pa.array(np.arange(4 * len(rows)), pa.float32())
        some_null = pa.array(np.arange(len(rows)) % 5 == 1)
        vectors = pa.FixedSizeListArray.from_arrays(flat, 4, mask=some_null)
        return rows.set_column(rows.column_names.index("item_vector"), "item_vector", vectors)

    if vectors_with_nulls:
        for path in (logs / "fine_lists").iterdir():
            rewrite(path, change)
    opened = open_logs(logs)
    for table in opened.tables.values():
        for group in table.groups:
            parts, whole = list(group_batches(table, group, 7)), read_groups(table, (group,))
            assert {len(part) for part in parts[:-1]} == {7} and len(parts) == -(-group.rows // 7)
            assert repr(pa.concat_tables(parts).to_pylist()) == repr(whole.to_pylist())
            assert [len(part) for part in group_batches(table, group, group.rows)] == [group.rows]
            if table.name == "fine_lists" and vectors_with_nulls:
                assert whole["item_vector"].null_count > 0


def test_memory_is_told_by_the_footers(tmp_path):
    """Long histories, long texts and short ones, against what Arrow holds, within a third."""
    write_logs(tmp_path, candidates=False)
    for number, path in enumerate(sorted((tmp_path / "fine_lists").iterdir())):
        table, length = pq.read_table(path), (2, 50, 400)[number]
        tags = pa.array([list(range(row % (2 * length))) for row in range(len(table))], pa.list_(pa.int64()))
        brand = pa.array([f"{row % 7:0{length}d}" for row in range(len(table))])
        table = table.set_column(table.column_names.index("item_tags"), "item_tags", tags)
        table = table.set_column(table.column_names.index("brand"), "brand", brand)
        pq.write_table(table, path, row_group_size=24 * 10)
    logs = open_logs(tmp_path)
    table = logs.tables["fine_lists"]
    for group in table.groups:
        held = read_groups(table, (group,)).nbytes
        assert 0.75 * held < group.bytes < 1.33 * held
    assert table.bytes == sum(group.bytes for group in table.groups)
    largest = max(group.bytes for group in table.groups)
    for tile in cut(logs, "fine_lists", tile_bytes=int(1.1 * largest)):
        assert sum(group.bytes for group in tile.groups) < 1.7 * largest


def test_names_with_dots(logs):
    def renamed(rows):
        return rows.rename_columns(["item.tags" if name == "item_tags" else name for name in rows.column_names])

    before = open_logs(logs).tables["fine_lists"].bytes
    for path in logs.glob("[cf]*/*.parquet"):
        rewrite(path, renamed)
    (logs / "schema.json").write_text(json.dumps(SCHEMA).replace("item_tags", "item.tags"))
    assert open_logs(logs).tables["fine_lists"].bytes == pytest.approx(before, rel=0.1)


def test_strings_as_request_ids(tmp_path):
    write_logs(tmp_path)
    for path in tmp_path.glob("*/*.parquet"):
        table = pq.read_table(path)
        ids = pa.array([f"{request:05d}" for request in table["request_id"].to_pylist()])
        pq.write_table(table.set_column(0, "request_id", ids), path, row_group_size=24 * 10)
    logs = open_logs(tmp_path)
    parts = [read_tile(logs, "fine_lists", tile)[0] for tile in cut(logs, "fine_lists", tiles=3)]
    assert len(parts) == 3 and sum(map(len, parts)) == 60 * 24
