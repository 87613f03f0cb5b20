"""Sums up in the driver what the parts of an evaluation say: the row of each model, what it was on, and by request."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
import pyarrow as pa

from prerank.core.counts import Number, count, merge
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.core.nested import flat_numpy, offsets_of
from prerank.evaluation.intervals import Row, curve_means, paired_interval, summary
from prerank.evaluation.metrics import LABELS, Candidates, pooled_aucs
from prerank.evaluation.plan import Plan
from prerank.logs.table import TableName


class Noted(TypedDict):
    dropped: dict[str, Number]
    noted: dict[str, Number]


class Counted(Noted):
    """Of a part of the logs; as JSON on its way to the driver."""

    tied_top: int
    one_score: dict[str, int]
    """By model the requests of two items at least that it gives one score."""
    several: int
    """Requests of two items at least."""


class Ties(TypedDict):
    """Requests in which scores say less than it seems."""

    teachers_top: int
    """A tie decides who is among the teacher's top M."""
    one_score: dict[str, int]
    """By model: it gives all items, two at least, one score; models without such a request are left out."""


class Facts(Noted):
    """What was evaluated on."""

    space: TableName
    test_from: str
    requests: int
    candidates: float
    """Of a request, their mean."""
    requests_at_most_k: int
    k: int
    m: int
    has_truth: bool
    """Whether the click probabilities of all candidates are known."""
    pooled: NotRequired[int]
    """Requests that `auc` is over, where it is not all of them."""
    ties: NotRequired[Ties]
    """Results of earlier versions do not say."""
    fusion: NotRequired[str]
    """By which the teacher ranked, where it was not by clicks alone."""


@dataclass(frozen=True)
class Evaluation:
    rows: dict[str, Row]
    """The summary of each student, and of `teacher`."""
    per_request: pa.Table
    """One row a request, columns `<model>.<metric>`: what paired comparisons need."""
    facts: Facts

    def against(self, name: str, base: str, metric: str) -> list[float | None]:
        """[difference, lo, hi] of a per-request metric, paired over the requests; None where no request defines it."""
        a, b = (self.per_request[f"{model}.{metric}"].to_numpy() for model in (name, base))
        return [None if np.isnan(x) else x for x in paired_interval(a, b)]


def summed(plan: Plan, parts: Sequence[pa.Table], *, seed: int = 0) -> Evaluation:
    """Of what `evaluate.score` says of each part, with 95% bootstrap intervals over the requests."""
    counts: Counted = {"dropped": {}, "noted": {}, "tied_top": 0, "one_score": {}, "several": 0}
    for said in (text for part in parts if part.num_rows for text in part["counts"].drop_null().to_pylist()):
        merge(counts, json.loads(said))
    parts = [part.drop_columns("counts") for part in parts if "request_id" in part.column_names and part.num_rows]
    if not parts:
        raise InputError(
            f"{plan.logs.folder}/{plan.table}: no request since {plan.test_from}, the first day of the test"
        )
    table = pa.concat_tables(parts)
    table = table.take(pa.array(np.argsort(hash_ids(table["request_id"]), kind="stable")))
    sizes, same = table["teacher.n"].to_numpy(), counts["one_score"]
    if counts["several"] and same["teacher"] == counts["several"]:
        raise InputError(
            f"{plan.teacher}: gives all items of each of the {len(sizes):,} requests of the test one score, so no "
            "student can be held against it; train the teacher on features that differ from item to item, or bring a "
            "fine_score that does"
        )
    pooled_R = np.diff(offsets_of(table["teacher.score"])) > 0
    gathered = table.filter(pa.array(pooled_R))
    candidates = Candidates.of(gathered)
    if plan.m:
        count(counts["noted"], "at_most_m", int(sizes[sizes <= plan.m].sum()), int((sizes <= plan.m).sum()))
    rows: dict[str, Row] = {}
    lists: set[str] = {*LABELS}
    for name in [*plan.students, "teacher"]:
        prefix = f"{name}."
        lists.add(f"{prefix}score")
        columns = {
            column.removeprefix(prefix): table[column].to_numpy()
            for column in table.column_names
            if column.startswith(prefix) and column not in lists
        }
        pooled = {
            of: (auc, _spread(influence_R, pooled_R))
            for of, (auc, influence_R) in pooled_aucs(candidates, flat_numpy(gathered[f"{name}.score"])).items()
        }
        rows[name] = summary(columns, k=plan.k, pooled=pooled, seed=seed) | {"curve": curve_means(columns)}
    facts: Facts = {
        "space": plan.table,
        "test_from": str(plan.test_from.astype("datetime64[D]")),
        "requests": len(sizes),
        "candidates": float(sizes.mean()),
        "requests_at_most_k": int((sizes <= plan.k).sum()),
        "k": plan.k,
        "m": plan.m or plan.k,
        "has_truth": "ctr" in rows["teacher"],
        "dropped": counts["dropped"],
        "noted": counts["noted"],
        "ties": {"teachers_top": counts["tied_top"], "one_score": {name: n for name, n in same.items() if n}},
    }
    if plan.fusion.heads:
        facts["fusion"] = plan.fusion.said()
    if not pooled_R.all():
        facts["pooled"] = int(pooled_R.sum())
    return Evaluation(rows, table.drop_columns(sorted(lists)), facts)


def _spread(values: np.ndarray, chosen_R: np.ndarray) -> np.ndarray:
    """float64 [R]: the values of the chosen ones, NaN of the others."""
    out = np.full(len(chosen_R), np.nan)
    out[chosen_R] = values
    return out
