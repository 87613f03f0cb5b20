"""Measures build_samples on made-up logs of 45 features: rows a second, and that memory stays flat as logs grow.

    python -m workflows.benchmark memory --rows 300000

Builds from `rows` and from ten times as many rows of the fine lists, clustered by request and shuffled over all files.
Memory is the sum of the proportional set sizes (Linux) of the driver and all that it starts, Ray's object store too.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from prerank.cli import run

ITEMS, FILES, ROW_GROUP, START = 200, 10, 50_000, np.datetime64("2024-01-01", "us")


@dataclass(frozen=True)
class Benchmark:
    """Measures build_samples on made-up logs."""

    what: Annotated[Literal["memory"], tyro.conf.Positional]
    rows: int = 300_000
    """Rows of the fine lists; the larger logs have ten times as many."""
    folder: Path = Path(tempfile.gettempdir())
    """Where the logs are made, and removed again."""


def main(config: Benchmark) -> None:
    for shuffled in (False, True):
        peaks = []
        for rows in (config.rows, 10 * config.rows):
            with tempfile.TemporaryDirectory(dir=config.folder) as folder:
                write_logs(Path(folder) / "logs", rows // ITEMS, shuffled)
                seconds, peak = watch(["--logs", f"{folder}/logs", "--out", f"{folder}/samples"])
            peaks.append(peak)
            print(f"{'shuffled' if shuffled else 'clustered'} {rows:>12,} rows: {seconds:6.1f} s, {rows / seconds:>9,.0f}/s, {peak:6.0f} MiB")
        print(f"{'':>23} ten times the rows: {peaks[1] / peaks[0]:.2f} times the memory")


def watch(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of one build."""
    start, peak = time.monotonic(), 0
    with subprocess.Popen([sys.executable, "-m", "workflows.build_samples", *arguments], stdout=subprocess.DEVNULL) as build:
        while build.poll() is None:
            sizes = 0
            for process in (psutil.Process(build.pid), *psutil.Process(build.pid).children(recursive=True)):
                try:
                    sizes += process.memory_full_info().pss
                except psutil.Error:  # it has ended meanwhile
                    continue
            peak = max(peak, sizes)
            time.sleep(0.5)
    if build.returncode:
        raise RuntimeError(f"build_samples ended with {build.returncode}")
    return time.monotonic() - start, peak / 2**20


def write_logs(folder: Path, requests: int, shuffled: bool) -> None:
    """File f has a tenth of the requests, or a tenth of the items of every request, in no order."""
    features = [{"name": f"f{i}", "side": "item", "kind": "dense", "source": "F1", "fetch_us": 1} for i in range(45)]
    for name in ("fine_lists", "impressions"):
        (folder / name).mkdir(parents=True)
    (folder / "schema.json").write_text(json.dumps({"features": features, "fetch": {"F1": {"per_feature_us": 1}}}))
    for file in range(FILES):
        rng = np.random.default_rng(file)
        part = rng.permutation(requests) if shuffled else np.array_split(np.arange(requests), FILES)[file]
        position = np.arange(file, ITEMS, FILES) if shuffled else np.arange(ITEMS)
        request, position = np.repeat(part, len(position)), np.tile(position, len(part))
        ts = START + request * (4 * 86_400_000_000 // requests)
        keys = {"request_id": request, "item_id": (request * 7919 + position) % 1_000_003, "ts": ts, "fine_position": position}
        values = {feature["name"]: rng.normal(size=len(request)) for feature in features}
        pq.write_table(pa.table(keys | values), folder / f"fine_lists/{file}.parquet", row_group_size=ROW_GROUP)
        shown = position < 10
        labels = {"shown_position": position[shown], "clicked": rng.random(shown.sum()) < 0.15}
        shown_keys = {name: keys[name][shown] for name in ("request_id", "item_id")}
        pq.write_table(pa.table(shown_keys | labels), folder / f"impressions/{file}.parquet", row_group_size=ROW_GROUP)


if __name__ == "__main__":
    run(main, Benchmark)
