"""Every model as a graph: equal to torch, and two towers to the product of their parts."""

import lightgbm
import numpy as np
import pytest
import torch
from logs_fixture import SCHEMA
from ranker_fixture import FEATURES, STATS, drawn_inputs

from prerank.logs.schema import parse_schema
from prerank.models import logistic
from prerank.models.arch import Arch
from prerank.models.logistic import Cross
from prerank.models.scorers import scorer_of
from prerank.serving.parity import as_trained, draw_feed
from prerank.serving.served import TREES, VECTOR, as_served, graph_of, tower_graph
from prerank.serving.session import open_session

NOT_CROSS = tuple(feature for feature in FEATURES if feature.side != "cross")


def features_of(model):
    return NOT_CROSS if model == "two_tower" else FEATURES


def made(model, crosses=(), seed=0):
    """A model with random weights, or trees of random labels."""
    torch.manual_seed(seed)
    features = features_of(model)
    arch = Arch(tuple(f.name for f in features), (8, 4), model, crosses)
    scorer = scorer_of(arch, features, STATS).eval()
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    if hasattr(scorer, "trees"):
        scorer.trees.take(booster_of(scorer).dump_model())
    return scorer


def booster_of(scorer, rows=400):
    rng = np.random.default_rng(0)
    width = scorer.inputs(drawn_inputs(), torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])).shape[1]
    x, y = rng.normal(size=(rows, width)), rng.normal(size=rows)
    params = {"num_leaves": 6, "min_data_in_leaf": 5, "verbosity": -1, "objective": "l2", "deterministic": True}
    return lightgbm.train(params | {"num_threads": 1}, lightgbm.Dataset(x, y), 12)


CROSSES = ("brand*query_city",)


@pytest.mark.parametrize("model", ["mlp", "linear", "logistic", "two_tower", "two_tower_gbdt", "gbdt"])
def test_the_graph_is_the_model(model):
    scorer, features = made(model, CROSSES if model == "logistic" else ()), features_of(model)
    trees = hasattr(scorer, "trees")
    session, rng = open_session(graph_of(scorer, features, trees=trees), 1), np.random.default_rng(0)
    for candidates in (1, 7, 30):
        feed = draw_feed(features, STATS, candidates, rng, hard=True)
        inputs, request_I = as_trained(feed, features), torch.zeros(candidates, dtype=torch.long)
        score_N, *x_NF = session.run(["score", TREES] if trees else ["score"], feed)
        with torch.no_grad():
            expected_N = scorer(inputs, request_I)[0]
            if trees:
                np.testing.assert_allclose(x_NF[0], scorer.inputs(inputs, request_I), atol=1e-5)
                expected_N = scorer.trees(torch.from_numpy(x_NF[0]))
        np.testing.assert_allclose(score_N, expected_N, atol=1e-6 if trees else 1e-5)


@pytest.mark.parametrize("model", ["two_tower_gbdt", "gbdt"])
def test_trees_are_those_of_lightgbm(model):
    scorer = made(model)
    booster, rng = booster_of(scorer), np.random.default_rng(1)
    x_NF = rng.normal(size=(500, booster.num_feature())).astype(np.float32)
    thresholds = scorer.trees.threshold_TJ.unique()
    x_NF[: len(thresholds)] = thresholds[:, None]  # at the edge of a split
    np.testing.assert_allclose(scorer.trees(torch.from_numpy(x_NF)), booster.predict(x_NF), atol=1e-6)


def test_a_lone_leaf_is_a_tree():
    scorer = made("two_tower_gbdt")
    flat = lightgbm.train({"verbosity": -1, "objective": "l2"}, lightgbm.Dataset(np.zeros((30, 2)), np.arange(30)), 1)
    scorer.trees.take(flat.dump_model())
    feed = draw_feed(FEATURES, STATS, 3, np.random.default_rng(0))
    assert open_session(graph_of(scorer, FEATURES), 1).run(None, feed)[0] == pytest.approx(14.5)


def test_two_towers_are_served_by_their_product():
    scorer, schema = made("two_tower"), parse_schema(SCHEMA, "test")
    feed = draw_feed(NOT_CROSS, STATS, 9, np.random.default_rng(0), hard=True)
    parts = [open_session(tower_graph(scorer, NOT_CROSS, of_item), 1) for of_item in (0, 1)]
    u_1D, v_ND = (part.run(None, {i.name: feed[i.name] for i in part.get_inputs()})[0] for part in parts)
    with torch.no_grad():
        expected_N = scorer(as_trained(feed, NOT_CROSS), torch.zeros(9, dtype=torch.long))[0]
    np.testing.assert_allclose(v_ND @ u_1D[0], expected_N, atol=1e-5)
    served = as_served(scorer, NOT_CROSS, schema, STATS)
    session = open_session(served.graph, 1)
    fed = {i.name: v_ND if i.name == VECTOR else feed[i.name] for i in session.get_inputs()}
    assert set(fed) == {f.name for f in served.features} == {f.name for f in NOT_CROSS if f.of_request} | {VECTOR}
    np.testing.assert_allclose(session.run(None, fed)[0], expected_N, atol=1e-5)
    vector = served.features[-1]
    assert (vector.source, vector.fetch_us, vector.size) == ("F2", 60, 4)  # as the item_vector of the schema


def test_a_cross_has_a_row_for_each_pair_or_a_hash():
    brand, city = (next(f for f in FEATURES if f.name == name) for name in ("brand", "query_city"))
    cross = Cross("brand*query_city", FEATURES)
    a, b = torch.meshgrid(torch.arange(brand.size + 1), torch.arange(city.size + 1), indexing="ij")
    assert cross.exact and cross.of(a, b).unique().numel() == cross.rows == (brand.size + 1) * (city.size + 1)


def test_a_hashed_cross_is_served_as_it_was_trained(monkeypatch):
    monkeypatch.setattr(logistic, "ROWS", 16)
    test_the_graph_is_the_model("logistic")
    cross = Cross("brand*query_city", FEATURES)
    rows = cross.of(torch.arange(12).repeat_interleave(8), torch.arange(8).repeat(12))
    assert not cross.exact and torch.bincount(rows, minlength=16).min() > 0
