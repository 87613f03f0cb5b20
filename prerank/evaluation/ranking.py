"""Candidates in the order of a score within their request: who is in the top K, and how good the order is.

R requests, N candidates of all of them in flat arrays; K or M of these that a step is about. A tie is broken neither by
the order of the candidates nor by chance: each number is its mean over all orders that the scores allow, as an AUC
counts a tied pair half. Without ties it is the plain one, to the last bit.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from prerank.core.nested import flat_numpy, offsets_of
from prerank.evaluation.intervals import ratio

LABELS = ("exposed", "clicked", "converted")
DEPTH = 10
"""How many items are exposed: the depth of NDCG, of the replay and of the true hit-rate."""
_DISCOUNT = 1 / np.log2(np.arange(DEPTH) + 2)


@dataclass(frozen=True)
class Candidates:
    """Candidates of R requests: a request's are contiguous, and their order says nothing."""

    offsets: np.ndarray
    """int64 [R+1]: request r holds rows offsets[r] to offsets[r+1]."""
    exposed: np.ndarray
    """bool [N]"""
    clicked: np.ndarray
    """bool [N]"""
    converted: np.ndarray
    """bool [N]"""
    click_probability: np.ndarray | None = None
    """float [N]: the truth that only a simulator or a random exposure knows."""

    @classmethod
    def of(cls, table: pa.Table, click_probability: np.ndarray | None = None) -> "Candidates":
        """From request rows with the lists exposed, clicked and converted."""
        exposed, clicked, converted = (flat_numpy(table[name]) for name in LABELS)
        return cls(offsets_of(table["exposed"]), exposed, clicked, converted, click_probability)

    def __post_init__(self) -> None:
        offsets, n = self.offsets, len(self.exposed)
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != n or np.any(np.diff(offsets) < 0):
            raise ValueError(f"offsets must ascend from 0 to the number of candidates, {n}")
        for name in ("clicked", "converted", "click_probability"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise ValueError(f"{name} has {len(column)} values for {n} candidates")

    @cached_property
    def request_N(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @cached_property
    def position_N(self) -> np.ndarray:
        """The place within the request, from 0."""
        return np.arange(len(self.exposed)) - self.offsets[self.request_N]


@dataclass(frozen=True)
class Top:
    """The first k of each request: who is in it, or may be."""

    rows: np.ndarray
    """[K], by request."""
    weights: np.ndarray | None
    """float64 [K], above 0: how probably, where ties are broken at random; None: all surely."""

    def of_all(self, n: int) -> np.ndarray:
        """Of each of the n candidates whether it is in the top, bool [N], or how probably, float64 [N]."""
        out_N = np.zeros(n, bool if self.weights is None else float)
        out_N[self.rows] = True if self.weights is None else self.weights
        return out_N


class Ranking:
    """Candidates by descending score within their request, by one sort that all metrics of it share."""

    def __init__(self, name: str, scores_N: np.ndarray, candidates: Candidates) -> None:
        """Raises ValueError where a score is NaN."""
        scores_N = np.asarray(scores_N)
        self.offsets, self.request_N, self.position_N = candidates.offsets, candidates.request_N, candidates.position_N
        self.n_requests = len(candidates.offsets) - 1
        if scores_N.shape != self.request_N.shape:
            raise ValueError(f"{name}: scores of shape {scores_N.shape} for {len(self.request_N)} candidates")
        if np.isnan(scores_N).any():
            bad = int(np.flatnonzero(np.isnan(scores_N))[0])
            raise ValueError(f"{name}: the score of candidate {bad} (request number {self.request_N[bad]}) is NaN")
        # Ranks leave a request's candidates in its rows: request_N and position_N hold in this order as well.
        self.order_N, self.tie_N = _sort(scores_N, candidates)

    def tied(self, k: int) -> np.ndarray:
        """bool [R]: a tie decides who is among the first k, as the candidate at place k equals the one after it."""
        out_R = np.diff(self.offsets) > k
        last = self.offsets[:-1][out_R] + k - 1
        out_R[out_R] = self.tie_N[last] == self.tie_N[last + 1]
        return out_R

    def top(self, k: int) -> Top:
        """The first k candidates of each request; of a tie that reaches beyond, each has its share of what is left."""
        tied_R = self.tied(k)
        if not tied_R.any():
            return Top(self.order_N[self.position_N < k], None)
        begin = self.offsets[:-1][tied_R]
        first, after = (end - begin for end in _ends(self.tie_N, begin + k - 1))
        sure_R, most_R, share_R = (np.full(self.n_requests, value) for value in (k, k, 1.0))
        sure_R[tied_R], most_R[tied_R], share_R[tied_R] = first, after, (k - first) / (after - first)
        inside_N = self.position_N < most_R[self.request_N]
        request_K, position_K = self.request_N[inside_N], self.position_N[inside_N]
        return Top(self.order_N[inside_N], np.where(position_K < sure_R[request_K], 1.0, share_R[request_K]))

    def ranked(self, mask_N: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The masked candidates (None: all), best first; their requests; their position among the masked; a number
        that ascends and is equal for a tie: [M] each."""
        if mask_N is None:
            return self.order_N, self.request_N, self.position_N, self.tie_N
        inside_N = mask_N[self.order_N]
        request_M = self.request_N[inside_N]
        count_R = np.bincount(request_M, minlength=self.n_requests)
        position_M = np.arange(len(request_M)) - (np.cumsum(count_R) - count_R)[request_M]
        return self.order_N[inside_N], request_M, position_M, self.tie_N[inside_N]

    def ndcg(self, gain_N: np.ndarray, mask_N: np.ndarray | None = None) -> np.ndarray:
        """NDCG at 10 with 0/1 gains, all of masked candidates, and discount 1 / log2(position + 2), [R].

        Candidates of a tie have the mean of their gains (McSherry and Najork, ECIR 2008).
        """
        order_M, request_M, position_M, tie_M = self.ranked(mask_N)
        gain_M = gain_N[order_M]
        hit = np.flatnonzero(gain_M)
        if _any_tied(tie_M, hit):
            top = np.flatnonzero(position_M < DEPTH)
            first, after = _ends(tie_M, top)
            gains = np.concatenate([[0], np.cumsum(gain_M)])
            weights = (gains[after] - gains[first]) / (after - first) * _DISCOUNT[position_M[top]]
        else:
            top = hit[position_M[hit] < DEPTH]
            weights = _DISCOUNT[position_M[top]]
        # best first, so that the sum of a perfect ranking is the ideal's to the last bit
        dcg_R = np.bincount(request_M[top], weights=weights, minlength=self.n_requests)
        gains_R = np.bincount(request_M[hit], minlength=self.n_requests)
        ideal = np.concatenate([[0.0], np.cumsum(_DISCOUNT)])
        return ratio(dcg_R, ideal[np.minimum(gains_R, DEPTH)])

    def auc(self, label_N: np.ndarray, mask_N: np.ndarray | None = None) -> np.ndarray:
        """Share of (positive, negative) pairs in the right order within each request, [R]; NaN without both."""
        order_M, request_M, position_M, tie_M = self.ranked(mask_N)
        hit = np.flatnonzero(label_N[order_M])
        first, after = _ends(tie_M, hit)
        # twice the mid-rank: whole numbers, so that no order of summing changes the last bit
        twice_rank = 2 * position_M[first] + after - first + 1
        count = np.bincount(request_M, minlength=self.n_requests)
        positive = np.bincount(request_M[hit], minlength=self.n_requests)
        ranks = np.bincount(request_M[hit], weights=twice_rank, minlength=self.n_requests)
        pairs = positive * (count - positive)
        twice_wrong = ranks - positive * (positive + 1)
        return ratio(2 * pairs - twice_wrong, 2 * pairs)


def _ends(tie_M: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the tie that each of the places is in: the first place, and the one after the last."""
    return np.searchsorted(tie_M, tie_M[at], "left"), np.searchsorted(tie_M, tie_M[at], "right")


def _any_tied(tie_M: np.ndarray, at: np.ndarray) -> bool:
    """Whether one of the places is tied with the one before it or after it."""
    before, after = at[at > 0], at[at < len(tie_M) - 1]
    return bool((tie_M[before] == tie_M[before - 1]).any() or (tie_M[after] == tie_M[after + 1]).any())


def _sort(scores_N: np.ndarray, candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
    """Rows by request and descending score; and a number that ascends there and is equal for a tie."""
    request_N = candidates.request_N
    with np.errstate(over="ignore"):
        single_N = scores_N.astype(np.float32) + np.float32(0)  # -0 is 0
    requests, longest = len(candidates.offsets) - 1, int(np.diff(candidates.offsets).max(initial=0))
    bits = max(longest - 1, 0).bit_length()
    if max(requests - 1, 0).bit_length() + bits > 32 or not np.array_equal(single_N, scores_N):
        order_N = np.lexsort((-scores_N.astype(float), request_N))
        request_N, scores_N = request_N[order_N], scores_N[order_N]
        new = (request_N[1:] != request_N[:-1]) | (scores_N[1:] != scores_N[:-1])
        return order_N, np.concatenate([[0], np.cumsum(new)])[: len(order_N)]
    # request, score and position in one whole number: NumPy sorts these four times as fast as it finds an order
    score_N = single_N.view(np.int32)
    descending_N = (score_N ^ (~(score_N >> 31) & 0x7FFFFFFF)).view(np.uint32)
    key_N = request_N.astype(np.uint64) << np.uint64(32)
    key_N |= descending_N
    key_N <<= np.uint64(bits)
    key_N |= candidates.position_N.astype(np.uint64)
    key_N.sort()
    position_N = (key_N & np.uint64((1 << bits) - 1)).astype(np.int64)
    return candidates.offsets[request_N] + position_N, key_N >> np.uint64(bits)
