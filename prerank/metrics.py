"""What an evaluation reports, request by request, and how sure it is: overlap with the teacher, hit-rate, NDCG, AUC.

R requests, N candidates of all of them in flat arrays, K metrics, B bootstrap replicates. Ties in a score go to the
earlier candidate in canonical order. A number that is not defined for a request (a hit-rate without a click) is NaN
and is left out of the mean and of its interval; every candidate of every request is scored, none is dropped.
"""

from dataclasses import dataclass

import numpy as np

DEPTH = 10
"""How many items are exposed: the depth of NDCG, of the replay and of the true hit-rate."""

DRAWS_AT_ONCE = 2_000_000
"""Bootstrap draws held in memory at a time: about 16 bytes each."""


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

    def __post_init__(self) -> None:
        offsets, n = self.offsets, len(self.exposed)
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != n or np.any(np.diff(offsets) < 0):
            raise ValueError(f"offsets must ascend from 0 to the number of candidates, {n}")
        for name in ("clicked", "converted", "click_probability"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise ValueError(f"{name} has {len(column)} values for {n} candidates")

    @property
    def request_N(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


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
    ndcg_at_10, auc: gain and label are clicks, over all candidates; *_exposed: over the exposed ones;
        auc_unexposed: clicked against unexposed. A tie counts half in AUC.
    recall_at_C, hit_rate_at_C for each C of `curve`: with k = C, and m = C where m is not given
    n, n_exposed, clicks: counts

    Raises ValueError where a score or a probability is NaN.
    """
    if k < 1 or (m is not None and m < 1) or any(c < 1 for c in curve):
        raise ValueError(f"k, m and the curve must be >= 1, got k={k}, m={m}, curve={curve}")
    request_N, n_R = candidates.request_N, np.diff(candidates.offsets)
    exposed_N, clicked_N, converted_N = (
        np.asarray(x, bool) for x in (candidates.exposed, candidates.clicked, candidates.converted)
    )
    student, teacher = _Ranking("student", student_N, candidates), _Ranking("teacher", teacher_N, candidates)

    def count(mask_N: np.ndarray) -> np.ndarray:
        return np.bincount(request_N[mask_N], minlength=len(n_R))

    def share(part_N: np.ndarray, of_N: np.ndarray) -> np.ndarray:
        return _ratio(count(part_N & of_N), count(of_N))

    kept_N, relevant_N = student.rank_N < k, teacher.rank_N < (m or k)
    columns = {
        "n": n_R.astype(float),
        "n_exposed": count(exposed_N).astype(float),
        "clicks": count(clicked_N).astype(float),
        "recall": share(kept_N, relevant_N),
        "recall_exposed": share(kept_N, relevant_N & exposed_N),
        "recall_unexposed": share(kept_N, relevant_N & ~exposed_N),
        "random_recall": np.minimum(1.0, _ratio(np.full(len(n_R), k), n_R)),
        "hit_rate": share(kept_N, clicked_N),
        "hit_rate_converted": share(kept_N, converted_N),
        "ndcg_at_10": student.ndcg(clicked_N, np.ones_like(clicked_N)),
        "ndcg_at_10_exposed": student.ndcg(clicked_N & exposed_N, exposed_N),
        "auc": student.auc(clicked_N, np.ones_like(clicked_N)),
        "auc_exposed": student.auc(clicked_N, clicked_N | exposed_N),
        "auc_unexposed": student.auc(clicked_N, clicked_N | ~exposed_N),
    }
    for c in curve:
        columns[f"recall_at_{c}"] = share(student.rank_N < c, teacher.rank_N < (m or c))
        columns[f"hit_rate_at_{c}"] = share(student.rank_N < c, clicked_N)
    if candidates.click_probability is not None:
        truth = _Ranking("click_probability", candidates.click_probability, candidates)
        columns["true_hit_rate"] = share(kept_N, truth.rank_N < DEPTH)
        shown, position = teacher.ranked(kept_N)
        shown = shown[position < DEPTH]
        total_R = np.bincount(request_N[shown], weights=truth.scores_N[shown], minlength=len(n_R))
        columns["ctr"] = _ratio(total_R, np.bincount(request_N[shown], minlength=len(n_R)))
    return columns


class _Ranking:
    """Candidates by descending score within their request, by one stable sort that all metrics of it share."""

    def __init__(self, name: str, scores_N: np.ndarray, candidates: Candidates) -> None:
        self.scores_N = np.asarray(scores_N, dtype=float)
        self.request_N, self.n_requests = candidates.request_N, len(candidates.offsets) - 1
        if self.scores_N.shape != self.request_N.shape:
            raise ValueError(f"{name}: scores of shape {self.scores_N.shape} for {len(self.request_N)} candidates")
        if np.isnan(self.scores_N).any():
            bad = int(np.flatnonzero(np.isnan(self.scores_N))[0])
            raise ValueError(f"{name}: the score of candidate {bad} (request number {self.request_N[bad]}) is NaN")
        self.order_N = np.lexsort((-self.scores_N, self.request_N))
        self.rank_N = np.empty(len(self.order_N), dtype=np.int64)
        self.rank_N[self.order_N] = np.arange(len(self.order_N)) - candidates.offsets[self.request_N]

    def ranked(self, mask_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The masked candidates, best first within their request, and their position among the masked: int64 [M]."""
        order_M = self.order_N[mask_N[self.order_N]]
        request_M = self.request_N[order_M]
        return order_M, np.arange(len(order_M)) - _starts(request_M, self.n_requests)[request_M]

    def ndcg(self, gain_N: np.ndarray, mask_N: np.ndarray) -> np.ndarray:
        """NDCG at 10 with 0/1 gains and discount 1 / log2(position + 2), [R]."""
        order_M, position_M = self.ranked(mask_N)
        hit = gain_N[order_M]
        top = hit & (position_M < DEPTH)
        discount = 1 / np.log2(np.arange(DEPTH) + 2)
        # best first, so that the sum of a perfect ranking is the ideal's to the last bit
        dcg_R = np.bincount(self.request_N[order_M[top]], weights=discount[position_M[top]], minlength=self.n_requests)
        gains_R = np.bincount(self.request_N[order_M[hit]], minlength=self.n_requests)
        ideal = np.concatenate([[0.0], np.cumsum(discount)])
        return _ratio(dcg_R, ideal[np.minimum(gains_R, DEPTH)])

    def auc(self, label_N: np.ndarray, mask_N: np.ndarray) -> np.ndarray:
        """Share of (positive, negative) pairs in the right order within each request, [R]; NaN without both."""
        order_M, position_M = self.ranked(mask_N)
        request_M, score_M, label_M = self.request_N[order_M], self.scores_N[order_M], label_N[order_M]
        first = np.ones(len(order_M), dtype=bool)
        first[1:] = (request_M[1:] != request_M[:-1]) | (score_M[1:] != score_M[:-1])
        group_M = np.cumsum(first) - 1
        size = np.bincount(group_M)
        # twice the mid-rank: whole numbers, so that no order of summing changes the last bit
        twice_rank_M = 2 * position_M[first][group_M] + size[group_M] + 1
        count = np.bincount(request_M, minlength=self.n_requests)
        positive = np.bincount(request_M[label_M], minlength=self.n_requests)
        ranks = np.bincount(request_M[label_M], weights=twice_rank_M[label_M], minlength=self.n_requests)
        pairs = positive * (count - positive)
        twice_wrong = ranks - positive * (positive + 1)
        return _ratio(2 * pairs - twice_wrong, 2 * pairs)


def _starts(request_M: np.ndarray, n_requests: int) -> np.ndarray:
    """Where each request begins in an ascending column of request numbers, [R]."""
    return np.searchsorted(request_M, np.arange(n_requests))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    out = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=out, where=np.asarray(denominator) != 0)


def pooled_auc(
    scores_N: np.ndarray, labels_N: np.ndarray, request_N: np.ndarray, mask_N: np.ndarray, n_requests: int
) -> tuple[float, np.ndarray]:
    """AUC over the masked candidates of all requests pooled, and each request's influence on it, [R]; ties count half.

    Influence is scaled so that `auc + influence` is a value a request whose mean is the AUC, and whose bootstrap over
    requests is the AUC's to first order (placements summed by cluster: Obuchowski, Biometrics 1997), at the price of
    one sort. (NaN, NaN) without both labels. Raises ValueError where a score is NaN.
    """
    scores_N, labels_N, mask_N = np.asarray(scores_N, float), np.asarray(labels_N, bool), np.asarray(mask_N, bool)
    if np.isnan(scores_N[mask_N]).any():
        raise ValueError("a score is NaN")
    positive_N, negative_N = mask_N & labels_N, mask_N & ~labels_N
    if not positive_N.any() or not negative_N.any():
        return float("nan"), np.full(n_requests, np.nan)
    above_x = _share_below(scores_N[positive_N], scores_N[negative_N])
    below_y = 1 - _share_below(scores_N[negative_N], scores_N[positive_N])
    auc = float(np.mean(above_x))
    influence_R = sum(
        np.bincount(request_N[side_N], weights=placement - auc, minlength=n_requests) / len(placement)
        for side_N, placement in ((positive_N, above_x), (negative_N, below_y))
    )
    return auc, n_requests * influence_R


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each value the share of the others below it, a tie counting half."""
    others = np.sort(others)
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2 * len(others))


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


def mean(values_R: np.ndarray, weights_R: np.ndarray | None = None) -> float:
    """The (weighted) mean over the requests where the value is defined; NaN where it is for none."""
    value_R1, weight_R1 = _defined(values_R, weights_R)
    total = weight_R1.sum()
    return float((weight_R1 * value_R1).sum() / total) if total else float("nan")


def bootstrap_interval(
    values_R: np.ndarray,
    weights_R: np.ndarray | None = None,
    *,
    seed: int = 0,
    replicates: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap of the (weighted) mean, drawing whole requests; a request that is NaN adds nothing.

    Arms of one evaluation drawn with one seed see the same draws.
    """
    lo, hi = _intervals(*_defined(values_R, weights_R), seed=seed, replicates=replicates, level=level)[0]
    return lo, hi


def paired_interval(
    a_R: np.ndarray,
    b_R: np.ndarray,
    weights_R: np.ndarray | None = None,
    *,
    seed: int = 0,
    replicates: int = 1000,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """`(difference, lo, hi)` of the mean of a - b over the requests where both are defined."""
    difference_R = np.asarray(a_R, float) - np.asarray(b_R, float)
    interval = bootstrap_interval(difference_R, weights_R, seed=seed, replicates=replicates, level=level)
    return mean(difference_R, weights_R), *interval


def _defined(values_R: np.ndarray, weights_R: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights [R, 1], both 0 where the value is NaN."""
    values_R = np.asarray(values_R, float)
    weights_R = np.ones_like(values_R) if weights_R is None else np.asarray(weights_R, float)
    if weights_R.shape != values_R.shape:
        raise ValueError(f"{weights_R.shape} weights for {values_R.shape} values")
    defined = ~np.isnan(values_R)
    return np.where(defined, values_R, 0.0)[:, None], np.where(defined, weights_R, 0.0)[:, None]


def _intervals(
    values_RK: np.ndarray, weights_RK: np.ndarray, *, seed: int, replicates: int, level: float
) -> list[tuple[float, float]]:
    """Intervals of K weighted means at once: a replicate is a row of counts, so that all are two matrix products."""
    n_requests, width = values_RK.shape
    if n_requests == 0:
        return [(float("nan"), float("nan"))] * width
    sums = np.concatenate([weights_RK * values_RK, weights_RK], axis=1)
    rng = np.random.default_rng(seed)
    chunk = max(1, DRAWS_AT_ONCE // n_requests)
    means_BK = np.empty((replicates, width))
    for begin in range(0, replicates, chunk):
        rows = min(chunk, replicates - begin)
        draws = rng.integers(0, n_requests, size=(rows, n_requests))
        draws += np.arange(rows)[:, None] * n_requests
        counts = np.bincount(draws.ravel(), minlength=rows * n_requests).reshape(rows, n_requests).astype(float)
        drawn = counts @ sums
        means_BK[begin : begin + rows] = _ratio(drawn[:, :width], drawn[:, width:])
    edges = 100 * np.array([(1 - level) / 2, (1 + level) / 2])
    out = []
    for column in means_BK.T:
        column = column[~np.isnan(column)]
        lo, hi = np.percentile(column, edges) if len(column) else (np.nan, np.nan)
        out.append((float(lo), float(hi)))
    return out


def summary(
    columns: dict[str, np.ndarray],
    *,
    k: int,
    pooled: dict[str, tuple[float, np.ndarray]] | None = None,
    seed: int = 0,
    replicates: int = 1000,
    level: float = 0.95,
) -> dict:
    """One row of results: means over requests, each with `..._ci` [lo, hi]; None where no request defines it.

    columns: from `per_request`, requests in any order, as long as `pooled` (from `pooled_aucs`) has the same.
    GAUC is the mean of the AUC within a request weighted by its candidates (a slice's: by the candidates of the slice);
    `auc` is pooled over all requests. `slices`: exposed candidates alone, unexposed (against clicked) ones alone.
    """
    n_R, n_exposed_R = columns["n"], columns["n_exposed"]
    per_slice = {
        "": {
            f"recall_at_{k}": ("recall", None),
            f"hit_rate_at_{k}": ("hit_rate", None),
            f"hit_rate_converted_at_{k}": ("hit_rate_converted", None),
            f"true_hit_rate_at_{k}": ("true_hit_rate", None),
            "ctr": ("ctr", None),
            "ndcg_at_10": ("ndcg_at_10", None),
            "gauc": ("auc", n_R),
        },
        "exposed": {
            f"recall_at_{k}": ("recall_exposed", None),
            "ndcg_at_10": ("ndcg_at_10_exposed", None),
            "gauc": ("auc_exposed", n_exposed_R),
        },
        "unexposed": {
            f"recall_at_{k}": ("recall_unexposed", None),
            "gauc": ("auc_unexposed", n_R - n_exposed_R),
        },
    }
    entries = [
        (where, name, columns[column], weights)
        for where, metrics in per_slice.items()
        for name, (column, weights) in metrics.items()
        if column in columns
    ]
    for key, (auc, influence_R) in (pooled or {}).items():
        entries.append((key.removeprefix("auc").removeprefix("_"), "auc", auc + influence_R, None))
    defined = [_defined(values, weights) for _, _, values, weights in entries]
    values_RK, weights_RK = (np.concatenate(side, axis=1) for side in zip(*defined, strict=True))
    intervals = _intervals(values_RK, weights_RK, seed=seed, replicates=replicates, level=level)
    row: dict = {
        "requests": len(n_R),
        "requests_with_click": int(np.sum(columns["clicks"] > 0)),
        f"random_recall_at_{k}": _number(mean(columns["random_recall"])),
        "slices": {"exposed": {}, "unexposed": {}},
    }
    for (where, name, values_R, weights_R), (lo, hi) in zip(entries, intervals, strict=True):
        into = row["slices"][where] if where else row
        into[name] = _number(mean(values_R, weights_R))
        into[f"{name}_ci"] = None if np.isnan(lo) else [lo, hi]
    return row


def curve_means(columns: dict[str, np.ndarray]) -> dict[str, list]:
    """`{"k": [...], "recall": [...], "hit_rate": [...]}` of the `curve` that `per_request` was given."""
    ks = sorted(int(name.removeprefix("recall_at_")) for name in columns if name.startswith("recall_at_"))
    return {"k": ks} | {name: [_number(mean(columns[f"{name}_at_{c}"])) for c in ks] for name in ("recall", "hit_rate")}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
