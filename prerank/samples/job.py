"""Ray Data at the edge: parts of the logs that hold whole requests, and the build of samples from them."""

import pickle  # between tasks of one job alone: nothing on disk is read this way
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa

from prerank.core.cluster.tasks import executed
from prerank.core.counts import merge
from prerank.logs.folder import Logs, TableName
from prerank.logs.parts import whole_requests
from prerank.samples.build import Recipe, build_candidates, build_fine_lists, validation_requests


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
