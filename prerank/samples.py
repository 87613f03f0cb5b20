"""Samples: from rows of the logs to one row a request, with labels, pool and pairs.

    rows, impressions -> to_requests -> draw | undrawn -> attach_features -> one Parquet file

works on whole requests, so any part of the logs can be built by itself; what it counts is summed by `merge`. Ids are
compared by their 64-bit hashes (`hash_ids`). R requests, N rows, M impressions.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prerank.draw import DrawConfig, draw, undrawn
from prerank.errors import InputError
from prerank.features import encode, moments
from prerank.hashing import hash_ids, keyed_uniform
from prerank.logs import DAY, Logs, overlaps, read_groups
from prerank.nested import find_within, flat, flat_numpy, nest, offsets_from, offsets_of, rank_within
from prerank.outputs import read_manifest
from prerank.schema import Schema

CANDIDATE, FINE_LIST, EXPOSED, CLICKED, CONVERTED = range(5)
FAULTS = {
    "fine_lists": ("null_key", "duplicate_item", "positions_not_a_permutation"),
    "impressions": ("impression_null_key", "impression_without_list", "impression_not_in_list"),
}
ROW_GROUP = 128
"""Requests a row group of the samples: what a reader has to hold at once."""


@dataclass(frozen=True)
class Split:
    """Days by the clock of the logs: the last for the test, those before for validation, the rest for training."""

    val_days: int = 1
    test_days: int = 1

    def bounds(self, logs: Logs) -> tuple[np.datetime64, np.datetime64]:
        """First instants of validation and test; raises InputError where no day is left to train on."""
        first, last = logs.days
        test_from = last + DAY - self.test_days * DAY
        val_from = test_from - self.val_days * DAY
        if self.val_days < 0 or self.test_days < 0 or val_from <= first:
            raise InputError(
                f"{logs.folder}: logs of {first} to {last} leave no day to train on after split.val_days {self.val_days} "
                f"and split.test_days {self.test_days}; bring more days, or lower these"
            )
        return val_from.astype("datetime64[us]"), test_from.astype("datetime64[us]")


@dataclass(frozen=True)
class Recipe:
    """What every part of a build shares."""

    schema: Schema
    draw: DrawConfig
    strategies: tuple[str, ...]
    seed: int
    val_from: np.datetime64
    test_from: np.datetime64
    val_key: float
    """Validation requests are those whose keyed number is at most this: see `val_key`."""
    val_table: str
    """`candidates`, or `fine_lists` where the logs have none."""
    folder: Path


def val_key(logs: Logs, table: str, since: np.datetime64, until: np.datetime64, *, requests: int, seed: int) -> float:
    """The keyed number that the given count of requests of since <= ts < until do not exceed; two columns are read."""
    lowest = np.empty(0)
    for group in logs.tables[table].groups:
        if overlaps(group, since, until):
            rows = read_groups(logs.tables[table], (group,), ["request_id", "ts"])
            day = pc.and_(pc.greater_equal(rows["ts"], pa.scalar(since)), pc.less(rows["ts"], pa.scalar(until)))
            ids = rows["request_id"].filter(day).drop_null()
            numbers = keyed_uniform(seed, "validation", np.unique(hash_ids(ids)))
            lowest = np.unique(np.concatenate([lowest, numbers]))[:requests]
    return float(lowest[-1]) if len(lowest) else -1.0


def to_requests(rows: pa.Table, impressions: pa.Table, *, sampled: bool = False) -> tuple[pa.Table, dict]:
    """Checks lists of items and joins what was shown: one row a request, items by ascending hash, `row` [N] their origin.

    Faults are dropped and counted in rows and requests. `sampled` lists (candidates) have no positions, start at stage
    0, and impressions of other requests are no fault. Raises InputError for a click that is neither 0 nor 1.
    """
    counts: dict[str, Any] = {"dropped": {}, "noted": {}}
    with_positions = "fine_position" in rows.column_names and not sampled

    request, item = hash_ids(rows["request_id"]), hash_ids(rows["item_id"])
    null = _null(rows["request_id"])
    broken = _null(rows["item_id"]) | _null(rows["ts"])
    position = rows["fine_position"].fill_null(-1).to_numpy() if with_positions else np.full(len(request), -1)
    order = np.lexsort((position, item, request))
    order = order[~null[order]]
    ids, code = _runs(request[order])
    item, position, broken = item[order], position[order], broken[order]
    counts["read"] = {"rows": rows.num_rows, "requests": len(ids), "impressions": impressions.num_rows}

    faulty = ~_permutations(position, code, len(ids)) if with_positions else np.zeros(len(ids), bool)
    unusable = faulty[code]
    broken &= ~unusable
    left = np.flatnonzero(~unusable & ~broken)
    twice = np.zeros(len(code), bool)
    twice[left[1:]] = (np.diff(code[left]) == 0) & (item[left[1:]] == item[left[:-1]])  # the best position comes first
    left = left[~twice[left]]
    single = np.zeros(len(code), bool)
    single[left] = (np.bincount(code[left], minlength=len(ids)) == 1)[code[left]]
    dropped = {"positions_not_a_permutation": unusable, "null_key": broken, "duplicate_item": twice, "single_item": single}
    for reason, rows_N in dropped.items():
        _count(counts["dropped"], reason, int(rows_N.sum()), len(np.unique(code[rows_N])))
    _count(counts["dropped"], "null_key", int(null.sum()), 0)

    left = left[~single[left]]
    order, item, position, known = order[left], item[left], position[left], ids
    ids, code = _runs(request[order])
    if with_positions:
        position = rank_within(code, position)  # closes the gaps that dropped rows left
    offsets = offsets_from(code, len(ids))

    labels = _labels(impressions, ids, offsets, item, known, counts, sampled=sampled)
    first = order[offsets[:-1]]
    ts = rows["ts"].to_numpy().astype("datetime64[us]")[order]
    ts = np.minimum.reduceat(ts, offsets[:-1]) if len(ids) else ts
    columns = {
        "request_id": rows["request_id"].combine_chunks().take(pa.array(first)),
        "ts": pa.array(ts, pa.timestamp("us")),
        "item_id": nest(rows["item_id"].combine_chunks().take(pa.array(order)), offsets),
        "position": nest(position.astype(np.int32), offsets),
        **{name: nest(values, offsets) for name, values in labels.items()},
    }
    stage = np.full(len(item), CANDIDATE if sampled else FINE_LIST, np.int8)
    for code_, name in ((EXPOSED, "exposed"), (CLICKED, "clicked"), (CONVERTED, "converted")):
        stage[labels[name]] = code_
    columns["stage"] = nest(stage, offsets)
    if "fine_score" in rows.column_names:
        score = pc.cast(rows["fine_score"], pa.float32(), safe=False).fill_null(np.nan).to_numpy()
        columns["fine_score"] = nest(score[order], offsets)
    columns["row"] = nest(order, offsets)

    clicks = np.add.reduceat(labels["clicked"], offsets[:-1], dtype=np.int64) if len(ids) else np.empty(0)
    _count(counts["noted"], "without_click", int(np.diff(offsets)[clicks == 0].sum()), int((clicks == 0).sum()))
    return pa.table(columns), counts


def _runs(ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, and for each element which of them it is."""
    starts = np.ones(len(ascending), bool)
    starts[1:] = ascending[1:] != ascending[:-1]
    return ascending[starts], np.cumsum(starts) - 1


def _permutations(position: np.ndarray, code: np.ndarray, n: int) -> np.ndarray:
    """bool [R]: whether the positions of a request are 0..n-1, each once."""
    offsets = offsets_from(code, n)
    inside = (position >= 0) & (position < np.diff(offsets)[code])
    slots = np.bincount((offsets[code] + position)[inside], minlength=len(position))
    return np.bincount(code, weights=slots == 1, minlength=n) == np.diff(offsets)


def _labels(
    impressions: pa.Table,
    ids: np.ndarray,
    offsets: np.ndarray,
    item: np.ndarray,
    known: np.ndarray,
    counts: dict,
    *,
    sampled: bool,
) -> dict[str, np.ndarray]:
    """exposed, clicked, converted: bool [N]; `ids` are the requests kept, `known` all that had a list."""
    request_M, item_M = hash_ids(impressions["request_id"]), hash_ids(impressions["item_id"])
    null = _null(impressions["request_id"]) | _null(impressions["item_id"])
    _count(counts["dropped"], "impression_null_key", int(null.sum()), 0)
    if not sampled:
        orphan = ~null & ~_isin(request_M, known)
        _count(counts["dropped"], "impression_without_list", int(orphan.sum()), len(np.unique(request_M[orphan])))
    used = np.flatnonzero(~null & _isin(request_M, ids))
    place = find_within(item, offsets, np.searchsorted(ids, request_M[used]), item_M[used])
    missing = used[place < 0]
    _count(counts["dropped"], "impression_not_in_list", len(missing), len(np.unique(request_M[missing])))
    used, place = used[place >= 0], place[place >= 0]
    again = len(place) - len(np.unique(place))
    _count(counts["noted"], "duplicate_impression", again, 0)

    labels = {name: np.zeros(len(item), bool) for name in ("exposed", "clicked", "converted")}
    labels["exposed"][place] = True
    for name in ("clicked", "converted"):
        if name in impressions.column_names:
            flags = impressions[name].fill_null(0).to_numpy()
            if ((flags != 0) & (flags != 1)).any():
                wrong = int(flags[(flags != 0) & (flags != 1)][0])
                raise InputError(f"impressions: column {name!r} holds {wrong}; expected true and false, or 0 and 1")
            labels[name][place[flags[used] == 1]] = True
    return labels


def _null(column: pa.ChunkedArray) -> np.ndarray:
    return column.is_null().to_numpy()


def _isin(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    if not len(ascending):
        return np.zeros(len(values), bool)
    return ascending[np.searchsorted(ascending, values).clip(max=len(ascending) - 1)] == values


def _count(counts: dict, reason: str, rows: int, requests: int) -> None:
    if rows:
        merge(counts, {reason: {"rows": rows, "requests": requests}})


def merge(total: dict, part: dict) -> dict:
    """Adds the leaves of `part` (numbers, moments) to those of `total`, in place."""
    for key, value in part.items():
        if isinstance(value, dict):
            merge(total.setdefault(key, {}), value)
        else:
            total[key] = total[key] + value if key in total else value
    return total


def attach_features(requests: pa.Table, rows: pa.Table, schema: Schema) -> tuple[pa.Table, dict]:
    """Replaces `row` by the encoded features of those rows of the logs, and counts what `encode` found.

    A feature of the request is taken from its first item.
    """
    offsets, row = offsets_of(requests["row"]), flat_numpy(requests["row"])
    of_request = Schema(tuple(f for f in schema.features if f.of_request), {})
    of_item = Schema(tuple(f for f in schema.features if not f.of_request), {})
    once, found = encode(_take(rows, of_request.names, row[offsets[:-1]]), of_request)
    many, more = encode(_take(rows, of_item.names, row), of_item)
    out = requests.drop_columns("row")
    for feature in schema.features:
        column = once[feature.name] if feature.of_request else nest(many[feature.name].combine_chunks(), offsets)
        out = out.append_column(feature.name, column)
    return out, merge(merge({}, found), more)


def _take(rows: pa.Table, names: tuple[str, ...], row: np.ndarray) -> pa.Table:
    indices = pa.array(row)
    return pa.table({name: rows[name].combine_chunks().take(indices) for name in names})


def build_fine_lists(rows: pa.Table, impressions: pa.Table, recipe: Recipe) -> dict:
    """Writes the training requests (and, without candidates, those of validation) of some whole requests; the counts."""
    requests, counts = to_requests(rows, impressions)
    ts = requests["ts"].to_numpy()
    validation, test = (ts >= recipe.val_from) & (ts < recipe.test_from), ts >= recipe.test_from
    for name, inside in (("validation_day", validation), ("test_day", test)):
        _count(counts["noted"], name, _items(requests, inside), int(inside.sum()))
    train = requests.filter(pa.array(ts < recipe.val_from))
    train, drawn = draw(train, recipe.schema, recipe.draw, recipe.strategies, seed=recipe.seed)
    merge(counts, drawn)
    train, counts["features"] = attach_features(train, rows, recipe.schema)
    counts["moments"] = moments(train, recipe.schema)
    counts["files"] = write_part(train, recipe.folder / "train")
    if recipe.val_table == "fine_lists":
        counts["files"] |= _write_val(requests, rows, recipe)
    return counts


def build_candidates(rows: pa.Table, impressions: pa.Table, recipe: Recipe) -> dict:
    """Writes those of `validation_requests` among some whole requests of the candidates; the counts, by themselves."""
    request, shown = hash_ids(rows["request_id"]), hash_ids(impressions["request_id"])
    ids, code = np.unique(request, return_inverse=True)
    first = np.full(len(ids), np.datetime64("NaT", "us"))
    np.fmin.at(first, code, rows["ts"].to_numpy().astype("datetime64[us]"))
    inside = (first >= recipe.val_from) & (first < recipe.test_from)
    rows, impressions = rows.filter(pa.array(inside[code])), impressions.filter(pa.array(_isin(shown, ids[inside])))
    requests, counts = to_requests(rows, impressions, sampled=True)
    return {"candidates": counts, "files": _write_val(requests, rows, recipe)}


def _write_val(requests: pa.Table, rows: pa.Table, recipe: Recipe) -> dict[str, int]:
    ts = requests["ts"].to_numpy()
    inside = (ts >= recipe.val_from) & (ts < recipe.test_from) & validation_requests(requests, recipe)
    val, _ = attach_features(undrawn(requests.filter(pa.array(inside))), rows, recipe.schema)
    return write_part(val, recipe.folder / "val")


def validation_requests(table: pa.Table, recipe: Recipe) -> np.ndarray:
    """bool [N]: whether a row is of the requests that `val_key` chose, if it is of their days."""
    return keyed_uniform(recipe.seed, "validation", hash_ids(table["request_id"])) <= recipe.val_key


def _items(requests: pa.Table, inside: np.ndarray) -> int:
    return int(np.diff(offsets_of(requests["item_id"]))[inside].sum())


def write_part(table: pa.Table, folder: Path) -> dict[str, int]:
    """Writes request rows under a name made of their ids, so that a repeated task replaces its file: `{file: rows}`."""
    if not table.num_rows:
        return {}
    name = hashlib.sha256(np.sort(hash_ids(table["request_id"])).tobytes()).hexdigest()[:16]
    return {f"{folder.name}/{name}.parquet": write_tables([table], folder / f"{name}.parquet")}


def write_tables(tables: Iterable[pa.Table], path: Path) -> int:
    """Writes tables of request rows to one file, whole or not at all; returns its rows. There must be at least one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside, rows = path.with_name(f".{path.stem}.{os.getpid()}.partial"), 0
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": ["request_id"]}
    tables = iter(tables)
    first = next(tables)
    try:
        with pq.ParquetWriter(beside, first.schema, **options) as writer:
            for table in chain([first], tables):
                writer.write_table(table, row_group_size=ROW_GROUP)
                rows += table.num_rows
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return rows


def check_dropped(counts: dict, most: float) -> None:
    """Raises InputError where faults cost more than this share of the rows of a table."""
    read = {"fine_lists": counts["read"]["rows"], "impressions": counts["read"]["impressions"]}
    for table, reasons in FAULTS.items():
        faults = {reason: counts["dropped"][reason]["rows"] for reason in reasons if reason in counts["dropped"]}
        if sum(faults.values()) > most * read[table]:
            found = ", ".join(f"{reason} {n:,}" for reason, n in faults.items())
            raise InputError(
                f"{table}: {sum(faults.values()):,} of {read[table]:,} rows dropped for faults ({found}), more than "
                f"max_dropped {most:g}; correct the logs, or allow more"
            )


def sample_files(folder: Path, split: str) -> list[tuple[Path, int]]:
    """Files of `train` or `val` with their rows, as the manifest has them; raises InputError for unfinished samples."""
    manifest = read_manifest(folder, kind="samples")
    return [(Path(folder) / name, rows) for name, rows in sorted(manifest["rows"].items()) if name.startswith(f"{split}/")]


def iterate_samples(folder: Path, split: str, *, batch_size: int = ROW_GROUP) -> Iterator[pa.Table]:
    """Request rows of a split, at most `batch_size` a table."""
    for path, _ in sample_files(folder, split):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size):
                yield pa.Table.from_batches([batch])
