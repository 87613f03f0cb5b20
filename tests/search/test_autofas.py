"""Does the latency penalty bite? Gradients by their sign, planted features, and a sweep of λ."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from search_fixture import ARM, FEATURES, FETCH, SCHEMA, SEARCH, STATS, TABLE, Made, table_of

from prerank.latency.formula import fetch_us, inference_us, latency_us
from prerank.latency.options import Latency
from prerank.models.checkpoint import State
from prerank.samples.batches import training_batch
from prerank.search.autofas import AutoFAS
from prerank.search.derive import derive
from prerank.search.loop import make_optimizer, search_steps
from prerank.search.spec import Spec
from prerank.training.loop import Lesson


def network(search=SEARCH, latency=Latency(), budget_us=500.0, seed=0):  # noqa: B008
    torch.manual_seed(seed)
    return AutoFAS(Spec(replace(ARM, seed=seed), search, latency, TABLE, budget_us), SCHEMA, STATS)


def searched(search=SEARCH, latency=Latency(), budget_us=500.0, seed=0):  # noqa: B008
    """The derived architecture and the method after its search."""
    method = network(search, latency, budget_us, seed)
    optimizer = make_optimizer(method, method.arm, search)
    score = None if search.joint else "teacher_score"
    lesson = Lesson(method.arm, FEATURES, Made(2 * seed), lambda method: {}, score)
    search_steps(lesson, search, Made(2 * seed + 1), method, optimizer, state=State(), save=lambda _: None)
    arch = derive(
        features=FEATURES,
        fetch=FETCH,
        table=TABLE,
        widths=method.candidates,
        budget_us=budget_us,
        value_M=method.values(()),
        log_p_SC=method.width_logits.detach().log_softmax(1),
    )
    return arch, method


def test_indecision_has_its_price():
    """dH/dlogit is -logit·θ(1-θ) of a gate, and -p(log p + H) of a width."""
    gradients = []
    for weight in (0.0, 0.5):
        method = network(replace(SEARCH, entropy=weight))
        with torch.no_grad():
            method.width_logits += torch.randn(method.width_logits.shape, generator=torch.Generator().manual_seed(0))
        batch = training_batch(table_of(0), ARM, FEATURES, 0, "teacher_score")
        loss, _ = method(batch, 0, 1.0, "architecture")
        gradients.append(torch.autograd.grad(loss, method.architecture()))
    theta_M, p_SC = torch.sigmoid(method.gate_logits), method.width_logits.softmax(1)
    of_gates = -method.gate_logits * theta_M * (1 - theta_M) / len(FEATURES)
    entropy_S1 = -(p_SC * p_SC.log()).sum(1, keepdim=True)
    of_widths = -p_SC * (p_SC.log() + entropy_S1) / len(p_SC)
    for without, priced, expected in zip(*gradients, (of_gates, of_widths), strict=True):
        assert torch.allclose(priced - without, 0.5 * expected, atol=1e-6)


def chosen(arch):
    return tuple(f for f in FEATURES if f.name in arch.features)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("estimator", ["softmax", "two_path"])
def test_the_penalty_pushes_gates_and_widths_down(joint, estimator):
    """The gradient of λ · E[latency] alone: positive on every gate that costs, and towards the cheaper widths."""
    search = replace(SEARCH, joint=joint, estimator=estimator, block=False)
    batch = training_batch(table_of(0), ARM, FEATURES, 0, None if joint else "teacher_score")
    gradients = []
    for penalty in (0.0, 1.0):
        method = network(search, Latency(penalty=penalty))
        loss, _ = method(batch, 0, 1.0, "architecture")
        loss.backward()
        gradients.append([p.grad.clone() for p in method.architecture()])
    gate_M, width_SC = (with_it - without for without, with_it in zip(*gradients, strict=True))
    assert (gate_M > 0).all()
    assert (width_SC[:, 0] > 0).all() and (width_SC[:, -1] < 0).all()  # 16 wide up in cost, the identity down


@pytest.mark.slow
def test_the_gradient_block_leaves_the_gates_to_loss1():
    batch = training_batch(table_of(0), ARM, FEATURES, 0, None)
    joint = replace(SEARCH, joint=True)
    of_loss1 = {}
    for block in (True, False):
        method = network(replace(joint, block=block), Latency(penalty=0.0))
        loss, _ = method(batch, 0, 1.0, "architecture")
        loss.backward()
        of_loss1[block] = method.gate_logits.grad.clone()
        assert method.width_logits.grad.abs().sum() > 0
    method = network(joint, Latency(penalty=0.0))
    for parameter in method.distiller.parameters():
        torch.nn.init.zeros_(parameter)  # another student: a blocked gate cannot tell
    loss, _ = method(batch, 0, 1.0, "architecture")
    loss.backward()
    torch.testing.assert_close(method.gate_logits.grad, of_loss1[True])
    assert not torch.allclose(of_loss1[True], of_loss1[False])


@pytest.mark.slow
def test_turns_move_what_they_should():
    """Weights stand still in an architecture step, gates and widths in a weights step; two workers draw the same."""
    search = replace(SEARCH, epochs=1, warmup_epochs=1)
    method = network(search)
    before = [p.detach().clone() for p in method.architecture()]
    optimizer = make_optimizer(method, ARM, search)
    batch = training_batch(table_of(0), ARM, FEATURES, 0, "teacher_score")
    turns = [(step, learns) for step in (3, 3, 4) for learns in ("weights", "architecture")]
    losses = [method(batch, step, 1.0, learns)[0].item() for step, learns in turns]
    assert losses[:2] == losses[2:4] and losses[:2] != losses[4:]
    lesson = Lesson(ARM, FEATURES, Made(0, 3), lambda method: {}, "teacher_score")
    search_steps(lesson, search, Made(1, 3), method, optimizer, state=State(), save=lambda _: None)
    for old, parameter in zip(before, method.architecture(), strict=True):
        assert torch.equal(old, parameter)  # the whole search was warm-up


@pytest.mark.slow
@pytest.mark.parametrize("joint", [False, True])
def test_planted_features(joint):
    """A useless dear feature goes and a useful dear one stays where the budget allows it: in 9 of 10 seeds at least."""
    found = [searched(replace(SEARCH, joint=joint), seed=seed)[0].features for seed in range(10)]
    assert sum("useless_dear" not in features for features in found) >= 9
    assert sum("useful_dear" in features for features in found) >= 9


@pytest.mark.slow
def test_a_budget_without_room_for_the_dear_feature_keeps_the_cheap_one():
    for seed in range(3):
        arch, _ = searched(budget_us=250.0, seed=seed)
        assert "useful_cheap" in arch.features and "useful_dear" not in arch.features
        assert latency_us(TABLE, chosen(arch), FETCH, arch.widths) <= 250.0


@pytest.mark.slow
def test_the_chosen_cost_falls_with_the_penalty():
    """Six λ, three seeds, a budget that does not bind: rank correlation of λ and cost at most -0.9."""
    penalties = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
    lambdas, costs = [], []
    for seed in range(3):
        for penalty in penalties:
            arch, _ = searched(latency=Latency(penalty=penalty), budget_us=1000.0, seed=seed)
            lambdas.append(penalty)
            costs.append(fetch_us(chosen(arch), FETCH) + inference_us(TABLE, chosen(arch), arch.widths))
    print(np.array(costs).reshape(3, -1).round())
    assert spearmanr(lambdas, costs).statistic <= -0.9
    assert max(costs) > 2 * min(costs)
