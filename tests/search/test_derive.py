"""The program against the enumeration of every architecture of small spaces."""

import itertools
import math

import numpy as np
import pytest
import torch

from prerank.core.errors import InputError
from prerank.latency.formula import latency_us
from prerank.latency.table import Table
from prerank.logs.schema import Feature
from prerank.search.derive import derive
from prerank.search.knapsack import Costs, Knapsack, network_of

WIDTHS = (32, 8, 0)
FETCH = {"store": {"per_feature_us": 9.0}, "stream": {"per_feature_us": 4.0}}


def space(seed):
    """Six features of two sources, and a table whose first layer's time is not even monotone in the width in."""
    rng = np.random.default_rng(seed)
    sides = ["item", "cross", *rng.choice(["user", "item", "cross"], 4)]
    features = tuple(
        Feature(f"f{i}", side, "dense", rng.choice(list(FETCH)), rng.gamma(2, 50), size=int(rng.choice([1, 3, 8])))
        for i, side in enumerate(sides)
    )
    ins, outs = (2, 8, 16, 32, 64), (1, 8, 32)
    layer_us = tuple(tuple(10 + i * o / 10 + rng.normal() * 5 for o in outs) for i in ins)
    inputs_us = {feature.name: rng.gamma(2, 5) for feature in features}
    table = Table("onnxruntime", 100, 1, 20.0, inputs_us, ins, outs, layer_us, "")
    value_M = rng.normal(size=6) * 10.0 ** rng.integers(-2, 2)
    log_p_SC = torch.from_numpy(rng.normal(size=(2, 3)) * rng.choice([0.0, 0.5, 3.0])).log_softmax(1)
    if seed % 4 == 0:
        value_M = -abs(value_M)
    if seed % 4 == 1:
        log_p_SC = torch.tensor([[-math.inf, 0.0, -math.inf], [0.0, -math.inf, -math.inf]], dtype=torch.float64)
    return features, table, value_M, log_p_SC


def enumerate_all(features, table, value_M, log_p_SC):
    """(value, microseconds, names, widths) of every architecture that may be chosen."""
    for kept in itertools.product((False, True), repeat=len(features)):
        of_item = [
            value > 0 for f, value, keep in zip(features, value_M, kept, strict=True) if keep and f.side != "user"
        ]
        of_user = [
            value > 0 for f, value, keep in zip(features, value_M, kept, strict=True) if keep and f.side == "user"
        ]
        if not of_item or not all(of_user) or (not all(of_item) and len(of_item) > 1):
            continue
        chosen = [feature for feature, keep in zip(features, kept, strict=True) if keep]
        for places in itertools.product(range(3), repeat=2):
            widths = tuple(WIDTHS[c] for c in places)
            value = np.sum(value_M[list(kept)]) + sum(log_p_SC[s, c].item() for s, c in enumerate(places))
            if value > -math.inf:
                yield value, latency_us(table, chosen, FETCH, widths), tuple(f.name for f in chosen), widths


@pytest.mark.parametrize("seed", range(20))
def test_no_architecture_is_better(seed):
    features, table, value_M, log_p_SC = space(seed)
    every = list(enumerate_all(features, table, value_M, log_p_SC))
    costs = sorted(us for _, us, _, _ in every)
    exactly = costs[len(costs) // 2]
    for budget_us in (costs[len(costs) // 8], exactly, exactly * (1 - 3e-7)):
        arch = derive(
            features=features,
            fetch=FETCH,
            table=table,
            widths=WIDTHS,
            budget_us=budget_us,
            value_M=value_M,
            log_p_SC=log_p_SC,
        )
        within = [row for row in every if row[1] <= budget_us * (1 + 1e-9)]
        value, us, _, _ = next(row for row in within if row[2:] == (arch.features, arch.widths))
        best = max(within)[0]
        span = max(value_M.max(), np.ptp([row[0] for row in every]))
        assert value >= best - 2e-6 * span
        assert us <= min(row[1] for row in within if row[0] >= best - 1e-12 * span) + 1e-5 * budget_us


def plain_table(features, most=64):
    ins, outs = (1, most), (1, 8, 32)
    layer_us = tuple(tuple(10.0 + i * o / 10 for o in outs) for i in ins)
    return Table("onnxruntime", 100, 1, 20.0, {f.name: 1.0 for f in features}, ins, outs, layer_us, "")


def test_ties_go_to_the_fastest_then_to_the_first():
    features = tuple(Feature(f"f{i}", "item", "dense", "store", us) for i, us in enumerate((90.0, 50.0, 50.0, 50.0)))
    arguments = {"features": features, "fetch": FETCH, "table": plain_table(features), "widths": WIDTHS}
    arguments |= {"value_M": torch.ones(4), "log_p_SC": torch.full((3, 3), 1 / 3).log()}
    room = latency_us(arguments["table"], features[:2], FETCH, ()) + 1e-6
    arch = derive(budget_us=room, **arguments)
    assert arch.widths == (0, 0, 0)
    assert arch.features == ("f1", "f2", "f3")
    assert derive(budget_us=room - 40, **arguments).features == ("f1", "f2")
    assert all(derive(budget_us=room, **arguments) == arch for _ in range(2))


def test_nothing_fits():
    features = (
        Feature("who", "user", "dense", "stream", 1.0),
        Feature("dear", "item", "dense", "store", 90.0),
        Feature("cheap", "item", "dense", "store", 50.0),
    )
    arguments = {"features": features, "fetch": FETCH, "table": plain_table(features), "widths": WIDTHS}
    arguments |= {"value_M": [5.0, 2.0, -1.0], "log_p_SC": torch.zeros(1, 3)}
    # 50 + 9 to fetch cheap, 20 + 1 + T[1, 1] = 10.1 to infer
    for budget_us in (0.0, 90.0):
        with pytest.raises(InputError, match=rf"budget-us {budget_us:g} .*: nothing fits.* cheap with .*takes 90\.1;"):
            derive(budget_us=budget_us, **arguments)
    assert derive(budget_us=90.11, **arguments).features == ("cheap",)  # not wanted, but a ranker needs one
    with pytest.raises(InputError, match="no feature of the side item"):
        derive(budget_us=90.0, **arguments | {"features": features[:1], "value_M": [1.0]})


@pytest.mark.slow
def test_three_hundred_features_are_proven_and_no_swap_is_better():
    rng = np.random.default_rng(0)
    n, sides = 300, ["item", *np.random.default_rng(1).choice(["user", "item", "cross"], 299)]
    features = tuple(
        Feature(f"f{i}", side, "dense", rng.choice(list(FETCH)), rng.gamma(2, 80), size=int(rng.choice([1, 1, 8])))
        for i, side in enumerate(sides)
    )
    costs = Costs(features, FETCH, plain_table(features, most=4096))
    value_M, network = rng.exponential(size=n), network_of(costs.table, (32, 8))
    budget_us = 0.3 * float(costs.of(np.ones((1, n), bool), network)[0])
    program = Knapsack(costs, value_M, budget_us, 1e-6)
    found = program.solve([network])
    assert found and program.proven
    kept_M = found[0]
    assert 0 < costs.of(kept_M[None], network)[0] <= budget_us
    swapped_NM = kept_M ^ np.eye(n, dtype=bool)[:, None] ^ np.eye(n, dtype=bool)[None]
    swapped_NM = swapped_NM.reshape(-1, n)
    better_N = swapped_NM @ value_M > kept_M @ value_M + 1e-6
    assert better_N.any() and (costs.of(swapped_NM[better_N], network) > budget_us).all()


def test_costs_of_many_sets_are_those_of_each():
    features, table, _, _ = space(3)
    sets = [kept for kept in itertools.product((False, True), repeat=6) if any(kept)]
    chosen = [[f for f, keep in zip(features, kept, strict=True) if keep] for kept in sets]
    for widths in ((32, 8), (8, 0), (0, 0)):
        expected = [latency_us(table, some, FETCH, widths) for some in chosen]
        assert Costs(features, FETCH, table).of(np.array(sets), network_of(table, widths)) == pytest.approx(expected)
