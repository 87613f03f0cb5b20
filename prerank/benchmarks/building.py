"""build_samples as a whole command against the same draws written in what a user would pick instead.

What a command costs beside its rows, its start and its checks, is in `small`; the speeds are of the rows between two
sizes, so that it is left out of them.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prerank.benchmarks.memory import FILES, ITEMS, MOST, ROW_GROUP, watch, write_logs
from prerank.benchmarks.peer import Peer
from prerank.benchmarks.rows import Left, Row
from prerank.core.memory import memory

SMALL, LINEAR, MEMORY = 3.0, 1.15, 1.3
"""How many times Polars' time the whole command may take on few rows; the time of a row and the peak, grown."""
ORDERS = ("clustered", "shuffled")
"""Of the rows in the files: by request, or any."""
TIMES = (1, 10, 40)
"""Sizes: of the whole command, and between which speeds are taken."""
OURS = "workflows.build_samples"
FEW = 100 * ITEMS
"""Rows that the size of one is told by."""
DISK = 2.5
"""How many times the logs are on disk at once, at most: themselves, what Ray spills in sorting them, the samples."""
MOST_ROWS = 10_000_000
"""Of ten files: each is made in memory, of which some stays with this process."""


@dataclass(frozen=True)
class Against:
    """A peer, and how many times its speed ours should be on logs in each order."""

    peer: Peer
    module: str
    clustered: float | None = None
    shuffled: float | None = None
    one_in: int = 1
    """It is measured on one in so many of the rows, where it is slow."""


PEERS = (
    Against(Peer("Polars"), "prerank.benchmarks.peers.polars_build", 0.6, 0.3),
    Against(Peer("DuckDB", ("duckdb",)), "prerank.benchmarks.peers.duckdb_build"),
    Against(Peer("PySpark", ("pyspark",), "java"), "prerank.benchmarks.peers.spark_build", 3.0, 2.0, one_in=20),
    Against(Peer("a Python loop"), "prerank.benchmarks.peers.loop_build", 20.0, one_in=20),
)


@dataclass(frozen=True)
class Taken:
    """The medians of a command's time and of the peak of all its processes, by the number of rows, ascending."""

    seconds: dict[int, float]
    peak_mib: dict[int, float]
    ended: str = ""
    """Why there is nothing of the larger sizes."""

    @property
    def row_s(self) -> float:
        """Of each row between the two largest sizes; not above 0 where they are too small to tell."""
        few, many = [*self.seconds][-2:]
        return (self.seconds[many] - self.seconds[few]) / (many - few)

    def first(self, sizes: int) -> "Taken":
        """Of so many of the smallest sizes."""
        few = [*self.seconds][:sizes]
        return replace(self, seconds={n: self.seconds[n] for n in few}, peak_mib={n: self.peak_mib[n] for n in few})


def build(rows: int, *, rounds: int, orders: Sequence[str] = ORDERS, times: Sequence[int] = TIMES) -> list[Row | Left]:
    """Of made-up logs with so many rows of fine lists, the whole command; and its speed on so many times as many."""
    out: list[Row | Left] = []
    if why := _no_disk(max(times) * rows * _row_bytes()):
        return [Left(f"build {order}", why) for order in orders]
    for order in orders:
        there = [of for of in PEERS if not of.peer.lacking]
        one_in = {OURS: 1} | {of.module: of.one_in for of in there}
        taken = _turns(one_in, [rows * n for n in times], order == "shuffled", rounds)
        ours, polars = taken[OURS], taken[PEERS[0].module]
        out.append(_small(f"build {order}, small", rows, ours, polars))
        for of in PEERS:
            least = of.clustered if order == "clustered" else of.shuffled
            out.append(_speed(f"build {order}, {of.peer.name}", ours, taken.get(of.module), of.peer, least))
    return out


def build_of(logs: Path, *, rounds: int) -> Row | Left:
    """Of logs as they are, the demo's by default: the whole command."""
    name, polars = "build-logs", PEERS[0].module
    taken, ended = _rounds({OURS: logs, polars: logs}, rounds)
    if ended:
        return Left(name, ended[polars])
    return _whole(name, "a folder of logs as it is", taken[OURS], taken[polars])


def _small(name: str, rows: int, ours: Taken, polars: Taken) -> Row | Left:
    if rows not in polars.seconds:
        return Left(name, polars.ended)
    both = ((of.seconds[rows], of.peak_mib[rows]) for of in (ours, polars))
    return _whole(name, f"{rows:,} rows", *both)


def _whole(name: str, rows: str, ours: tuple[float, float], polars: tuple[float, float]) -> Row:
    """Of the seconds and the peak of both."""
    detail = f"{ours[0]:.1f} and {polars[0]:.1f} s, peak {ours[1]:,.0f} and {polars[1]:,.0f} MiB"
    return Row(name, f"{rows}, whole command, of Polars' time", ours[0] / polars[0], "times", SMALL, detail=detail)


def _speed(name: str, ours: Taken, theirs: Taken | None, peer: Peer, least: float | None) -> Row | Left:
    if theirs is None:
        return Left(name, f"{peer.name}: {peer.lacking}")
    if len(theirs.seconds) < 2:
        return Left(name, theirs.ended)
    ours = ours.first(len(theirs.seconds))
    if min(ours.row_s, theirs.row_s) <= 0:
        return Left(name, f"{max(ours.seconds):,} rows are too few to tell from the start; raise --rows")
    (of_ours, ours_mib), (of_theirs, theirs_mib) = (max(of.peak_mib.items()) for of in (ours, theirs))
    of_rows = f"{of_ours:,} and {of_theirs:,}" if of_theirs < of_ours else f"{of_ours:,}"
    detail = f"{1 / ours.row_s:,.0f} and {1 / theirs.row_s:,.0f} rows a second, peak {ours_mib:,.0f} and "
    detail += f"{theirs_mib:,.0f} MiB of {of_rows} rows"
    if theirs.ended:
        detail += f"; {theirs.ended}"
    what = f"speed without its start, of {peer.name}'s"
    return Row(name, what, theirs.row_s / ours.row_s, "times", least=least, detail=detail)


def growth(rows: int, *, rounds: int) -> list[Row | Left]:
    """Of build_samples, from so many rows to 16 times as many; and with all rows in one row group."""
    out: list[Row | Left] = []
    for order in ORDERS:
        taken = _turns({OURS: 1}, [rows, 4 * rows, 16 * rows], order == "shuffled", rounds)[OURS]
        seconds, peaks, early, late = taken.seconds, taken.peak_mib, taken.first(2).row_s, taken.row_s
        name, said = f"growth {order}, time", ", ".join(f"{n:,}: {taken:.1f} s" for n, taken in seconds.items())
        if min(early, late) > 0:
            what = "time of a row from x4 to x16, of one from x1 to x4"
            out.append(Row(name, what, late / early, "times", LINEAR, detail=said))
        else:
            out.append(Left(name, f"{rows:,} rows are too few to tell from the start; raise --rows"))
        said, what = ", ".join(f"{n:,}: {peak:,.0f} MiB" for n, peak in peaks.items()), "peak memory at x16, of x1's"
        value = peaks[16 * rows] / peaks[rows]
        out.append(Row(f"growth {order}, memory", what, value, "times", MEMORY, detail=said))
    return [*out, *_one_row_group(10 * rows, rounds)]


def larger(*, times: float) -> list[Row | Left]:
    """Of logs in any order that are so many times as large as the memory that is free: what becomes of ours and Polars.

    Once; neither may take more than is free.
    """
    free = memory().available
    if why := _no_disk(times * free):
        return [Left("larger, build shuffled", why)]
    rows = round(times * free / _row_bytes())
    with _logs(rows, True, files=FILES * (1 + rows // MOST_ROWS)) as logs:
        gib = _bytes(logs) / 2**30
        try:
            seconds, mib = _once(OURS, logs)
        except (MemoryError, ChildProcessError) as error:
            return [Left("larger, build shuffled", f"{rows:,} rows, {gib:.1f} GiB: build_samples: {error}")]
        try:
            polars_s, polars_mib = _once(PEERS[0].module, logs)
            theirs = f"Polars {polars_s:.0f} s, peak {polars_mib:,.0f} MiB"
        except (MemoryError, ChildProcessError) as error:
            theirs = f"Polars: {error}"
    detail = f"{rows:,} rows, {gib:.1f} GiB: {seconds:.0f} s, peak {mib:,.0f} MiB; {theirs}"
    what = "peak memory of build_samples on logs larger than the memory that is free, of it"
    return [Row("larger, build shuffled", what, mib * 2**20 / free, "share", MOST, detail=detail)]


def _one_row_group(rows: int, rounds: int) -> list[Row]:
    taken = {}
    for row_group in (ROW_GROUP, rows):
        with _logs(rows, False, files=1, row_group=row_group) as logs:
            taken[row_group] = _medians([_once(OURS, logs) for _ in range(rounds)])
    (usual_s, usual_mib), (seconds, mib) = taken[ROW_GROUP], taken[rows]
    what, times = f"of {rows:,} rows of a file in one row group, of that in groups of {ROW_GROUP:,}", seconds / usual_s
    time_s, peak = f"{seconds:.1f} and {usual_s:.1f} s", f"{mib:,.0f} and {usual_mib:,.0f} MiB"
    return [
        Row("growth, one row group, time", f"time {what}", times, "times", LINEAR, detail=time_s),
        Row("growth, one row group, memory", f"peak memory {what}", mib / usual_mib, "times", MEMORY, detail=peak),
    ]


def _turns(one_in: Mapping[str, int], sizes: list[int], shuffled: bool, rounds: int) -> dict[str, Taken]:
    """Each command on logs of each size, or of one in so many of the rows, in turns; a peer that ends is left then."""
    found = {module: Taken({}, {}) for module in one_in}
    one_in = {module: n if min(sizes) // n >= ITEMS else 1 for module, n in one_in.items()}  # of less there is no share
    for rows in sizes:
        going = {module: one_in[module] for module, of in found.items() if not of.ended}
        with ExitStack() as stack:
            logs = {n: stack.enter_context(_logs(rows // n, shuffled)) for n in {*going.values()}}
            taken, ended = _rounds({module: logs[n] for module, n in going.items()}, rounds)
        for module, why in ended.items():
            found[module] = replace(found[module], ended=f"{rows // one_in[module]:,} rows: {why}")
        for module, of in taken.items():
            size = rows // one_in[module]
            found[module].seconds[size], found[module].peak_mib[size] = of
    return found


def _rounds(logs: Mapping[str, Path], rounds: int) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """The medians of commands on their logs, in turns; and of a peer that ended without samples, why."""
    taken: dict[str, list[tuple[float, float]]] = {module: [] for module in logs}
    ended: dict[str, str] = {}
    for _ in range(rounds):
        for module in [*taken]:
            try:
                taken[module].append(_once(module, logs[module]))
            except (MemoryError, ChildProcessError) as error:
                if module == OURS:
                    raise
                ended[module] = str(error)
                del taken[module]
    return {module: _medians(of) for module, of in taken.items()}, ended


@contextmanager
def _logs(rows: int, shuffled: bool, **layout: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        write_logs(Path(folder), rows // ITEMS, shuffled, **layout)
        yield Path(folder)


def _no_disk(size: float) -> str:
    """Why samples of logs of so many bytes cannot be built here."""
    there, needed = shutil.disk_usage(tempfile.gettempdir()).free, round(DISK * size)
    if there >= needed:
        return ""
    return f"takes {needed / 2**30:.0f} GiB of disk, {tempfile.gettempdir()} has {there / 2**30:.0f}; set TMPDIR"


def _row_bytes() -> float:
    """Of the files, for each row of a fine list."""
    with _logs(FEW, True) as logs:
        return _bytes(logs) / FEW


def _bytes(logs: Path) -> int:
    return sum(file.stat().st_size for file in logs.rglob("*.parquet"))


def _once(module: str, logs: Path) -> tuple[float, float]:
    """Seconds and peak MiB; what it wrote is gone."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/samples"
        return watch(module, ["--logs", str(logs), "--out", out] if module == OURS else [str(logs), out])


def _medians(taken: list[tuple[float, float]]) -> tuple[float, float]:
    seconds, mib = np.median(taken, axis=0)
    return float(seconds), float(mib)
