"""What waits on disk: in order, once, whoever writes it and whoever dies."""

import multiprocessing
import os
import signal
import time

import pytest

from prerank.tracking.unsent import Refused, Spool

ALL = {"seconds": float("inf"), "wait": True}


def test_in_order_with_copies_of_files_and_gone_on_with_where_it_stopped(tmp_path):
    spool, seen = Spool(tmp_path / "spool"), []
    file, folder = tmp_path / "a.txt", tmp_path / "folder"
    folder.mkdir()
    assert spool.empty() and not len(spool) and not spool.folder.exists()
    for number, path in enumerate((file, None, folder)):
        file.write_text(f"of {number}")
        (folder / "b.txt").write_text(f"of {number}")
        spool.add({"number": number}, path)
    file.unlink()

    def send(entry, copy):
        if len(seen) == 2:
            raise ConnectionError
        inside = copy / "b.txt" if copy and copy.is_dir() else copy
        seen.append((entry["number"], copy and copy.name, copy and inside.read_text()))

    with pytest.raises(ConnectionError):
        spool.drain(send, **ALL)
    assert len(spool) == 1
    spool.tidy()
    seen.append("again")
    assert Spool(spool.folder).drain(send, **ALL) == 0
    assert seen == [(0, "a.txt", "of 0"), (1, None, None), "again", (2, "folder", "of 2")]
    assert spool.empty()
    spool.tidy()
    assert not spool.folder.exists()


def test_what_is_refused_is_put_aside_and_kept(tmp_path):
    spool, seen = Spool(tmp_path / "spool"), []
    (tmp_path / "a.txt").write_text("kept")
    for number in range(3):
        spool.add({"number": number}, tmp_path / "a.txt")

    def send(entry, copy):
        if entry["number"] == 1:
            raise Refused("too much")
        seen.append(entry["number"])

    assert spool.drain(send, **ALL) == 1 and seen == [0, 2]
    spool.tidy()
    assert '"number": 1' in spool.refused.read_text() and "too much" in spool.refused.read_text()
    (copy,) = spool.folder.glob("files/*/a.txt")
    assert copy.read_text() == "kept"


def test_half_a_line_spoils_nothing(tmp_path):
    spool, seen = Spool(tmp_path / "spool"), []
    for number in range(3):
        spool.add({"number": number})
        with open(spool.queue, "ab") as file:
            file.write(b' {"number": 7')
    spool.drain(lambda entry, _: seen.append(entry["number"]), **ALL)
    assert seen == [0, 1, 2] and spool.empty()


def test_a_part_at_a_time(tmp_path):
    spool, seen = Spool(tmp_path / "spool"), []
    for number in range(3):
        spool.add({"number": number})
    while not spool.empty():
        before = len(seen)
        spool.drain(lambda entry, _: (seen.append(entry["number"]), time.sleep(0.02)), seconds=0.01)
        assert len(seen) <= before + 1
    assert seen == [0, 1, 2]


def fill(folder, who, entries):
    for number in range(entries):
        Spool(folder).add({"who": who, "number": number, "text": "x" * 5000})


def take(folder, taken, stop):
    while not stop.exists() or not Spool(folder).empty():
        with open(taken, "a") as file:
            Spool(folder).drain(lambda entry, _: print(entry["who"], entry["number"], file=file, flush=True), seconds=1)


@pytest.mark.slow  # processes start
def test_several_processes_fill_and_empty_it_and_one_is_killed(tmp_path):
    folder, taken, stop = tmp_path / "spool", tmp_path / "taken.txt", tmp_path / "stop"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=fill, args=(folder, who, 150)) for who in "ab"]
    takers = [spawn.Process(target=take, args=(folder, taken, stop)) for _ in range(2)]
    victim = spawn.Process(target=fill, args=(folder, "victim", 10**6))
    for process in (*writers, *takers, victim):
        process.start()
    while not taken.exists() or "victim 20" not in taken.read_text():
        time.sleep(0.02)
    os.kill(victim.pid, signal.SIGKILL)
    for process in (*writers, victim):
        process.join()
    stop.touch()
    for process in takers:
        process.join()
        assert process.exitcode == 0
    got = {}
    for who, number in (line.split() for line in taken.read_text().splitlines()):
        got.setdefault(who, []).append(int(number))
    assert got["a"] == got["b"] == list(range(150))
    assert got["victim"] == list(range(len(got["victim"]))) and len(got["victim"]) > 20
