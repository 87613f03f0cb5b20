"""What a build says of logs that may not be as they were meant: values that tell nothing, labels and days that lack."""

import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from logs_fixture import write_logs
from samples_fixture import build

from prerank.core.errors import InputError
from prerank.logs.statistics import Moments, rounded
from prerank.samples.draw import DrawConfig

DRAW = DrawConfig(tail_negatives=3, rank_items=4, bin_items=1, uniform_items=3, uniform_ratio=0.0)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "logs"
    write_logs(folder, requests=40, items_per_list=12, files=2)
    return folder


@pytest.fixture
def logs(plain, tmp_path) -> Path:
    return shutil.copytree(plain, tmp_path / "logs")


def changed(logs, column, change, tables="*"):
    for path in sorted(logs.glob(f"{tables}/*.parquet")):
        table = pq.read_table(path)
        if column in table.column_names:
            at = table.column_names.index(column)
            pq.write_table(table.set_column(at, column, change(table, table[column])), path)


def said(logs, capsys) -> str:
    build(logs, logs.parent / "samples", draw=DRAW)
    return "\n".join(line for line in capsys.readouterr().out.splitlines() if line.startswith("note: "))


def same(value):
    return lambda table, column: pa.array([value] * len(column), column.type)


def test_of_plain_logs_nothing_is_said(logs, capsys):
    assert said(logs, capsys) == ""


ONE_VALUE = [
    *(("price", same(3.0)), ("price", same(-0.0)), ("match", lambda t, c: pc.multiply(c, 1e-42))),
    *(("brand", same(7)), ("query_city", same("")), ("item_tags", same([4])), ("item_tags", same([4, 4]))),
    *(("item_vector", same([1.0, 2.0, 3.0, 4.0])), ("user_vector", same([0.0] * 3)), ("hour", same(9))),
    ("price", lambda t, c: pa.array(np.where(np.arange(len(c)) % 3, 5.0, np.nan))),
    ("price", lambda t, c: pc.add(c, 1e12)),  # all the same to float32
]


@pytest.mark.parametrize(("name", "change"), ONE_VALUE)
def test_a_feature_of_one_value_is_named(logs, capsys, name, change):
    changed(logs, name, change)
    assert f"note: feature '{name}': one value for all training items" in said(logs, capsys)


@pytest.mark.parametrize(
    ("name", "start", "step"), [("price", 1_709_000_000, "128"), ("hour", 2.0**26, "8"), ("match", -(2.0**25), "4")]
)
def test_values_that_float32_rounds_away_are_named(logs, capsys, name, start, step):
    """Such as times in seconds since 1970 that are within an hour."""
    changed(logs, name, lambda table, column: pc.add(pc.multiply(column, 10.0), start))
    assert f"feature '{name}': varies by little beside its size: as float32 its values are rounded to {step};" in said(
        logs, capsys
    )


def test_what_float32_holds_well_is_not_named():
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=99), rng.normal(1e6, 1e3, 99), rng.normal(size=99) * 1e-30, np.arange(99) + 1.7e9):
        sums = {"f": Moments.of(values.astype(np.float32).reshape(-1, 1))}
        well = np.std(values) >= 16 * np.spacing(np.float32(np.abs(values).max()))
        assert bool(rounded(sums)) is not well


def without_impressions(logs, share):
    for path in logs.glob("impressions/*.parquet"):
        table = pq.read_table(path)
        keep = (np.asarray(table["request_id"]) - 1000) // 7 % 10 >= 10 * share
        pq.write_table(table.filter(pa.array(keep)), path)


def test_requests_without_an_impression_are_counted_and_named(logs, capsys):
    without_impressions(logs, 0.3)
    assert "note: 12 of 40 requests have no impression; where more of them was shown, files" in said(logs, capsys)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (same(0.0), "fine_score is one value in 40 of 40 requests"),
        (lambda t, c: pa.nulls(len(c), c.type), "fine_score is one value in 40 of 40 requests"),
        (lambda t, c: pc.multiply(c, np.where(np.asarray(t["request_id"]) % 4, 1.0, -1.0)), "fine_score rises with"),
    ],
)
def test_scores_that_tell_nothing_or_another_order_are_named(logs, capsys, change, line):
    changed(logs, "fine_score", change)
    assert f"note: {line}" in said(logs, capsys)


def test_a_last_day_that_has_just_begun_is_named(tmp_path, capsys):
    """One request past midnight makes a day of its own, and the test of one request."""
    write_logs(tmp_path / "logs", requests=60, items_per_list=12, files=2)

    def change(table, ts):
        late = pc.equal(table["request_id"], 1000 + 7 * 59)
        return pc.if_else(late, pa.scalar(datetime(2024, 3, 5, 0, 0, 1), ts.type), ts)

    changed(tmp_path / "logs", "ts", change)
    line = "the days of the test have 1 of 60 requests, an average day 12: where the last day is not complete, leave"
    assert said(tmp_path / "logs", capsys) == f"note: {line} it out of the logs"


@pytest.mark.parametrize("name", ["query_city", "hour", "user_tags"])
def test_candidates_whose_request_features_vary_are_refused(logs, capsys, name):
    """Another service wrote them: the training's rows are in order, those that are validated on are not."""

    def change(table, column):
        values = column.to_pylist()
        other = {"query_city": "x", "hour": 99, "user_tags": [1, 2, 3, 4, 5]}[name]
        return pa.array([other if i % 2 else value for i, value in enumerate(values)], column.type)

    changed(logs, name, change, tables="candidates")
    with pytest.raises(InputError, match=f"'{name}': .* differs between the items of 10 of 10 validation requests"):
        said(logs, capsys)


@pytest.mark.parametrize("hours", [24, -24, 8, -8, 72])
def test_candidates_that_go_by_another_clock_are_refused(tmp_path, capsys, hours):
    """Else those of a validation day were those of requests that are trained on, or of the test."""
    write_logs(tmp_path / "logs", requests=60, items_per_list=12, days=6)
    shift = pa.scalar(timedelta(hours=hours), pa.duration("us"))
    changed(tmp_path / "logs", "ts", lambda table, ts: pc.add(ts, shift), tables="candidates")
    with pytest.raises(
        InputError, match=rf"candidates: ts of (\d+) of \1 requests .*{re.escape(f'({hours:+}.0 h')}, their"
    ):
        said(tmp_path / "logs", capsys)
    assert not (tmp_path / "samples").exists()


def test_candidates_that_are_logged_a_little_later_are_taken(logs, capsys):
    later = pa.scalar(timedelta(hours=5), pa.duration("us"))
    changed(logs, "ts", lambda table, ts: pc.add(ts, later), tables="candidates")
    assert said(logs, capsys) == ""


@pytest.mark.parametrize("change", [str.upper, lambda x: f"0{x}", lambda x: f"{x} "])
def test_candidates_of_no_request_of_the_lists_are_refused(logs, capsys, change):
    changed(logs, "request_id", lambda table, ids: pa.array([f"{x}-a" for x in ids.to_pylist()]))
    changed(logs, "request_id", lambda table, ids: pa.array([change(x) for x in ids.to_pylist()]), tables="candidates")
    with pytest.raises(InputError, match=r"none of 10 requests of the validation days is in fine_lists/.*alike in all"):
        said(logs, capsys)
