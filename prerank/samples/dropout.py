"""Id dropout: in training, large tables' ids become the unknown at random, so that a model learns to do without them.

What a table of as many rows as there are items holds is soon learned by heart; and the row of the unknown, which an id
that was never seen gets, is taught by this alone. R requests, I items.
"""

import numpy as np

from prerank.core.hashing import keyed_uniform
from prerank.logs.schema import Feature

LARGE = 1000
"""Rows of a table from which its ids are dropped: of fewer, each is seen often enough."""

Keys = tuple[np.ndarray, np.ndarray, np.ndarray]
"""uint64 [R], what each request is known by; [I] that of each item's request, and its place in the pool."""


def large(features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    """Those whose ids are dropped."""
    return tuple(feature for feature in features if feature.dim and feature.size >= LARGE)


def gone(
    feature: Feature, keys: Keys, offsets: np.ndarray | None, *, share: float, seed: int, number: int
) -> np.ndarray:
    """bool: of each id of the feature whether it is dropped in the pass of that number, as that share of them is.

    offsets [rows + 1]: of several ids a row, which are drawn for one by one. A request's id goes for all of its items.
    The draw follows seed, pass, feature and keys alone: neither the batch nor the number of workers.
    """
    request_R, request_I, place_I = keys
    of_row = [request_R] if feature.of_request else [request_I, place_I]
    if offsets is not None:
        counts = np.diff(offsets)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        of_row = [*(np.repeat(key, counts) for key in of_row), within.astype(np.uint64)]
    return keyed_uniform(seed, f"id dropout of {feature.name} in pass {number}", *of_row) < share
