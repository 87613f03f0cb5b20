"""Which networks are worth having: those that none other beats in recall and in time at once.

N points, each a recall (more is better) and a latency (less is better).

Ours, as Optuna's fronts and hypervolumes are private, pymoo and botorch are much to install for it, and none of them
takes B bootstraps of the points at once.
"""

import numpy as np


def at_least_as_good(
    recall_A: np.ndarray, latency_A: np.ndarray, recall_B: np.ndarray, latency_B: np.ndarray
) -> np.ndarray:
    """Whether each a is no worse than each b in either respect (weak dominance), bool [A, B]."""
    recall_A, latency_A, recall_B, latency_B = map(np.asarray, (recall_A, latency_A, recall_B, latency_B))
    return (recall_A[:, None] >= recall_B[None]) & (latency_A[:, None] <= latency_B[None])


def front(recall_N: np.ndarray, latency_N: np.ndarray) -> np.ndarray:
    """Whether each point is on the Pareto front, bool [N]; of equal points either all are or none is."""
    covers_NN = at_least_as_good(recall_N, latency_N, recall_N, latency_N)
    return ~np.any(covers_NN & ~covers_NN.T, axis=0)


def covered(
    recall_A: np.ndarray, latency_A: np.ndarray, recall_B: np.ndarray, latency_B: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which b are weakly dominated by some a, and which strictly (some a is no worse and in one respect better)."""
    covers_AB = at_least_as_good(recall_A, latency_A, recall_B, latency_B)
    back_AB = at_least_as_good(recall_B, latency_B, recall_A, latency_A).T
    return np.any(covers_AB, axis=0), np.any(covers_AB & ~back_AB, axis=0)


def dominates(recall_A: np.ndarray, latency_A: np.ndarray, recall_B: np.ndarray, latency_B: np.ndarray) -> bool:
    """Whether the front of a dominates that of b: each b on it is weakly dominated by some a, and one strictly."""
    on_B = front(recall_B, latency_B)
    weakly_B, strictly_B = covered(recall_A, latency_A, np.asarray(recall_B)[on_B], np.asarray(latency_B)[on_B])
    return bool(weakly_B.all() and strictly_B.any())


def hypervolume(recall_N: np.ndarray, latency_N: np.ndarray, *, reference: tuple[float, float]) -> np.ndarray:
    """The area that the points dominate, down to the reference (a recall, a latency) that all beat or do not count.

    recall_N may be [..., N], as in B bootstraps of N points at their latencies; the answer is then [...].
    """
    least, limit = reference
    order_N = np.argsort(latency_N, kind="stable")
    latency_N = np.minimum(np.asarray(latency_N, float)[order_N], limit)
    recall_N = np.maximum(np.asarray(recall_N, float)[..., order_N], least)
    widths_N = np.diff(latency_N, append=limit)
    return ((np.maximum.accumulate(recall_N, axis=-1) - least) * widths_N).sum(axis=-1)
