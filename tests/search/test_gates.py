"""AutoFAS's gates as a valuer, on made-up samples with planted features."""

from dataclasses import replace

import pytest
import torch
from search_fixture import ARM, FEATURES, SCHEMA, SEARCH, STATS, TABLE, table_of

from prerank.latency.options import Latency
from prerank.models.embed import Embed
from prerank.samples.batches import training_batch
from prerank.search.gates import gate_values
from prerank.search.short import Held
from prerank.search.spec import Spec


@pytest.fixture(scope="module")
def batches():
    return [training_batch(table_of((7, n)), ARM, FEATURES, 0, "teacher_score") for n in range(14)]


def values(batches, budget_us, seed=0, steps=240):
    held = Held(ARM, FEATURES, STATS, None, batches[2:], [], 0, Embed(FEATURES, STATS))
    spec = Spec(replace(ARM, seed=seed), replace(SEARCH, width_lr=0.01), Latency(), TABLE, budget_us)
    worth_M = gate_values(spec, SCHEMA, held, batches[:2], steps)
    return dict(zip(ARM.features, worth_M.tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_planted_features_are_told_apart(batches, seed):
    """The dear one is worth more than the cheap one, as the teacher has it; what tells nothing is worth nothing."""
    worth = values(batches, 700.0, seed)
    assert worth["useful_dear"] > worth["useful_cheap"] > 0
    assert max(worth["useless_dear"], worth["noise_cheap"]) < 0.1 * worth["useful_cheap"]


@pytest.mark.slow
def test_what_the_budget_has_no_room_for_is_worth_nothing(batches):
    worth = values(batches, 200.0)
    assert worth["useful_dear"] == worth["useless_dear"] == -1.0 and worth["useful_cheap"] > 0


def test_the_same_search_says_the_same(batches):
    torch.manual_seed(5)  # whatever was drawn before
    assert values(batches, 700.0, steps=30) == values(batches, 700.0, steps=30)
