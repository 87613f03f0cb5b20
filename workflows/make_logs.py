"""Makes the logs of a search cascade whose truth is known, to try everything on.

    python -m workflows.make_logs --out runs/logs --requests 6000 --candidates 1000 --items 20000 --days 6 --seed 0

Writes fine_lists, impressions and, for `--eval-requests` of each of the last two days, candidates and truth (the click
probability of every candidate), in one file a chunk of requests. The same seed gives the same logs whatever the number
of workers, and on another kind of CPU all but last digits and the few choices that hang on them.
"""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import pyarrow as pa
import ray

from prerank.core.cli import run
from prerank.core.cluster.start import start_ray
from prerank.core.config import plain
from prerank.core.outputs import Manifest, is_done, publish, read_manifest
from prerank.sources.simulator.cascade import SHOWN, TABLES, Simulation, chunks, write_chunk


class Made(TypedDict):
    """Rows of each table, and what the users did."""

    fine_lists: int
    impressions: int
    candidates: int
    truth: int
    requests: int
    click_rate: float
    """Of the items that were shown."""
    requests_with_click: float
    """Their share."""
    conversions_per_click: float
    seconds: float


class MadeManifest(Manifest):
    result: Made


@dataclass(frozen=True, kw_only=True)
class MakeLogs(Simulation):
    """Makes the logs of a search cascade whose truth is known."""

    out: Path
    """Folder to write, whole or not at all."""


def main(config: MakeLogs) -> Made:
    """Returns the rows of each table, the clicks and the seconds; of logs that are there already, their manifest's."""
    config.check()
    out = config.out.resolve()
    settings = {
        key: value for key, value in plain(config).items() if key != "out" and (key, value) != ("orders", False)
    }
    if is_done(out, kind="logs", config=settings, inputs={}):
        print(f"{out}: already done")
        return cast("MadeManifest", read_manifest(out, kind="logs"))["result"]
    begun = time.monotonic()
    todo = list(chunks(config))
    start_ray()
    with publish(out, kind="logs", config=settings, inputs={}) as (folder, extra):

        def write(batch: pa.Table) -> pa.Table:
            counts = [write_chunk(config, todo[i], folder) for i in batch["id"].to_pylist()]
            return pa.Table.from_pylist(counts)

        ids = ray.data.range(len(todo), override_num_blocks=len(todo))
        total: Counter[str] = Counter()
        for row in ids.map_batches(write, batch_size=None, batch_format="pyarrow").iter_rows():
            total.update(row)
        config.schema.save(folder)
        result: Made = {
            "fine_lists": total["fine_lists"],
            "impressions": total["impressions"],
            "candidates": total["candidates"],
            "truth": total["truth"],
            "requests": total["requests"],
            "click_rate": total["clicks"] / total["impressions"],
            "requests_with_click": total["requests_with_click"] / total["requests"],
            "conversions_per_click": total["conversions"] / max(1, total["clicks"]),
            "seconds": time.monotonic() - begun,
        }
        extra["result"] = result
    rows = ", ".join(f"{result[name]:,} {name}" for name in TABLES)
    print(
        f"{out}: {rows} rows; {result['click_rate'] * SHOWN:.2f} clicks a request, "
        f"{result['requests_with_click']:.0%} of requests with one; {result['seconds']:.0f} s"
    )
    return result


if __name__ == "__main__":
    run(main, MakeLogs)
