"""Made-up logs of any size, and the memory that a command takes on them: the sum of PSS (Linux) over all processes."""

import json
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from prerank.core.memory import memory

ITEMS, FILES, ROW_GROUP, START = 200, 10, 50_000, np.datetime64("2024-01-01", "us")
DENSE, VECTOR, HISTORY = 45, 16, 50
MOST = 0.95
"""Of the memory that is free: what a command may take of it."""
LOOK_S, LOOKS = 0.1, 5
"""Seconds from one look at what is left to the next; processes, which take longer to read, every so many."""


def grow(rows: int) -> None:
    """Builds samples from so many rows and ten times as many, clustered and in any order, and prints what it took."""
    for order in ("clustered", "shuffled"):
        peaks: list[float] = []
        for of in (rows, 10 * rows):
            with tempfile.TemporaryDirectory() as folder:
                write_logs(Path(folder) / "logs", of // ITEMS, order == "shuffled")
                flags = ["--logs", f"{folder}/logs", "--out", f"{folder}/samples"]
                seconds, peak = watch("workflows.build_samples", flags)
            print(f"{order} {of:>12,} rows: {seconds:6.1f} s, {of / seconds:>9,.0f}/s, {peak:6.0f} MiB", flush=True)
            peaks.append(peak)
        print(f"{order}: {peaks[1] / peaks[0]:.2f} times the memory for ten times the rows", flush=True)


def watch(module: str, arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of a command and of all that it starts, Ray's processes among them.

    Raises MemoryError, and ends it, where all take more than `MOST` of the memory that was free before, and
    ChildProcessError where it fails.
    """
    free, start, peak, look = memory().available, time.monotonic(), 0, 0
    command = psutil.Popen([sys.executable, "-m", module, *arguments], stdout=sys.stderr)
    while command.poll() is None:
        if look % LOOKS == 0:
            peak = max(peak, _pss(command))
        # What is left is read as well, and more often: a process that fills it in a second would be seen too late, and
        # the machine stands still in place of ending it.
        if peak > MOST * free or memory().available < (1 - MOST) * free:
            _end(command)
            raise MemoryError(f"more than {MOST * free / 2**30:.1f} GiB after {time.monotonic() - start:.0f} s")
        look += 1
        time.sleep(LOOK_S)
    if command.returncode:
        raise ChildProcessError(f"{module} ended with code {command.returncode} after {time.monotonic() - start:.0f} s")
    return time.monotonic() - start, peak / 2**20


def _pss(command: psutil.Process) -> int:
    """Bytes, of all that it started as well."""
    size = 0
    for process in _with_all_it_started(command):
        with suppress(psutil.Error):  # it has ended meanwhile
            size += process.memory_full_info().pss
    return size


def _end(command: psutil.Process) -> None:
    running = _with_all_it_started(command)
    for process in running:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(running, timeout=10)


def _with_all_it_started(command: psutil.Process) -> list[psutil.Process]:
    return [command, *command.children(recursive=True)]


def write_logs(folder: Path, requests: int, shuffled: bool, *, files: int = FILES, row_group: int = ROW_GROUP) -> None:
    """Each file has its share of the requests, or, in no order, its share of the items of every request."""
    shared = {"side": "item", "source": "F1", "fetch_us": 1}
    features = [
        *({"name": f"f{i}", "kind": "dense"} | shared for i in range(DENSE)),
        {"name": "vector", "kind": "embedding", "size": VECTOR} | shared,
        {"name": "history", "kind": "ids", "size": 10_000, "dim": 4} | shared,
    ]
    for file in range(files):
        rng = np.random.default_rng(file)
        part = rng.permutation(requests) if shuffled else np.array_split(np.arange(requests), files)[file]
        position = np.arange(file, ITEMS, files) if shuffled else np.arange(ITEMS)
        request, position = np.repeat(part, len(position)), np.tile(position, len(part))
        keys = {"request_id": request, "item_id": (request * 7919 + position) % 1_000_003}
        keys["ts"] = START + request * (4 * 86_400_000_000 // requests)
        values = {f"f{i}": rng.normal(size=len(request)) for i in range(DENSE)} | {"fine_position": position}
        vectors = rng.standard_normal(VECTOR * len(request), np.float32)
        values["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors), VECTOR)
        ends = np.cumsum(np.append(0, rng.integers(1, 2 * HISTORY, len(request))), dtype=np.int32)
        values["history"] = pa.ListArray.from_arrays(ends, rng.integers(0, 10_000, ends[-1], np.int32))
        shown = {"shown_position": position, "clicked": rng.random(len(request)) < 0.15}
        impressions = pa.table(keys | shown).filter(pa.array(position < 10))
        for name, table in (("fine_lists", pa.table(keys | values)), ("impressions", impressions)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            pq.write_table(table, folder / name / f"{file}.parquet", row_group_size=row_group)
    (folder / "schema.json").write_text(json.dumps({"features": features, "fetch": {"F1": {"per_feature_us": 1}}}))
