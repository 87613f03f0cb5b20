"""Rows by hand, and the two-way bootstrap against what it must be where only seeds or only requests differ."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from prerank.evaluation.intervals import paired_interval
from prerank.models.arch import Arch
from prerank.reports.search.rivals import recall_against_latency, terminal_table
from prerank.search import equal_budget
from prerank.search.equal_budget import Entry, best_rivals, difference, rows_of, spread, two_way_interval

PICKED, WIDE, NARROW = Arch(("a", "b"), (8,)), Arch(("a", "c", "d"), (8,)), Arch(("a", "c"), (4,))


def entry(method, seed, arch, us, factor=1.0):
    times = {"fetch_us": us - 10, "inference_us": 10.0, "latency_us": us}
    return Entry(method, seed, factor, factor and 100 * factor, arch, times)


ENTRIES = [
    *(entry("hand_picked", seed, PICKED, 100.0) for seed in (0, 1)),
    entry("random", 0, WIDE, 90.0),
    entry("random", 1, NARROW, 70.0),
    *(entry("autofas", seed, WIDE, 90.0) for seed in (0, 1)),
    *(entry("all_features", seed, Arch(("a", "b", "c", "d"), (8,)), 300.0, None) for seed in (0, 1)),
]


@pytest.fixture
def per_request():
    recalls = {PICKED: (0.2, 0.3), WIDE: (0.4, 0.6), NARROW: (0.3, 0.0), ENTRIES[-1].arch: (0.9, 0.8)}
    columns = {}
    for e in ENTRIES:
        recall = recalls[e.arch][e.seed]
        columns[f"{e.student}.recall"] = [recall - 0.1, recall, recall + 0.1]
        columns[f"{e.student}.hit_rate"] = [recall, float("nan"), recall]
    assert len(columns) == 2 * 7  # the random one of seed 0 is autofas's
    return pa.table(columns)


def test_rows_by_hand(per_request):
    picked, random, autofas, everything = rows_of(ENTRIES, per_request)
    assert [row["method"] for row in (random, everything)] == ["random", "all_features"]
    assert "vs_hand_picked" not in picked and "vs_hand_picked" not in everything
    assert random["features"] == [3, 2] and random["widths"] == [[8], [4]] and random["latency_us"] == 80
    assert random["kept"] == {"a": 1.0, "c": 1.0, "d": 0.5}
    assert random["students"][0] == autofas["students"][0] != autofas["students"][1]
    assert random["recall"]["seeds"] == pytest.approx([0.4, 0.0])
    assert random["recall"]["std"] == pytest.approx(0.4 / 2**0.5)
    versus = autofas["vs_hand_picked"]["recall"]
    assert [versus[key] for key in ("mean", "seeds_lo", "seeds_hi")] == pytest.approx([0.25, 0.2, 0.3])
    assert (versus["lo"], versus["hi"]) == pytest.approx((0.2, 0.3))
    assert autofas["vs_hand_picked"]["hit_rate"]["mean"] == pytest.approx(0.25)
    (best,) = best_rivals(ENTRIES, per_request, of="autofas", apart_from=())
    assert best["rival"] == "hand_picked" and best["recall"] == versus


def test_the_table_and_the_figure_say_what_the_rows_say(per_request):
    rows = rows_of(ENTRIES, per_request)
    results = {"logs": {"k": 150, "requests": 3}, "seeds": 2, "rows": rows}
    table = terminal_table(results)
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    assert cells[1] == ["hand picked", "random", "autofas", "all features"]
    assert cells[2] == ["2", "2-3", "3", "4"] and cells[3] == ["8", "4 8", "8", "8"]
    assert cells[7][2] == "50.0 ±14.1" and cells[9] == ["", "-5.0 [-30.0, +20.0]", "+25.0 [+20.0, +30.0]", ""]
    (axes,) = recall_against_latency(results).axes
    drawn = {bars.get_label(): bars.lines[0].get_xydata().tolist() for bars in axes.containers}
    assert set(drawn) == {"hand picked", "random", "autofas"}
    assert drawn["autofas"] == [pytest.approx([90.0, 50.0])]


def test_where_only_requests_differ_it_is_the_bootstrap_over_requests():
    rng = np.random.default_rng(0)
    a_R, b_R = rng.random(300), rng.random(300)
    expected = paired_interval(a_R, b_R, replicates=4000)[1:]
    for seeds in (1, 5):
        interval = two_way_interval(np.tile(a_R, (seeds, 1)), np.tile(b_R, (seeds, 1)), replicates=4000)
        assert interval == pytest.approx(expected, abs=0.004)


def test_where_only_seeds_differ_it_is_the_bootstrap_over_seeds():
    """Two seeds: half of the draws of two hold both, a quarter holds one of them twice."""
    a_SR = np.repeat([[0.2], [0.6]], 50, axis=1)
    assert two_way_interval(a_SR, np.zeros_like(a_SR)) == pytest.approx((0.2, 0.6))
    assert two_way_interval(a_SR, np.zeros_like(a_SR), level=0.4) == pytest.approx((0.4, 0.4))


def test_the_variances_of_seeds_and_requests_add_up():
    rng = np.random.default_rng(1)
    of_seed_S1, of_request_R = rng.normal(0, 1, (40, 1)), rng.normal(0, 3, 360)
    values_SR = of_seed_S1 + of_request_R
    lo, hi = two_way_interval(values_SR, np.zeros_like(values_SR), replicates=4000)
    half = 1.96 * np.sqrt(of_seed_S1.var() / 40 + of_request_R.var() / 360)
    assert (hi - lo) / 2 == pytest.approx(half, rel=0.06)


def test_requests_are_drawn_in_chunks_which_change_nothing(monkeypatch):
    a_SR, b_SR = np.random.default_rng(2).random((2, 3, 400))
    whole = two_way_interval(a_SR, b_SR)
    monkeypatch.setattr(equal_budget, "DRAWS_AT_ONCE", 3000)
    tracemalloc.start()
    try:
        assert two_way_interval(a_SR, b_SR) == pytest.approx(whole, abs=1e-12)
        assert tracemalloc.get_traced_memory()[1] < 400_000  # all 1,000 x 400 draws at once are 3.2 MB
    finally:
        tracemalloc.stop()


def test_undefined_requests_are_left_out():
    a_SR = np.array([[0.5, np.nan, 0.7], [0.9, np.nan, 0.3]])
    b_SR = np.array([[0.4, 0.1, 0.4], [0.3, 0.2, 0.5]])
    found = difference(a_SR, b_SR)
    assert found["mean"] == pytest.approx((0.1 + 0.3 + 0.6 - 0.2) / 4)
    assert (found["seeds_lo"], found["seeds_hi"]) == pytest.approx((0.2, 0.2))
    assert -0.2 - 1e-9 < found["lo"] < found["hi"] < 0.6 + 1e-9
    assert spread(a_SR)["mean"] == pytest.approx(0.6) and spread(a_SR[:1])["std"] is None
