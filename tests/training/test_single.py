"""The orders of one feature, against each feature sorted by hand."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training_fixture import BASE, ONE

from prerank.samples.files import files_of
from prerank.training.finished import fit_here
from prerank.training.single import found_by_one, of_one_feature


@pytest.fixture(scope="module")
def by_hand(taught) -> dict[str, float]:
    """Recall@10 of the better direction of each number that tells candidates apart, none of which has ties here."""
    rows = pa.concat_tables(pq.read_table(path) for path in files_of(taught, "val")).to_pylist()
    out = {}
    for name in ("price", "match"):
        ways = []
        for sign in (1, -1):
            kept = [_expected(sign * np.array(row[name], float), np.array(row["teacher_score"])) for row in rows]
            ways.append(np.mean(kept))
        out[name] = max(ways)
    return out


def _expected(value: np.ndarray, teacher: np.ndarray, k: int = 10) -> float:
    """Of the teacher's first k those in the first k by value, where ties at its edge are drawn from."""
    top, edge = set(np.argsort(-teacher)[:k]), np.sort(value)[-k]
    above, tied = np.flatnonzero(value > edge), np.flatnonzero(value == edge)
    of_ties = len(top & {*tied}) * (k - len(above)) / len(tied)
    return (len(top & {*above}) + of_ties) / k


def test_each_number_is_sorted_both_ways(taught, by_hand):
    """Numbers of the request tell no candidates apart, and `secret` is the teacher's alone."""
    found = {feature.name: value for feature, value in found_by_one(taught, "recall", 10).items()}
    assert found == pytest.approx(by_hand)


def test_the_best_are_kept_as_linear_models(taught, by_hand, tmp_path):
    arms = of_one_feature(BASE, taught, 10)
    [(said, popular), *rest] = arms.values()
    assert next(iter(arms)) == popular.name == "popular" and popular.features == ("price",) and "price" in said
    assert [arm.features for _, arm in rest] == ([("match",)] if by_hand["match"] > by_hand["price"] else [])
    assert popular.model == "linear" and not popular.distill.active
    trained = fit_here([arm for _, arm in arms.values()], taught, tmp_path, compute=ONE, k=10, runs={})
    for name, (_, arm) in arms.items():
        state = trained[name].state
        assert state.numbers(state.best_epoch)["val/recall_at_10"] == pytest.approx(by_hand[arm.features[0]])
