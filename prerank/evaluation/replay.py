"""The replay of the cascade: the student keeps K, the teacher orders them, the first ten are shown.

R requests, N candidates; T groups of candidates that the teacher ties within a request (most are of one candidate).
Where a tie decides the student's K or the teacher's ten: the mean over all orders that the scores allow, exactly.
"""

import numpy as np

from prerank.evaluation.intervals import ratio
from prerank.evaluation.ranking import DEPTH, Ranking, Top

AT_ONCE = 2_000_000
"""Combinations that are summed at a time, about 100 bytes each."""
NEVER = 60.0
"""So many that the student is expected to keep above a place leave it less than 1e-14 to be among the ten."""


def replayed(student: Ranking, kept: Top, teacher: Ranking, truth_N: np.ndarray) -> np.ndarray:
    """Mean click probability of what is shown, [R]; NaN where there is no candidate. `kept` is the student's top."""
    share_N = kept.of_all(len(truth_N))
    kept_N = share_N > 0 if kept.weights is not None else share_N
    order_M, request_M, position_M, tie_M = teacher.ranked(kept_N)
    shown = position_M < DEPTH
    total_R = np.bincount(request_M[shown], weights=truth_N[order_M[shown]], minlength=student.n_requests)
    shown_R = np.bincount(request_M[shown], minlength=student.n_requests)
    ctr_R = ratio(total_R, shown_R)
    tied_R = np.zeros(student.n_requests, bool)
    last = np.flatnonzero(position_M == DEPTH)  # tied with the one before it, which is of the same request
    tied_R[request_M[last[tie_M[last] == tie_M[last - 1]]]] = True
    if kept.weights is not None:
        tied_R[student.request_N[kept.rows[kept.weights < 1]]] = True
    if tied_R.any():
        mine = tied_R[request_M]
        inside = share_N[order_M[mine]].astype(float), truth_N[order_M[mine]], request_M[mine], tie_M[mine]
        ctr_R[tied_R] = _expected(*inside, student.n_requests)[tied_R]
    return ctr_R


def _expected(share_M: np.ndarray, truth_M: np.ndarray, request_M: np.ndarray, tie_M: np.ndarray, n: int) -> np.ndarray:
    """The expected mean, [R], over the random choice of the student's tied and the random order of the teacher's.

    share_M: how probably the student keeps it. Of the `open` candidates of a request, all with one share, it keeps
    `slots`, any with equal chance: how many of them are in the groups above (x) and in a group (y) is hypergeometric.
    """
    sure_M = share_M >= 1
    open_R = np.bincount(request_M[~sure_M], minlength=n)
    slots_R = np.rint(np.bincount(request_M[~sure_M], weights=share_M[~sure_M], minlength=n)).astype(np.int64)
    kept_R = np.bincount(request_M[sure_M], minlength=n) + slots_R

    begin = np.flatnonzero(np.concatenate([[True], tie_M[1:] != tie_M[:-1]])[: len(tie_M)])
    request_T = request_M[begin]
    sure_T, open_T, sure_truth_T, open_truth_T = (
        np.add.reduceat(values, begin)
        for values in (sure_M.astype(np.int64), (~sure_M).astype(np.int64), truth_M * sure_M, truth_M * ~sure_M)
    )
    sure_above_T, open_above_T = (_above(values, request_T) for values in (sure_T, open_T))
    slots_T, all_T = slots_R[request_T], open_R[request_T]
    expected_above_T = ratio(open_above_T * slots_T, all_T)
    reached = np.flatnonzero((sure_above_T < DEPTH) & ~(sure_above_T + expected_above_T > NEVER))

    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, len(truth_M) + 1)))])

    def log_choose(total: np.ndarray, some: np.ndarray) -> np.ndarray:
        return log_factorial[total] - log_factorial[some] - log_factorial[total - some]

    most_x = np.minimum(np.minimum(DEPTH - 1 - sure_above_T, open_above_T), slots_T)[reached]
    most_y = np.minimum(open_T, slots_T)[reached]
    sizes = (most_x + 1) * (most_y + 1)
    total_R = np.zeros(n)
    for some in np.split(np.arange(len(reached)), np.flatnonzero(np.diff(np.cumsum(sizes) // AT_ONCE)) + 1):
        group = np.repeat(some, sizes[some])
        within = np.arange(len(group)) - np.repeat(np.cumsum(sizes[some]) - sizes[some], sizes[some])
        x, y, t = within // (most_y[group] + 1), within % (most_y[group] + 1), reached[group]
        below, rest = all_T[t] - open_above_T[t] - open_T[t], slots_T[t] - x - y
        can = (rest >= 0) & (rest <= below)
        x, y, t, below, rest = x[can], y[can], t[can], below[can], rest[can]
        ways = log_choose(open_above_T[t], x) + log_choose(open_T[t], y) + log_choose(below, rest)
        chance = np.exp(ways - log_choose(all_T[t], slots_T[t]))
        here = sure_T[t] + y
        places = np.minimum(DEPTH - sure_above_T[t] - x, here)
        of_open = np.divide(open_truth_T[t], open_T[t], out=np.zeros(len(t)), where=open_T[t] > 0)
        value = np.divide(sure_truth_T[t] + y * of_open, here, out=np.zeros(len(t)), where=here > 0)
        total_R += np.bincount(request_T[t], weights=chance * places * value, minlength=n)
    return ratio(total_R, np.minimum(kept_R, DEPTH))


def _above(values_T: np.ndarray, request_T: np.ndarray) -> np.ndarray:
    """Sums over the groups above each of its request; requests ascend."""
    above_T = np.cumsum(values_T) - values_T
    return above_T - above_T[np.searchsorted(request_T, request_T, "left")]
