"""Two teachers at once are told of."""

from dataclasses import replace
from itertools import combinations

import pytest
from samples_fixture import rows_of
from training_fixture import ALL, BASE

from prerank.training.order import contradicted, said_of_order

LOGGED = replace(BASE, positions="logged")


def test_a_mix_is_said_with_what_it_contradicts(taught, samples):
    pairs = against = 0
    for row in rows_of(taught, "train")[:64]:
        for (p, s), (q, t) in combinations(zip(row["position"], row["teacher_score"], strict=True), 2):
            pairs, against = pairs + 1, against + ((p < q and s < t) or (p > q and s > t))
    assert contradicted(taught) == pytest.approx(against / pairs)
    arms = [LOGGED, ALL, replace(LOGGED, name="exposed", strategies=("exposed",))]
    (said,) = said_of_order("student", arms, taught)
    assert said.startswith("note: student: base: two teachers: ") and f"{against / pairs:.0%}" in said
    assert not said_of_order("student", [BASE, ALL], taught)
    assert not said_of_order("student", arms, samples), "no teacher yet, so no mix"
