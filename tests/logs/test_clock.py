"""`ts` in every way that writers have: by which clock it goes, and that all of it goes by one."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from logs_fixture import write_logs
from samples_fixture import build, rows_of

from prerank.core.errors import InputError
from prerank.logs.clock import first_and_last, wall
from prerank.logs.folder import open_logs
from prerank.samples.draw import DrawConfig

DRAW = DrawConfig(tail_negatives=3, rank_items=4, bin_items=1, uniform_items=3)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "logs"
    write_logs(folder)
    return folder


@pytest.fixture
def logs(plain, tmp_path) -> Path:
    return shutil.copytree(plain, tmp_path / "logs")


def retimed(logs: Path, change, tables="[fc]*", files="*", **options) -> None:
    for path in logs.glob(f"{tables}/{files}.parquet"):
        table = pq.read_table(path)
        at = table.column_names.index("ts")
        pq.write_table(table.set_column(at, "ts", change(table["ts"])), path, row_group_size=24 * 10, **options)


def since_1970(unit, type_=None):
    return lambda ts: ts.cast(pa.timestamp(unit)).cast(pa.int64()).cast(type_ or pa.int64())


def in_zone(name):
    return lambda ts: pc.assume_timezone(ts, name)


def built(logs: Path, out: Path) -> str:
    build(logs, out, draw=DRAW)
    rows = [row for split in ("train", "val") for row in rows_of(out, split)]
    return repr(sorted(rows, key=lambda row: row["request_id"])) + (out / "stats.json").read_text()


@pytest.fixture(scope="module")
def expected(plain, tmp_path_factory) -> str:
    return built(plain, tmp_path_factory.mktemp("expected") / "samples")


@pytest.mark.slow
@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        *(since_1970("s"), since_1970("ms"), since_1970("us"), since_1970("ns")),
        *(since_1970("s", pa.int32()), since_1970("s", pa.uint32()), since_1970("ns", pa.uint64())),
        *(in_zone("Asia/Shanghai"), in_zone("America/New_York"), in_zone("+05:30"), in_zone("UTC")),
        lambda ts: in_zone("Asia/Kolkata")(ts).cast(pa.timestamp("ns", "Asia/Kolkata")),
        lambda ts: ts.dictionary_encode(),
    ],
    ids=range(13),
)
def test_the_samples_are_those_of_the_clock_on_the_wall(logs, tmp_path, expected, change, statistics):
    """Whole numbers since 1970, of the fixture's clock as UTC's; times of a zone whose clock showed the fixture's."""
    retimed(logs, change, write_statistics=statistics or ["request_id"])
    assert built(logs, tmp_path / "samples") == expected


@pytest.mark.slow
@pytest.mark.parametrize("type_", [pa.date32(), pa.date64()])
def test_dates_are_midnights(logs, plain, tmp_path, type_):
    midnights = shutil.copytree(plain, tmp_path / "midnights")
    retimed(midnights, lambda ts: pc.floor_temporal(ts, unit="day"))
    retimed(logs, lambda ts: pc.floor_temporal(ts, unit="day").cast(pa.date32()).cast(type_))
    assert open_logs(logs).days == open_logs(midnights).days
    assert built(logs, tmp_path / "samples") == built(midnights, tmp_path / "other")


def test_the_day_is_that_of_the_zone(logs):
    """08:00 to 18:00 in Auckland begins the day before in UTC."""
    retimed(logs, in_zone("Pacific/Auckland"))
    assert open_logs(logs).days == (np.datetime64("2024-03-01"), np.datetime64("2024-03-04"))
    retimed(logs, lambda ts: ts.cast(pa.timestamp("us", "UTC")))
    assert open_logs(logs).days[0] == np.datetime64("2024-02-29")


def test_no_zone_is_taken_as_that_of_utc(logs, tmp_path, expected):
    retimed(logs, in_zone("UTC"), files="part-0")
    retimed(logs, in_zone("Etc/UTC"), tables="candidates", files="part-1")
    assert built(logs, tmp_path / "samples") == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_zone("Asia/Shanghai"), "the clock of Asia/Shanghai", ),
        (since_1970("ms"), "whole ms since 1970"),
    ],
)  # fmt: skip
def test_two_clocks_are_refused(logs, change, said):
    retimed(logs, change, tables="fine_lists", files="part-2")
    with pytest.raises(InputError, match=rf"part-2.parquet: column 'ts' goes by {said}, and by the clock of UTC in "):
        open_logs(logs)
    retimed(logs, change, tables="fine_lists", files="part-[01]")
    with pytest.raises(InputError, match=rf"column 'ts' must go by one clock in all tables, found {said} in fine_"):
        open_logs(logs)
    retimed(logs, change, tables="candidates")
    open_logs(logs)


def test_two_units_of_whole_numbers_are_refused(logs):
    retimed(logs, since_1970("s"))
    retimed(logs, lambda ts: pc.multiply(ts, 1000), tables="fine_lists", files="part-2")
    with pytest.raises(InputError, match=r"goes by whole ms since 1970, and by whole s since 1970 in .*part-0.parquet"):
        open_logs(logs)


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("value", [0, 20240304, 1709510400_0, 946684799, 4102444800, -1709510400, 2**62])
def test_whole_numbers_that_are_no_times(logs, value, statistics):
    """A date written as a number, a zero for a time that is not known, a unit of its own."""
    retimed(logs, since_1970("s"))
    planted = pa.array([value], pa.int64())
    kept = statistics or ["request_id"]
    retimed(
        logs,
        lambda ts: pa.chunked_array([planted, *ts.slice(1).chunks]),
        tables="fine_lists",
        files="part-1",
        write_statistics=kept,
    )
    with pytest.raises(InputError, match=rf"part-1.parquet: column 'ts' holds whole numbers from .*{value}.*write "):
        open_logs(logs)


def test_a_zone_that_is_not_known(logs):
    retimed(logs, lambda ts: ts.cast(pa.timestamp("us", "Mars/Olympus")), tables="fine_lists")
    with pytest.raises(InputError, match=r"'ts' has type timestamp\[us, tz=Mars/Olympus\], expected timestamps \(of a"):
        open_logs(logs)


def test_nothing_but_nulls(logs):
    retimed(logs, lambda ts: pa.nulls(len(ts)), tables="fine_lists", files="part-1")
    with pytest.raises(InputError, match=r"part-1.parquet: column 'ts' holds nothing but nulls in row group 0"):
        open_logs(logs)
    retimed(logs, lambda ts: pa.nulls(len(ts), pa.int64()), tables="fine_lists", files="part-1")
    with pytest.raises(InputError, match=r"part-1.parquet: column 'ts' holds nothing but nulls in row group 0"):
        open_logs(logs)


def test_years_that_nanoseconds_do_not_hold(logs):
    """Spark's times of 12 bytes may be of the years 1 and 9999, as stand-ins: they must not wrap around into others."""

    def change(ts):
        return pa.chunked_array([pa.array([datetime(1, 1, 1), datetime(9999, 12, 31)]), *ts.slice(2).chunks])

    retimed(logs, change, tables="fine_lists", files="part-1", use_deprecated_int96_timestamps=True, store_schema=False)
    with pytest.raises(InputError, match=r"part-1.* holds times from 0001-01-01T00:00:00 to 9999-12-31T00:00:00"):
        open_logs(logs)


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("table", ["fine_lists", "candidates"])
@pytest.mark.parametrize("year", [1, 1970, 1989, 2100, 2262, 9999])
def test_years_that_stand_for_no_time(logs, year, table, statistics):
    def change(ts):
        return pa.chunked_array([pa.array([datetime(year, 1, 1)], ts.type), *ts.slice(1).chunks])

    retimed(logs, change, tables=table, files="part-2", write_statistics=statistics)
    with pytest.raises(InputError, match=rf"{table}/part-2.*'ts' holds times .*{year:04}-01-01.* write null where"):
        open_logs(logs)


PUT_BACK = {
    "Europe/Berlin": datetime(2024, 10, 27, 1),
    "America/Havana": datetime(2024, 11, 3, 5),
    "Asia/Beirut": datetime(2024, 10, 26, 21),
    "Australia/Lord_Howe": datetime(2024, 4, 6, 15),
    "Africa/Casablanca": datetime(2024, 3, 10, 2),
    "Asia/Shanghai": datetime(1991, 9, 14, 17),
}
"""Moments in UTC at which clocks were put back."""


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    zone=st.sampled_from(sorted(PUT_BACK)),
    begin=st.integers(-300, 300),
    minutes=st.lists(st.integers(0, 300), min_size=1, max_size=8),
)
@example(zone="Europe/Berlin", begin=-30, minutes=[0, 29, 40])
def test_bounds_are_those_of_the_rows_also_where_clocks_are_put_back(tmp_path_factory, zone, begin, minutes):
    """Against Python's zoneinfo; where the clock is put back, the last moment does not show the latest time."""
    path = tmp_path_factory.mktemp("zone") / "part.parquet"
    utc = [PUT_BACK[zone].replace(tzinfo=ZoneInfo("UTC")) + timedelta(minutes=begin + m) for m in minutes]
    pq.write_table(pa.table({"ts": pa.array(utc, pa.timestamp("us", zone))}), path)
    shown = [at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for at in utc]
    file = pq.ParquetFile(path)
    days, clock = first_and_last(path, 0, file.schema_arrow.field("ts").type, file.metadata.row_group(0).column(0))
    assert clock == zone and days == (np.datetime64(min(shown), "us"), np.datetime64(max(shown), "us"))
    assert wall(file.read()["ts"], clock).to_pylist() == shown
