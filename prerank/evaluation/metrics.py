"""What an evaluation reports of each request: overlap with the teacher, hit-rate, NDCG, AUC.

R requests, N candidates of all of them in flat arrays; K of these that a step is about. A tie in a score counts as the
mean over all orders that it allows (see `ranking`). A number that is not defined for a request (a hit-rate without a
click) is NaN; every candidate of every request is scored, none is dropped.
"""

import numpy as np

from prerank.evaluation.intervals import pooled_auc, ratio
from prerank.evaluation.ranking import DEPTH, LABELS, Candidates, Ranking, Top
from prerank.evaluation.replay import replayed

__all__ = ["LABELS", "Candidates", "Comparison", "Validation", "per_request", "pooled_aucs"]


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
        self.least_R = np.minimum(m or k, np.diff(candidates.offsets))
        self.relevant_N = None if teacher_N is None else self._first(Ranking("teacher", teacher_N, candidates), m or k)

    def __call__(self, student_N: np.ndarray) -> dict[str, np.ndarray]:
        """recall (where there is a teacher), hit_rate and auc as in `per_request`, float64 [R].

        But recall is NaN for a request of at most k candidates, where every student's is 1.
        """
        return self._columns(Ranking("student", student_N, self.candidates))

    def _columns(self, student: Ranking) -> dict[str, np.ndarray]:
        kept, recall = student.top(self.k), {}
        if self.relevant_N is not None:
            tells_R = np.diff(self.candidates.offsets) > self.k
            recall["recall"] = np.where(tells_R, self._share(kept, self.relevant_N, self.least_R), np.nan)
        return {**recall, "hit_rate": self._share(kept, self.clicked_N), "auc": student.auc(self.clicked_N)}

    def _first(self, ranking: Ranking, k: int) -> np.ndarray:
        return ranking.top(k).of_all(len(self.clicked_N))

    def _share(self, kept: Top, of_N: np.ndarray, whole_R: np.ndarray | None = None) -> np.ndarray:
        """What is kept of the candidates that `of_N` marks, or weighs with how probably it would."""
        whole_R = self._sum(of_N) if whole_R is None else whole_R
        if kept.weights is None and of_N.dtype == bool:
            return ratio(self._count(kept.rows[of_N[kept.rows]]), whole_R)
        weights = of_N[kept.rows] * (1.0 if kept.weights is None else kept.weights)
        sums_R = np.bincount(self.candidates.request_N[kept.rows], weights, minlength=len(self.least_R))
        return np.minimum(ratio(sums_R, whole_R), 1.0)  # the sums are rounded

    def _sum(self, of_N: np.ndarray) -> np.ndarray:
        request_N = self.candidates.request_N
        return self._count(of_N) if of_N.dtype == bool else np.bincount(request_N, of_N, minlength=len(self.least_R))

    def _count(self, rows: np.ndarray) -> np.ndarray:
        return np.bincount(self.candidates.request_N[rows], minlength=len(self.least_R))


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
        self.teacher = Ranking("teacher", teacher_N, candidates)
        if any(c < 1 for c in curve):
            raise ValueError(f"the curve must be >= 1, got curve={curve}")
        self.top_N = self._first(self.teacher, m or k)
        self.top_at = {c: (m or c, self.top_N if m else self._first(self.teacher, c)) for c in curve}
        self.truth = None
        if candidates.click_probability is not None:
            truth_N = np.asarray(candidates.click_probability, float)
            self.truth = truth_N, self._first(Ranking("click_probability", truth_N, candidates), DEPTH)

    def _columns(self, student: Ranking) -> dict[str, np.ndarray]:
        n_R, kept = np.diff(self.candidates.offsets), student.top(self.k)
        exposed_N, clicked_N, top_N = self.exposed_N, self.clicked_N, self.top_N
        among_exposed_N, among_unexposed_N = clicked_N | exposed_N, clicked_N | ~exposed_N
        columns = {
            "recall": self._share(kept, top_N, self.least_R),
            **super()._columns(student),
            "n": n_R.astype(float),
            "n_exposed": self._count(exposed_N).astype(float),
            "clicks": self._count(clicked_N).astype(float),
            "recall_exposed": self._share(kept, top_N * exposed_N),
            "recall_unexposed": self._share(kept, top_N * ~exposed_N),
            "random_recall": np.minimum(1.0, ratio(np.full(len(n_R), self.k), n_R)),
            "hit_rate_converted": self._share(kept, self.converted_N),
            "ndcg_at_10": student.ndcg(clicked_N),
            "ndcg_at_10_exposed": student.ndcg(clicked_N & exposed_N, exposed_N),
            "ndcg_at_10_unexposed": student.ndcg(clicked_N, among_unexposed_N),
            "auc_exposed": student.auc(clicked_N, among_exposed_N),
            "auc_unexposed": student.auc(clicked_N, among_unexposed_N),
        }
        for c, (m, top_at_c_N) in self.top_at.items():
            first = student.top(c)
            columns[f"recall_at_{c}"] = self._share(first, top_at_c_N, np.minimum(m, n_R))
            columns[f"hit_rate_at_{c}"] = self._share(first, clicked_N)
        if self.truth is not None:
            truth_N, best_N = self.truth
            columns["true_hit_rate"] = self._share(kept, best_N, np.minimum(DEPTH, n_R))
            columns["ctr"] = replayed(student, kept, self.teacher, truth_N)
        return columns


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
        over the clicked and the unexposed ones
    recall_at_C, hit_rate_at_C for each C of `curve`: with k = C, and m = C where m is not given
    n, n_exposed, clicks: counts

    A tie in the student's scores or the teacher's is broken at random, each for itself, and every column is the mean
    over all ways to break them; a slice's recall is the ratio of two means. So the teacher's recall of itself is below
    1 where a tie decides its top m, and no student's can be higher there. A student that scores all candidates alike
    has the recall of a blind draw.

    `Comparison` gives the same for several students. Raises ValueError where a score or a probability is NaN.
    """
    return Comparison(candidates, teacher_N, k=k, m=m, curve=curve)(student_N)


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
