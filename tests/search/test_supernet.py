"""The supernet against the single networks that it holds, its estimators against their formulas."""

import itertools

import pytest
import torch
from ranker_fixture import FEATURES, REQUEST_I, STATS, drawn_inputs

from prerank.models.ranker import Ranker
from prerank.search.supernet import Draw, Supernet, bernoulli, one_path, rescale, two_path

WIDTHS, SLOTS = (8, 4, 2, 0), 3


@pytest.fixture
def inputs():
    return drawn_inputs()


def one_hot(arch_widths, widths):
    """The mix_SC of a single network."""
    return torch.eye(len(widths))[[widths.index(width) for width in arch_widths]]


def network(form, seed=0):
    torch.manual_seed(seed)
    net = Supernet(FEATURES, WIDTHS, SLOTS, STATS, form)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return net


def cut_out(net, widths, features=FEATURES):
    """The `Ranker` of one architecture with the supernet's weights, found block by block."""
    ranker = Ranker(features, widths, STATS)
    embed = net.embed
    names = [f.name for f in features]
    for name in ranker.embed.tables:
        ranker.embed.tables[name].weight = embed.tables[name].weight
    inputs_D = torch.zeros(sum(ranker.embed.widths), dtype=torch.long)
    for name in names:
        inputs_D[ranker.embed.columns[name]] = torch.arange(sum(embed.widths))[embed.columns[name]]

    def columns(width):
        start = sum(WIDTHS[: WIDTHS.index(width)]) if net.form == "independent" else 0
        return torch.arange(start, start + width)

    came_in = inputs_D
    layers = iter(ranker.layers)
    for slot, width in enumerate(widths):
        if width:
            layer = next(layers)
            layer.weight.data = net.slot_weights[slot][columns(width)][:, came_in].clone()
            layer.bias.data = net.slot_biases[slot][columns(width)].clone()
            came_in = sum(embed.widths) + columns(width)
    head = next(layers)
    head.weight.data, head.bias.data = net.head.weight[:, came_in].clone(), net.head.bias.clone()
    return ranker


@pytest.mark.slow
@pytest.mark.parametrize("form", ["independent", "shared"])
def test_a_one_hot_draw_is_the_derived_ranker_for_every_architecture(form, inputs):
    net = network(form)
    for widths in itertools.product(WIDTHS, repeat=SLOTS):
        mix_SC = one_hot(widths, WIDTHS)
        expected, repr_ID = cut_out(net, widths)(inputs, REQUEST_I)
        last = next((width for width in reversed(widths) if width), 0)
        start = sum(WIDTHS[: WIDTHS.index(last)]) if form == "independent" else 0
        repr_IH = torch.zeros(len(REQUEST_I), net.repr_width)
        if last:  # where every layer is skipped the ranker's are its inputs
            repr_IH[:, start : start + last] = repr_ID
        for live_SC in (None, mix_SC > 0):
            score_I, found_IH = net(inputs, REQUEST_I, Draw(torch.ones(len(FEATURES)), mix_SC, live_SC))
            torch.testing.assert_close(score_I, expected, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(found_IH, repr_IH, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", ["independent", "shared"])
def test_dropped_features_are_a_ranker_without_them(form, inputs):
    net, widths = network(form), (4, 0, 2)
    item_side = [m for m, f in enumerate(FEATURES) if not f.of_request]
    one_gone = (torch.ones(len(FEATURES)) - torch.eye(len(FEATURES))).tolist()
    one_left = [[float(m == only) for m in range(len(FEATURES))] for only in item_side]
    for kept in (*one_gone, *one_left):
        features = tuple(f for f, gate in zip(FEATURES, kept, strict=True) if gate)
        score_I, _ = net(inputs, REQUEST_I, Draw(torch.tensor(kept), one_hot(widths, WIDTHS)))
        expected, _ = cut_out(net, widths, features)(inputs, REQUEST_I)
        torch.testing.assert_close(score_I, expected, rtol=1e-6, atol=1e-6)


def test_the_mixture_is_the_papers_sum_over_transitions(inputs):
    """O_k = relu(Σ_j p_j W_jk O_j + b_k) written out, without an identity."""
    widths, net = (4, 2), None
    torch.manual_seed(0)
    net = Supernet(FEATURES, widths, 2, STATS, "independent")
    p = torch.tensor([[0.3, 0.7], [0.6, 0.4]])
    score_I, _ = net(inputs, REQUEST_I, Draw(torch.ones(len(FEATURES)), p))
    x_R, x_I = net.embed(inputs)
    x = torch.cat([x_R[REQUEST_I], x_I], 1)
    D = x.shape[1]
    blocks = [slice(0, 4), slice(4, 6)]
    first = [torch.relu(x @ net.slot_weights[0][b].T + net.slot_biases[0][b]) for b in blocks]
    second = []
    for b in blocks:
        total = sum(p[0, j] * (first[j] @ net.slot_weights[1][b][:, D:][:, blocks[j]].T) for j in (0, 1))
        second.append(torch.relu(total + net.slot_biases[1][b]))
    head = net.head.weight[0, D:]
    expected = sum(p[1, k] * (second[k] @ head[blocks[k]]) for k in (0, 1)) + net.head.bias
    torch.testing.assert_close(score_I, expected)


def test_gates_are_drawn_by_their_probability():
    theta, p = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 0.5, 1.0])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([bernoulli(theta, p, generator)[0] for _ in range(4000)])
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.mean(0), p, atol=0.03, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_the_gates_gradient_is_what_the_loss_would_change_by(p):
    """For a quadratic loss of one gate the expected gradient by θ is L(1) - L(0) exactly, whatever it is drawn by."""
    generator, gradients = torch.Generator().manual_seed(0), []
    for _ in range(1500):
        theta = torch.tensor([0.7], requires_grad=True)
        gate, _ = bernoulli(theta, torch.tensor([p]), generator)
        (3 * gate**2 - 8 * gate).sum().backward()
        gradients.append(theta.grad.item())
    assert sum(gradients) / len(gradients) == pytest.approx(3 - 8, abs=0.5)


def test_draws_depend_on_the_seed_alone():
    logit = torch.randn(4, 3)
    theta = torch.rand(9)
    for draw in (
        lambda g: bernoulli(theta, theta, g)[0],
        lambda g: one_path(logit, g)[0],
        lambda g: two_path(logit, g)[0],
    ):
        a, b, other = (draw(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(a, b)
        assert any(not torch.equal(a, draw(torch.Generator().manual_seed(seed))) for seed in range(2, 12)), other


def test_one_path_is_drawn_by_the_softmax():
    logit = torch.tensor([[0.0, 1.0, 2.0]])
    generator = torch.Generator().manual_seed(0)
    share = torch.stack([one_path(logit, generator)[0] for _ in range(4000)]).mean(0)
    torch.testing.assert_close(share, logit.softmax(1), atol=0.03, rtol=0)


def test_two_path_has_the_gradient_of_proxylessnas():
    """∂L/∂α_i = Σ_j ∂L/∂g_j p_j (δ_ij - p_i) over the two drawn, 0 for the others, by hand."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        logit = torch.randn(2, 4, requires_grad=True)
        gradient_g = torch.randn(2, 4)
        mix, live = two_path(logit, generator)
        assert torch.equal(live.sum(1), torch.tensor([2, 2]))
        assert torch.equal(mix.detach().sum(1), torch.ones(2)) and bool((mix.detach()[~live] == 0).all())
        (mix * gradient_g).sum().backward()
        for s in range(2):
            pair = live[s].nonzero().squeeze(1).tolist()
            p = dict(zip(pair, logit.detach()[s, pair].softmax(0).tolist(), strict=True))
            for i in range(4):
                by_hand = sum(float(gradient_g[s, j]) * p[j] * ((i == j) - p[i]) for j in pair) if i in pair else 0.0
                assert float(logit.grad[s, i]) == pytest.approx(by_hand, abs=1e-6)


def test_rescaling_leaves_the_other_probabilities_alone():
    before = torch.randn(3, 5)
    live = torch.zeros(3, 5, dtype=torch.bool)
    live[:, [1, 3]] = True
    after = before + torch.where(live, torch.randn(3, 5), torch.zeros(3, 5))
    difference = after[:, 1] - after[:, 3]
    rescale(after, before, live)
    torch.testing.assert_close(after.softmax(1)[~live], before.softmax(1)[~live])
    torch.testing.assert_close(after[:, 1] - after[:, 3], difference)


@pytest.mark.parametrize("form", ["independent", "shared"])
@pytest.mark.parametrize("live", [False, True])
def test_in_bfloat16_it_is_the_same_to_its_rounding(form, live, inputs):
    torch.manual_seed(0)
    net = Supernet(FEATURES, WIDTHS, SLOTS, STATS, form)
    mix_SC = torch.rand(SLOTS, len(WIDTHS)).softmax(1)
    draw = Draw(torch.ones(len(FEATURES)), mix_SC, torch.ones_like(mix_SC, dtype=torch.bool) if live else None)
    outs = []
    for enabled in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            score_I, _ = net(inputs, REQUEST_I, draw)
        score_I.float().square().sum().backward()
        outs.append((score_I.float().detach(), torch.cat([p.grad.flatten() for p in net.slot_weights])))
    for exact, rounded in zip(*outs, strict=True):
        assert not torch.equal(exact, rounded)
        assert (rounded - exact).norm() < 0.1 * exact.norm()
