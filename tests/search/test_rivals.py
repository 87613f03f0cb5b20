"""Each rival's formula against a calculation by hand, and that each finds what was planted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from prerank.latency.options import Latency
from prerank.latency.table import Table
from prerank.logs.schema import Feature, Schema
from prerank.models.batch import Bags, Batch
from prerank.models.options import Arm, Distill, Optim
from prerank.search.loop import make_optimizer
from prerank.search.options import Search
from prerank.search.rivals import (
    FSCD,
    RIVALS,
    TEMPERATURE,
    Gradient,
    Permutation,
    Rival,
    SqueezeExcite,
    untrained_values,
)
from prerank.search.spec import Spec
from prerank.search.trees import _columns, tree_values

FEATURES = (
    Feature("noise_of_request", "user", "dense", "F1", 10.0, size=2),
    Feature("noise_vector", "item", "embedding", "F1", 20.0, size=3),
    Feature("useful", "item", "dense", "F2", 30.0),
    Feature("noise", "cross", "dense", "F2", 40.0),
    Feature("noise_id", "item", "id", "F1", 5.0, size=6, dim=2),
)
FETCH = {"F1": {"per_feature_us": 1.0}, "F2": {"per_feature_us": 4.0}}
STATS = {f.name: {"mean": [0.0] * f.size, "std": [1.0] * f.size} for f in FEATURES if not f.dim}
TABLE = Table("torch", 100, 1, 1.0, {f.name: 1.0 for f in FEATURES}, (1, 8), (1, 4), ((1.0, 1.0), (1.0, 1.0)), "")
REQUESTS, ITEMS = 16, 6
USEFUL = 2


def batch(seed: int) -> Batch:
    """Pairs, clicks and the teacher's scores all follow from `useful`; `noise_of_request` has a row a request."""
    draw = torch.Generator().manual_seed(seed)
    rows = REQUESTS * ITEMS
    inputs = {f.name: torch.randn(REQUESTS if f.of_request else rows, f.size, generator=draw) for f in FEATURES[:-1]}
    inputs["noise_id"] = torch.randint(0, 7, (rows,), generator=draw)
    useful_RN = inputs["useful"].view(REQUESTS, ITEMS)
    order_RN = useful_RN.argsort(1, descending=True) + ITEMS * torch.arange(REQUESTS)[:, None]
    return Batch(
        features=inputs,
        request_I=torch.arange(REQUESTS).repeat_interleave(ITEMS),
        requests=REQUESTS,
        exposed_I=torch.ones(rows, dtype=torch.bool),
        teacher_I=2 * useful_RN.flatten(),
        hi_P=order_RN[:, 0],
        lo_P=order_RN[:, -1],
        group_P=torch.arange(REQUESTS),
        groups=REQUESTS,
    )


def made(method: type[Rival], *, widths=(4,), seed=0, **latency) -> Rival:
    torch.manual_seed(seed)
    arm = Arm("rival", tuple(f.name for f in FEATURES), widths, distill=Distill(score=1.0), optim=Optim(lr=0.03))
    spec = Spec(arm, Search(gate_lr=0.15), Latency(**latency), TABLE, 100.0)
    return method(spec, Schema(FEATURES, FETCH), STATS)


@pytest.mark.parametrize("method", RIVALS)
def test_the_planted_feature_is_worth_most_and_the_search_scores_with_it(method):
    rival = made(RIVALS[method], penalty=0.3)
    optimizer = make_optimizer(rival, rival.arm, Search())
    assert rival.architecture() == []
    for step in range(60):
        loss, parts = rival(batch(step), step, 1.0, "weights")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in rival.parameters())  # DDP waits for each of them
    value_M = rival.values(batch(1000 + i) for i in range(4))
    # Not the id: an embedding that has shrunk leaves squeeze-and-excitation and FSCD no reason to close its gate.
    noise_M = value_M[[0, 1, 3]]
    assert value_M.shape == (len(FEATURES),) and value_M[USEFUL] > 1.2 * noise_M.max()
    held_out = batch(2000)
    score_I, _ = rival.student(held_out.features, held_out.request_I)
    assert torch.corrcoef(torch.stack([score_I, held_out.teacher_I]))[0, 1] > 0.9
    own = {"fscd": {"complexity"}, "shuffle_gate": {"gates"}}
    assert set(parts) == {"hard", "score"} | own.get(method, set())


def test_squeeze_excite_by_hand():
    rival = made(SqueezeExcite)
    ranker, data = rival.distiller.student, batch(0)
    table = ranker.embed.tables["noise_id"].weight
    total_M, scores = torch.zeros(len(FEATURES)), []
    for i in range(len(data.request_I)):
        values = {name: x[data.request_I[i] if name == "noise_of_request" else i] for name, x in data.features.items()}
        values["noise_id"] = table[values["noise_id"]]
        s_M = torch.sigmoid(rival.squeeze.weight @ torch.cat(list(values.values())) + rival.squeeze.bias)
        x_D = torch.cat([s * x for s, x in zip(s_M, values.values(), strict=True)])
        first, head = ranker.layers
        scores.append(head(torch.relu(first(x_D))))
        total_M += s_M
    torch.testing.assert_close(rival.student(data.features, data.request_I)[0], torch.cat(scores), rtol=1e-4, atol=1e-5)
    # Of two batches every item counts once.
    half = [_part(data, slice(0, 4)), _part(data, slice(4, REQUESTS))]
    torch.testing.assert_close(rival.values(half), total_M.detach() / len(scores))


def _part(data: Batch, of: slice) -> Batch:
    items = slice(of.start * ITEMS, of.stop * ITEMS)
    parts = {name: x[of if name == "noise_of_request" else items] for name, x in data.features.items()}
    return Batch(parts, data.request_I[items] - of.start, of.stop - of.start)


def test_fscd_gates_and_what_the_penalty_teaches():
    rival = made(FSCD, penalty=0.3)
    delta = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    rival.slow_logits.data = torch.logit(delta) / (0.15 / 0.03)
    u_M = torch.rand(len(FEATURES), generator=torch.Generator().manual_seed(2 * 7 + 1))
    odds_M = delta / (1 - delta) * u_M / (1 - u_M)
    z_M = odds_M ** (1 / TEMPERATURE) / (1 + odds_M ** (1 / TEMPERATURE))
    torch.testing.assert_close(rival.gates(7), z_M, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(rival.values(()), torch.logit(delta))
    assert rival.facts()["gates"]["noise"] == pytest.approx(0.7)

    cost_M = torch.tensor([11.0, 21.0, 34.0, 44.0, 6.0]) / 100
    with_penalty, parts = rival(batch(0), 7)
    rival.penalty = 0.0
    without, _ = rival(batch(0), 7)
    torch.testing.assert_close(with_penalty - without, 0.3 * (cost_M * z_M).sum())
    torch.testing.assert_close(parts["complexity"], (cost_M * z_M).sum())
    (grad_M,) = torch.autograd.grad(with_penalty - without, rival.slow_logits)
    torch.testing.assert_close(grad_M, 0.3 * cost_M * z_M * (1 - z_M) / TEMPERATURE, rtol=1e-3, atol=1e-7)


def test_fscd_gates_move_at_their_own_rate():
    rival = made(FSCD)
    assert torch.sigmoid(rival.logits).tolist() == pytest.approx([0.8] * len(FEATURES))
    optimizer = make_optimizer(rival, rival.arm, Search())
    before = rival.logits.detach()
    rival(batch(0), 0)[0].backward()
    optimizer.step()
    moved = (rival.logits.detach() - before).abs()
    assert moved.max() == pytest.approx(0.15, rel=0.01)  # Adam's first step is its rate


def test_gradient_by_finite_differences():
    rival, data = made(Gradient, widths=()), batch(0)  # no ReLU, whose kinks a difference steps over
    embed = rival.distiller.student.embed
    expected = []
    with torch.no_grad():
        for index in range(len(FEATURES)):
            step_M = 1e-2 * (torch.arange(len(FEATURES)) == index)
            up, down = (rival.loss_of(*embed.gated(*rival.embedded(data), 1 + s * step_M), data) for s in (1, -1))
            expected.append(float(up - down) / 2e-2)
    assert min(expected) < 0 < max(expected)
    assert rival.values([data, data]).tolist() == pytest.approx([abs(x) for x in expected], rel=0.02, abs=2e-4)


def test_permutation_of_what_is_not_read_costs_nothing_and_of_all_that_is_the_whole_order():
    rival = made(Permutation, widths=())
    (layer,) = rival.distiller.student.layers
    layer.weight.data[:] = 0
    layer.weight.data[:, rival.distiller.student.embed.columns["useful"]] = 2.0  # the teacher's own score
    batches = [batch(i) for i in range(20)]
    value_M = rival.values(batches)
    assert value_M[torch.arange(len(FEATURES)) != USEFUL].tolist() == [0.0] * 4
    # The hard loss apart: shuffled among all items, the squared distance of centred scores is 2 · Var(2x) · (n-1)/n.
    hard = sum(float(rival.distiller.hard(b.teacher_I, b)) for b in batches) / 20
    at_random = torch.nn.functional.softplus(2 * torch.randn(20_000) * 2**0.5).mean()
    assert float(value_M[USEFUL]) == pytest.approx(8 * 5 / 6 + float(at_random) - hard, rel=0.1)
    assert torch.equal(value_M, rival.values(batches))


def test_methods_that_see_no_data():
    value_M = untrained_values("random", FEATURES, (), 3)
    assert torch.equal(value_M, untrained_values("random", FEATURES, (), 3)) and 0 < value_M.min() < value_M.max() <= 1
    assert not torch.equal(value_M, untrained_values("random", FEATURES, (), 4))
    assert untrained_values("hand_picked", FEATURES, ("noise", "useful"), 0).tolist() == [0, 0, 1, 1, 0]


@pytest.mark.slow
def test_trees_pay_once_for_a_feature():
    """The useful one is worth nearly all of the loss while its price is below that, and nothing where it is above."""
    batches, useful = [batch(seed) for seed in range(40)], FEATURES[USEFUL].name

    def values(cost_M, penalty=1.0):
        return tree_values(batches, FEATURES, np.array(cost_M, float), penalty, 0)

    free = values([0.0] * len(FEATURES))
    assert free[useful] > 10 * max(value for name, value in free.items() if name != useful)
    assert values([0.0] * len(FEATURES)) == free
    priced = values([0.2] * len(FEATURES))
    assert priced[useful] > 0.5 and not any(value for name, value in priced.items() if name != useful)
    assert not any(values([2.0] * len(FEATURES)).values())
    assert values([2.0] * len(FEATURES), penalty=0.0) == free


def test_trees_learn_from_pairs_where_there_is_no_teacher():
    batches = [replace(batch(seed), teacher_I=None) for seed in range(40)]
    values = tree_values(batches, FEATURES, np.zeros(len(FEATURES)), 1.0, 0)
    assert max(values, key=values.__getitem__) == FEATURES[USEFUL].name


def test_of_a_list_of_ids_trees_see_the_number_and_the_first():
    tags = Feature("tags", "item", "ids", "F1", 5.0, size=9, dim=2)
    lists = [[4, 2], [], [7]]
    bags = Bags(torch.tensor([i for one in lists for i in one]), torch.tensor([0, 2, 2]))
    one = Batch(features={"tags": bags}, request_I=torch.zeros(3, dtype=torch.long), requests=1)
    assert _columns(one, tags).tolist() == [[2, 4], [0, 9], [1, 7]]
