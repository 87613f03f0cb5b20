"""What an evaluation reports of each request: overlap with the teacher, hit-rate, NDCG, AUC.

R requests, N candidates of all of them in flat arrays; K or M of these that a step is about. Ties in a score go to the
earlier candidate in canonical order. A number that is not defined for a request (a hit-rate without a click) is NaN;
every candidate of every request is scored, none is dropped.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from prerank.core.nested import flat_numpy, offsets_of
from prerank.evaluation.intervals import pooled_auc, ratio

LABELS = ("exposed", "clicked", "converted")
DEPTH = 10
"""How many items are exposed: the depth of NDCG, of the replay and of the true hit-rate."""


@dataclass(frozen=True)
class Candidates:
    """Candidates of R requests: a request's are contiguous and in canonical order (ascending hash of item_id)."""

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


class Validation:
    """A student's recall, hit-rate and AUC, for one teacher that is ranked once: what an epoch is judged by."""

    def __init__(self, candidates: Candidates, teacher_N: np.ndarray | None, *, k: int, m: int | None = None) -> None:
        """Raises ValueError where a score is NaN."""
        if k < 1 or (m is not None and m < 1):
            raise ValueError(f"k and m must be >= 1, got k={k}, m={m}")
        self.candidates, self.k = candidates, k
        self.exposed_N, self.clicked_N, self.converted_N = (
            np.asarray(x, bool) for x in (candidates.exposed, candidates.clicked, candidates.converted)
        )
        self.relevant_N = None if teacher_N is None else _Ranking("teacher", teacher_N, candidates).in_top(m or k)

    def __call__(self, student_N: np.ndarray) -> dict[str, np.ndarray]:
        """recall (where there is a teacher), hit_rate and auc as in `per_request`, float64 [R].

        But recall is NaN for a request of at most k candidates, where every student's is 1.
        """
        return self._columns(_Ranking("student", student_N, self.candidates))

    def _columns(self, student: "_Ranking") -> dict[str, np.ndarray]:
        kept_K, recall = student.top(self.k), {}
        if self.relevant_N is not None:
            tells_R = np.diff(self.candidates.offsets) > self.k
            recall["recall"] = np.where(tells_R, self._share(kept_K, self.relevant_N), np.nan)
        return {**recall, "hit_rate": self._share(kept_K, self.clicked_N), "auc": student.auc(self.clicked_N)}

    def _share(self, kept_K: np.ndarray, of_N: np.ndarray) -> np.ndarray:
        return ratio(self._count(kept_K[of_N[kept_K]]), self._count(of_N))

    def _count(self, rows: np.ndarray) -> np.ndarray:
        return np.bincount(self.candidates.request_N[rows], minlength=len(self.candidates.offsets) - 1)


class Comparison(Validation):
    """All columns of `per_request`, for any number of students of one teacher: it and the truth are ranked once."""

    def __init__(
        self,
        candidates: Candidates,
        teacher_N: np.ndarray,
        *,
        k: int,
        m: int | None = None,
        curve: tuple[int, ...] = (),
    ) -> None:
        super().__init__(candidates, None, k=k, m=m)  # recall is told here, of every request
        self.teacher = _Ranking("teacher", teacher_N, candidates)
        if any(c < 1 for c in curve):
            raise ValueError(f"the curve must be >= 1, got curve={curve}")
        self.top_N = self.teacher.in_top(m or k)
        self.top_at = {c: self.top_N if m else self.teacher.in_top(c) for c in curve}
        self.truth = None
        if candidates.click_probability is not None:
            truth_N = np.asarray(candidates.click_probability, float)
            self.truth = truth_N, _Ranking("click_probability", truth_N, candidates).in_top(DEPTH)

    def _columns(self, student: "_Ranking") -> dict[str, np.ndarray]:
        n_R, kept_K = np.diff(self.candidates.offsets), student.top(self.k)
        exposed_N, clicked_N, top_N = self.exposed_N, self.clicked_N, self.top_N
        among_exposed_N, among_unexposed_N = clicked_N | exposed_N, clicked_N | ~exposed_N
        columns = {
            "recall": self._share(kept_K, top_N),
            **super()._columns(student),
            "n": n_R.astype(float),
            "n_exposed": self._count(exposed_N).astype(float),
            "clicks": self._count(clicked_N).astype(float),
            "recall_exposed": self._share(kept_K, top_N & exposed_N),
            "recall_unexposed": self._share(kept_K, top_N & ~exposed_N),
            "random_recall": np.minimum(1.0, ratio(np.full(len(n_R), self.k), n_R)),
            "hit_rate_converted": self._share(kept_K, self.converted_N),
            "ndcg_at_10": student.ndcg(clicked_N),
            "ndcg_at_10_exposed": student.ndcg(clicked_N & exposed_N, exposed_N),
            "ndcg_at_10_unexposed": student.ndcg(clicked_N, among_unexposed_N),
            "auc_exposed": student.auc(clicked_N, among_exposed_N),
            "auc_unexposed": student.auc(clicked_N, among_unexposed_N),
        }
        for c, top_at_c_N in self.top_at.items():
            first_K = student.top(c)
            columns[f"recall_at_{c}"] = self._share(first_K, top_at_c_N)
            columns[f"hit_rate_at_{c}"] = self._share(first_K, clicked_N)
        if self.truth is not None:
            truth_N, best_N = self.truth
            columns["true_hit_rate"] = self._share(kept_K, best_N)
            columns["ctr"] = self._replay(student.in_top(self.k), truth_N)
        return columns

    def _replay(self, kept_N: np.ndarray, truth_N: np.ndarray) -> np.ndarray:
        order_M, request_M, position_M = self.teacher.ranked(kept_N)
        shown = position_M < DEPTH
        total_R = np.bincount(request_M[shown], weights=truth_N[order_M[shown]], minlength=self.teacher.n_requests)
        return ratio(total_R, self._count(order_M[shown]))


def per_request(
    candidates: Candidates,
    teacher_N: np.ndarray,
    student_N: np.ndarray,
    *,
    k: int,
    m: int | None = None,
    curve: tuple[int, ...] = (),
) -> dict[str, np.ndarray]:
    """Columns of float64 [R], NaN where undefined. S_k: the student's top k, T_m: the teacher's top m (default m = k).

    recall: |S_k ∩ T_m| / min(m, n), COLD's form (Wang et al., 2020), overlap for m = k; recall_exposed and
        recall_unexposed: |S_k ∩ T_m ∩ slice| / |T_m ∩ slice|; random_recall: what k candidates drawn blindly get
    hit_rate, hit_rate_converted: share of the clicked (converted) candidates in S_k
    true_hit_rate: share of the ten candidates of highest click probability in S_k: positives that no policy chose
    ctr: S_k in the teacher's order, the first ten are exposed: their mean click probability (no position bias)
    ndcg_at_10, auc: gain and label are clicks, over all candidates; *_exposed: over the exposed ones; *_unexposed:
        over the clicked and the unexposed ones. A tie counts half in AUC.
    recall_at_C, hit_rate_at_C for each C of `curve`: with k = C, and m = C where m is not given
    n, n_exposed, clicks: counts

    `Comparison` gives the same for several students. Raises ValueError where a score or a probability is NaN.
    """
    return Comparison(candidates, teacher_N, k=k, m=m, curve=curve)(student_N)


class _Ranking:
    """Candidates by descending score within their request, by one sort that all metrics of it share."""

    def __init__(self, name: str, scores_N: np.ndarray, candidates: Candidates) -> None:
        scores_N = np.asarray(scores_N)
        self.request_N, self.position_N = candidates.request_N, candidates.position_N
        self.n_requests = len(candidates.offsets) - 1
        if scores_N.shape != self.request_N.shape:
            raise ValueError(f"{name}: scores of shape {scores_N.shape} for {len(self.request_N)} candidates")
        if np.isnan(scores_N).any():
            bad = int(np.flatnonzero(np.isnan(scores_N))[0])
            raise ValueError(f"{name}: the score of candidate {bad} (request number {self.request_N[bad]}) is NaN")
        # Ranks leave a request's candidates in its rows: request_N and position_N hold in this order as well.
        self.order_N, self.tie_N = _sort(scores_N, candidates)

    def top(self, k: int) -> np.ndarray:
        """The first k candidates of each request, [K]."""
        return self.order_N[self.position_N < k]

    def in_top(self, k: int) -> np.ndarray:
        """bool [N]: the candidate is among the first k of its request."""
        mask_N = np.zeros(len(self.order_N), dtype=bool)
        mask_N[self.top(k)] = True
        return mask_N

    def ranked(self, mask_N: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The masked candidates (None: all), best first; their requests; their position among the masked: [M] each."""
        if mask_N is None:
            return self.order_N, self.request_N, self.position_N
        inside_N = mask_N[self.order_N]
        request_M = self.request_N[inside_N]
        count_R = np.bincount(request_M, minlength=self.n_requests)
        return self.order_N[inside_N], request_M, np.arange(len(request_M)) - (np.cumsum(count_R) - count_R)[request_M]

    def ndcg(self, gain_N: np.ndarray, mask_N: np.ndarray | None = None) -> np.ndarray:
        """NDCG at 10 with 0/1 gains, all of masked candidates, and discount 1 / log2(position + 2), [R]."""
        order_M, request_M, position_M = self.ranked(mask_N)
        hit = np.flatnonzero(gain_N[order_M])
        top = hit[position_M[hit] < DEPTH]
        discount = 1 / np.log2(np.arange(DEPTH) + 2)
        # best first, so that the sum of a perfect ranking is the ideal's to the last bit
        dcg_R = np.bincount(request_M[top], weights=discount[position_M[top]], minlength=self.n_requests)
        gains_R = np.bincount(request_M[hit], minlength=self.n_requests)
        ideal = np.concatenate([[0.0], np.cumsum(discount)])
        return ratio(dcg_R, ideal[np.minimum(gains_R, DEPTH)])

    def auc(self, label_N: np.ndarray, mask_N: np.ndarray | None = None) -> np.ndarray:
        """Share of (positive, negative) pairs in the right order within each request, [R]; NaN without both."""
        order_M, request_M, position_M = self.ranked(mask_N)
        tie_M = self.tie_N if mask_N is None else self.tie_N[mask_N[self.order_N]]
        hit = np.flatnonzero(label_N[order_M])
        # of all whose score is the hit's: the first and the one after the last
        first, after = (np.searchsorted(tie_M, tie_M[hit], side) for side in ("left", "right"))
        # twice the mid-rank: whole numbers, so that no order of summing changes the last bit
        twice_rank = 2 * position_M[first] + after - first + 1
        count = np.bincount(request_M, minlength=self.n_requests)
        positive = np.bincount(request_M[hit], minlength=self.n_requests)
        ranks = np.bincount(request_M[hit], weights=twice_rank, minlength=self.n_requests)
        pairs = positive * (count - positive)
        twice_wrong = ranks - positive * (positive + 1)
        return ratio(2 * pairs - twice_wrong, 2 * pairs)


def _sort(scores_N: np.ndarray, candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
    """Rows by request, descending score, canonical order; and a number that ascends there and is equal for a tie."""
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


def pooled_aucs(candidates: Candidates, scores_N: np.ndarray) -> dict[str, tuple[float, np.ndarray]]:
    """`pooled_auc` of clicks over all candidates, over the exposed, and of clicked against unexposed ones."""
    clicked_N, exposed_N = np.asarray(candidates.clicked, bool), np.asarray(candidates.exposed, bool)
    request_N, n_requests = candidates.request_N, len(candidates.offsets) - 1
    masks = {
        "auc": np.ones_like(clicked_N),
        "auc_exposed": clicked_N | exposed_N,
        "auc_unexposed": clicked_N | ~exposed_N,
    }
    return {name: pooled_auc(scores_N, clicked_N, request_N, mask_N, n_requests) for name, mask_N in masks.items()}
