"""What an evaluation needs, looked up before anything is trained for it: in footers, schema and manifests.

What only rows can tell is looked up as soon as there are samples.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from prerank.core.arrow import between
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.core.nested import flat_numpy, nest, offsets_of
from prerank.core.storage import parquet
from prerank.evaluation.truth import check_truth, has_truth, truth_of
from prerank.logs.folder import Logs, overlaps, read_groups
from prerank.logs.table import RowGroup, TableName
from prerank.samples.files import files_of

LOGGED = "logged"
"""In place of a teacher's folder: the logs' own `fine_score`."""
MOST_COUNTED = 5_000_000
"""Rows whose request ids are read to know the longest list beforehand; of more it is known when samples are built."""
ROUNDED = 1e-6
"""So far apart, relatively, are a network's scores of items that are alike in all it reads: single precision rounds by
an item's place in the batch."""
TABLES: tuple[TableName, ...] = ("candidates", "fine_lists")


def space_of(logs: Logs, test_from: np.datetime64, *, logged: bool = False) -> TableName:
    """The table to evaluate on: candidates, or fine_lists where the logs have none of the test days or the teacher is
    `logged`. Raises InputError where neither has a row of these days, by the footers, or truth/ does not fit."""
    for name in TABLES[1:] if logged else TABLES:
        if name in logs.tables and any(overlaps(group, test_from, None) for group in logs.tables[name].groups):
            if name == "candidates" and has_truth(logs):
                check_truth(logs)
            return name
    raise InputError(
        f"{logs.folder}: no request since {test_from.astype('datetime64[m]')}, the first day of the test, in the logs "
        f"of {logs.days[0]} to {logs.days[1]}; bring logs of these days"
    )


def check_truth_of(logs: Logs, test_from: np.datetime64) -> None:
    """Raises InputError where truth/ does not have a probability of each candidate of the test days.

    Of more than `MOST_COUNTED` rows that is known when they are evaluated.
    """
    groups = _of_days(logs, "candidates", test_from, None) if has_truth(logs) else []
    if not groups or sum(group.rows for group in groups) > MOST_COUNTED:
        return
    rows = read_groups(logs.tables["candidates"], tuple(groups), ["request_id", "item_id", "ts"])
    rows = rows.filter(between(rows["ts"], test_from, None)).drop_columns("ts").drop_null()
    if rows.num_rows:
        one_each = nest(rows["item_id"].combine_chunks(), np.arange(rows.num_rows + 1))
        truth_of(pa.table({"request_id": rows["request_id"], "item_id": one_each}), logs.folder / "truth")


def check_lists(
    logs: Logs,
    since: np.datetime64,
    until: np.datetime64 | None,
    *,
    k: int,
    m: int | None,
    days: str = "validation",
    tables: Sequence[TableName] = TABLES,
) -> None:
    """Raises InputError where no list of these days can have more than k items, of which any student keeps all, or
    more than m, which are then all the teacher's top."""
    groups: list[tuple[TableName, list[RowGroup]]]
    groups = [(name, _of_days(logs, name, since, until)) for name in tables if logs.tables.get(name)]
    if sum(group.rows for _, of_table in groups for group in of_table) > MOST_COUNTED:
        return
    longest = max(_longest(logs, name, of_table) for name, of_table in groups)
    said = f"{logs.folder}: requests of the {days} days have {longest} candidates at most, all of which"
    if 0 < longest <= k:
        raise InputError(f"{said} any student keeps at --k {k}; lower --k, or bring candidates/")
    if m and 0 < longest <= m:
        raise InputError(f"{said} are the teacher's top at --m {m}, so that every student keeps as many; lower --m")


def _of_days(logs: Logs, name: TableName, since: np.datetime64, until: np.datetime64 | None) -> list[RowGroup]:
    return [group for group in logs.tables[name].groups if overlaps(group, since, until)]


def _longest(logs: Logs, name: TableName, groups: Iterable[RowGroup]) -> int:
    """Of the lists that have a row in these row groups: no list is longer than what is found."""
    table = logs.tables[name]
    parts = [hash_ids(read_groups(table, (group,), ["request_id"])["request_id"]) for group in groups]
    counts = np.unique(np.concatenate([np.empty(0, np.uint64), *parts]), return_counts=True)[1]
    return int(counts.max(initial=0))


def check_clicks(samples: Path) -> None:
    """Raises InputError where no validation request has a clicked and another item: nothing could judge a teacher."""
    for path in files_of(samples, "val"):
        clicked = parquet(path).read(columns=["clicked"])["clicked"]
        clicks_R = np.diff(np.concatenate([[0], np.cumsum(flat_numpy(clicked), dtype=int)])[offsets_of(clicked)])
        if ((clicks_R > 0) & (clicks_R < np.diff(offsets_of(clicked)))).any():
            return
    raise InputError(
        f"{samples}: no validation request has a click among its items, which the best epoch of the teacher is chosen "
        "by; build with more validation days or requests (split.val_days, val_requests), or check clicked and the ids "
        "in impressions/"
    )


def check_told_apart(samples: Path, teacher: Path) -> str:
    """What to warn of where the teacher gives all items of most validation requests one score; empty where it does not.

    samples: those that it taught. Raises InputError where it does so in all of them: there is nothing to learn from it.
    """
    same, requests = 0, 0
    for path in files_of(samples, "val"):
        scores = parquet(path).read(columns=["teacher_score"])["teacher_score"]
        alike, several = one_score(flat_numpy(scores), offsets_of(scores), within=ROUNDED)
        same, requests = same + alike, requests + several
    said = f"{teacher}: gives all items of {same:,} of {requests:,} validation requests one score"
    cure = "train it on features that differ from item to item"
    if requests and same == requests:
        raise InputError(f"{said}, so no student can be held against it; {cure}")
    return f"WARNING: {said}: there ties decide its top; {cure}" if 2 * same > requests else ""


def one_score(score_N: np.ndarray, offsets: np.ndarray, *, within: float = 0.0) -> tuple[int, int]:
    """Requests of two items and more that have one score, and all of two items and more; no request is empty.

    within: scores that differ by no more than this share of the highest are one.
    """
    if len(offsets) < 2:
        return 0, 0
    least_R, most_R = (of.reduceat(score_N, offsets[:-1]) for of in (np.minimum, np.maximum))
    same_R = np.isclose(least_R, most_R, rtol=within, atol=0.0)
    several_R = np.diff(offsets) > 1
    return int(np.count_nonzero(same_R & several_R)), int(np.count_nonzero(several_R))
