"""Parts of the logs that hold whole requests, as tasks of Ray Data."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from ray.data import Dataset

from prerank.core.arrow import inverted
from prerank.core.cluster.settings import TILE_BYTES
from prerank.core.cluster.tasks import retried, tasks
from prerank.core.hashing import hash_ids
from prerank.logs.folder import DAY, Logs, overlaps, read_groups
from prerank.logs.table import RowGroup, TableName
from prerank.logs.tiles import Tile, cut, read_tile

Function = Callable[[pa.Table, pa.Table], pa.Table]
Wanted = Callable[[pa.Table], np.ndarray]

KEY, IS_IMPRESSION = "/key", "/is_impression"
"""Columns of a shuffle beside those of the logs, none of which begins with a slash."""


def whole_requests(
    logs: Logs,
    table: TableName,
    function: Function,
    *,
    blocks: int | None = None,
    wanted: Wanted | None = None,
    since: np.datetime64 | None = None,
    until: np.datetime64 | None = None,
) -> Dataset:
    """Calls `function(rows of the table, impressions)` once for every part of the logs; a part holds whole requests.

    Clustered logs are read part by part where they lie; others are shuffled by request first. `wanted` is a mask by
    request_id of the rows of either table. `since` and `until` skip parts without a row of since <= ts < until: what
    is left still holds rows outside. About `blocks` parts, or parts of `TILE_BYTES`. The rows of the dataset are those
    that `function` returns, which may be called again with a part where storage failed or a node was lost.
    """
    tiles = cut(logs, table, tiles=blocks, tile_bytes=TILE_BYTES)
    if tiles is None:
        return _shuffled(logs, table, function, blocks, wanted, since, until)
    few = slim(logs)

    def build(tile: Tile) -> pa.Table:
        return function(*(_only(rows, wanted) for rows in read_tile(few, table, tile)))

    return tasks([tile for tile in tiles if any(overlaps(group, since, until) for group in tile.groups)], build)


def _shuffled(
    logs: Logs,
    table: TableName,
    function: Function,
    blocks: int | None,
    wanted: Wanted | None,
    since: np.datetime64 | None,
    until: np.datetime64 | None,
) -> Dataset:
    rows, shown, few = logs.tables[table], logs.tables["impressions"], slim(logs)
    # A request near midnight may have rows on either side, so a day more is read.
    since, until = None if since is None else since - DAY, None if until is None else until + DAY
    jobs: list[tuple[TableName, RowGroup]] = []
    jobs.extend((table, group) for group in rows.groups if overlaps(group, since, until))
    jobs.extend(("impressions", group) for group in shown.groups)
    both = pa.unify_schemas([rows.columns, shown.columns])
    rows_names, shown_names = rows.columns.names, shown.columns.names

    def read(named: tuple[TableName, RowGroup]) -> pa.Table:
        name, group = named
        found = _only(read_groups(few.tables[name], (group,)), wanted)
        columns = [found[f.name] if f.name in found.column_names else pa.nulls(len(found), f.type) for f in both]
        key = pa.array(hash_ids(found["request_id"]).view(np.int64))
        is_impression = pa.repeat(pa.scalar(name == "impressions"), len(found))
        return pa.table([*columns, key, is_impression], names=[*both.names, KEY, IS_IMPRESSION])

    def build(batch: pa.Table) -> pa.Table:
        is_impression = batch[IS_IMPRESSION]
        lists, impressions = batch.filter(inverted(is_impression)), batch.filter(is_impression)
        return function(lists.select(rows_names), impressions.select(shown_names))

    parts = blocks or -(-(rows.bytes + shown.bytes) // TILE_BYTES)
    parted = tasks(jobs, read).repartition(parts, keys=[KEY])
    return parted.map_batches(retried(build), batch_size=None, batch_format="pyarrow")


def _only(rows: pa.Table, wanted: Wanted | None) -> pa.Table:
    return rows if wanted is None else rows.filter(pa.array(wanted(rows)))


def slim(logs: Logs) -> Logs:
    """Without files and row groups, which grow with the logs: every task gets a copy, and is shipped its own part."""
    tables = {name: dataclasses.replace(table, groups=(), files={}) for name, table in logs.tables.items()}
    return dataclasses.replace(logs, tables=tables)
