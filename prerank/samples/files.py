"""A folder of samples: its files, what they hold, and how one is written."""

import json
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NotRequired, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prerank.core.arrow import lengths
from prerank.core.counts import Built
from prerank.core.errors import InputError
from prerank.core.outputs import MANIFEST, Days, Manifest, is_done, read_manifest, write_json
from prerank.core.storage import parquet, whole
from prerank.logs.folder import Logs

ROW_GROUP = 128
"""Requests a row group of the samples: what a reader has to hold at once."""

LOGS = "logs.json"
"""Beside the manifest: when the youngest file of the logs was last modified, by the clock of their storage, as the
build began. The manifest does not say it: samples of the same logs in another place are the same."""


class SamplesManifest(Manifest):
    """What it takes to draw again, where the days were split, and what was built."""

    split: Days
    val_table: str
    """`candidates`, or `fine_lists`."""
    draw: dict[str, Any]
    """The fields of `DrawConfig`."""
    strategies: list[str]
    seed: int
    rows: dict[str, int]
    """Requests by file."""
    counts: Built
    positions: bool
    """Whether the strategies that need positions have drawn."""
    taught: NotRequired[bool]


def samples_manifest(folder: Path) -> SamplesManifest:
    """Raises InputError for what is no finished folder of samples."""
    return cast("SamplesManifest", read_manifest(folder, kind="samples"))


def built_before(out: Path, config: Mapping[str, object], logs: Logs) -> SamplesManifest | None:
    """The manifest of samples in `out` that were built with `config` from these logs; None where there are none.

    Raises InputError where `out` holds anything else, and where the logs were modified since: the fingerprint does not
    know of values that leave sizes and statistics as they were.
    """
    known = read_manifest(out, kind="samples")["inputs"].get("logs") if (out / MANIFEST).is_file() else None
    as_before = known == logs.fingerprint_of_sizes  # by an earlier version
    inputs = {"logs": logs.fingerprint_of_sizes if as_before else logs.fingerprint}
    if not is_done(out, kind="samples", config=config, inputs=inputs):
        return None
    manifest = samples_manifest(out)
    modified, name = logs.modified
    path = out / LOGS
    if path.is_file() and modified > json.loads(path.read_text())["modified"]:
        raise InputError(
            f"{out}: built before {logs.folder}/{name} was last modified ({modified[:19]} UTC); delete the folder, or "
            "name another --out, to build from the logs as they are now"
        )
    return manifest


def remember(logs: Logs, folder: Path) -> None:
    """For `built_before`; earlier versions did not."""
    write_json(folder / LOGS, {"modified": logs.modified[0]})


def write_tables(tables: Iterable[pa.Table], path: Path) -> int:
    """Writes tables of request rows to one file, whole or not at all; returns its rows. There must be at least one."""
    path.parent.mkdir(exist_ok=True)  # not its parents: a late task would bring back a folder that is given up
    rows = 0
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": ["request_id"]}
    tables = iter(tables)
    first = next(tables)
    with whole(path) as file, pq.ParquetWriter(file, first.schema, **options) as writer:
        for table in chain([first], tables):
            writer.write_table(table, row_group_size=ROW_GROUP)
            rows += table.num_rows
    return rows


def sample_files(folder: Path, split: str) -> list[tuple[Path, int]]:
    """Files of `train` or `val` with their rows, as the manifest has them; raises InputError for unfinished samples."""
    rows = samples_manifest(folder)["rows"]
    return [(folder / name, n) for name, n in sorted(rows.items()) if name.startswith(f"{split}/")]


def files_of(samples: Path, split: str) -> tuple[Path, ...]:
    """As `sample_files`, without their rows."""
    return tuple(path for path, _ in sample_files(samples, split))


def candidates_of(samples: Path) -> int:
    """The median number of candidates of the validation requests, which are whole; raises InputError without any."""
    counts_R = items_of(samples, "val")
    if not len(counts_R):
        raise InputError(
            f"{samples}: no validation requests to count the candidates of; build samples with val_requests"
        )
    return int(np.median(counts_R))


def check_k(samples: Path, k: int) -> None:
    """Raises InputError where each validation request has at most k candidates, of which any student keeps all."""
    counts_R = items_of(samples, "val")
    if len(counts_R) and counts_R.max() <= k:
        raise InputError(
            f"{samples}: validation requests have {counts_R.max()} candidates at most, all of which any student keeps "
            f"at --k {k}; lower --k, or build from logs with candidates/"
        )


def items_of(samples: Path, split: str) -> np.ndarray:
    """int [R]: the number of items of each request of `train` or `val`."""
    lists = [parquet(path).read(columns=["item_id"])["item_id"] for path in files_of(samples, split)]
    return np.concatenate([np.zeros(0, int), *(lengths(column).to_numpy() for column in lists)])
