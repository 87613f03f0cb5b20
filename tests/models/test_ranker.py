"""The network against the same function written plainly."""

import math

import pytest
import torch
from ranker_fixture import FEATURES, ITEMS, REQUEST_I, STATS, drawn_inputs

from prerank.models.embed import FAR
from prerank.models.ranker import Ranker


@pytest.fixture
def inputs():
    return drawn_inputs()


def by_hand(ranker, inputs, widths):
    """Each item by itself: its input put together feature by feature, then layer by layer."""
    scores = []
    for i in range(ITEMS):
        x = torch.zeros(sum(ranker.embed.widths))
        for feature in FEATURES:
            row = int(REQUEST_I[i]) if feature.of_request else i
            value = inputs[feature.name]
            if feature.kind == "id":
                value = ranker.embed.tables[feature.name].weight[value[row]]
            elif feature.kind == "ids":
                ends = [*value.offsets.tolist(), len(value.values)]
                chosen = value.values[ends[row] : ends[row + 1]]
                table = ranker.embed.tables[feature.name].weight
                value = sum((table[j] for j in chosen), torch.zeros(feature.dim)) / max(1, len(chosen))
            else:
                value = torch.tensor([0.0 if math.isnan(v) else (v - 0.5) / 2.0 for v in value[row].tolist()])
                value = value.clamp(-FAR, FAR)
            x[ranker.embed.columns[feature.name]] = value
        for layer in ranker.layers[:-1]:
            x = (layer.weight @ x + layer.bias).clamp(min=0)
        scores.append(ranker.layers[-1].weight @ x + ranker.layers[-1].bias)
    return torch.cat(scores)


@pytest.mark.parametrize("widths", [(), (5,), (6, 4), (6, 0, 4), (0,)])
def test_equals_the_plain_network(inputs, widths):
    ranker = Ranker(FEATURES, widths, STATS)
    inputs["price"][2] = float("nan")
    inputs["match"][4] = 1e9
    score, hidden = ranker(inputs, REQUEST_I)
    assert torch.allclose(score, by_hand(ranker, inputs, widths), atol=1e-5)
    assert hidden.shape == (ITEMS, ranker.repr_width)


def test_widths_of_zero_are_skipped_layers():
    plain, skipped = Ranker(FEATURES, (6, 4), STATS), Ranker(FEATURES, (0, 6, 0, 4), STATS)
    assert [p.shape for p in plain.parameters()] == [p.shape for p in skipped.parameters()]


def test_items_alone_are_enough(inputs):
    features = tuple(f for f in FEATURES if f.side == "item")
    ranker = Ranker(features, (4,), STATS)
    assert ranker(inputs, REQUEST_I)[0].shape == (ITEMS,)
    with pytest.raises(ValueError, match="side item or cross"):
        Ranker(tuple(f for f in FEATURES if f.of_request), (4,), STATS)(inputs, REQUEST_I)


def test_missing_values_are_the_training_mean(inputs):
    ranker = Ranker(FEATURES, (6, 4), STATS)
    inputs["price"][:] = float("nan")
    missing = ranker(inputs, REQUEST_I)[0]
    inputs["price"][:] = 0.5
    assert torch.equal(missing, ranker(inputs, REQUEST_I)[0])
