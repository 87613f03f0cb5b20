"""The ONNX graph against the ranker that it was written from."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from logs_fixture import SCHEMA

from prerank.logs.schema import parse_schema
from prerank.models.batch import Bags, Batch
from prerank.models.distill import Distiller
from prerank.models.options import Arm, Distill
from prerank.models.ranker import Ranker
from prerank.serving.graph import BLANK, empty_graph, inputs_graph, layer_graph, ranker_graph
from prerank.serving.packed import pack, packs_of

FEATURES = parse_schema(SCHEMA, "test").features
rng = np.random.default_rng(0)
STATS = {
    f.name: {"mean": rng.normal(size=f.size).tolist(), "std": rng.uniform(0.5, 3, f.size).tolist()}
    for f in FEATURES
    if not f.dim
}
BAD = [np.nan, np.inf, -np.inf, 3e38, -1e6]


def session(model):
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def ranker(features, widths, seed=0):
    torch.manual_seed(seed)
    out = Ranker(features, widths, STATS).eval()
    for table in out.embed.tables.values():
        torch.nn.init.normal_(table.weight)
    return out


def request(features, n, seed=0):
    """Inputs of one request, with missing values, unknown ids and empty lists among them."""
    rng = np.random.default_rng(seed)
    out = {}
    for f in features:
        rows = 1 if f.of_request else n
        if f.kind == "id":
            out[f.name] = rng.integers(-2, f.size + 3, (rows, 1))
        elif f.kind == "ids":
            out[f.name] = np.where(rng.random((rows, 4)) < 0.4, -1, rng.integers(0, f.size + 3, (rows, 4)))
        else:
            x = (3 * rng.normal(size=(rows, f.size))).astype(np.float32)
            bad = rng.random(x.shape) < 0.3
            x[bad] = rng.choice(np.float32(BAD), int(bad.sum()))
            out[f.name] = x
    return out


def by_torch(model, features, inputs, n):
    """The same request as prerank.logs.encoding and prerank.samples.batches would hand it to the ranker."""
    batch = {}
    for f in features:
        x = inputs[f.name]
        if f.kind == "id":
            batch[f.name] = torch.tensor(np.where((x < 0) | (x >= f.size), f.size, x)[:, 0])
        elif f.kind == "ids":
            lists = [[min(i, f.size) for i in row if i >= 0] for row in x.tolist()]
            values = torch.tensor([i for one in lists for i in one], dtype=torch.int64)
            batch[f.name] = Bags(values, torch.tensor(np.cumsum([0, *map(len, lists)])[:-1]))
        else:
            batch[f.name] = torch.tensor(np.where(np.isfinite(x), x, np.nan))
    with torch.inference_mode():
        return model(batch, torch.zeros(n, dtype=torch.int64))[0].numpy()


def subset(*names):
    return tuple(f for f in FEATURES if f.name in names)


@pytest.mark.parametrize(
    ("features", "widths"),
    [
        (FEATURES, (16, 8)),
        (FEATURES, (0, 8, 0)),
        (FEATURES, ()),
        (tuple(f for f in FEATURES if not f.of_request), (8,)),
        (subset("price"), (4,)),
        (subset("item_vector", "user_age"), ()),
        (subset("item_tags"), (4,)),
        (subset("item_tags", "user_tags"), ()),
        (subset("brand", "query_city"), (4, 4)),
        (subset("match", "item_tags", "brand", "user_vector"), (4,)),
    ],
)
def test_equals_the_ranker(features, widths):
    model = ranker(features, widths)
    run = session(ranker_graph(model, FEATURES))
    assert [i.name for i in run.get_inputs()] and {i.name for i in run.get_inputs()} == {f.name for f in features}
    for n in (1, 37):
        inputs = request(features, n, seed=n)
        (score,) = run.run(None, inputs)
        assert score.shape == (n,) and score.dtype == np.float32
        np.testing.assert_allclose(score, by_torch(model, features, inputs, n), rtol=1e-5, atol=1e-5)
    together = session(ranker_graph(model, FEATURES, packed=True))
    lists = {f.name for f in features if f.kind == "ids"}
    assert {i.name for i in together.get_inputs()} == {*packs_of(features), *lists}
    np.testing.assert_array_equal(together.run(None, pack(inputs, features))[0], score)


@pytest.mark.parametrize("widths", [(16, 8), ()])
def test_a_tied_head_is_served_as_it_was_trained(widths):
    """The reader's path through the projection, as the training scores it, against the graph of what is saved."""
    arm = Arm("a", tuple(f.name for f in FEATURES), widths, distill=Distill(contrast=1.0))
    distiller = Distiller(ranker(FEATURES, widths), arm, teacher_width=6)
    torch.nn.init.normal_(distiller.reader)
    saved = ranker(FEATURES, widths, seed=1)
    saved.load_state_dict(distiller.finished())
    inputs = request(FEATURES, 37)

    def trained(features, request_I):
        return distiller.scores(Batch(features, request_I, 1))

    (score,) = session(ranker_graph(saved, FEATURES)).run(None, inputs)
    np.testing.assert_allclose(score, by_torch(trained, FEATURES, inputs, 37), rtol=1e-5, atol=1e-5)


def test_lists_may_be_of_any_length():
    features = subset("item_tags", "user_tags", "price")
    model = ranker(features, (4,))
    run = session(ranker_graph(model, features))
    inputs = request(features, 5)
    expected = by_torch(
        model, features, inputs | {f: np.full((r, 1), -1) for f, r in (("item_tags", 5), ("user_tags", 1))}, 5
    )
    none = {"item_tags": np.zeros((5, 0), np.int64), "user_tags": np.zeros((1, 0), np.int64)}
    np.testing.assert_allclose(run.run(None, inputs | none)[0], expected, rtol=1e-5, atol=1e-5)
    wider = np.pad(inputs["item_tags"], ((0, 0), (2, 3)), constant_values=-7)
    np.testing.assert_allclose(run.run(None, inputs | {"item_tags": wider})[0], run.run(None, inputs)[0], atol=1e-6)


def test_the_graph_says_what_it_takes():
    model = ranker_graph(ranker(FEATURES, (4,)), FEATURES)
    props = {p.key: p.value for p in model.metadata_props}
    assert "hash_ids" in props["ids"]
    kinds = {f["name"]: f["kind"] for f in json.loads(props["features"])}
    assert kinds == {f.name: f.kind for f in FEATURES}
    assert all(len(i.shape) == 2 for i in session(model).get_inputs())
    with pytest.raises(ValueError, match="side item or cross"):
        ranker_graph(ranker(subset("user_age"), (4,)), FEATURES)


def test_pieces():
    x = rng.normal(size=(9, 6)).astype(np.float32)
    np.testing.assert_array_equal(session(empty_graph()).run(None, {BLANK: x[:, :1]})[0], x[:, 0])
    for width, ops in ((5, ["Gemm", "Relu", "Gemm", "Squeeze"]), (1, ["Gemm", "Squeeze"])):
        layer = layer_graph(6, width)
        assert [node.op_type for node in layer.graph.node] == ops
        assert session(layer).run(None, {BLANK: x})[0].shape == (9,)
    model = ranker(FEATURES, ())
    # The pieces are those of the whole: the same nodes, with the same weights.
    whole, pieces = ranker_graph(model, FEATURES), inputs_graph(model, FEATURES)
    assert [node.op_type for node in pieces.graph.node] == [node.op_type for node in whole.graph.node]
    inputs = request(FEATURES, 9)
    np.testing.assert_array_equal(session(pieces).run(None, inputs)[0], session(whole).run(None, inputs)[0])
    for features in (subset("user_tags"), subset("brand", "hour"), subset("match"), ()):
        run = session(inputs_graph(model, features))
        blank = all(f.of_request for f in features)
        assert (BLANK in [i.name for i in run.get_inputs()]) == blank
        (score,) = run.run(None, request(features, 9) | ({BLANK: x[:, :1]} if blank else {}))
        assert score.shape == (9,)


def test_what_is_packed_stands_in_rows():
    features = subset("price", "match", "brand", "item_vector", "user_age", "query_city")
    feed = request(features, 3)
    packed = pack(feed, features)
    for name, held in packs_of(features).items():
        rows = np.concatenate([feed[f.name] for f in held], axis=1)
        assert np.array_equal(packed[name], rows if name == "/request/numbers" else rows.T, equal_nan=name[-1] == "s")
    item = [f.name for f in packs_of(features)["/item/numbers"]]
    assert sorted(item[:2]) == ["match", "price"] and item[2:] == ["item_vector"]  # vectors last
