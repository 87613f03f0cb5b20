"""Speeds and growth from times that are known, and peers that draw from the same logs."""

import importlib
import itertools
import time
from types import SimpleNamespace

import polars as pl
import psutil
import pytest

from prerank.benchmarks import building, memory
from prerank.benchmarks.peer import Peer
from prerank.benchmarks.peers.drawn import PAIRS
from prerank.benchmarks.rows import Left

PEERS = ("polars", "duckdb", "loop", pytest.param("spark", marks=pytest.mark.slow))


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_of_the_build_draws_from_the_same_logs(peer, tmp_path):
    """Whole requests of all days but the last, with what was shown and at most so many pairs."""
    module = f"prerank.benchmarks.peers.{peer}_build"
    against = next(of for of in building.PEERS if of.module == module)
    if against.peer.lacking:
        pytest.skip(against.peer.lacking)
    memory.write_logs(tmp_path / "logs", 40, True)
    importlib.import_module(module).build(tmp_path / "logs", tmp_path / "out")
    built = pl.read_parquet(tmp_path / "out" / "*.parquet")
    lists = pl.read_parquet(tmp_path / "logs" / "fine_lists" / "*.parquet")
    before = lists.filter(pl.col("ts").dt.date() < lists["ts"].dt.date().max())["request_id"].unique()
    assert sorted(built["request_id"]) == sorted(before)
    assert all(sum(exposed) == 10 for exposed in built["exposed"])
    assert all(40 < len(items) < 110 and len(set(items)) == len(items) for items in built["item_id"])
    assert 80 < built["item_id"].list.len().mean() < 100  # the draws do not follow each other
    assert built["hi"].list.len().max() == PAIRS


@pytest.fixture
def known(monkeypatch):
    """Commands of which each takes its start and then its time of a row, and memory that does not grow."""
    there = {}

    def wrote(folder, requests, shuffled, **layout):
        there[str(folder)] = requests * memory.ITEMS

    def watched(module, arguments):
        start_s, row_s = (8.0, 1e-5) if module == building.OURS else (1.0, 5e-6) if "polars" in module else (0.0, 1e-4)
        rows = there[arguments[module == building.OURS]]
        return start_s + row_s * rows, 1000.0 + 1e-4 * rows

    monkeypatch.setattr(building, "write_logs", wrote)
    monkeypatch.setattr(building, "watch", watched)


@pytest.mark.parametrize("ends", [False, True])
def test_logs_larger_than_memory_end_what_holds_all_of_them(monkeypatch, ends):
    """A row is 1,000 bytes here, and 100 MB are free."""
    there, said = [], {building.OURS: (60.0, 20.0), building.PEERS[0].module: (30.0, 90.0)}

    def wrote(folder, requests, shuffled, **layout):
        there.append(requests * memory.ITEMS)
        with open(folder / "0.parquet", "wb") as file:
            file.truncate(1000 * there[-1])

    def watched(module, arguments):
        if ends and module != building.OURS:
            raise MemoryError("more than 0.1 GiB after 7 s")
        return said[module]

    monkeypatch.setattr(building, "write_logs", wrote)
    monkeypatch.setattr(building, "watch", watched)
    monkeypatch.setattr(building, "memory", lambda: SimpleNamespace(available=100_000_000))
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _: SimpleNamespace(free=275_000_000))
    (row,) = building.larger(times=1.1)
    assert there[1] == pytest.approx(110_000, abs=memory.ITEMS) and row.reached
    assert row.value == pytest.approx(20 * 2**20 / 1e8)
    theirs = "Polars: more than 0.1 GiB after 7 s" if ends else "Polars 30 s, peak 90 MiB"
    assert row.detail == f"110,000 rows, 0.1 GiB: 60 s, peak 20 MiB; {theirs}"


def test_logs_larger_than_memory_are_not_begun_without_the_disk_for_them(monkeypatch):
    monkeypatch.setattr(building, "write_logs", lambda *_, **__: pytest.fail("no logs are asked for"))
    monkeypatch.setattr(building, "memory", lambda: SimpleNamespace(available=100 << 30))
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _: SimpleNamespace(free=274 << 30))
    (left,) = building.larger(times=1.1)
    assert isinstance(left, Left) and "takes 275 GiB of disk" in left.why and "has 274; set TMPDIR" in left.why


@pytest.mark.slow
@pytest.mark.parametrize("left", [[1000], [1000, 800, 51, 49]], ids=["taken", "left"])
def test_a_command_that_takes_more_than_it_may_is_ended(left, monkeypatch):
    """Which is seen in what its processes take, or in what the machine has left, whoever has the rest; in MiB."""
    seen = iter(left) if len(left) > 1 else itertools.repeat(left[0])
    monkeypatch.setattr(memory, "memory", lambda: SimpleNamespace(available=next(seen) << 20))
    size = (1200 if len(left) == 1 else 20) << 20
    sleeps = ["-n", "1", "-s", "import time", f"x = b'1' * {size}; time.sleep(60)"]
    began, before = time.monotonic(), {*psutil.Process().children()}
    with pytest.raises(MemoryError, match=r"more than 0\.9 GiB after \d s"):
        memory.watch("timeit", sleeps)
    assert time.monotonic() - began < 30 and {*psutil.Process().children()} <= before
    assert len(left) == 1 or not [*seen]  # 51 of 1000 is more than it must leave


def test_speeds_leave_out_what_a_start_costs(known, monkeypatch):
    missing = building.Against(Peer("Nobody", ("no_such_package",)), "nobody", 3.0)
    monkeypatch.setattr(building, "PEERS", (building.PEERS[0], building.PEERS[3], missing))
    rows = {row.name: row for row in building.build(100_000, rounds=3)}
    assert rows["build clustered, small"].value == pytest.approx(9 / 1.5)
    assert rows["build clustered, Polars"].value == pytest.approx(0.5) and not rows["build clustered, Polars"].reached
    assert rows["build shuffled, Polars"].value == pytest.approx(0.5) and rows["build shuffled, Polars"].reached
    loop = rows["build clustered, a Python loop"]
    assert loop.value == pytest.approx(10)
    assert loop.detail == "100,000 and 10,000 rows a second, peak 1,400 and 1,020 MiB of 4,000,000 and 200,000 rows"
    said = "Nobody: no_such_package not installed: pip install '.[bench]'"
    assert rows["build clustered, Nobody"] == Left("build clustered, Nobody", said)


@pytest.mark.parametrize("ends_at", [100_000, 1_000_000, 4_000_000])
def test_a_peer_that_ends_is_told_and_the_others_go_on(known, monkeypatch, ends_at):
    """Of the smaller sizes as well, where it gets there: a speed takes two."""
    watched, tried = building.watch, []

    def watch(module, arguments):
        seconds, mib = watched(module, arguments)
        if module == building.PEERS[0].module and round((seconds - 1) / 5e-6) == ends_at:
            tried.append(ends_at)
            raise MemoryError("more than 20.0 GiB after 7 s")
        if module == building.OURS and round((seconds - 8) / 1e-5) == 4_000_000:
            seconds *= 2  # of which nothing is seen where a peer did not get so far
        return seconds, mib

    monkeypatch.setattr(building, "watch", watch)
    monkeypatch.setattr(building, "PEERS", (building.PEERS[0], building.PEERS[3]))
    rows = {row.name: row for row in building.build(100_000, rounds=3, orders=building.ORDERS[:1])}
    told, polars = f"{ends_at:,} rows: more than 20.0 GiB after 7 s", rows["build clustered, Polars"]
    assert tried == [ends_at]
    if ends_at == 4_000_000:
        assert polars.value == pytest.approx(0.5)
        assert polars.detail == f"100,000 and 200,000 rows a second, peak 1,100 and 1,100 MiB of 1,000,000 rows; {told}"
    else:
        assert polars == Left("build clustered, Polars", told)
    small = rows["build clustered, small"]
    assert small.why == told if ends_at == 100_000 else small.value == pytest.approx(9 / 1.5)
    assert rows["build clustered, a Python loop"].value == pytest.approx(1e-4 / ((2 * 48 - 18) / 3e6))


def test_rows_are_not_made_without_the_disk_for_them(known, monkeypatch):
    """A row is 1,000 bytes here."""
    wrote = []

    def write(folder, requests, shuffled, **layout):
        wrote.append(requests * memory.ITEMS)
        with open(folder / "0.parquet", "wb") as file:
            file.truncate(1000 * wrote[-1])

    monkeypatch.setattr(building, "write_logs", write)
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _: SimpleNamespace(free=8 << 30))
    lefts = building.build(100_000, rounds=3)
    assert [left.name for left in lefts] == ["build clustered", "build shuffled"] and wrote == [building.FEW]
    assert all("takes 9 GiB of disk" in left.why and "has 8" in left.why for left in lefts)


@pytest.mark.parametrize("ends", [False, True])
def test_logs_as_they_are_take_whole_commands_in_turns(monkeypatch, tmp_path, ends):
    took, polars = {building.OURS: iter((30.0, 20.0, 10.0)), building.PEERS[0].module: iter((9.0, 8.0, 4.0))}, []

    def watched(module, arguments):
        assert str(tmp_path) in arguments
        if ends and module != building.OURS:
            polars.append(module)
            raise ChildProcessError("ended with code -9 after 7 s")
        return next(took[module]), 500.0

    monkeypatch.setattr(building, "watch", watched)
    row = building.build_of(tmp_path, rounds=3)
    if ends:
        assert row == Left("build-logs", "ended with code -9 after 7 s") and len(polars) == 1
    else:
        assert row.value == pytest.approx(20 / 8) and row.detail == "20.0 and 8.0 s, peak 500 and 500 MiB"


def test_growth_is_of_a_row_and_of_the_peak(known):
    rows = {row.name: row for row in building.growth(100_000, rounds=1)}
    assert rows["growth shuffled, time"].value == pytest.approx(1)
    assert rows["growth clustered, memory"].value == pytest.approx(1160 / 1010)
    assert rows["growth, one row group, time"].value == pytest.approx(1)
    assert rows["growth, one row group, memory"].value == pytest.approx(1)


def test_few_rows_do_not_tell(monkeypatch):
    monkeypatch.setattr(building, "write_logs", lambda *_, **__: None)
    monkeypatch.setattr(building, "watch", lambda *_, **__: (9.0, 900.0))
    time = building.growth(1000, rounds=1)[0]
    assert isinstance(time, Left) and "raise --rows" in time.why


def test_what_a_peer_lacks_is_said():
    assert Peer("Polars", ("polars",)).lacking == ""
    assert Peer("X", ("polars",), program="no-such-program").lacking == "no-such-program is not on the path"
