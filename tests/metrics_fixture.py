"""Candidates and scores for tests of metrics."""

import numpy as np

from prerank.evaluation.metrics import Candidates


def draw(seed: int, *, requests: int = 12, most: int = 30, levels: int | None = 6, sizes=None):
    """Random candidates whose scores take few levels, so that ties are common; some requests are empty or unclicked."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, most, requests) if sizes is None else np.asarray(sizes)
    n = int(sizes.sum())
    exposed = rng.random(n) < 0.4
    clicked = exposed & (rng.random(n) < 0.4)
    candidates = Candidates(
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        exposed=exposed,
        clicked=clicked,
        converted=clicked & (rng.random(n) < 0.5),
        click_probability=np.round(rng.random(n), 1),
    )
    teacher, student = (rng.integers(0, levels, n).astype(float) if levels else rng.normal(size=n) for _ in range(2))
    return candidates, teacher, student
