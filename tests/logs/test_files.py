"""Folders as other writers leave them: what is found, what is passed over, what is refused and named."""

import json
import os
import shutil
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs_fixture import SCHEMA, write_logs
from samples_fixture import build, rows_of

from prerank.core.errors import InputError
from prerank.core.storage import Remote
from prerank.logs.files import Found, table_files
from prerank.logs.folder import group_batches, open_logs, read_groups
from prerank.samples.draw import DrawConfig

DRAW = DrawConfig(tail_negatives=3, rank_items=4, bin_items=1, uniform_items=3)
TABLES = ("fine_lists", "impressions", "candidates")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "logs"
    write_logs(folder)
    return folder


@pytest.fixture
def logs(plain, tmp_path) -> Path:
    return shutil.copytree(plain, tmp_path / "logs")


def built(logs: Path, out: Path) -> str:
    build(logs, out, draw=DRAW)
    rows = [row for split in ("train", "val") for row in rows_of(out, split)]
    return repr(sorted(rows, key=lambda row: row["request_id"])) + (out / "stats.json").read_text()


@pytest.fixture(scope="module")
def expected(plain, tmp_path_factory) -> str:
    return built(plain, tmp_path_factory.mktemp("expected") / "samples")


def of_hive(logs: Path) -> None:
    """A folder a day, and one within it; half-way through a migration the oldest file lies at the top."""
    for table in TABLES:
        for number in (1, 2):
            part = logs / table / f"dt=2024-03-0{number}" / "city=a%20b"
            part.mkdir(parents=True)
            (logs / table / f"part-{number}.parquet").rename(part / "part-0.parquet")
    (logs / "fine_lists" / "dt=__HIVE_DEFAULT_PARTITION__").mkdir()


def of_a_partition_column_that_begins_with_a_line(logs: Path) -> None:
    for table in TABLES:
        (logs / table / "_date=2024-03-01").mkdir()
        (logs / table / "part-1.parquet").rename(logs / table / "_date=2024-03-01" / "part-1.parquet")


def of_spark(logs: Path) -> None:
    """What a job leaves that has ended, beside one that was given up and one that is under way."""
    for table in TABLES:
        (logs / table / "_SUCCESS").touch()
        (logs / table / "._SUCCESS.crc").write_bytes(b"crc\0")
        (logs / table / ".part-0.parquet.crc").write_bytes(b"crc\0")
        for attempt in ("_temporary/0/task_1", ".spark-staging-1/dt=2024-03-09"):
            (logs / table / attempt).mkdir(parents=True)
            shutil.copy(logs / table / "part-0.parquet", logs / table / attempt / "part-9.parquet")
        (logs / table / "_temporary" / "torn.parquet").write_bytes(b"PAR1")
        pq.write_metadata(pq.read_schema(logs / table / "part-0.parquet"), logs / table / "_common_metadata")


def of_a_mac(logs: Path) -> None:
    for table in TABLES:
        (logs / table / "._part-0.parquet").write_bytes(b"\0\5\26\7")
        (logs / table / ".DS_Store").write_bytes(b"Bud1")
        (logs / table / ".ipynb_checkpoints").mkdir()
        shutil.copy(logs / table / "part-1.parquet", logs / table / ".ipynb_checkpoints" / "part-1.parquet")


def of_folders_named_like_files(logs: Path) -> None:
    for table in TABLES:
        path = logs / table / "part-1.parquet"
        path.rename(logs / table / "moved")
        path.mkdir()
        (logs / table / "moved").rename(path / "part-00000-uuid.snappy.parquet")


def of_links(logs: Path) -> None:
    """Data behind links, links to what is there anyway, and a circle."""
    elsewhere = logs.parent / "elsewhere"
    for table in TABLES:
        (elsewhere / table / "day").mkdir(parents=True)
        (logs / table / "part-2.parquet").rename(elsewhere / table / "day" / "x.parquet")
        (logs / table / "a-day").symlink_to(elsewhere / table / "day")
        (logs / table / "again").symlink_to(elsewhere / table / "day")
        (logs / table / "a-latest.parquet").symlink_to("part-1.parquet")
        (logs / table / "circle").symlink_to("..")
        (logs / table / "self").symlink_to(".")


def of_versions(logs: Path) -> None:
    """The rows lie in a hidden folder, and a link says which is the current one."""
    for table in TABLES:
        (logs / table / "_v7").mkdir()
        for path in (logs / table).glob("*.parquet"):
            path.rename(logs / table / "_v7" / path.name)
        (logs / table / "current").symlink_to("_v7")


def of_notes(logs: Path) -> None:
    for table in TABLES:
        (logs / table / "README.txt").write_text("how these came about\n")
        (logs / table / "manifest.json").write_text("{}")
        (logs / table / "empty").touch()
        (logs / table / "part-0.parquet.crc").write_bytes(b"crc\0" * 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "writer",
    [
        of_hive,
        of_a_partition_column_that_begins_with_a_line,
        of_spark,
        of_a_mac,
        of_folders_named_like_files,
        of_links,
        of_versions,
        of_notes,
    ],
    ids=lambda w: w.__name__,
)
def test_the_samples_are_those_of_the_plain_folder(logs, tmp_path, expected, writer):
    writer(logs)
    assert built(logs, tmp_path / "samples") == expected


def test_all_of_it_at_once(logs, tmp_path, expected, capsys):
    for writer in (of_spark, of_a_mac, of_links, of_notes):
        writer(logs)
    assert built(logs, tmp_path / "samples") == expected
    assert "note: fine_lists: not read, as they are no Parquet files: README.txt, empty" in capsys.readouterr().out


def test_files_of_one_name_in_two_folders_are_two(logs):
    of_hive(logs)
    table = open_logs(logs).tables["fine_lists"]
    assert list(table.files) == [
        *("dt=2024-03-01/city=a%20b/part-0.parquet", "dt=2024-03-02/city=a%20b/part-0.parquet", "part-0.parquet"),
    ]
    assert read_groups(table, table.groups).num_rows == 60 * 24


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lambda f: (f / "x.parquet").symlink_to("gone"), r"x\.parquet: leads nowhere \(No such file"),
        (lambda f: (f / "dt=2024-03-09").symlink_to("/gone/day"), "dt=2024-03-09: leads nowhere"),
        (lambda f: (f / "x.parquet").symlink_to("x.parquet"), r"x\.parquet: leads nowhere \(Too many levels"),
        (lambda f: (f / "x.parquet").write_text("a,b\n1,2\n"), r"x\.parquet: cannot be read as a Parquet file \(8 b"),
        (lambda f: (f / "x.parquet").touch(), r"x\.parquet: cannot be read as a Parquet file \(0 bytes"),
        (lambda f: os.mkfifo(f / "x.parquet"), r"x\.parquet: neither a file nor a folder"),
        (lambda f: shutil.copy(f / "part-0.parquet", f / "000000_0"), "000000_0: a Parquet file whose name does not"),
        (lambda f: shutil.copy(f / "part-0.parquet", f / "x.PARQUET"), r"x\.PARQUET: a Parquet file whose name"),
        (lambda f: (f / "_delta_log").mkdir(), "_delta_log tells of a table of Delta"),
        (lambda f: (f / ".hoodie").mkdir(), "hoodie tells of a table of Hudi"),
        (lambda f: (f / "v1.metadata.json").touch(), "v1.metadata.json tells of a table of Iceberg"),
        (lambda f: (f / ".hoodie_partition_metadata").touch(), "hoodie_partition_metadata tells of a table of Hudi"),
        (lambda f: (f / "delete_delta_0000002_0000002_0000").mkdir(), r"tells of a table of Hive \(ACID\)"),
        (lambda f: (f / f"manifest-list-{uuid.uuid4()}-0").touch(), "tells of a table of Paimon"),
        (lambda f: (f / "a\nb.parquet").touch(), r"cannot be printed: 'a\\nb\.parquet'"),
        (lambda f: (f / os.fsdecode(b"\xe9.parquet")).touch(), r"cannot be printed: '\\udce9\.parquet'"),
    ],
    ids=range(16),
)
def test_odd_entries_are_named_in_one_line(logs, plant, said):
    plant(logs / "fine_lists")
    with pytest.raises(InputError, match=said) as caught:
        open_logs(logs)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_listed(logs, monkeypatch):
    def scandir(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match="fine_lists: cannot be listed: Permission denied"):
        table_files(logs / "fine_lists")


@pytest.mark.parametrize("name", ["candidates", "candidates.parquet"])
def test_candidates_that_are_no_folder_of_files(logs, name):
    shutil.move(logs / "candidates", logs / "moved")
    shutil.copy(logs / "moved" / "part-0.parquet", logs / name)
    with pytest.raises(InputError, match=rf"{name}: expected .*/candidates, a folder of \*.parquet files"):
        open_logs(logs)
    (logs / name).unlink()
    (logs / name).symlink_to("gone")
    with pytest.raises(InputError, match=f"{name}: expected"):
        open_logs(logs)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("candidates", "candidate"),
        ("candidates", "Candidates"),
        ("candidates", "canditates"),
        ("truth", "Truth"),
        ("fine_lists", "fine_list"),
        ("fine_lists", "fine-lists"),
        ("impressions", "impression"),
    ],
)
def test_a_table_under_a_name_that_is_almost_its_own(logs, table, name):
    (logs / "truth").mkdir()
    (logs / table).rename(logs / name)
    with pytest.raises(InputError, match=f"{name}: expected .*/{table}, a folder"):
        open_logs(logs)


def test_other_folders_beside_the_tables_are_none_of_them(logs):
    for name in ("samples", "runs", "impressions_raw", "archive", "__MACOSX", "truthful_archive"):
        (logs / name).mkdir()
    assert set(open_logs(logs).tables) == set(TABLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["part-0 (1).parquet", "backup/part-0.parquet", "dt=2024-03-01/part-0.parquet"])
def test_a_copy_of_a_file_is_named(logs, tmp_path, capsys, name):
    (logs / "impressions" / name).parent.mkdir(exist_ok=True)
    shutil.copy(logs / "impressions" / "part-0.parquet", logs / "impressions" / name)
    assert not open_logs(logs).tables["fine_lists"].copies
    first, second = sorted([name, "part-0.parquet"])
    built(logs, tmp_path / "samples")
    assert f"note: impressions: {second} seems to be a copy of {first}" in capsys.readouterr().out
    (logs / "fine_lists" / name).parent.mkdir(exist_ok=True)
    shutil.copy(logs / "fine_lists" / "part-0.parquet", logs / "fine_lists" / name)
    with pytest.raises(InputError, match=r"duplicate_item 480\).*look for copies of files"):
        built(logs, tmp_path / "more")


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ("price", "PRICE"),
        ("price", "price "),
        ("request_id", "\ufeffrequest_id"),
        ("ts", "TS"),
        ("fine_score", "Fine_Score"),
    ],
)
def test_a_column_whose_name_only_looks_the_same(logs, column, found):
    for path in logs.glob("fine_lists/*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.rename_columns([found if name == column else name for name in table.column_names]), path)
    with pytest.raises(InputError, match=f"column '{column}' is missing, and ") as caught:
        open_logs(logs)
    assert f"{found!a} is there; rename it" in str(caught.value)


def test_only_hidden_files(logs):
    for path in (logs / "impressions").iterdir():
        path.rename(path.with_name(f"_{path.name}"))
    with pytest.raises(InputError, match=r"impressions: no \*.parquet files.*begins with _ or \. is not read"):
        open_logs(logs)


@pytest.mark.parametrize(("column", "part"), [("query_city", "query_city=5"), ("item.tags", "item%2Etags=1")])
def test_a_column_that_stands_in_folder_names_alone(logs, column, part):
    (logs / "schema.json").write_text(json.dumps(SCHEMA).replace("item_tags", "item.tags"))
    for path in [*logs.glob("[cf]*/*.parquet")]:
        table = pq.read_table(path)
        table = table.rename_columns(["item.tags" if name == "item_tags" else name for name in table.column_names])
        path.unlink()
        (path.parent / part).mkdir(exist_ok=True)
        pq.write_table(table.drop_columns(column), path.parent / part / path.name)
    with pytest.raises(InputError, match=rf"part-0.parquet: column '{column}' stands in the name of its folder alone"):
        open_logs(logs)


def test_an_optional_column_that_stands_in_folder_names_alone(logs):
    for path in [*logs.glob("impressions/*.parquet")]:
        table = pq.read_table(path).drop_columns("converted")
        path.unlink()
        (path.parent / "converted=0").mkdir(exist_ok=True)
        pq.write_table(table, path.parent / "converted=0" / path.name)
    with pytest.raises(InputError, match=r"column 'converted' stands in the name of its folder alone \(converted=0\)"):
        open_logs(logs)


def test_object_storage_is_listed_by_the_same_rules(monkeypatch):
    from pyarrow.fs import FileInfo, FileType

    names = {
        "part-0.parquet": 7,
        "dt=1/part-0.parquet": 8,
        "_temporary/0/x.parquet": 9,
        "dt=1/._x.parquet": 9,
        "note": 1,
    }
    infos = {
        Remote(f"s3://b/t/{name}"): FileInfo(name, FileType.File, size=size, mtime_ns=5) for name, size in names.items()
    }
    infos[Remote("s3://b/t/x.parquet")] = FileInfo("x.parquet", FileType.Directory)
    monkeypatch.setattr(Remote, "infos", lambda self, recursive: infos)
    found, others = table_files(Remote("s3://b/t"))
    assert found == [
        Found(Remote("s3://b/t/dt=1/part-0.parquet"), 8, 5),
        Found(Remote("s3://b/t/part-0.parquet"), 7, 5),
    ]
    assert [file.path.name for file in others] == ["note"]
    infos[Remote("s3://b/t/_delta_log/0.json")] = FileInfo("0.json", FileType.File)
    with pytest.raises(InputError, match="_delta_log tells of a table of Delta"):
        table_files(Remote("s3://b/t"))


@pytest.mark.slow
def test_object_storage_as_other_writers_leave_it(logs, bucket):
    """On a server: read by the same rules, and a damaged page told from a storage that does not answer."""
    of_hive(logs)
    of_spark(logs)
    corrupted(logs / "candidates" / "dt=2024-03-02" / "city=a%20b" / "part-0.parquet", "match", compression="zstd")
    local, names = open_logs(logs), {}
    for path in logs.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(logs)).replace("%20", "-")
            names[name] = (bucket / "logs" / name).write_bytes(path.read_bytes())
    remote = open_logs(bucket / "logs")
    for name, table in local.tables.items():
        assert [file.footer for file in remote.tables[name].files.values()] == [f.footer for f in table.files.values()]
    assert remote.modified[0] > "2020" and remote.days == local.days
    rows = [read_groups(of.tables["fine_lists"], of.tables["fine_lists"].groups) for of in (local, remote)]
    assert repr(rows[0].to_pylist()) == repr(rows[1].to_pylist())
    damaged = remote.tables["candidates"]
    with pytest.raises(InputError, match=r"^s3://.*part-0.parquet: column 'match' of row group 1 cannot be read"):
        read_groups(damaged, damaged.groups)
    (bucket / "logs" / "impressions" / "000000_0").write_bytes((logs / "fine_lists" / "part-0.parquet").read_bytes())
    with pytest.raises(InputError, match=r"^s3://.*/000000_0: a Parquet file whose name does not end in .parquet"):
        open_logs(bucket / "logs")


def corrupted(path: Path, column: str, **options) -> None:
    """With the bytes in the middle of a column's pages overwritten; the footer stays good."""
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=24 * 10, **options)
    group = pq.read_metadata(path).row_group(1)
    chunk = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema.startswith(column))
    data = bytearray(path.read_bytes())
    start = (chunk.dictionary_page_offset or chunk.data_page_offset) + 30
    data[start : start + 30] = b"\xff" * 30
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("column", "options"),
    [
        ("match", {"compression": "zstd"}),
        ("item_id", {"compression": "snappy"}),
        ("item_tags", {"compression": "gzip"}),
        ("price", {"compression": "none", "write_page_checksum": True}),
        ("request_id", {"compression": "lz4"}),
    ],
)
def test_a_corrupt_page_is_named(logs, tmp_path, column, options):
    corrupted(logs / "fine_lists" / "part-2.parquet", column, **options)
    said = rf"fine_lists/part-2.parquet: column '{column}' of row group 1 cannot be read: .*; the file is damaged"
    opened = open_logs(logs)
    with pytest.raises(InputError, match=said) as caught:
        read_groups(opened.tables["fine_lists"], opened.tables["fine_lists"].groups)
    assert "\n" not in str(caught.value)
    for group in opened.tables["fine_lists"].groups:
        in_parts = group_batches(opened.tables["fine_lists"], group, 7)
        if (group.file.name, group.index) == ("part-2.parquet", 1):
            with pytest.raises(InputError, match=said):
                list(in_parts)
        else:
            assert sum(map(len, in_parts)) == group.rows
    with pytest.raises(InputError, match=said):
        build(logs, tmp_path / "samples", draw=DRAW)
    assert not (tmp_path / "samples").exists()


def test_a_storage_that_fails_is_not_taken_for_a_damaged_file(logs, monkeypatch):
    from prerank.logs import files

    opened, parquet, failed = open_logs(logs), files.parquet, []

    def flaky(path, **options):
        if not failed:
            failed.append(path)
            raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation")
        return parquet(path, **options)

    monkeypatch.setattr(files, "parquet", flaky)
    table = opened.tables["impressions"]
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):  # and is tried again by the task
        read_groups(table, table.groups)
    assert read_groups(table, table.groups).num_rows == 60 * 6


def test_text_that_is_no_utf8(logs):
    path = logs / "fine_lists" / "part-1.parquet"
    table = pq.read_table(path)
    bytes_ = pa.array([b"caf\xe9"] * len(table))
    latin = pa.Array.from_buffers(pa.string(), len(table), bytes_.buffers())
    pq.write_table(table.set_column(table.column_names.index("item_id"), "item_id", latin), path)
    opened = open_logs(logs)
    with pytest.raises(InputError, match=r"part-1.parquet: column 'item_id' does not fit string: .*UTF8"):
        read_groups(opened.tables["fine_lists"], opened.tables["fine_lists"].groups)


def corrected(path: Path) -> None:
    """Other clicks in as many bytes, with the same counts and bounds of each row group."""
    table = pq.read_table(path)
    clicked = table["clicked"].to_pylist()
    at = next(i for i in range(len(clicked) - 1) if clicked[i] != clicked[i + 1])
    clicked[at : at + 2] = reversed(clicked[at : at + 2])
    table = table.set_column(table.column_names.index("clicked"), "clicked", pa.array(clicked))
    pq.write_table(table, path, compression="none", use_dictionary=False)


def test_logs_corrected_in_place_are_not_already_done(logs, tmp_path, capsys):
    path = logs / "impressions" / "part-0.parquet"
    corrected(path)
    fingerprint = open_logs(logs).fingerprint
    build(logs, tmp_path / "samples", draw=DRAW)
    build(logs, tmp_path / "samples", draw=DRAW)
    assert "already done" in capsys.readouterr().out

    before = path.stat()
    corrected(path)
    assert path.stat().st_size == before.st_size and open_logs(logs).fingerprint == fingerprint
    with pytest.raises(InputError, match=r"samples: built before .*impressions/part-0.parquet was last modified \(20"):
        build(logs, tmp_path / "samples", draw=DRAW)

    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    build(logs, tmp_path / "samples", draw=DRAW)
    assert "already done" in capsys.readouterr().out, "nothing tells"


def test_other_values_of_the_same_size_are_another_fingerprint(logs):
    """The bounds in the footer tell, whatever the time of the file says."""
    path, before = logs / "fine_lists" / "part-0.parquet", open_logs(logs)
    table, stat = pq.read_table(path), path.stat()
    price = table["price"].to_numpy().copy()
    price[price == price.max()] += 1
    pq.write_table(table, path, compression="none", use_dictionary=False)
    first = open_logs(logs)
    table = table.set_column(table.column_names.index("price"), "price", pa.array(price))
    pq.write_table(table, path, compression="none", use_dictionary=False)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = open_logs(logs)
    assert after.fingerprint_of_sizes == first.fingerprint_of_sizes != before.fingerprint_of_sizes
    assert len({before.fingerprint, first.fingerprint, after.fingerprint}) == 3


def test_samples_of_an_earlier_version_count_as_done(logs, tmp_path, capsys):
    """Their manifest knows the logs by names, bytes and rows alone."""
    build(logs, tmp_path / "samples", draw=DRAW)
    (tmp_path / "samples" / "logs.json").unlink()
    path = tmp_path / "samples" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["inputs"]["logs"] = open_logs(logs).fingerprint_of_sizes
    path.write_text(json.dumps(manifest))
    capsys.readouterr()
    build(logs, tmp_path / "samples", draw=DRAW)
    assert "already done" in capsys.readouterr().out
    pq.write_table(pq.read_table(logs / "fine_lists/part-0.parquet")[:-1], logs / "fine_lists/part-0.parquet")
    with pytest.raises(InputError, match="already holds another run: input logs was"):
        build(logs, tmp_path / "samples", draw=DRAW)


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("clicked", [0, 7], r"impressions/part-1.*'clicked' holds 7; expected true and false, or 0 and 1"),
        ("clicked", [-1, 1], r"impressions/part-1.*'clicked' holds -1;"),
        ("converted", [0, 2], r"impressions/part-1.*'converted' holds 2;"),
        ("item_vector", [[1.0] * 4, []], r"fine_lists/part-1.*'item_vector' holds a list of 0, expected 4 numbers"),
        ("item_vector", [[1.0] * 4, [1.0] * 5], r"fine_lists/part-1.*'item_vector' holds a list of 5, expected 4"),
        ("quality", [[1.0]], r"fine_lists/part-1.*'quality' holds a list of 1, expected 2 numbers"),
        ("user_vector", [None, [1.0] * 2], r"fine_lists/part-1.*'user_vector' holds a list of 2, expected 3"),
    ],
)
@pytest.mark.parametrize("statistics", [True, False])
def test_values_that_cannot_be_are_named_with_their_file(logs, column, values, said, statistics):
    """Clicks from the footers, where these have statistics; lists as soon as they are read."""
    name = "impressions" if column in ("clicked", "converted") else "fine_lists"
    path = logs / name / "part-1.parquet"
    table = pq.read_table(path)
    every = pa.array([values[i % len(values)] for i in range(len(table))])
    at = table.column_names.index(column)
    pq.write_table(table.set_column(at, column, every), path, write_statistics=statistics)
    if name == "impressions" and statistics:
        with pytest.raises(InputError, match=said):
            open_logs(logs)
        return
    opened = open_logs(logs).tables[name]
    with pytest.raises(InputError, match=said):
        read_groups(opened, opened.groups)
