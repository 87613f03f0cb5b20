"""An allocation on the logs: its policy fitted on their validation days, and what that is worth on the test days.

A part of the logs gives some hundred numbers a request; scores do not leave it.
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TypedDict

import numpy as np
import pyarrow as pa

from prerank.core.cluster.tasks import executed
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids, keyed_uniform
from prerank.core.nested import flat, offsets_of, segment_of
from prerank.core.outputs import fingerprint
from prerank.evaluation import allocation
from prerank.evaluation.actions import Curves, Grid, curves, keeps_around
from prerank.evaluation.allocation import FOLDS, Chosen, Costs, Policy, Spent, Value, chosen
from prerank.evaluation.evaluate import scored, share_of, tested
from prerank.evaluation.intervals import paired_interval
from prerank.evaluation.plan import Plan
from prerank.evaluation.truth import has_truth
from prerank.logs.parts import slim, whole_requests
from prerank.logs.schema import Schema
from prerank.models.checkpoint import load_model

BUDGETS = (0.25, 0.5, 1.0, 2.0)
"""Constant numbers kept that an allocation is held against, times k."""
FEWEST = 50
"""Validation requests to fit a policy on."""


@dataclass(frozen=True)
class Question:
    """What is allocated, and what for."""

    plan: Plan
    shares: tuple[float, ...]
    costs: Costs
    value: Value
    order: str
    """A feature by whose falling values candidates arrive; empty: in no order, by a hash of request and item."""
    seed: int = 0

    @property
    def grid(self) -> Grid:
        return Grid(self.shares, keeps_around(self.plan.k))

    @property
    def val_from(self) -> np.datetime64:
        return np.datetime64(load_model(self.plan.models["student"][0], kind="student").manifest["split"]["val_from"])

    @property
    def key(self) -> str:
        asked = [self.shares, self.costs.score, self.value, self.order, self.seed]
        return fingerprint([self.plan.key, str(self.val_from), asked, "allocation"])


class Allotted(TypedDict):
    """One total budget, spent in three ways; values on the test days, differences [difference, lo, hi]."""

    k: int
    """The same for all: what the budget is."""
    cost: float
    """Of a request, of the policy and of the constant that it is held against."""
    fitted: bool
    why: str
    """Why k is the same for all, where it is."""
    held_out: dict[str, list[float]]
    """By share scored what a fitted policy gained on validation requests held out from it."""
    share: float
    kept: list[float]
    """The 5th percentile, the mean and the 95th."""
    constant: float
    policy: float
    difference: list[float]
    same_share: list[float]
    """Over one k for all where as many are scored as the policy scores."""
    oracle: float
    oracle_difference: list[float]


class Found(TypedDict):
    value: Value
    costs: dict[str, float]
    order: str
    shares: list[float]
    requests: dict[str, int]
    """Of validation and test."""
    k: int
    test_from: str
    rows: list[Allotted]
    key: str


def check_order(schema: Schema, order: str) -> None:
    """Raises InputError where candidates cannot arrive by that feature."""
    fits = [f.name for f in schema.features if f.kind == "dense" and f.size == 1 and not f.of_request]
    if order and order not in fits:
        raise InputError(
            f"--order {order}: expected a single number of the item or cross side, of which schema.json has "
            f"{', '.join(fits) or 'none'}"
        )


def value_for(plan: Plan, asked: str) -> Value:
    """What is to be maximised; raises InputError where the logs do not tell it."""
    true = plan.table == "candidates" and has_truth(plan.logs)
    if asked == "ctr" and not true:
        raise InputError(
            f"{plan.logs.folder}: no truth/ with a click_probability of each candidate, which --value ctr takes; give "
            "--value teacher or clicked"
        )
    names: dict[str, Value] = {"ctr": "ctr", "teacher": "teacher", "clicked": "clicked"}
    return names.get(asked) or ("ctr" if true else "teacher")


def allocate(question: Question, *, blocks: int | None = None) -> tuple[Found, Policy]:
    """Runs on the cluster; the policy is that of `plan.k`. Raises InputError where there are no requests to fit or to
    check it on."""
    plan, grid = question.plan, question.grid
    since = question.val_from
    task = partial(part_of, question=replace(question, plan=replace(plan, logs=slim(plan.logs))), since=since)
    task = partial(task, at_most=share_of(plan, plan.test_from))  # of both sides
    parts = executed(whole_requests(plan.logs, plan.table, task, blocks=blocks, since=since))
    parts = [part for part in parts if "request_id" in part.column_names and part.num_rows]
    table = pa.concat_tables(parts) if parts else pa.table({"ts": pa.array([], pa.timestamp("us"))})
    late_R = table["ts"].to_numpy() >= plan.test_from
    for name, there in (("validation", (~late_R).any()), ("test", late_R.any())):
        if not there:
            raise InputError(
                f"{plan.logs.folder}/{plan.table}: no request of the {name} days (validation from {since}, test from "
                f"{plan.test_from}), which a policy is {'fitted' if name == 'validation' else 'checked'} on"
            )
    order = np.argsort(hash_ids(table["request_id"]), kind="stable")
    table, late_R = table.take(pa.array(order)), late_R[order]
    every = Curves.of(table, grid)
    fold_R = (keyed_uniform(question.seed, "fold", hash_ids(table["request_id"])) * FOLDS).astype(int)
    val, test = every.only(~late_R), every.only(late_R)
    ks = [k for k in (round(times * plan.k) for times in BUDGETS) if grid.keeps[0] <= k]
    rows, policies = zip(*(_allotted(question, k, val, fold_R[~late_R], test) for k in ks), strict=True)
    found: Found = {
        "value": question.value,
        "costs": asdict(question.costs),
        "order": question.order,
        "shares": list(question.shares),
        "requests": {"validation": len(val.n), "test": len(test.n)},
        "k": plan.k,
        "test_from": str(plan.test_from.astype("datetime64[D]")),
        "rows": list(rows),
        "key": question.key,
    }
    return found, policies[ks.index(plan.k)]


def part_of(rows: pa.Table, shown: pa.Table, question: Question, since: np.datetime64, at_most: float) -> pa.Table:
    """The curves of the requests of a part of the logs, one row a request, with its id and `ts`."""
    table, _ = tested(rows, shown, question.plan, since, at_most)
    if not table.num_rows:
        return pa.table({"ts": pa.array([], pa.timestamp("us"))})
    candidates, scores, _ = scored(table, question.plan)
    arrival_N = arrivals(table, question.order, question.seed)
    out = curves(candidates, scores["student"], scores["teacher"], arrival_N, question.grid).table()
    return out.append_column("request_id", table["request_id"]).append_column("ts", table["ts"])


def arrivals(table: pa.Table, order: str, seed: int) -> np.ndarray:
    """float64 [N]: candidates are scored by falling value; those without one last."""
    if order:
        values = flat(table[order])
        values = values.flatten() if pa.types.is_nested(values.type) else values
        return np.nan_to_num(values.to_numpy(zero_copy_only=False).astype(float), nan=-np.inf)
    request_N = hash_ids(table["request_id"])[segment_of(offsets_of(table["item_id"]))]
    return keyed_uniform(seed, "arrival", request_N, hash_ids(flat(table["item_id"])))


def _allotted(question: Question, k: int, val: Curves, fold_R: np.ndarray, test: Curves) -> tuple[Allotted, Policy]:
    grid, costs, seed = question.grid, question.costs, question.seed
    value_RSA = allocation.value_of(test, question.value)
    decided = _decided(question, k, val, fold_R)
    spent = allocation.applied(decided.policy, test, grid, costs, value_RSA)
    cost = float(spent.cost.mean())
    base = allocation.constant_at(test, grid, cost, costs, value_RSA)
    alike = allocation.constant(
        test, grid, grid.shares.index(decided.policy.share), float(spent.kept.mean()), costs, value_RSA
    )
    best = allocation.oracle(test, grid, cost, costs, value_RSA)

    def over(other: Spent, value: Spent) -> list[float]:
        return [*paired_interval(value.value, other.value, seed=seed)]

    row: Allotted = {
        "k": k,
        "cost": cost,
        "fitted": decided.fitted,
        "why": decided.why,
        "held_out": {f"{share:g}": gained for share, gained in decided.tried.items()},
        "share": decided.policy.share,
        "kept": [
            float(x) for x in (*np.percentile(spent.kept, [5]), spent.kept.mean(), *np.percentile(spent.kept, [95]))
        ],
        "constant": float(base.value.mean()),
        "policy": float(spent.value.mean()),
        "difference": over(base, spent),
        "same_share": over(alike, spent),
        "oracle": float(best.value.mean()),
        "oracle_difference": over(base, best),
    }
    return row, decided.policy


def _decided(question: Question, k: int, val: Curves, fold_R: np.ndarray) -> Chosen:
    if len(val.n) < FEWEST:
        why = f"{len(val.n)} validation requests are too few to fit a policy on"
        return Chosen(Policy(1.0, (k,), None, 0.0), False, {}, why)
    return chosen(val, question.grid, k, question.costs, question.value, fold_R, seed=question.seed)


def policy_file(policy: Policy, question: Question) -> dict[str, object]:
    """What a server needs, in JSON: `prerank.evaluation.allocation.kept` is what it computes with it."""
    return {
        "kind": "allocation",
        "student": {
            "folder": str(question.plan.models["student"][0]),
            "fingerprint": question.plan.models["student"][1],
        },
        "score": {"share": policy.share, "first_by": question.order or None},
        "reads": ["the student's scores of the request, from the highest"] if policy.step else [],
        "keeps": list(policy.keeps),
        "gap_from_place": question.grid.tenth,
        "step": policy.step,
        "multiplier": policy.multiplier,
        "say": (
            "Score the first `share` of the candidates. Go from each of `keeps` to the next, k, while "
            "sigmoid(intercept + log_place * ln(k) + gap * (score at gap_from_place - score at k)) > multiplier; "
            "keep so many, at most all. Without a step: keep the first of `keeps`."
        ),
    }
