"""Fusions as they are written, and heads fused as NumPy does it."""

import numpy as np
import pytest
import torch
from ranker_fixture import FEATURES, REQUEST_I, STATS, drawn_inputs

from prerank.core.errors import InputError
from prerank.models.arch import Arch, load_arch
from prerank.models.fusion import Fusion, parse_fusion
from prerank.models.ranker import Ranker

THREE = ("click", "liked", "ordered")


@pytest.mark.parametrize(
    ("text", "heads", "shares"),
    [
        ("", (), ()),
        ("click=1", (), ()),
        ("click=7,liked=0", (), ()),
        ("ordered=2", ("ordered",), (1.0,)),
        ("ordered=1,click=3", ("click", "ordered"), (0.75, 0.25)),
        ("click=2,*=2", THREE, (0.5, 0.25, 0.25)),
        ("*=1", ("liked", "ordered"), (0.5, 0.5)),
    ],
)
def test_weights_become_shares_in_the_order_of_the_schema(text, heads, shares):
    assert parse_fusion(text, THREE) == Fusion(heads, shares)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("click", "expected objectives with weights"),
        ("click=-1", "of 0 or more"),
        ("click=nan", "of 0 or more"),
        ("click=inf", "of 0 or more"),
        ("clicks=1", "unknown objective 'clicks'; did you mean 'click'"),
        ("click=0,liked=0", "all weights are 0"),
        ("click=1,click=2", "names 'click' twice"),
        ("liked=1,*=1", "names 'liked' twice"),
    ],
)
def test_what_makes_no_sense_is_one_line(text, said):
    with pytest.raises(InputError, match=said):
        parse_fusion(text, THREE)


def test_logs_without_labels_have_clicks_alone():
    assert parse_fusion("click=2", ("click",)) == Fusion()
    with pytest.raises(InputError, match=r"unknown objective 'ordered'.*declares no 'labels'"):
        parse_fusion("click=1,ordered=1", ("click",))
    with pytest.raises(InputError, match=r"unknown objective '\*'"):
        parse_fusion("click=1,*=1", ("click",))


@pytest.mark.parametrize("widths", [(), (6, 4)])
def test_the_score_is_the_weighted_sum_of_the_heads(widths):
    torch.manual_seed(0)
    ranker, inputs = Ranker(FEATURES, widths, STATS, Fusion(THREE, (0.5, 0.3, 0.2))).eval(), drawn_inputs()
    with torch.no_grad():
        score_I, repr_ID = ranker(inputs, REQUEST_I)
        head_IH, of_heads = ranker.heads(inputs, REQUEST_I)
    last = ranker.linears[-1]
    by_hand = repr_ID.numpy() @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    assert torch.equal(repr_ID, of_heads)
    np.testing.assert_allclose(head_IH, by_hand, atol=1e-5)
    np.testing.assert_allclose(score_I, by_hand @ np.array([0.5, 0.3, 0.2]), atol=1e-5)


def test_the_order_is_that_of_the_weighted_product_of_the_probabilities():
    """Of softmaxes over the items of a request."""
    head_IH = torch.tensor([[1.0, -2.0], [0.5, 0.0], [-1.0, 3.0], [2.0, -3.0]])
    ranker = Ranker(FEATURES, (4,), STATS, Fusion(THREE[:2], (0.6, 0.4)))
    product_I = (torch.softmax(head_IH, 0) ** torch.tensor([0.6, 0.4])).prod(1)
    assert torch.equal(ranker.fused(head_IH).argsort(), product_I.argsort())


def test_an_architecture_of_heads_is_read_back(tmp_path):
    for arch in (Arch(("a",), (4,)), Arch(("a",), (4,), fusion=Fusion(("click", "liked"), (0.9, 0.1)))):
        arch.save(tmp_path / "arch.json", latency_us=3.0)
        assert load_arch(tmp_path / "arch.json") == arch
    assert "fusion" in (tmp_path / "arch.json").read_text()
    Arch(("a",), (4,)).save(tmp_path / "old.json")
    assert "fusion" not in (tmp_path / "old.json").read_text()
