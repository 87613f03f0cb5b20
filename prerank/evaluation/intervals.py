"""How sure an evaluation is of its means: bootstrap over requests, pairs of arms, the pooled AUC, the row of results.

R requests, N candidates of all of them, K metrics, B bootstrap replicates. A value that is not defined for a request
is NaN and is left out of the mean and of its interval.
"""

from typing import TypedDict

import numpy as np

DRAWS_AT_ONCE = 2_000_000
"""Bootstrap draws held in memory at a time: about 16 bytes each."""

Metrics = dict[str, float | list[float] | None]
"""By name a mean, and by `<name>_ci` its interval [lo, hi]; None where no request defines it."""


class Slices(TypedDict):
    exposed: Metrics
    unexposed: Metrics


class Curve(TypedDict):
    """Means at each k, None where no request defines one."""

    k: list[int]
    recall: list[float | None]
    hit_rate: list[float | None]


Row = dict[str, float | list[float] | Slices | Curve | None]
"""Of a model in results.json: `Metrics` over all candidates, the counts of requests, `slices` and `curve`."""


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    out = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=out, where=np.asarray(denominator) != 0)


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


def bootstrap_means(values_RK: np.ndarray, *, seed: int = 0, replicates: int = 1000) -> np.ndarray:
    """The means [B, K] of K columns in B bootstraps over whole requests; in one bootstrap all see the same requests."""
    return _means(*_defined(values_RK, None), seed=seed, replicates=replicates)


def percentiles(means_BK: np.ndarray, level: float = 0.95) -> list[tuple[float, float]]:
    """The interval of each column of `bootstrap_means`."""
    edges = 100 * np.array([(1 - level) / 2, (1 + level) / 2])
    out = []
    for column in means_BK.T:
        column = column[~np.isnan(column)]
        lo, hi = np.percentile(column, edges) if len(column) else (np.nan, np.nan)
        out.append((float(lo), float(hi)))
    return out


def _defined(values_R: np.ndarray, weights_R: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights [R, 1] ([R, K] of [R, K]), both 0 where the value is NaN."""
    values_R = np.asarray(values_R, float)
    weights_R = np.ones_like(values_R) if weights_R is None else np.asarray(weights_R, float)
    if weights_R.shape != values_R.shape:
        raise ValueError(f"{weights_R.shape} weights for {values_R.shape} values")
    defined = ~np.isnan(values_R)
    both = np.where(defined, values_R, 0.0), np.where(defined, weights_R, 0.0)
    return both if values_R.ndim == 2 else (both[0][:, None], both[1][:, None])


def _intervals(
    values_RK: np.ndarray, weights_RK: np.ndarray, *, seed: int, replicates: int, level: float
) -> list[tuple[float, float]]:
    """Intervals of K weighted means at once."""
    return percentiles(_means(values_RK, weights_RK, seed=seed, replicates=replicates), level)


def _means(values_RK: np.ndarray, weights_RK: np.ndarray, *, seed: int, replicates: int) -> np.ndarray:
    """K weighted means in B replicates, [B, K]: a replicate is a row of counts, so that all are two matrix products."""
    n_requests, width = values_RK.shape
    means_BK = np.full((replicates, width), np.nan)
    if n_requests == 0:
        return means_BK
    sums = np.concatenate([weights_RK * values_RK, weights_RK], axis=1)
    rng = np.random.default_rng(seed)
    chunk = max(1, DRAWS_AT_ONCE // n_requests)
    for begin in range(0, replicates, chunk):
        rows = min(chunk, replicates - begin)
        draws = rng.integers(0, n_requests, size=(rows, n_requests))
        draws += np.arange(rows)[:, None] * n_requests
        counts = np.bincount(draws.ravel(), minlength=rows * n_requests).reshape(rows, n_requests).astype(float)
        drawn = counts @ sums
        means_BK[begin : begin + rows] = ratio(drawn[:, :width], drawn[:, width:])
    return means_BK


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
    of_positive_R, of_negative_R = (
        np.bincount(request_N[side_N], weights=placement - auc, minlength=n_requests) / len(placement)
        for side_N, placement in ((positive_N, above_x), (negative_N, below_y))
    )
    return auc, n_requests * (of_positive_R + of_negative_R)


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each value the share of the others below it, a tie counting half."""
    others = np.sort(others)
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2 * len(others))


def summary(
    columns: dict[str, np.ndarray],
    *,
    k: int,
    pooled: dict[str, tuple[float, np.ndarray]] | None = None,
    seed: int = 0,
    replicates: int = 1000,
    level: float = 0.95,
) -> Row:
    """One row of results: means over requests, each with `..._ci` [lo, hi]; None where no request defines it.

    columns: from `per_request`, requests in any order, as long as `pooled` (from `pooled_aucs`) has the same.
    GAUC is the mean of the AUC within a request weighted by its candidates (a slice's: by the candidates of the slice);
    `auc` is pooled over all requests, and so compares scores across them, which a pairwise or listwise loss leaves open
    up to a constant a request. `slices`: the exposed candidates alone, and the unexposed ones, among which AUC and NDCG
    rank the clicked. Every click is on an exposed candidate, so the hit-rate over the exposed is the overall one, and
    over the unexposed it is a share of nothing: None.
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
            f"hit_rate_at_{k}": ("hit_rate", None),
            "ndcg_at_10": ("ndcg_at_10_exposed", None),
            "gauc": ("auc_exposed", n_exposed_R),
        },
        "unexposed": {
            f"recall_at_{k}": ("recall_unexposed", None),
            "ndcg_at_10": ("ndcg_at_10_unexposed", None),
            "gauc": ("auc_unexposed", n_R - n_exposed_R),
        },
    }
    for column in (column for column in columns if "/" in column):  # of an objective
        objective, _, metric = column.rpartition("/")
        per_slice[""][f"{metric}_{objective}_at_{k}"] = (column, None)
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
    means: dict[str, Metrics] = {where: {} for where in per_slice}
    means["unexposed"] = {f"hit_rate_at_{k}": None, f"hit_rate_at_{k}_ci": None}
    for (where, name, values_R, weights_R), (lo, hi) in zip(entries, intervals, strict=True):
        means[where][name] = _number(mean(values_R, weights_R))
        means[where][f"{name}_ci"] = None if np.isnan(lo) else [lo, hi]
    return {
        "requests": len(n_R),
        "requests_with_click": int(np.sum(columns["clicks"] > 0)),
        f"random_recall_at_{k}": _number(mean(columns["random_recall"])),
        "slices": {"exposed": means["exposed"], "unexposed": means["unexposed"]},
        **means[""],
    }


def curve_means(columns: dict[str, np.ndarray]) -> Curve:
    """Of the `curve` that `per_request` was given, in order of k."""
    ks = sorted(int(name.removeprefix("recall_at_")) for name in columns if name.startswith("recall_at_"))
    recall, hit_rate = ([_number(mean(columns[f"{name}_at_{c}"])) for c in ks] for name in ("recall", "hit_rate"))
    return {"k": ks, "recall": recall, "hit_rate": hit_rate}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
