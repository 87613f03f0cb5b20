"""The same rows as other writers and other types leave them: the same samples, or one line that names the column."""

import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logs_fixture import write_logs
from samples_fixture import build, rows_of

from prerank.core.errors import InputError
from prerank.logs.folder import open_logs, read_groups
from prerank.logs.table import Table
from prerank.logs.tiles import cut, read_tile
from prerank.samples.draw import DrawConfig

DRAW = DrawConfig(tail_negatives=3, rank_items=4, bin_items=1, uniform_items=3)
Change = Callable[[pa.Table], pa.Table]


def with_column(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def cast(table: pa.Table, **types: pa.DataType) -> pa.Table:
    """With columns, where the table has them, in other types."""
    for name, type_ in types.items():
        if name in table.column_names:
            column = table[name].cast(pa.float64()) if pa.types.is_decimal(type_) else table[name]
            if pa.types.is_dictionary(type_):
                column = column.cast(type_.value_type).dictionary_encode()
            else:
                column = column.cast(type_, safe=False)
            table = with_column(table, name, column)
    return table


def of_small_numbers(table: pa.Table) -> pa.Table:
    """With values that numbers of any width hold: few digits, halves."""
    for name in ("price", "match", "fine_score"):
        if name in table.column_names:
            table = with_column(table, name, pa.array(np.round(table[name].to_numpy() * 2) / 2))
    for name in ("quality", "item_vector", "user_vector"):
        if name in table.column_names:
            values = [[None if x is None else round(x * 2) / 2 for x in row] for row in table[name].to_pylist()]
            table = with_column(table, name, pa.array(values, table[name].type))
    return table


def rewrite(logs: Path, change: Change, tables: str = "*", files: str = "*", **options) -> None:
    for path in sorted(logs.glob(f"{tables}/{files}.parquet")):
        pq.write_table(change(pq.read_table(path)), path, **{"row_group_size": 24 * 10, **options})


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "logs"
    write_logs(folder)
    rewrite(folder, of_small_numbers)
    return folder


@pytest.fixture
def logs(plain, tmp_path) -> Path:
    return shutil.copytree(plain, tmp_path / "logs")


def built(logs: Path, out: Path, **options) -> str:
    build(logs, out, draw=DRAW, **options)
    rows = [row for split in ("train", "val") for row in rows_of(out, split)]
    return repr(sorted(rows, key=lambda row: row["request_id"])) + (out / "stats.json").read_text()


@pytest.fixture(scope="module")
def expected(plain, tmp_path_factory) -> str:
    return built(plain, tmp_path_factory.mktemp("expected") / "samples")


def by_spark(logs: Path) -> None:
    """Times of 12 bytes, columns by the alphabet, lists of three levels with nullable elements, snappy."""

    def change(table: pa.Table) -> pa.Table:
        table = table.select(sorted(table.column_names))
        vectors = {"user_vector", "item_vector"} & {*table.column_names}
        return cast(table, **dict.fromkeys(vectors, pa.list_(pa.field("element", pa.float32(), nullable=True))))

    rewrite(logs, change, use_deprecated_int96_timestamps=True, store_schema=False, write_page_checksum=True)


def by_polars(logs: Path) -> None:
    for path in logs.glob("*/*.parquet"):
        pl.from_arrow(pq.read_table(path)).write_parquet(path, row_group_size=24 * 10)


def by_pandas(logs: Path) -> None:
    """Categories, nanoseconds, an index of its own, vectors as lists."""
    for path in logs.glob("*/*.parquet"):
        frame = pq.read_table(path).to_pandas()
        for name in {"query_city", "item_id", "brand"} & {*frame.columns}:
            frame[name] = frame[name].astype("category")
        if "ts" in frame:
            frame["ts"] = frame["ts"].astype("datetime64[ns]")
        frame.index = pd.Index(range(7, 7 + len(frame)), name="row")
        frame.to_parquet(path, row_group_size=24 * 10)


def by_ray(logs: Path) -> None:
    """Vectors as tensors, ids as tensors whose lengths differ."""
    from ray.data.extensions import ArrowTensorArray

    def change(table: pa.Table) -> pa.Table:
        for name in {"item_vector", "quality", "user_vector"} & {*table.column_names}:
            vectors = np.array(table[name].to_pylist(), np.float32)
            table = with_column(table, name, ArrowTensorArray.from_numpy(vectors))
        for name in {"item_tags", "user_tags"} & {*table.column_names}:
            ragged = np.empty(len(table), object)
            ragged[:] = [np.array(row, np.int64) for row in table[name].to_pylist()]
            table = with_column(table, name, ArrowTensorArray.from_numpy(ragged))
        return table

    rewrite(logs, change)


def as_arrow_tensors(logs: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        for name in {"item_vector", "quality", "user_vector"} & {*table.column_names}:
            vectors = np.array(table[name].to_pylist(), np.float32)
            table = with_column(table, name, pa.FixedShapeTensorArray.from_numpy_ndarray(vectors))
        return table

    rewrite(logs, change, files="part-1")


def in_large_layouts(logs: Path) -> None:
    large = {"item_tags": pa.large_list(pa.int64()), "quality": pa.large_list(pa.float32())}
    rewrite(logs, lambda table: cast(table, item_id=pa.large_string(), **large), files="part-0")


def in_views(logs: Path) -> None:
    def view(table: pa.Table) -> pa.Table:
        if "item_tags" in table.column_names:
            tags = pa.array(table["item_tags"].to_pylist(), pa.list_view(pa.int32()))
            table = with_column(table, "item_tags", tags)
        return cast(table, item_id=pa.string_view())

    rewrite(logs, view, files="part-0")


def in_dictionaries(logs: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        for name in {"item_id", "request_id", "price", "brand", "hour", "query_city"} & {*table.column_names}:
            table = with_column(table, name, table[name].dictionary_encode())
        if "item_tags" in table.column_names:
            tags = pa.array(table["item_tags"].to_pylist(), pa.list_(pa.int8()))
            table = with_column(table, "item_tags", tags)
        return table

    rewrite(logs, change)


def in_other_widths(logs: Path) -> None:
    """Each file its own: what a schema that grows leaves, and what several services write."""
    half = pa.list_(pa.float16())
    small = {"request_id": pa.int32(), "price": pa.float16(), "hour": pa.uint8(), "brand": pa.int8(), "quality": half}
    exact = {"request_id": pa.uint64(), "price": pa.decimal128(9, 2), "hour": pa.decimal32(4, 0), "brand": pa.uint64()}
    exact |= {"match": pa.float32(), "item_tags": pa.list_(pa.uint64()), "fine_position": pa.uint16()}
    rewrite(logs, lambda table: cast(table, **small, fine_position=pa.int16(), clicked=pa.int8()), files="part-0")
    rewrite(logs, lambda table: cast(table, **exact, clicked=pa.uint32(), fine_score=pa.float32()), files="part-1")


WRITERS = (
    *(by_spark, by_polars, by_pandas, by_ray, as_arrow_tensors, in_large_layouts, in_views, in_dictionaries),
    in_other_widths,
)


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
@pytest.mark.parametrize("blocks", [None, 3])
def test_the_samples_are_those_of_the_plain_logs(logs, tmp_path, expected, writer, blocks):
    writer(logs)
    assert built(logs, tmp_path / "samples", blocks=blocks) == expected


@pytest.mark.ray
def test_the_samples_are_those_of_the_plain_logs_after_a_shuffle(ray_cluster, plain, tmp_path, expected):
    """Every writer one file of logs in any order, so that their types meet in one shuffle."""
    from workflows.build_samples import BuildSamples, main

    write_logs(tmp_path / "logs", shuffled=True, files=len(WRITERS))
    rewrite(tmp_path / "logs", of_small_numbers)
    for number, writer in enumerate(WRITERS):
        alone = tmp_path / f"alone-{number}"
        for path in (tmp_path / "logs").glob(f"*/part-{number}.parquet"):
            (alone / path.parent.name).mkdir(parents=True)
            path.rename(alone / path.parent.name / path.name)
        writer(alone)
        for path in alone.glob("*/*.parquet"):
            path.rename(tmp_path / "logs" / path.parent.name / path.name)
    assert cut(open_logs(tmp_path / "logs"), "fine_lists", tiles=4) is None
    out = tmp_path / "samples"
    main(BuildSamples(tmp_path / "logs", out, blocks=4, draw=DRAW))
    rows = [row for split in ("train", "val") for row in rows_of(out, split)]
    found = repr(sorted(rows, key=lambda row: row["request_id"])) + (out / "stats.json").read_text()
    assert found == expected


def values(table: Table) -> str:
    """Of all rows: the numbers as floats, so that 7 is 7.0."""
    rows = read_groups(table, table.groups)
    assert rows.schema.field("request_id").type == pa.int64() and rows.schema.field("item_id").type == pa.string()
    numbers = {"hour", "brand", "price", "clicked"} & {*rows.column_names}
    return repr(cast(rows, **dict.fromkeys(numbers, pa.float64())).to_pylist())


ENCODINGS = {
    "request_id": [pa.int64(), pa.int32(), pa.uint16(), pa.uint64(), pa.dictionary(pa.int16(), pa.int64())],
    "item_id": [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    "ts": [pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us"), pa.timestamp("ns", "+00:00")],
    "query_city": [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.large_string())],
    "hour": [pa.int64(), pa.uint8(), pa.float16(), pa.float64(), pa.decimal64(6, 1)],
    "price": [pa.float64(), pa.float16(), pa.float32(), pa.decimal128(20, 3), pa.decimal256(50, 3)],
    "brand": [pa.int64(), pa.int8(), pa.uint64(), pa.dictionary(pa.int32(), pa.uint32())],
    "quality": [pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.float16())],
    "item_tags": [pa.list_(pa.int64()), pa.large_list(pa.uint8()), pa.list_(pa.uint64()), pa.list_(pa.int16())],
    "fine_position": [pa.int64(), pa.uint8(), pa.int32(), pa.uint64()],
    "clicked": [pa.bool_(), pa.int8(), pa.uint64()],
}


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mixture_of_encodings_is_read_as_the_same_values(plain, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("mixed")
    logs = shutil.copytree(plain, folder / "logs")
    for path in sorted(logs.glob("*/*.parquet")):
        table = pq.read_table(path)
        there = {name: types for name, types in ENCODINGS.items() if name in table.column_names}
        chosen = {name: data.draw(st.sampled_from(types)) for name, types in there.items()}
        names = data.draw(st.permutations(table.column_names))
        pq.write_table(cast(table, **chosen).select(names), path, row_group_size=24 * 10)
    before, after = open_logs(plain), open_logs(logs)
    for name, table in before.tables.items():
        assert values(after.tables[name]) == values(table)
    assert after.days == before.days
    tiles = cut(after, "fine_lists", tiles=3)
    assert [len(tile.groups) for tile in tiles] == [len(tile.groups) for tile in cut(before, "fine_lists", tiles=3)]
    shutil.rmtree(folder)


# What holds nothing


@pytest.mark.slow
def test_a_file_of_nothing_but_nulls_is_missing_values(logs, plain, tmp_path):
    """Columns of type null and list<null>, as pandas and Polars write them, against nulls of the right type."""
    names = ("user_age", "price", "brand", "query_city", "quality", "item_vector", "user_vector", "item_tags", "match")

    def change(typed: bool) -> Change:
        def to(table: pa.Table) -> pa.Table:
            for name in {*names, "converted"} & {*table.column_names}:
                column = pa.nulls(len(table), table[name].type if typed else pa.null())
                if name in ("item_tags", "quality") and not typed:
                    column = pa.array([[]] * len(table), pa.list_(pa.null()))
                if name == "user_vector" and not typed:
                    column = pa.array([[None] * 3] * len(table), pa.list_(pa.null(), 3))
                table = with_column(table, name, column)
            return table

        return to

    wanted = shutil.copytree(plain, tmp_path / "wanted")
    rewrite(wanted, change(typed=True), files="part-1")
    rewrite(logs, change(typed=False), files="part-1")
    assert built(logs, tmp_path / "samples") == built(wanted, tmp_path / "other")


def test_a_column_of_nothing_but_nulls_in_all_files(logs):
    rewrite(logs, lambda table: with_column(table, "match", pa.nulls(len(table))), tables="[fc]*")
    rewrite(logs, lambda table: with_column(table, "brand", pa.nulls(len(table))), tables="candidates")
    rewrite(logs, lambda table: with_column(table, "item_tags", pa.array([[]] * len(table))), tables="[fc]*")
    opened = open_logs(logs)
    of = {name: table.columns for name, table in opened.tables.items()}
    assert of["fine_lists"].field("match").type == of["candidates"].field("match").type == pa.float32()
    assert of["candidates"].field("brand").type == of["fine_lists"].field("brand").type == pa.int64()
    assert of["fine_lists"].field("item_tags").type == pa.list_(pa.int64())
    rows = read_groups(opened.tables["candidates"], opened.tables["candidates"].groups)
    assert rows["match"].null_count == rows["brand"].null_count == rows["item_tags"].null_count == rows.num_rows


@pytest.mark.parametrize(
    "empty",
    [
        lambda path: pd.DataFrame().to_parquet(path),
        lambda path: pd.DataFrame(columns=["request_id", "item_id", "ts"], dtype=float).to_parquet(path),
        lambda path: pl.DataFrame({"request_id": [], "brand": []}).write_parquet(path),
        lambda path: pq.write_table(pq.read_table(path)[:0], path),
    ],
    ids=["pandas without columns", "pandas", "polars", "arrow"],
)
def test_a_file_without_a_row_may_have_any_columns(logs, empty):
    """An hour without traffic: there is nothing in it to misread."""
    before = open_logs(logs)
    for table in TABLES:
        shutil.copy(logs / table / "part-0.parquet", logs / table / "empty.parquet")
        empty(logs / table / "empty.parquet")
    after = open_logs(logs)
    assert {name: table.groups for name, table in after.tables.items()} == {
        name: table.groups for name, table in before.tables.items()
    }
    assert {name: table.columns for name, table in after.tables.items()} == {
        name: table.columns for name, table in before.tables.items()
    }


# Ids


def scrambled(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    """Ids over all 64 bits, half of them above 2^63."""
    with np.errstate(over="ignore"):
        bits = column.to_numpy().astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return pa.chunked_array([bits.view(np.int64) if type_ == pa.int64() else bits])


def of_64_bits(types: dict[str, pa.DataType]) -> Callable[[str], Change]:
    def of(name: str) -> Change:
        def change(table: pa.Table) -> pa.Table:
            item = pa.array([int(text.removeprefix("item-")) + 1 for text in table["item_id"].to_pylist()])
            table = with_column(table, "item_id", scrambled(pa.chunked_array([item]), types[name]))
            return with_column(table, "request_id", scrambled(table["request_id"], types[name]))

        return change

    return of


TABLES = ("fine_lists", "impressions", "candidates")
SIGNED, UNSIGNED = dict.fromkeys(TABLES, pa.int64()), dict.fromkeys(TABLES, pa.uint64())


def write_sorted(logs: Path, types: dict[str, pa.DataType]) -> None:
    """Each table in the order of its request ids, a file a third."""
    for name in types:
        paths = sorted((logs / name).iterdir())
        whole = pa.concat_tables(of_64_bits(types)(name)(pq.read_table(path)) for path in paths)
        whole = whole.take(pc.sort_indices(whole["request_id"]))
        rows = len(whole) // 60
        for path, first in zip(paths, (0, 20, 40), strict=True):
            pq.write_table(whole[first * rows : (first + 20) * rows], path, row_group_size=10 * rows)


@pytest.mark.slow
@pytest.mark.parametrize("tables", [TABLES, ("fine_lists", "candidates"), ("impressions",)])
def test_unsigned_ids_are_read_by_their_64_bits(plain, tmp_path, tables):
    """In all tables, or in some: the samples are those of signed ids."""
    types = {name: pa.uint64() if name in tables else pa.int64() for name in TABLES}
    found = []
    for folder, of in (("signed", SIGNED), ("unsigned", types)):
        logs = shutil.copytree(plain, tmp_path / folder / "logs")
        for name in TABLES:
            rewrite(logs, of_64_bits(of)(name), tables=name)
        found.append(built(logs, tmp_path / folder / "samples"))
    assert found[0] == found[1]


@pytest.mark.parametrize("types", [SIGNED, UNSIGNED], ids=["signed", "unsigned"])
def test_tiles_of_ids_of_64_bits_in_their_own_order(plain, tmp_path, types):
    logs = shutil.copytree(plain, tmp_path / "logs")
    write_sorted(logs, types)
    opened = open_logs(logs)
    tiles = cut(opened, "fine_lists", tiles=3)
    assert [len(tile.groups) for tile in tiles] == [2, 2, 2], "each row group is read once"
    parts = [read_tile(opened, "fine_lists", tile) for tile in tiles]
    assert [[len(part) for part in of_tile] for of_tile in parts] == [[480, 120]] * 3
    requests = [{*part["request_id"].to_pylist()} for of_tile in parts for part in of_tile]
    assert len({*requests[0]} | requests[2] | requests[4]) == 60 and requests[::2] == requests[1::2]


def test_tiles_where_some_files_are_unsigned(plain, tmp_path):
    """A row group whose unsigned ids lie on both sides of 2^63 may hold any signed one."""
    logs = shutil.copytree(plain, tmp_path / "logs")
    write_sorted(logs, UNSIGNED)
    rewrite(logs, lambda table: with_column(table, "request_id", table["request_id"].cast(pa.int64(), safe=False)),
            tables="impressions")  # fmt: skip
    opened = open_logs(logs)
    for name in ("fine_lists", "impressions"):
        for group in opened.tables[name].groups:
            ids = read_groups(opened.tables[name], (group,))["request_id"].to_numpy()
            low, high = group.span
            assert low <= ids.min() and ids.max() <= high
    found = cut(opened, "fine_lists", tiles=3)
    assert found is None or sum(len(read_tile(opened, "fine_lists", tile)[0]) for tile in found) == 60 * 24


def test_unsigned_ids_of_a_feature(logs, tmp_path):
    """Those beyond the vocabulary are the unknown, whether they are above 2^63 or not."""

    def change(table: pa.Table) -> pa.Table:
        brand = table["brand"].to_numpy().astype(np.uint64)
        brand[::5] += np.uint64(2**63)
        return with_column(table, "brand", pa.array(brand))

    rewrite(logs, change, tables="[fc]*", files="part-[01]")
    build(logs, tmp_path / "samples", draw=DRAW)
    brands = {brand for row in rows_of(tmp_path / "samples", "train") for brand in row["brand"]}
    assert brands <= {*range(13)} and 12 in brands


@pytest.mark.parametrize("column", ["brand", "item_tags", "query_city", "request_id", "item_id"])
@pytest.mark.parametrize("files", ["*", "part-2"])
def test_an_id_that_is_text_here_and_a_number_there(logs, column, files):
    to = {"brand": pa.string(), "item_tags": pa.list_(pa.string()), "request_id": pa.string()}

    def change(table: pa.Table) -> pa.Table:
        if column in to:
            return cast(table, **{column: to[column]})
        return with_column(table, column, pa.array(np.arange(len(table))))

    rewrite(logs, change, tables="candidates", files=files)
    said = {
        "*": rf"logs: column '{column}' must have one type in all tables, found .* in fine_lists, .* in candidates;",
        "part-2": rf"part-2.parquet: types differ from those of .*part-0.parquet: column '{column}' is .*, and there ",
    }
    with pytest.raises(InputError, match=said[files]) as caught:
        open_logs(logs)
    assert "\n" not in str(caught.value)


# Types that are refused


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("request_id", [1.0], "type double, expected integers or strings"),
        ("item_id", [b"x"], "type binary, expected integers or strings"),
        ("item_id", [Decimal("1")], r"type decimal128\(1, 0\), expected integers or strings"),
        ("brand", [3.0], "type double, expected integers or strings"),
        ("brand", [True], "type bool, expected integers or strings"),
        ("price", ["1.5"], "type string, expected numbers"),
        ("price", [[1.5]], "type list<.*, expected numbers"),
        ("price", [{"value": 1.5}], "type struct<value: double>, expected numbers"),
        ("item_tags", [[[1]]], "type list<.*list<.*, expected a list of integers or strings"),
        ("item_tags", [[("a", 1)]], "type map<.*, expected a list of integers or strings"),
        ("item_vector", [[1.0, 2.0]], r"type fixed_size_list<.*\[2\], expected a list of 4 numbers"),
        ("item_vector", [["a"]], "type list<.*, expected a list of 4 numbers"),
        ("item_vector", [{"type": 1, "values": [1.0]}], "type struct<.*, expected a list of 4 numbers"),
        ("ts", ["2024-03-01"], r"type string, expected timestamps \(of a zone that is known here\), dates, or whole s"),
        ("ts", [1.7e9], "type double, expected timestamps"),
        ("fine_position", [1.0], "type double, expected integers"),
    ],
    ids=range(16),
)
def test_a_type_that_cannot_be_read_is_named_before_any_row(logs, column, values, said):
    type_ = {"map": pa.map_(pa.string(), pa.int64()), "fixed": pa.list_(pa.float32(), 2)}
    type_ = type_["map"] if "map" in said else type_["fixed"] if "fixed" in said else None
    column_ = pa.array(values, type_)

    def change(table: pa.Table) -> pa.Table:
        return with_column(table, column, column_.take(pa.array(np.zeros(len(table), int))))

    rewrite(logs, change, tables="fine_lists", files="part-1")
    with pytest.raises(InputError, match=f"fine_lists/part-1.parquet: column '{column}' has {said}") as caught:
        open_logs(logs)
    assert "\n" not in str(caught.value)


def test_pickled_objects_are_refused_and_never_opened(logs):
    from ray.data.extensions import ArrowPythonObjectArray

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    def change(table: pa.Table) -> pa.Table:
        return with_column(table, "price", ArrowPythonObjectArray.from_objects([Trap()] * len(table)))

    rewrite(logs, change, tables="fine_lists", files="part-1")
    with pytest.raises(InputError, match=r"part-1.parquet: column 'price' has type .*, expected numbers"):
        open_logs(logs)


def test_a_column_that_stands_twice(logs):
    rewrite(logs, lambda table: table.append_column("price", table["price"]), tables="fine_lists", files="part-1")
    with pytest.raises(InputError, match=r"part-1.parquet: column 'price' stands in it 2 times"):
        open_logs(logs)


def test_a_struct_does_not_shift_the_columns_after_it(logs):
    """Footers count what lies within a struct: the bounds of request_id must still be its own."""

    def change(table: pa.Table) -> pa.Table:
        structs = pa.array([{"a": i, "b": {"c": -i, "d": [i]}} for i in range(len(table))])
        return table.add_column(0, "request", structs)

    before = open_logs(logs)
    rewrite(logs, change)
    after = open_logs(logs)
    for name, table in before.tables.items():
        assert [group.keys for group in after.tables[name].groups] == [group.keys for group in table.groups]
        assert [group.days for group in after.tables[name].groups] == [group.days for group in table.groups]
        assert after.tables[name].bytes == pytest.approx(table.bytes, rel=0.1)


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize(("column", "value"), [("price", 2**60), ("price", -(2**60)), ("hour", 2**53 + 1)])
def test_a_whole_number_that_no_double_holds(logs, tmp_path, column, value, statistics):
    """Found by the footers, or by the rows where these have no statistics: named either way."""
    rewrite(logs, lambda table: cast(table, **{column: pa.float64()}), tables="fine_lists")

    def change(table: pa.Table) -> pa.Table:
        return with_column(table, column, pa.array([value] + [1] * (len(table) - 1)))

    kept = statistics or ["request_id", "ts"]
    rewrite(logs, change, tables="fine_lists", files="part-1", write_statistics=kept)
    if statistics:
        with pytest.raises(InputError, match=f"part-1.parquet: column '{column}' holds {value}, and is of fractions"):
            open_logs(logs)
    else:
        with pytest.raises(InputError, match=f"part-1.parquet: column '{column}' does not fit double: .*{value}"):
            build(logs, tmp_path / "samples", draw=DRAW)


def test_whole_numbers_that_a_double_holds(logs, plain):
    rewrite(logs, lambda table: cast(table, hour=pa.float64()), files="part-0", tables="[fc]*")
    before, after = open_logs(plain).tables["fine_lists"], open_logs(logs).tables["fine_lists"]
    assert after.columns.field("hour").type == pa.float64()
    assert values(after) == values(before)
