"""Costs against enumeration and against sums and gradients worked by hand."""

import itertools
import json
import math

import pytest
import torch

from prerank.core.errors import InputError
from prerank.latency.formula import expected_fetch_us, expected_inference_us, fetch_us, inference_us, latency_us
from prerank.latency.table import load_table, table_of
from prerank.logs.schema import Feature

FETCH = {"store": {"per_feature_us": 10.0}, "stream": {"per_feature_us": 3.0}, "cache": {"per_feature_us": 1.0}}
FEATURES = (
    Feature("age", "user", "dense", "stream", 50.0),
    Feature("price", "item", "dense", "store", 100.0),
    Feature("brand", "item", "id", "store", 130.0, size=9, dim=4),
    Feature("vector", "item", "embedding", "cache", 90.0, size=8),
    Feature("match", "cross", "dense", "stream", 140.0, size=3),
)
"""12 + 1 + 3 = 16 inputs of an item."""


def stat(p5):
    return {"count": 5, "mean": p5 + 1, "p5": p5, "p50": p5 + 1, "p99": p5 + 9}


def layer(width_in, width_out):
    return 5 + width_in * width_out / 7 + math.sqrt(width_in)  # far from linear in the width in


def setting(candidates, *, ins=(2, 4, 8, 16), outs=(1, 4, 8), overhead=20.0):
    return {
        "runtime": "onnxruntime",
        "candidates": candidates,
        "threads": 1,
        "overhead_us": stat(overhead),
        "inputs_us": {feature.name: stat(2.0 + i) for i, feature in enumerate(FEATURES)},
        "layers_us": [{"in": i, "out": o, **stat(layer(i, o))} for o in outs for i in reversed(ins)],
    }


@pytest.fixture
def path(tmp_path):
    (tmp_path / "latency.json").write_text(json.dumps({"settings": [setting(100), setting(200, overhead=30.0)]}))
    return tmp_path / "latency.json"


@pytest.fixture
def table(path):
    return load_table(path, candidates=100)


def choose(chosen, widths_C):
    return torch.tensor([[float(w == c) for c in widths_C] for w in chosen])


def keep(kept):
    return torch.tensor([float(f in kept) for f in FEATURES])


def subsets(features):
    return [s for n in range(len(features) + 1) for s in itertools.combinations(features, n)]


def test_load_table(path, table):
    assert table.ins == (2, 4, 8, 16) and table.outs == (1, 4, 8)
    assert table.layer_us[2][1] == layer(8, 4) and table.overhead_us == 20 and table.inputs_us["brand"] == 4
    assert load_table(path, candidates=200).overhead_us == 30
    with pytest.raises(InputError, match="no setting torch, 100 candidates, 2 threads; there are: onnxruntime, 100"):
        load_table(path, candidates=100, threads=2, runtime="torch")


def test_load_table_refuses_what_is_not_one(tmp_path):
    for text in (None, "no", "[]", json.dumps({"settings": [{"runtime": "torch"}]})):
        if text:
            (tmp_path / "latency.json").write_text(text)
        with pytest.raises(InputError, match="expected the latency"):
            load_table(tmp_path / "latency.json", candidates=100)
    for broken in (setting(100, outs=(4, 8)), setting(100) | {"layers_us": setting(100)["layers_us"][1:]}):
        (tmp_path / "latency.json").write_text(json.dumps({"settings": [broken]}))
        with pytest.raises(InputError, match=r"setting onnxruntime, 100 candidates, 1 threads: .* is missing"):
            load_table(tmp_path / "latency.json", candidates=100)


def test_costs_by_hand(table):
    age, price, brand, vector, match = FEATURES
    assert fetch_us((), FETCH) == 0
    assert fetch_us((price, brand), FETCH) == 130 + 2 * 10
    assert fetch_us((price, brand, age, match), FETCH) == 150  # the stream takes 140 + 2 * 3
    assert fetch_us((age, price, match), FETCH) == 146
    assert fetch_us((vector, age), FETCH) == 91

    # 4 + 1 inputs of an item, a quarter of the way from 4 to 8; age is of the request.
    first = 0.75 * layer(4, 8) + 0.25 * layer(8, 8)
    expected = 20 + (2 + 3 + 4) + first + layer(8, 4) + layer(4, 1)
    assert inference_us(table, (age, price, brand), (0, 8, 4)) == pytest.approx(expected)
    assert inference_us(table, (price,), (0,)) == 20 + 3 + layer(2, 1)  # below the smallest measured
    assert latency_us(table, (price,), FETCH, ()) == 110 + 23 + layer(2, 1)


def test_what_was_not_measured(table):
    wide = Feature("wide", "item", "dense", "store", 1.0, size=17)
    with pytest.raises(InputError, match="'wide' was not measured"):
        inference_us(table, (wide,), (4,))
    with pytest.raises(InputError, match="width 5 out of a layer"):
        inference_us(table, FEATURES, (5,))
    with pytest.raises(InputError, match="17 inputs of a layer, measured up to 16"):
        table.at(17, 4)
    with pytest.raises(InputError, match="20 inputs of a layer"):
        big = Feature("brand", "item", "dense", "store", 1.0, size=20)
        expected_inference_us(torch.ones(1), torch.ones(1, 1), table, (big,), (0,))


def test_expected_fetch_is_exact_for_one_hot_gates():
    for kept in subsets(FEATURES):
        for temperature in (0.1, 1000.0):
            assert expected_fetch_us(keep(kept), FEATURES, FETCH, temperature).item() == fetch_us(kept, FETCH)


def test_expected_fetch_value_and_gradient_by_hand():
    theta_M = torch.tensor([0.9, 0.8, 0.5, 0.3, 0.6], dtype=torch.float64, requires_grad=True)
    total = expected_fetch_us(theta_M, FEATURES, FETCH, 20.0)
    total.backward()
    # stream: 0.9·50 = 45, 0.6·140 = 84, + 3·1.5; store: 80, 65, + 10·1.3; cache: 27 + 0.3
    stream, store, cache = 84 + 4.5, 80 + 13, 27.3
    assert total.item() == pytest.approx(store)
    outer = [math.exp(x / 20) for x in (stream, store, cache)]
    of_stream, of_store, of_cache = (x / sum(outer) for x in outer)
    age, match = (x / (math.exp(45 / 20) + math.exp(84 / 20)) for x in (math.exp(45 / 20), math.exp(84 / 20)))
    price, brand = (x / (math.exp(80 / 20) + math.exp(65 / 20)) for x in (math.exp(80 / 20), math.exp(65 / 20)))
    expected = [
        of_stream * (age * 50 + 3),
        of_store * (price * 100 + 10),
        of_store * (brand * 130 + 10),
        of_cache * (90 + 1),
        of_stream * (match * 140 + 3),
    ]
    torch.testing.assert_close(theta_M.grad, torch.tensor(expected, dtype=torch.float64))
    assert (theta_M.grad > 0).all()


@pytest.mark.parametrize("widths_C", [(8, 4, 0), (4, 8), (0,)])
def test_expected_inference_is_exact_for_one_hot_choices(table, widths_C):
    networks = list(itertools.product(widths_C, repeat=3))
    for kept, widths in [*((kept, networks[-1]) for kept in subsets(FEATURES)), *((FEATURES, w) for w in networks)]:
        expected = expected_inference_us(keep(kept), choose(widths, widths_C), table, FEATURES, widths_C)
        assert expected.item() == pytest.approx(inference_us(table, kept, widths), rel=1e-6)


def test_expected_inference_is_the_mean_over_all_networks(table):
    widths_C, kept = (8, 4, 0), FEATURES[:3]
    p_SC = torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(1)
    expected = 0.0
    for chosen in itertools.product(range(3), repeat=3):
        probability = math.prod(p_SC[s, c].item() for s, c in enumerate(chosen))
        expected += probability * inference_us(table, kept, [widths_C[c] for c in chosen])
    actual = expected_inference_us(keep(kept).double(), p_SC, table, FEATURES, widths_C)
    assert actual.item() == pytest.approx(expected, rel=1e-12)


def test_expected_inference_gradients(table):
    theta_M = torch.tensor([0.5, 0.4, 0.6, 0.3, 0.2], dtype=torch.float64, requires_grad=True)
    logits_SC = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)

    def cost(theta_M, logits_SC):
        return expected_inference_us(theta_M, logits_SC.softmax(1), table, FEATURES, (8, 4, 0))

    assert torch.autograd.gradcheck(cost, (theta_M, logits_SC))
    cost(theta_M, logits_SC).backward()
    assert (theta_M.grad > 0).all()
    assert theta_M.grad[0] == 2.0  # of the request: its input's path and nothing else
    assert (logits_SC.grad[:, 0] > 0).all() and (logits_SC.grad[:, 2] < 0).all()


def test_what_numbers_cost_once_is_in_every_prediction_and_older_files_count():
    yard = {"yardstick_us": {"p10": 9.0, "p50": 10.0, "p90": 12.0}}
    new = setting(100) | {"numbers_us": stat(7.0), "meanwhile": yard}
    table, plain = table_of(new, ""), table_of(setting(100), "")
    assert inference_us(table, FEATURES, (8,)) == inference_us(plain, FEATURES, (8,)) + 7
    assert table.yardstick_us == 9 and plain.yardstick_us is None

    def older(x):
        """As it was written when the median of the quicker half was all there was."""
        if isinstance(x, dict) and "p50" in x and "p5" in x:
            x = {key: value for key, value in x.items() if key != "p5"} | {"p50": x["p5"]}
        if isinstance(x, dict):
            return {key: older(value) for key, value in x.items()}
        return [older(value) for value in x] if isinstance(x, list) else x

    old = table_of(older(setting(100)) | {"meanwhile": yard}, "")
    assert inference_us(old, FEATURES, (8,)) == inference_us(plain, FEATURES, (8,)) and old.yardstick_us is None
