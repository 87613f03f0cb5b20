"""Curves of requests against loops, the knapsack against all allocations, and that a policy helps or is not used."""

import doctest
import itertools
import json
import math

import numpy as np
import pytest
from metrics_fixture import draw
from samples_fixture import random_models

from prerank.core.errors import InputError
from prerank.evaluation import actions, allocation
from prerank.evaluation.actions import Curves, Grid, curves, keeps_around
from prerank.evaluation.allocation import Costs, Policy, applied, chance, chosen, constant, constant_at, fit, kept
from prerank.evaluation.metrics import per_request
from workflows import allocate as workflow

FREE = Costs(0.0)


@pytest.mark.parametrize(("module", "name"), [(actions, "keeps_around"), (allocation, "kept")])
def test_the_examples_run(module, name):
    [example] = doctest.DocTestFinder(recurse=False).find(getattr(module, name), name, globs=vars(module))
    assert example.examples and doctest.DocTestRunner().run(example).failed == 0


def test_k_is_among_the_numbers_to_keep_and_ten_the_least():
    for k in (1, 3, 10, 150, 1000):
        keeps = keeps_around(k)
        assert k in keeps and keeps[0] >= min(10, k) and keeps[-1] == 8 * k and list(keeps) == sorted(set(keeps))


def test_curves_by_loops():
    candidates, teacher, student = draw(3, sizes=[15, 1, 30, 4], levels=None)
    arrival = np.random.default_rng(0).random(50)
    grid = Grid((1.0, 0.5), keeps_around(4))
    found = curves(candidates, student, teacher, arrival, grid)
    truth = candidates.click_probability
    for r, (begin, end) in enumerate(itertools.pairwise(candidates.offsets)):
        items = range(begin, end)
        would_show = sorted(items, key=lambda i: -teacher[i])[:10]
        for (s, share), (a, k) in itertools.product(enumerate(grid.shares), enumerate(grid.keeps)):
            first = sorted(items, key=lambda i: -arrival[i])[: math.ceil(share * len(items))]
            best = sorted(first, key=lambda i: -student[i])
            mine = best[:k]
            shown = sorted(mine, key=lambda i: -teacher[i])[:10]
            assert found.teacher[r, s, a] == len({*would_show} & {*mine})
            assert found.clicked[r, s, a] == sum(candidates.clicked[i] for i in mine)
            assert found.ctr[r, s, a] == pytest.approx(np.mean([truth[i] for i in shown]))
            fourth = best[min(4, len(best)) - 1]
            assert found.gap[r, s, a] == pytest.approx(student[fourth] - student[mine[-1]])
            assert grid.kept(found.n)[r, s, a] == len(mine)
    again = Curves.of(found.table(), grid)
    assert all(np.array_equal(getattr(again, x), getattr(found, x)) for x in ("n", "clicks", "gap", "teacher", "ctr"))


def test_ties_count_as_in_an_evaluation():
    candidates, teacher, student = draw(5, sizes=[25] * 6, levels=4)
    found = curves(candidates, student, teacher, np.arange(150.0), Grid((1.0,), (10, 20)))
    for a, k in enumerate((10, 20)):
        expected = per_request(candidates, teacher, student, k=k, m=10)
        np.testing.assert_allclose(found.teacher[:, 0, a] / 10, expected["recall"])
        np.testing.assert_allclose(found.ctr[:, 0, a], expected["ctr"])


GRID = Grid((1.0,), (10, 20, 40, 80))
TRUE = {"intercept": 1.0, "log_place": -1.0, "gap": -1.5}


def made_up(requests, seed=0, spread=1.0, grid=GRID):
    """Requests of 100 candidates whose chances to be wanted are those of TRUE, their scores falling at other rates."""
    rng = np.random.default_rng(seed)
    n_R = np.full(requests, 100)
    at_RA = grid.kept(n_R)[:, 0]
    gap_RA = np.exp(spread * rng.normal(size=(requests, 1))) * np.log(at_RA / at_RA[:, :1])
    wanted_RA = np.cumsum(rng.binomial(np.diff(at_RA, axis=1, prepend=0), chance(TRUE, at_RA, gap_RA)), axis=1)
    wanted_RSA = np.repeat(wanted_RA[:, None].astype(float), len(grid.shares), axis=1)
    gap_RSA = np.repeat(gap_RA[:, None], len(grid.shares), axis=1)
    return Curves(n_R, np.ones(requests), gap_RSA, wanted_RSA, wanted_RSA, np.full_like(gap_RSA, np.nan))


def folds(requests):
    return np.arange(requests) % 5


def test_the_chances_that_made_the_numbers_are_found_again():
    made = made_up(20_000)
    step = allocation.fit_step(GRID.kept(made.n)[:, 0], made.gap[:, 0], made.teacher[:, 0])
    assert step == pytest.approx(TRUE, rel=0.05)


def test_no_other_allocation_of_the_same_cost_is_expected_to_bring_more():
    """All 4^5 of five requests."""
    made = made_up(5, seed=1)
    budget = 35.0
    policy = fit(made, GRID, 0, budget, FREE, "teacher")
    at_RA, gap_RA = GRID.kept(made.n)[:, 0], made.gap[:, 0]
    step_RA = allocation._falling(chance(policy.step, at_RA, gap_RA)) * np.diff(at_RA, axis=1)
    worth_RA = np.concatenate([np.zeros((5, 1)), np.cumsum(step_RA, axis=1)], axis=1)
    mine = allocation.steps_of(policy, at_RA, gap_RA)
    cost, worth = (x[np.arange(5), mine].sum() for x in (at_RA, worth_RA))
    assert cost <= 5 * budget
    for other in itertools.product(range(4), repeat=5):
        their_cost, their_worth = (x[np.arange(5), list(other)].sum() for x in (at_RA, worth_RA))
        assert their_cost > cost or their_worth <= worth + 1e-9
    assert len(set(mine.tolist())) > 1


def test_a_server_keeps_what_the_evaluation_kept():
    candidates, teacher, student = draw(7, sizes=[50, 3, 80, 12], levels=None)
    grid = Grid((1.0,), keeps_around(12))
    found = curves(candidates, student, teacher, np.arange(145.0), grid)
    policy = Policy(1.0, grid.keeps, {"intercept": 0.5, "log_place": -0.3, "gap": -0.6}, 0.25)
    spent = applied(policy, found, grid, Costs(0.1), found.ctr)
    for r, (begin, end) in enumerate(itertools.pairwise(candidates.offsets)):
        assert kept(policy, np.sort(student[begin:end])[::-1]) == spent.kept[r]
        assert spent.cost[r] == pytest.approx(0.1 * (end - begin) + spent.kept[r])
    assert len(set(spent.kept.tolist())) > 2


def test_a_policy_gains_where_requests_differ_and_a_score_tells_it():
    made, other = made_up(400, seed=2), made_up(400, seed=3)
    found = chosen(made, GRID, 20, FREE, "teacher", folds(400))
    assert found.fitted and found.tried[1.0][1] > 0
    value_RSA = allocation.value_of(other, "teacher")
    spent = applied(found.policy, other, GRID, FREE, value_RSA)
    base = constant_at(other, GRID, float(spent.cost.mean()), FREE, value_RSA)
    best = allocation.oracle(other, GRID, float(spent.cost.mean()), FREE, value_RSA)
    assert base.cost.mean() == pytest.approx(spent.cost.mean(), rel=1e-6)
    assert base.value.mean() < spent.value.mean() < best.value.mean() and best.cost.mean() <= spent.cost.mean()


@pytest.mark.parametrize("of", [0, 10], ids=["none wanted", "the first ten wanted"])
def test_where_nothing_is_to_be_gained_k_is_the_same_for_all(of):
    made = made_up(200, seed=4)
    flat = Curves(made.n, made.clicks, made.gap, 0 * made.teacher + of, 0 * made.clicked + of, made.ctr)
    found = chosen(flat, GRID, 20, FREE, "teacher", folds(200))
    assert not found.fitted and found.why and found.policy == Policy(1.0, (20,), None, 0.0)
    assert kept(found.policy, np.arange(50.0)[::-1]) == 20 and kept(found.policy, np.arange(5.0)[::-1]) == 5


def test_a_policy_that_keeps_the_same_of_all_is_the_constant():
    made = made_up(200, seed=6)
    blind = Curves(made.n, made.clicks, 0 * made.gap, made.teacher, made.clicked, made.ctr)
    assert chosen(blind, GRID, 20, FREE, "teacher", folds(200)).policy.keeps == (20,)


def test_of_lists_shorter_than_k_all_is_kept_and_no_share_of_it_for_less():
    """A half that is scored costs half, and half the wanted: that is no gain over K for all."""
    candidates, teacher, student = draw(11, sizes=[48] * 30 + [20] * 30, levels=None)
    grid = Grid((1.0, 0.5), keeps_around(100))
    found = curves(candidates, student, teacher, np.random.default_rng(0).random(2040), grid)
    value_RSA = allocation.value_of(found, "teacher")
    decided = chosen(found, grid, 100, Costs(0.1), "teacher", folds(60))
    spent = applied(decided.policy, found, grid, Costs(0.1), value_RSA)
    assert spent.kept.tolist() == found.n.tolist() and spent.value.mean() == 1
    base = constant_at(found, grid, float(spent.cost.mean()), Costs(0.1), value_RSA)
    np.testing.assert_allclose([base.kept, base.value], [spent.kept, spent.value])
    between = constant(found, grid, 0, 34.0, Costs(0.1), value_RSA)
    assert between.kept.tolist() == [34] * 30 + [20] * 30
    np.testing.assert_allclose(between.value[30:], 1)


@pytest.mark.slow
def test_a_policy_of_noise_is_seldom_used():
    """Scores that tell nothing of what is wanted: at most few of 40."""
    used = 0
    for seed in range(40):
        made, rng = made_up(60, seed=seed, spread=0.0), np.random.default_rng(seed)
        noise = Curves(made.n, made.clicks, rng.random(made.gap.shape), made.teacher, made.clicked, made.ctr)
        used += chosen(noise, GRID, 20, FREE, "teacher", folds(60)).fitted
    assert used <= 6


def test_fewer_are_scored_where_scoring_costs_more_than_it_brings():
    """Of twice as many kept as wanted: at half the share half the wanted are lost, which a free score never pays."""
    grid = Grid((1.0, 0.5), GRID.keeps)
    made = made_up(300, seed=5, grid=grid)
    made.teacher[:, 1] = made.teacher[:, 1] * 0.9
    dear, free = (chosen(made, grid, 20, Costs(price), "teacher", folds(300)) for price in (1.0, 0.0))
    assert dear.policy.share == 0.5 and free.policy.share == 1.0


def test_between_two_numbers_of_the_grid_a_constant_is_read_from_a_line_over_its_logarithm():
    made = made_up(50)
    value_RSA = allocation.value_of(made, "teacher")
    between = constant(made, GRID, 0, 20 * 2**0.5, Costs(0.1), value_RSA)
    np.testing.assert_allclose(between.kept, 20 * 2**0.5)
    np.testing.assert_allclose(between.cost, 20 * 2**0.5 + 10)
    np.testing.assert_allclose(between.value, value_RSA[:, 0, 1:3].mean(1))
    for a, k in enumerate(GRID.keeps):
        np.testing.assert_allclose(constant(made, GRID, 0, k, FREE, value_RSA).value, value_RSA[:, 0, a])


@pytest.fixture(scope="module")
def models(samples, tmp_path_factory):
    return random_models(samples, tmp_path_factory.mktemp("models"))


@pytest.mark.ray
def test_the_command(ray_cluster, logs, models, tmp_path):
    config = workflow.Allocate(logs, str(models[0]), models[1], tmp_path / "out", k=12, order="price")
    found = workflow.main(config)
    assert (
        found["value"] == "teacher" and found["requests"]["test"] == 60 and [r["k"] for r in found["rows"]] == [12, 24]
    )
    assert all(0 <= row["constant"] <= row["oracle"] <= 1 for row in found["rows"])
    policy = json.loads((tmp_path / "out/policy.json").read_text())
    assert policy["score"]["first_by"] == "price" and policy["keeps"] and (tmp_path / "out/allocation.png").is_file()
    assert workflow.main(config) == found
    three = workflow.Allocate(logs, str(models[0]), models[1], tmp_path / "three", k=12, order="price", blocks=3)
    assert workflow.main(three) == found


def test_what_does_not_fit_is_told(logs, models, tmp_path):
    config = (logs, str(models[0]), models[1], tmp_path / "out")
    with pytest.raises(InputError, match=r"--order brand: expected a single number of the item or cross .* price"):
        workflow.main(workflow.Allocate(*config, k=12, order="brand"))
    with pytest.raises(InputError, match=r"--shares 0\.5: expected 1 among them"):
        workflow.main(workflow.Allocate(*config, k=12, shares="0.5"))
    with pytest.raises(InputError, match="no truth/ with a click_probability"):
        workflow.main(workflow.Allocate(*config, k=12, value="ctr"))
