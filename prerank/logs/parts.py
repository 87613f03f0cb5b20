"""Parts of the logs that hold whole requests, as tasks of Ray Data."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset

from prerank.core.arrow import inverted
from prerank.core.cluster.settings import TILE_BYTES
from prerank.core.cluster.tasks import retried, streams, tasks
from prerank.core.hashing import hash_ids
from prerank.logs.folder import DAY, Logs, group_batches, overlaps
from prerank.logs.table import RowGroup, TableName
from prerank.logs.tiles import Tile, cut, read_tile

Function = Callable[[pa.Table, pa.Table], pa.Table]
Wanted = Callable[[pa.Table], np.ndarray]

KEY, IS_IMPRESSION = "/key", "/is_impression"
"""Columns of a shuffle beside those of the logs, none of which begins with a slash."""
HELD = 6
"""Times its rows: a task holds three times them while it makes something of them, and leaves as much free."""
A_CPU = 2 << 30
"""Bytes, where no node with a CPU is up yet that would say its own."""


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

    Clustered logs are read part by part where they lie; others are shuffled by request first, and so are those with
    row groups that a task has no room for, which is said. `wanted` is a mask by request_id of the rows of either table.
    `since` and `until` skip parts without a row of since <= ts < until: what is left still holds rows outside. About
    `blocks` parts, or parts of `TILE_BYTES`. The rows of the dataset are those that `function` returns, which may be
    called again with a part where storage failed or a node was lost.
    """
    tiles = cut(logs, table, tiles=blocks, tile_bytes=TILE_BYTES)
    if tiles is None:
        return _shuffled(logs, table, function, blocks, wanted, since, until)
    tiles = [tile for tile in tiles if any(overlaps(group, since, until) for group in tile.groups)]
    asked = logs.tables[table].bytes / blocks if blocks else TILE_BYTES
    most = max(2 * asked, room_of_a_task())
    largest = max(tiles, key=lambda tile: tile.bytes, default=None)
    if largest and largest.bytes > most:
        group = max(largest.groups, key=lambda group: group.bytes)
        print(
            f"note: {group.file}: row group {group.index}, {group.rows:,} rows, is {largest.bytes >> 20:,} MiB in "
            f"memory with what is read beside it; a task has room for {int(most) >> 20:,}: all rows are shuffled by "
            "request, which takes longer; smaller row groups would be read where they lie"
        )
        return _shuffled(logs, table, function, blocks, wanted, since, until)
    few = slim(logs)

    def build(tile: Tile) -> pa.Table:
        return function(*(_only(rows, wanted) for rows in read_tile(few, table, tile)))

    return tasks(tiles, build)


def _shuffled(
    logs: Logs,
    table: TableName,
    function: Function,
    blocks: int | None,
    wanted: Wanted | None,
    since: np.datetime64 | None,
    until: np.datetime64 | None,
) -> Dataset:
    lists, shown, few = logs.tables[table], logs.tables["impressions"], slim(logs)
    # A request near midnight may have rows on either side, so a day more is read.
    since, until = None if since is None else since - DAY, None if until is None else until + DAY
    jobs: list[tuple[TableName, RowGroup]] = []
    jobs.extend((table, group) for group in lists.groups if overlaps(group, since, until))
    jobs.extend(("impressions", group) for group in shown.groups)
    both = pa.unify_schemas([lists.columns, shown.columns])
    list_names, shown_names = lists.columns.names, shown.columns.names
    row_bytes = sum(of.bytes / max(1, of.rows) for of in (lists, shown))  # of both tables, as a shuffle has them
    batch_rows = max(1, int(TILE_BYTES / row_bytes))

    def read(named: tuple[TableName, RowGroup]) -> Iterator[pa.Table]:
        name, group = named
        for batch in group_batches(few.tables[name], group, batch_rows):
            rows = _only(batch, wanted)
            columns = [rows[f.name] if f.name in rows.column_names else pa.nulls(len(rows), f.type) for f in both]
            key = pa.array(hash_ids(rows["request_id"]).view(np.int64))
            is_impression = pa.repeat(pa.scalar(name == "impressions"), len(rows))
            yield pa.table([*columns, key, is_impression], names=[*both.names, KEY, IS_IMPRESSION])

    def build(batch: pa.Table) -> pa.Table:
        is_impression = batch[IS_IMPRESSION]
        rows, impressions = batch.filter(inverted(is_impression)), batch.filter(is_impression)
        return function(rows.select(list_names), impressions.select(shown_names))

    parts = blocks or -(-(lists.rows + shown.rows) // batch_rows)
    parted = streams(jobs, read).repartition(parts, keys=[KEY])
    return parted.map_batches(retried(build), batch_size=None, batch_format="pyarrow")


def room_of_a_task() -> float:
    """Bytes of rows that a task can hold beside those of all other CPUs of its node, by the node that has least."""
    of_nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    a_cpu = [of["memory"] / of["CPU"] for of in of_nodes if of.get("CPU") and "memory" in of]
    return min(a_cpu, default=A_CPU) / HELD


def _only(rows: pa.Table, wanted: Wanted | None) -> pa.Table:
    return rows if wanted is None else rows.filter(pa.array(wanted(rows)))


def slim(logs: Logs) -> Logs:
    """Without files and row groups, which grow with the logs: every task gets a copy, and is shipped its own part."""
    tables = {name: dataclasses.replace(table, groups=(), files={}) for name, table in logs.tables.items()}
    return dataclasses.replace(logs, tables=tables)
