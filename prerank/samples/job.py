"""Ray Data at the edge: parts of the logs that hold whole requests, and the build of samples from them."""

import pickle  # between tasks of one job alone: nothing on disk is read this way
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from prerank.core.cluster.tasks import executed, tasks
from prerank.core.counts import merge
from prerank.core.storage import parquet
from prerank.logs.folder import Logs
from prerank.logs.outliers import Limits, Within, absurd, within
from prerank.logs.parts import Wanted, whole_requests
from prerank.logs.schema import Schema
from prerank.logs.table import TableName
from prerank.samples.build import Part, Recipe, build_candidates, build_fine_lists, validation_requests

Made = TypeVar("Made")
Build = Callable[[pa.Table, pa.Table, Recipe], Made]


def build_samples(logs: Logs, recipe: Recipe, *, blocks: int | None = None) -> Part:
    """Writes `train/` and `val/` of the recipe's folder from tasks; what came of all of them together."""
    of_fine_lists = _parts(logs, "fine_lists", build_fine_lists, recipe, blocks)
    total = next(of_fine_lists)
    for part in of_fine_lists:
        merge(vars(total), vars(part))
    if recipe.val_table == "candidates":
        wanted = partial(validation_requests, recipe=recipe)
        days = recipe.val_from, recipe.test_from
        for part in _parts(logs, "candidates", build_candidates, recipe, blocks, wanted, *days):
            merge(vars(total), part)
    limits = absurd(total.moments, total.sample)
    for part in _within(recipe, total.files, limits) if limits else ():
        merge(vars(total), {"inside": part.moments, "counts": {"features": {"far": part.far}}})
    return total


def _within(recipe: Recipe, files: dict[str, int], limits: dict[str, Limits]) -> Iterator[Within]:
    """What lies within the limits, from those columns of the training files that were written."""
    schema = Schema(recipe.schema.select(tuple(limits), where="limits"), {})

    def read(name: str) -> pa.Table:
        with parquet(recipe.folder / name) as file:
            return pa.table({"made": [pickle.dumps(within(file.read(columns=list(limits)), schema, limits))]})

    yield from _made(executed(tasks([name for name in files if name.startswith("train/")], read)))


def _parts(
    logs: Logs,
    table: TableName,
    build: Build[Made],
    recipe: Recipe,
    blocks: int | None,
    wanted: Wanted | None = None,
    since: np.datetime64 | None = None,
    until: np.datetime64 | None = None,
) -> Iterator[Made]:
    """What `build` returns of each part of the logs; the limits are those of `whole_requests`."""

    def function(rows: pa.Table, impressions: pa.Table) -> pa.Table:
        return pa.table({"made": [pickle.dumps(build(rows, impressions, recipe))]})

    dataset = whole_requests(logs, table, function, blocks=blocks, wanted=wanted, since=since, until=until)
    yield from _made(executed(dataset))


def _made(parts: Iterable[pa.Table]) -> Iterator[Any]:
    for said in parts:
        for made in said["made"].to_pylist() if said.num_rows else ():
            yield pickle.loads(made)
