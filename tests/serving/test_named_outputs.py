"""One network with an output a head and the fused score, against torch."""

import numpy as np
import onnx
import pytest
import torch
from ranker_fixture import FEATURES, STATS

from prerank.models.fusion import Fusion
from prerank.models.ranker import Ranker
from prerank.serving.export import mlflow_signature, parity_of
from prerank.serving.graph import ranker_graph
from prerank.serving.parity import draw_feed
from prerank.serving.session import open_session
from prerank.serving.signature import describe

HEADS = ("click", "liked")


@pytest.fixture(scope="module")
def ranker():
    torch.manual_seed(0)
    return Ranker(FEATURES, (6, 4), STATS, Fusion(HEADS, (0.7, 0.3))).eval()


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_outputs_are_named_and_equal_torch(ranker, packed):
    graph = ranker_graph(ranker, FEATURES, packed=packed)
    onnx.checker.check_model(graph, full_check=True)
    equal = parity_of(ranker, graph, FEATURES, STATS, None, 1, packed=packed)
    assert equal["heads"]["scores"] == equal["hard"]["scores"]
    assert equal["heads"]["worst"] < 1e-5 and equal["hard"]["worst"] < 1e-5


def test_the_score_is_fused_of_the_heads_outputs(ranker):
    graph = ranker_graph(ranker, FEATURES)
    feed = draw_feed(FEATURES, STATS, 7, np.random.default_rng(0))
    score_N, *heads = open_session(graph, 1).run(["score", *HEADS], feed)
    assert [head.shape for head in heads] == [(7,), (7,)] and len({*np.round(heads[0], 4)}) > 1
    np.testing.assert_allclose(score_N, 0.7 * heads[0] + 0.3 * heads[1], atol=1e-6)


def test_the_signature_names_the_heads(ranker):
    graph = ranker_graph(ranker, FEATURES)
    said = describe(graph, FEATURES)
    assert said["output"]["name"] == "score" and [head["name"] for head in said["heads"]] == [*HEADS]
    assert [*said["serve"]["answer"]["predictions"]] == ["score", *HEADS]
    assert mlflow_signature(graph).outputs.input_names() == ["score", *HEADS]
    one = describe(ranker_graph(Ranker(FEATURES, (4,), STATS), FEATURES), FEATURES)
    assert "heads" not in one
