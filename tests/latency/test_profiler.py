"""Measuring, against costs that are known."""

import json
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from logs_fixture import SCHEMA

from prerank.core.errors import InputError
from prerank.latency import plan, profiler
from prerank.latency.formula import inference_us
from prerank.latency.pieces import PIECES, Setting
from prerank.latency.table import load_table
from prerank.logs.schema import parse_schema
from prerank.serving import timing
from prerank.serving.watch import Watch, said
from workflows import profile_latency

FEATURES = tuple(f for f in parse_schema(SCHEMA, "test").features if not f.teacher_only)


def test_pieces_take_turns():
    now, turns, ticks = SimpleNamespace(us=0), [], []

    def piece(us):
        def run(k):
            now.us += us
            turns.append(us)

        return run

    clock = mock.patch.object(timing.time, "perf_counter_ns", lambda: 1000 * now.us)
    with clock, mock.patch.object(timing, "MOST_S", 0.032):
        cheap, dear = timing.timed([piece(1), piece(1000)], 60, lambda: ticks.append(1))
    assert turns[:10] == [1] * 5 + [1000] * 5
    assert len(ticks) == 2 * timing.TURNS == len(cheap) + len(dear)
    assert timing.stat(cheap) == {"count": 60, "mean": 1.0, "p5": 1.0, "p50": 1.0, "p99": 1.0}
    # Six turns of 2 + 3 ms leave 2 ms for warming up; from then on there is one run a turn.
    assert [len(turn) for turn in dear] == [3] * 6 + [1] * 14 and timing.stat(dear)["p50"] == 1000


def test_what_a_feature_adds_and_what_the_first_number_of_a_side_does():
    kinds = {"dense": 10.0, "embedding": 10.0, "id": 40.0, "ids": 70.0}
    own = {f.name: kinds[f.kind] * (1 if f.of_request else f.width) for f in FEATURES}
    shared = {False: 6.0, True: 2.5}  # for the first number of an item and of a request, whichever it is

    def cost(names):
        sides = {f.of_request for f in FEATURES if f.name in names and not f.dim}
        return sum(own[name] for name in names) + sum(shared[side] for side in sides)

    orders = profiler.input_orders(own, orders=6, seed=0)
    assert orders[1] == orders[0][::-1] and sorted(orders[2]) == sorted(own)
    times = [[[np.full(3, 5.0 + cost(order[:n]))] * 2 for n in range(len(order) + 1)] for order in orders]
    got, once = profiler.inputs_of({f.name: f for f in FEATURES}, orders, times)
    assert {name: stat["p5"] for name, stat in got.items()} == pytest.approx(own)
    assert once["p5"] == pytest.approx(sum(shared.values()))
    assert sum(stat["p50"] for stat in got.values()) + once["p50"] == pytest.approx(cost(own))
    assert got["price"] == got["match"]  # both are one number of an item
    assert got["price"]["p99"] >= got["price"]["p50"]


def test_what_a_path_costs_that_was_none_but_the_first():
    """Its own is what it added less what another path says is shared; nothing of that is lost or counted twice."""
    vector = replace(FEATURES[0], name="vector", side="item", kind="embedding", size=8)
    features = {f.name: f for f in (vector, replace(vector, name="x", kind="dense", size=1))}
    features["y"] = replace(features["x"], name="y")

    def cost(names):
        return 5.0 + (6.0 if names else 0.0) + sum(30.0 if name == "vector" else 10.0 for name in names)

    orders = [["vector", "x"], ["y", "x"]]
    times = [[[np.full(3, cost(order[:n]))] for n in range(len(order) + 1)] for order in orders]
    got, once = profiler.inputs_of(features, orders, times)
    assert {name: each["p5"] for name, each in got.items()} == {"vector": 30.0, "x": 10.0, "y": 10.0}
    assert once["p5"] == 6.0


def test_the_layers_and_networks_to_measure():
    layers = plan.grid((16, 64), 50)
    ins, outs = ({layer[side] for layer in layers} for side in (0, 1))
    assert outs == {1, 16, 64} and {1, 2, 4, 16, 24, 48, 50, 64} <= ins and max(ins) == 64
    assert len(layers) == len(ins) * len(outs) == len(set(layers))
    networks = plan.random_networks(FEATURES, (16, 64), networks=40, seed=3)
    assert networks == plan.random_networks(FEATURES, (16, 64), networks=40, seed=3)
    of_items = {f.name for f in FEATURES if not f.of_request}
    assert all(of_items & set(names) for names, _ in networks)
    assert {len(widths) for _, widths in networks} == {0, 1, 2, 3}
    assert {len(names) for names, _ in networks} >= {1, len(FEATURES)}


@pytest.mark.parametrize("widths", [(), (6, 4)])
@pytest.mark.parametrize("features", [FEATURES, tuple(f for f in FEATURES if not f.of_request)])
@pytest.mark.parametrize("packed", [False, True])
def test_both_runtimes_compute_the_ranker(features, widths, packed):
    setting = Setting("torch", 7, 1, packed)
    stats = {f.name: {"mean": [0.5] * f.size, "std": [2.0] * f.size} for f in FEATURES if not f.dim}
    torched, onnxed = (PIECES[runtime](setting, FEATURES, stats, 3) for runtime in ("torch", "onnxruntime"))
    names = tuple(f.name for f in features)
    scores = []
    for there in (torched, onnxed):
        torch.manual_seed(0)
        scores.append(there.network(names, widths)(1))
    torch.manual_seed(0)
    ranker = torched.ranker(names, widths)
    expected = ranker(torched.tensors[1], torch.zeros(7, dtype=torch.int64))[0].detach().numpy()
    np.testing.assert_allclose(scores[0], expected, atol=1e-5)
    np.testing.assert_allclose(scores[1][0], expected, atol=1e-5)


def test_errors():
    check = [{"error": e} for e in (-0.1, 0.2, 0.0, -0.4, 0.05)]
    assert profiler.errors(check) == {"networks": 5, "median_abs": 0.1, "p90_abs": 0.32, "worst": 0.4}


@pytest.fixture
def logged():
    """What would go to MLflow."""
    seen = {}

    @contextmanager
    def run(name, **_):
        yield mock.Mock(metrics=seen.update)

    with mock.patch.object(profile_latency.runs, "run", run):
        yield seen


@pytest.mark.slow
def test_profile_latency(logs, tmp_path, logged, capsys):
    out = tmp_path / "latency.json"
    options = {"widths": "8,0", "candidates": "16", "threads": "1", "repeats": 10, "networks": 3, "orders": 1}
    config = profile_latency.ProfileLatency(logs, out, **options)
    result = profile_latency.main(config)
    assert json.loads(out.read_text()) == result and logged["error_median_abs"] == result["error"]["median_abs"]
    for runtime in ("onnxruntime", "torch"):
        table = load_table(out, candidates=16, runtime=runtime)
        assert set(table.inputs_us) == {f.name for f in FEATURES} and table.outs == (1, 8)
        for row in result["check"]:
            if row["runtime"] == runtime:
                features = [f for f in FEATURES if f.name in row["features"]]
                assert row["predicted_us"] == pytest.approx(inference_us(table, features, row["widths"]), abs=1e-3)
                assert row["error"] == pytest.approx(row["measured_us"]["p5"] / row["predicted_us"] - 1, abs=1e-3)
    before = out.read_bytes()
    assert profile_latency.main(config) == result and "already done" in capsys.readouterr().out
    elsewhere = timing.machine() | {"cpu": "another", "fingerprint": "0"}
    with mock.patch.object(profile_latency.timing, "machine", lambda: elsewhere):
        with pytest.raises(InputError, match=r"machine cpu was .*, now 'another'"):
            profile_latency.main(config)
        assert profile_latency.main(config, any_host=True) == result
        assert "measured on another host" in capsys.readouterr().out
    small = options | {"repeats": 1, "networks": 1, "runtimes": "onnxruntime", "packed": True}
    profile_latency.main(profile_latency.ProfileLatency(logs, tmp_path / "packed.json", **small))
    assert load_table(tmp_path / "packed.json", candidates=16).packed and not table.packed
    with pytest.raises(InputError, match="config repeats was 10, now 20; name another --out"):
        profile_latency.main(profile_latency.ProfileLatency(logs, out, **options | {"repeats": 20}))
    assert out.read_bytes() == before
    with pytest.raises(InputError, match="--runtimes 'java'"):
        profile_latency.main(profile_latency.ProfileLatency(logs, tmp_path / "x", **options | {"runtimes": "java"}))


def test_a_turn_beside_a_slow_yardstick_is_measured_again():
    """A host that is three times as slow for some turns: the low quantile is that of the others."""
    now = SimpleNamespace(us=0.0, runs=0)

    def slow():
        return 3.0 if 100 <= now.runs < 130 or now.runs >= 330 else 1.0

    def piece(k):
        now.us += 10 * slow()
        now.runs += 1

    def yardstick():
        now.us += slow()
        return slow()

    watch = Watch()
    clock = mock.patch.object(timing.time, "perf_counter_ns", lambda: 1000 * now.us)
    with clock, mock.patch("prerank.serving.watch._yardstick_us", yardstick):
        a, b = timing.timed([piece, piece], 200, watch=watch)
        meanwhile = watch.meanwhile()
    assert len(a) == len(b) == timing.TURNS and meanwhile["turns"] == 2 * timing.TURNS
    assert 2 <= meanwhile["redone"] < 2 * timing.TURNS and meanwhile["yardstick_us"]["p10"] == 1
    assert timing.stat(a)["p5"] == timing.stat(b)["p5"] == 10 and timing.stat(b)["p99"] == 30
    assert f"{meanwhile['redone']} of 40 turns" in said(meanwhile)
