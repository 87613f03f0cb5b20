"""Tasks of Ray Data that are tried again: where storage fails, and where a node is lost."""

import pickle  # between tasks of one job alone: nothing on disk is read this way
import sys
import time
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import islice
from typing import ParamSpec, TypeVar

import pyarrow as pa
import ray
from ray.data import Dataset

from prerank.core.errors import InputError

WAITS_S = (1, 3, 9)
"""Before a task tries again what storage has failed to do."""

P = ParamSpec("P")
Result = TypeVar("Result")
Job = TypeVar("Job")


def retried(function: Callable[P, Result]) -> Callable[P, Result]:
    """`function`, called again after an OSError, a little later each time.

    Ray would call again within 0.3 s, and would count the nodes that are lost among the attempts.
    """

    def one(*args: P.args, **options: P.kwargs) -> Iterator[Result]:
        yield function(*args, **options)

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> Result:
        return next(resumed(one)(*args, **options))

    return call


def executed(rows: Dataset) -> list[pa.Table]:
    """The rows of a dataset, executed again where it fails and a node was lost meanwhile.

    Ray runs the tasks of a lost node again, but not those whose part of a shuffle lay in the node's files.
    """
    while True:
        nodes = _nodes()
        try:
            # To the type checker Ray has two classes ObjectRef, one for each of the two functions.
            return ray.get(rows.to_arrow_refs())  # pyright: ignore[reportCallIssue, reportArgumentType]
        except InputError:
            raise
        except Exception as error:
            if nodes <= _nodes():
                raise
            why = str(error).strip().partition("\n")[0]
            print(f"a node was lost, and with it what others had still to read: begun again ({why})", file=sys.stderr)


def _nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def resumed(function: Callable[P, Iterator[Result]]) -> Callable[P, Iterator[Result]]:
    """`retried` for what comes one by one, as often for each: begun again, what it told before is not told twice."""

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> Iterator[Result]:
        told, waits = 0, iter(WAITS_S)
        while True:
            try:
                for found in islice(function(*args, **options), told, None):
                    yield found
                    told, waits = told + 1, iter(WAITS_S)
                return
            except OSError:
                wait_s = next(waits, None)
                if wait_s is None:
                    raise
                time.sleep(wait_s)

    return call


def tasks(jobs: list[Job], function: Callable[[Job], pa.Table]) -> Dataset:
    """One task for each job, to which no other job is shipped."""

    def one(job: Job) -> Iterator[pa.Table]:
        yield function(job)

    return streams(jobs, one)


def streams(jobs: list[Job], function: Callable[[Job], Iterator[pa.Table]]) -> Dataset:
    """The same where a task makes several tables, one after the other, and the same ones in each run."""
    if not jobs:
        return ray.data.range(0)

    def run(batch: pa.Table) -> Iterator[pa.Table]:
        yield from function(pickle.loads(batch["job"][0].as_py()))

    shipped = ray.data.from_items([{"job": pickle.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
    return shipped.map_batches(resumed(run), batch_size=None, batch_format="pyarrow")
