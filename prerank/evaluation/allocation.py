"""How many candidates to keep for each request under one total budget (DCAF, arXiv 2006.09684): more, while what they
are expected to bring is worth their price.

The knapsack max Σ gain_r(k_r) with Σ cost_r(k_r) <= budget is solved by its multiplier λ: where gains fall with k, each
request keeps up to where one candidate more brings less than λ times its cost. What it brings, the chance that it is
one of the wanted, is told from its place k among the student's scores and how far its score is below the tenth:

    p = σ(intercept + place · log k + gap · (s_10 - s_k))

fitted on validation requests, and λ is the least at which these cost no more than the budget. R requests, S shares
scored, A numbers kept, as in `prerank.evaluation.actions`.
"""

from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np

from prerank.evaluation.actions import Curves, Grid
from prerank.evaluation.intervals import paired_interval, ratio
from prerank.evaluation.ranking import DEPTH

Value = Literal["ctr", "teacher", "clicked"]
FOLDS = 5
SURE = 0.9
"""Where less than the lower end of this interval of what it gained on requests that it was not fitted on is above 0, a
policy is not used: one in twenty that gain nothing is."""
SETTLED = 1e-9
"""Of the log likelihood, relatively: less is no step."""


@dataclass(frozen=True)
class Costs:
    """In units of what it costs to fine-rank a candidate."""

    score: float
    """To score a candidate with the student."""

    def of(self, scored_R: np.ndarray, kept_R: np.ndarray) -> np.ndarray:
        return self.score * scored_R + kept_R


class Step(TypedDict):
    """The chance that a candidate is wanted."""

    intercept: float
    log_place: float
    gap: float


@dataclass(frozen=True)
class Policy:
    """What a server does with a request."""

    share: float
    """Of its candidates, scored: the first that arrive."""
    keeps: tuple[int, ...]
    """Numbers to keep, rising."""
    step: Step | None
    """None: keep the first of `keeps`."""
    multiplier: float
    """λ: a candidate more is kept where its chance is above it."""


def kept(policy: Policy, descending: np.ndarray) -> int:
    """How many of these scores [N] to keep, from the highest: what a server computes.

    >>> step: Step = {"intercept": 0.0, "log_place": 0.0, "gap": -1.0}
    >>> policy = Policy(1.0, (2, 3, 4), step, 0.3)  # kept while the gap to the second is below log(7/3) = 0.85
    >>> kept(policy, np.array([9.0, 5.0, 4.5, 3.0, 2.0]))
    3
    """
    at = np.minimum(np.array(policy.keeps), len(descending))
    gap = descending[min(DEPTH, policy.keeps[0], len(descending)) - 1] - descending[at - 1]
    return int(at[steps_of(policy, at[None], gap[None])[0]])


def steps_of(policy: Policy, at_RA: np.ndarray, gap_RA: np.ndarray) -> np.ndarray:
    """int64 [R]: which of the numbers to keep."""
    if policy.step is None:
        return np.zeros(len(at_RA), np.int64)
    return (_falling(chance(policy.step, at_RA, gap_RA)) > policy.multiplier).sum(1)


def chance(step: Step, at_RA: np.ndarray, gap_RA: np.ndarray) -> np.ndarray:
    """float64 [R, A]: that the candidate at this place is wanted."""
    logit_RA = step["intercept"] + step["log_place"] * np.log(np.maximum(at_RA, 1)) + step["gap"] * gap_RA
    return 1 / (1 + np.exp(-np.clip(logit_RA, -500, 500)))


def _falling(p_RA: np.ndarray) -> np.ndarray:
    """Of each step from one number to the next, [R, A-1]; no step is worth more than one before it."""
    return np.minimum.accumulate(p_RA[:, 1:], axis=1)


def fit_step(at_RA: np.ndarray, gap_RA: np.ndarray, wanted_RA: np.ndarray) -> Step | None:
    """By maximum likelihood of how many of the candidates of each step are wanted; None where none or all are.

    What would make a lower place or score the likelier one is left out: it is noise, and no chance may rise with k.
    at_RA: numbers kept; wanted_RA: how many of these are wanted.
    """
    count, hits = np.diff(at_RA, axis=1).ravel(), np.diff(wanted_RA, axis=1).ravel()
    here = count > 0
    count, hits = count[here], np.clip(hits[here], 0, count[here])
    if not hits.sum() or hits.sum() >= count.sum():
        return None
    features = np.stack([np.log(at_RA[:, 1:].ravel()[here]), gap_RA[:, 1:].ravel()[here]], 1)
    tells = features.std(0) > 1e-12
    while True:
        w = _logistic(features[:, tells], hits, count)
        slopes = np.zeros(2)
        slopes[tells] = w[1:]
        if not (slopes > 0).any():
            return {"intercept": float(w[0]), "log_place": float(slopes[0]), "gap": float(slopes[1])}
        tells &= slopes <= 0


def _logistic(features: np.ndarray, hits: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Intercept and slopes by Newton's method with halved steps, a standard normal prior on each standardised slope."""
    mean, spread = features.mean(0), features.std(0)
    x = np.concatenate([np.ones((len(count), 1)), (features - mean) / spread], axis=1)
    w = np.zeros(x.shape[1])
    w[0] = np.log(hits.sum() / (count.sum() - hits.sum()))
    prior = np.diag((np.arange(len(w)) > 0).astype(float))

    def likelihood(w: np.ndarray) -> float:
        logit = x @ w
        return float((hits * logit - count * np.logaddexp(0, logit)).sum() - w @ prior @ w / 2)

    now = likelihood(w)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -500, 500)))
        slope = x.T @ (hits - count * p) - prior @ w
        step = np.linalg.solve((x * (count * p * (1 - p))[:, None]).T @ x + prior + 1e-9 * np.eye(len(w)), slope)
        while (then := likelihood(w + step)) < now and np.abs(step).max() > 1e-12:
            step /= 2
        w, gained, now = w + step, then - now, then
        if gained <= SETTLED * abs(now):
            break
    slopes = w[1:] / spread
    return np.concatenate([[w[0] - (slopes * mean).sum()], slopes])


def fit(curves: Curves, grid: Grid, s: int, budget: float, costs: Costs, wanted: Value) -> Policy | None:
    """The policy that scores the share of that number and costs no more than `budget` a request, on these; None where
    even the least costs more, or where nothing tells the wanted."""
    at_RA, gap_RA = grid.kept(curves.n)[:, s], curves.gap[:, s]
    step = fit_step(at_RA, gap_RA, (curves.clicked if wanted == "clicked" else curves.teacher)[:, s])
    fixed = costs.of(grid.scored(curves.n)[:, s], 0.0 * curves.n).mean()
    if step is None or fixed + at_RA[:, 0].mean() > budget:
        return None
    worth_RA, each_RA = _falling(chance(step, at_RA, gap_RA)), np.diff(at_RA, axis=1)
    worth, each = worth_RA.ravel(), each_RA.ravel()
    order = np.argsort(-worth, kind="stable")
    spent = fixed + at_RA[:, 0].mean() + np.cumsum(each[order]) / len(at_RA)
    over = np.flatnonzero(spent > budget)
    # A step is taken where it is worth more than λ: the first that is too many sets it.
    multiplier = float(worth[order[over[0]]]) if len(over) else 0.0
    return Policy(grid.shares[s], grid.keeps, step, multiplier)


def value_of(curves: Curves, value: Value) -> np.ndarray:
    """float64 [R, S, A]: of what is shown the mean click probability; the share of the teacher's ten kept; of the
    clicked ones those kept, over the mean clicks of a request. NaN where a request does not define it."""
    if value == "ctr":
        return curves.ctr
    if value == "teacher":
        return curves.teacher / np.minimum(DEPTH, curves.n)[:, None, None]
    return curves.clicked / max(curves.clicks.mean(), 1e-12)


@dataclass(frozen=True)
class Spent:
    """What a way to allocate came to, each [R]."""

    kept: np.ndarray
    cost: np.ndarray
    value: np.ndarray


def applied(policy: Policy, curves: Curves, grid: Grid, costs: Costs, value_RSA: np.ndarray) -> Spent:
    s = grid.shares.index(policy.share)
    at_RA = grid.kept(curves.n)[:, s]
    if policy.step is None:
        return constant(curves, grid, s, float(policy.keeps[0]), costs, value_RSA)
    row, action_R = np.arange(len(curves.n)), steps_of(policy, at_RA, curves.gap[:, s])
    kept_R = at_RA[row, action_R]
    return Spent(kept_R, costs.of(grid.scored(curves.n)[:, s], kept_R), value_RSA[row, s, action_R])


def constant(curves: Curves, grid: Grid, s: int, k: float, costs: Costs, value_RSA: np.ndarray) -> Spent:
    """The same k for all; between two numbers of the grid the value is read from a line over log k, along which it
    hardly bends (over k it does, and a line would say less than k is worth)."""
    at = int(np.clip(np.searchsorted(grid.keeps, k, "right") - 1, 0, len(grid.keeps) - 2))
    low, high = grid.keeps[at : at + 2]
    scored_R = grid.scored(curves.n)[:, s]
    kept_R, low_R, high_R = (np.minimum(scored_R, x) for x in (np.clip(k, low, high), low, high))
    part_R = ratio(np.log(kept_R / low_R), np.log(high_R / low_R))
    part_R[high_R == low_R] = 1.0
    value_R = value_RSA[:, s, at] * (1 - part_R) + value_RSA[:, s, at + 1] * part_R
    return Spent(kept_R, costs.of(scored_R, kept_R), value_R)


def constant_at(curves: Curves, grid: Grid, cost: float, costs: Costs, value_RSA: np.ndarray) -> Spent:
    """All candidates scored and one k for all, the largest of that mean cost: what a policy is held against."""
    low, high = float(grid.keeps[0]), float(grid.keeps[-1])
    for _ in range(60):
        middle = (low + high) / 2
        within = constant(curves, grid, 0, middle, costs, value_RSA).cost.mean() <= cost * (1 + 1e-12)
        low, high = (middle, high) if within else (low, middle)
    return constant(curves, grid, 0, low, costs, value_RSA)


@dataclass(frozen=True)
class Chosen:
    """A policy, and what decided for it or for the constant k."""

    policy: Policy
    fitted: bool
    tried: dict[float, list[float]]
    """By share scored, what a fitted policy gained over one k for all for the budget, on requests that it was not
    fitted on: [difference, lo, hi]."""
    why: str


def chosen(
    curves: Curves, grid: Grid, k: int, costs: Costs, value: Value, fold_R: np.ndarray, *, seed: int = 0
) -> Chosen:
    """The policy of the best share, fitted on all of these requests, if it gained over k for all on the
    folds that it was not fitted on (`fold_R`, int [R], 0 to `FOLDS` - 1); else k for all."""
    value_RSA = value_of(curves, value)
    budget = constant(curves, grid, 0, k, costs, value_RSA).cost.mean()
    tried: dict[float, list[float]] = {}
    means: dict[int, float] = {}
    for s, share in enumerate(grid.shares):
        spent = _held_out(curves, grid, s, float(budget), costs, value, fold_R)
        if spent is not None:
            # Of a policy that cannot spend the budget, the rest is no gain.
            base = constant_at(curves, grid, max(float(budget), float(spent.cost.mean())), costs, value_RSA)
            tried[share] = [*paired_interval(spent.value, base.value, seed=seed, level=SURE)]
            means[s] = tried[share][0]
    same = Policy(1.0, (k,), None, 0.0)
    if not means:
        why = "nothing tells which of the candidates are wanted" if curves.n.size else "there are no requests"
        return Chosen(same, False, tried, why)
    best = max(means, key=means.__getitem__)
    gained = tried[grid.shares[best]]
    policy = fit(curves, grid, best, float(budget), costs, value)
    if policy is None or not gained[1] > 0:
        return Chosen(same, False, tried, "a fitted policy gains nothing that is sure on requests held out from it")
    if best == 0 and np.ptp(applied(policy, curves, grid, costs, value_RSA).kept) == 0:
        return Chosen(same, False, tried, "nothing in the scores tells one request from another")
    return Chosen(policy, True, tried, "")


def _held_out(
    curves: Curves, grid: Grid, s: int, budget: float, costs: Costs, value: Value, fold_R: np.ndarray
) -> Spent | None:
    """Each fold by the policy of the others; None where one of them has none."""
    value_RSA, n = value_of(curves, value), len(curves.n)
    out = Spent(*(np.full(n, np.nan) for _ in range(3)))
    for fold in np.unique(fold_R):
        held_R = fold_R == fold
        policy = fit(curves.only(~held_R), grid, s, budget, costs, value)
        if policy is None:
            return None
        part = applied(policy, curves.only(held_R), grid, costs, value_RSA[held_R])
        for whole, mine in ((out.kept, part.kept), (out.cost, part.cost), (out.value, part.value)):
            whole[held_R] = mine
    return out if n else None


def oracle(curves: Curves, grid: Grid, budget: float, costs: Costs, value_RSA: np.ndarray) -> Spent:
    """The best that any allocation over the grid could do, knowing what each number brings to each request."""
    kept_RSA, scored_RS = grid.kept(curves.n), grid.scored(curves.n)
    flat_shape = (len(curves.n), -1)
    cost_RX = costs.of(scored_RS[:, :, None], kept_RSA).reshape(flat_shape)
    value_RX = np.nan_to_num(value_RSA).reshape(flat_shape)
    row, low, high = np.arange(len(curves.n)), 0.0, 1e3
    for _ in range(80):
        middle = (low + high) / 2
        best_R = (value_RX - middle * cost_RX).argmax(1)
        low, high = (middle, high) if cost_RX[row, best_R].mean() > budget else (low, middle)
    best_R = (value_RX - high * cost_RX).argmax(1)
    value_R = value_RSA.reshape(flat_shape)[row, best_R]
    return Spent(kept_RSA.reshape(flat_shape)[row, best_R], cost_RX[row, best_R], value_R)
