"""Ray Data at the edge: parts of the logs that hold whole requests, and the build of samples from them."""

import dataclasses
import logging
import os
import pickle  # between tasks of one job alone: nothing on disk is read this way
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray._private import ray_constants
from ray.data import DataContext, Dataset

from prerank.core.counts import merge
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.logs.folder import DAY, Logs, RowGroup, TableName, Tile, cut, overlaps, read_groups, read_tile
from prerank.samples.build import Recipe, build_candidates, build_fine_lists, validation_requests

TILE_BYTES = 64 << 20
"""Rows of a task in memory, as Arrow; a task peaks at a few times that, whatever the size of the logs."""
STORE_BYTES = 1 << 30
"""Object store of a local cluster: only a shuffle's input passes through it."""

WAITS_S = (1, 3, 9)
"""Before a task tries again what storage has failed to do."""

Function = Callable[[pa.Table, pa.Table], pa.Table]
Wanted = Callable[[pa.Table], np.ndarray]
Call = TypeVar("Call", bound=Callable[..., Any])


def start_ray(cpus: int | None = None) -> None:
    """Joins the cluster of RAY_ADDRESS, or starts one on this machine; one that this process has joined is kept.

    `cpus`: of the one that it starts; by default all that there are.
    """
    # It says at every start that a token guards the cluster, which is as it should be.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    if not ray.is_initialized():
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False, logging_level="WARNING")
        else:
            # Ray listens on all of a machine's addresses unless it is told that no other can join.
            os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
            ray_constants.ENABLE_RAY_CLUSTER = False
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            ray.init(
                address="local",
                num_cpus=cpus or os.cpu_count(),
                object_store_memory=STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="WARNING",
            )
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's own gets lost in its waiting
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = DataContext.get_current()
    context.raise_original_map_exception = True  # an InputError of a task stays one
    # A keyed repartition in the object store takes memory with the size of the logs; in files it does not.
    context.use_disk_based_hash_shuffle = True
    context.shuffle_input_batch_bytes = TILE_BYTES  # by default a task gathers 1 GiB before it partitions


def retried(function: Call) -> Call:
    """`function`, called again after an OSError, a little later each time.

    Ray would call again within 0.3 s, and would count the nodes that are lost among the attempts.
    """

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        for wait_s in WAITS_S:
            try:
                return function(*args, **options)
            except OSError:
                time.sleep(wait_s)
        return function(*args, **options)

    return call


def executed(rows: Dataset) -> list[pa.Table]:
    """The rows of a dataset, executed again where it fails and a node was lost meanwhile.

    Ray runs the tasks of a lost node again, but not those whose part of a shuffle lay in the node's files.
    """
    while True:
        nodes = _nodes()
        try:
            return ray.get(rows.to_arrow_refs())
        except InputError:
            raise
        except Exception as error:
            if nodes <= _nodes():
                raise
            why = str(error).strip().partition("\n")[0]
            print(f"a node was lost, and with it what others had still to read: begun again ({why})", file=sys.stderr)


def _nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


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

    return _tasks([tile for tile in tiles if any(overlaps(group, since, until) for group in tile.groups)], build)


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
    groups = [(table, group) for group in rows.groups if overlaps(group, since, until)]
    groups += [("impressions", group) for group in shown.groups]
    both = pa.unify_schemas([rows.columns, shown.columns])
    rows_names, shown_names = rows.columns.names, shown.columns.names

    def read(named: tuple[TableName, RowGroup]) -> pa.Table:
        name, group = named
        found = _only(read_groups(few.tables[name], (group,)), wanted)
        columns = [found[f.name] if f.name in found.column_names else pa.nulls(len(found), f.type) for f in both]
        key = pa.array(hash_ids(found["request_id"]).view(np.int64))
        is_impression = pa.repeat(pa.scalar(name == "impressions"), len(found))
        return pa.table([*columns, key, is_impression], names=[*both.names, "key", "is_impression"])

    def build(batch: pa.Table) -> pa.Table:
        is_impression = batch["is_impression"]
        of_list, of_impressions = batch.filter(pc.invert(is_impression)), batch.filter(is_impression)
        return function(of_list.select(rows_names), of_impressions.select(shown_names))

    parts = blocks or -(-(rows.bytes + shown.bytes) // TILE_BYTES)
    parted = _tasks(groups, read).repartition(parts, keys=["key"])
    return parted.map_batches(retried(build), batch_size=None, batch_format="pyarrow")


def _tasks(jobs: list[Any], function: Callable[[Any], pa.Table]) -> Dataset:
    """One task for each job, to which no other job is shipped."""
    if not jobs:
        return ray.data.range(0)

    def run(batch: pa.Table) -> pa.Table:
        return function(pickle.loads(batch["job"][0].as_py()))

    shipped = ray.data.from_items([{"job": pickle.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
    return shipped.map_batches(retried(run), batch_size=None, batch_format="pyarrow")


def _only(rows: pa.Table, wanted: Wanted | None) -> pa.Table:
    return rows if wanted is None else rows.filter(pa.array(wanted(rows)))


def slim(logs: Logs) -> Logs:
    """Without files and row groups, which grow with the logs: every task gets a copy, and is shipped its own part."""
    tables = {name: dataclasses.replace(table, groups=(), files={}) for name, table in logs.tables.items()}
    return dataclasses.replace(logs, tables=tables)


def build_samples(logs: Logs, recipe: Recipe, *, blocks: int | None = None) -> dict[str, Any]:
    """Writes `train/` and `val/` of the recipe's folder from tasks; the counts and moments of all of them together."""
    total: dict[str, Any] = {"dropped": {}, "noted": {}, "files": {}}

    def run(table: TableName, part: Callable[[pa.Table, pa.Table, Recipe], dict], **limits: Any) -> None:
        def function(rows: pa.Table, impressions: pa.Table) -> pa.Table:
            return pa.table({"counts": [pickle.dumps(part(rows, impressions, recipe))]})

        for said in executed(whole_requests(logs, table, function, blocks=blocks, **limits)):
            for counts in said["counts"].to_pylist() if said.num_rows else ():
                merge(total, pickle.loads(counts))

    run("fine_lists", build_fine_lists)
    if recipe.val_table == "candidates":
        days = {"since": recipe.val_from, "until": recipe.test_from}
        run("candidates", build_candidates, wanted=partial(validation_requests, recipe=recipe), **days)
    return total
