"""Fronts, dominance and hypervolumes against their definitions, point by point and cell by cell."""

import numpy as np
import pytest

from prerank.evaluation.pareto import covered, dominates, front, hypervolume


def draw(rng, n, top=6):
    """Points on a small lattice, so that many tie in one respect or both."""
    return rng.integers(0, top, n).astype(float), rng.integers(0, top, n).astype(float)


def no_worse(a, b):
    return a[0] >= b[0] and a[1] <= b[1]


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_no_point_beats(seed):
    rng = np.random.default_rng(seed)
    recall, latency = draw(rng, int(rng.integers(1, 15)))
    points = list(zip(recall, latency, strict=True))
    expected = [not any(no_worse(a, b) and a != b for a in points) for b in points]
    assert front(recall, latency).tolist() == expected


def test_a_front_by_hand():
    recall, latency = [0.5, 0.6, 0.6, 0.4, 0.7, 0.6], [100, 200, 250, 150, 300, 200]
    assert front(recall, latency).tolist() == [True, True, False, False, True, True]
    assert front([], []).tolist() == []


def test_dominance_is_its_definition():
    seen = set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        a, b = draw(rng, int(rng.integers(1, 4)), top=3), draw(rng, int(rng.integers(1, 4)), top=3)
        points_a, points_b = (list(zip(*side, strict=True)) for side in (a, b))
        weakly = [any(no_worse(p, q) for p in points_a) for q in points_b]
        strictly = [any(no_worse(p, q) and p != q for p in points_a) for q in points_b]
        assert [side.tolist() for side in covered(*a, *b)] == [weakly, strictly]
        on = front(*b)
        expected = all(weakly[i] for i in np.flatnonzero(on)) and any(strictly[i] for i in np.flatnonzero(on))
        assert dominates(*a, *b) == expected
        seen.add((dominates(*a, *b), dominates(*b, *a)))
    assert seen == {(True, False), (False, True), (False, False)}  # never both


def test_no_front_dominates_itself():
    assert not dominates([0.5, 0.6], [100, 200], [0.6, 0.5], [200, 100])
    assert dominates([0.5, 0.6], [100, 190], [0.6, 0.5], [200, 100])


@pytest.mark.parametrize("seed", range(10))
def test_the_hypervolume_is_the_number_of_cells_covered(seed):
    """On a lattice the area is made of unit cells: one is covered if some point is above it and to its left."""
    rng = np.random.default_rng(seed)
    recall, latency = draw(rng, int(rng.integers(1, 8)), top=10)
    least, limit = 2, 8
    cells = sum(
        any(r >= y + 1 and t <= x for r, t in zip(recall, latency, strict=True))
        for y in range(least, 10)
        for x in range(0, limit)
    )
    assert hypervolume(recall, latency, reference=(least, limit)) == cells


def test_the_hypervolume_of_many_bootstraps_at_once():
    rng = np.random.default_rng(0)
    recall_BN, latency_N = rng.random((7, 9)), rng.random(9)
    one_by_one = [float(hypervolume(recall_N, latency_N, reference=(0.1, 0.9))) for recall_N in recall_BN]
    assert hypervolume(recall_BN, latency_N, reference=(0.1, 0.9)).tolist() == pytest.approx(one_by_one)
    assert len(set(one_by_one)) == 7
