"""What each request would gain by so many candidates scored and so many kept: the curves that an allocation goes by.

R requests, N candidates of all of them, S shares of the candidates that are scored, A numbers that are kept. The
student scores the first of a request's candidates, in the order in which they arrive, and keeps the best of these; the
teacher orders what is kept, and ten are shown.
"""

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from prerank.core.nested import rank_within
from prerank.evaluation.ranking import DEPTH, Candidates, Ranking, Top
from prerank.evaluation.replay import replayed

STEPS = 4
"""Numbers kept between one and its double: each is 19% above the one before."""
MOST = 8
"""The largest number kept is so many times the constant that it is held against."""


def keeps_around(k: int) -> tuple[int, ...]:
    """Numbers to keep, rising, k among them: from `DEPTH`, or k where that is less, to `MOST` times k.

    >>> keeps_around(40)[:6]
    (10, 12, 14, 17, 20, 24)
    """
    powers = np.arange(-STEPS * 20, STEPS * int(np.log2(MOST)) + 1) / STEPS
    numbers = np.unique(np.rint(k * 2.0**powers).astype(int))
    return tuple(numbers[numbers >= min(DEPTH, k)].tolist())


@dataclass(frozen=True)
class Grid:
    """What may be done with a request."""

    shares: tuple[float, ...]
    """[S] of its candidates, scored; the first is 1."""
    keeps: tuple[int, ...]
    """[A] of those, kept, rising; all, where they are fewer."""

    @property
    def tenth(self) -> int:
        """The place that the scores of the others are measured from: the tenth, or the least that is kept."""
        return min(DEPTH, self.keeps[0])

    def scored(self, n_R: np.ndarray) -> np.ndarray:
        """int64 [R, S]"""
        return np.ceil(np.round(n_R[:, None] * np.array(self.shares), 6)).astype(np.int64)

    def kept(self, n_R: np.ndarray) -> np.ndarray:
        """int64 [R, S, A]"""
        return np.minimum(self.scored(n_R)[:, :, None], np.array(self.keeps))


@dataclass(frozen=True)
class Curves:
    """Of R requests, [R, S, A] unless said otherwise."""

    n: np.ndarray
    """int64 [R]: candidates."""
    clicks: np.ndarray
    """float64 [R]: clicked ones."""
    gap: np.ndarray
    """How far the last score kept is below that at the place `Grid.tenth`."""
    teacher: np.ndarray
    """How many are kept of those that the teacher would show of all candidates."""
    clicked: np.ndarray
    """How many clicked ones are kept."""
    ctr: np.ndarray
    """Mean click probability of what is shown; NaN without a truth."""

    def table(self) -> pa.Table:
        """One row a request."""
        return pa.table({f.name: _lists(getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def of(cls, table: pa.Table, grid: Grid) -> "Curves":
        shape = (len(table), len(grid.shares), len(grid.keeps))
        return cls(*(_flat(table[f.name]).reshape(shape if f.name not in ("n", "clicks") else -1) for f in fields(cls)))

    def only(self, mask_R: np.ndarray) -> "Curves":
        return Curves(*(getattr(self, f.name)[mask_R] for f in fields(self)))


def curves(
    candidates: Candidates, student_N: np.ndarray, teacher_N: np.ndarray, arrival_N: np.ndarray, grid: Grid
) -> Curves:
    """`arrival_N`: candidates are scored by descending value; a tie as the candidates stand. Ties of scores count as in
    `prerank.evaluation.metrics`."""
    request_N, n_R = candidates.request_N, np.diff(candidates.offsets)
    shown_N = Ranking("teacher", teacher_N, candidates).top(DEPTH).of_all(len(request_N)).astype(float)
    clicked_N = np.asarray(candidates.clicked, float)
    arrives_N = rank_within(request_N, -arrival_N)
    shape = (len(n_R), len(grid.shares), len(grid.keeps))
    gap, teacher, clicked, ctr = (np.full(shape, np.nan) for _ in range(4))
    for s, scored_R in enumerate(grid.scored(n_R).T):
        here_N = arrives_N < scored_R[request_N]
        mine = _only(candidates, here_N, scored_R)
        student, ranked = (Ranking(name, x[here_N], mine) for name, x in (("s", student_N), ("t", teacher_N)))
        descending_N = student_N[here_N][student.order_N].astype(float)
        for a, k in enumerate(grid.keeps):
            top = student.top(k)
            last_R, tenth_R = (mine.offsets[:-1] + np.minimum(x, scored_R) - 1 for x in (k, grid.tenth))
            gap[:, s, a] = descending_N[tenth_R] - descending_N[last_R]
            teacher[:, s, a] = _sum(mine, top, shown_N[here_N])
            clicked[:, s, a] = _sum(mine, top, clicked_N[here_N])
            if mine.click_probability is not None:
                ctr[:, s, a] = replayed(student, top, ranked, mine.click_probability)
    clicks_R = np.bincount(request_N, clicked_N, minlength=len(n_R))
    return Curves(n_R, clicks_R, gap, teacher, clicked, ctr)


def _only(candidates: Candidates, here_N: np.ndarray, count_R: np.ndarray) -> Candidates:
    offsets = np.concatenate([[0], np.cumsum(count_R)])
    truth_N = candidates.click_probability
    exposed_N, clicked_N, converted_N = (
        np.asarray(x)[here_N] for x in (candidates.exposed, candidates.clicked, candidates.converted)
    )
    truth_N = None if truth_N is None else np.asarray(truth_N, float)[here_N]
    return Candidates(offsets, exposed_N, clicked_N, converted_N, truth_N)


def _sum(candidates: Candidates, top: Top, of_N: np.ndarray) -> np.ndarray:
    weights = of_N[top.rows] * (1.0 if top.weights is None else top.weights)
    return np.bincount(candidates.request_N[top.rows], weights, minlength=len(candidates.offsets) - 1)


def _lists(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    each = int(np.prod(values.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), each)


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    whole = column.combine_chunks()
    whole = whole.flatten() if pa.types.is_fixed_size_list(whole.type) else whole
    return whole.to_numpy(zero_copy_only=False)
