"""Absurd values, likely stand-ins for missing ones, and what is left of a feature's statistics."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.core.counts import merge
from prerank.core.hashing import hash_ids, keyed_uniform
from prerank.core.nested import nest
from prerank.logs import outliers
from prerank.logs.outliers import Sample, Spread, absurd, sample, share, stand_ins, within
from prerank.logs.schema import Feature, Schema
from prerank.logs.statistics import moments, statistics

NAN = float("nan")


def schema_of(*names, side="item", size=1, kind="dense"):
    features = (Feature(name=n, side=side, kind=kind, size=size, source="F", fetch_us=1) for n in names)
    return Schema(tuple(features), {})


def rows_of(values, per_request=10, name="f", size=1):
    """Sample rows with `per_request` items each, of one feature of items [n, size]."""
    values = np.asarray(values, np.float32).reshape(-1, size)
    offsets = np.arange(0, len(values) + 1, per_request)
    flat = pa.array(values.reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, size) if size > 1 else flat
    item = nest(np.arange(len(values)) % 97, offsets)
    return pa.table({"request_id": np.arange(len(offsets) - 1), "item_id": item, name: nest(column, offsets)})


def found_in(values, size=1):
    """Statistics, absurd values and likely stand-ins of one feature, as a build goes about it."""
    schema, rows = schema_of("f", size=size), rows_of(values, size=size)
    total, samples = moments(rows, schema), sample(rows, schema, 1.0)
    inside = within(rows, schema, absurd(total, samples))
    return statistics(total, inside.moments)["f"], inside.far.get("f", 0), stand_ins(samples).get("f")


def exact(values):
    values = np.asarray(values, np.float32).astype(np.float64)
    values = values[np.isfinite(values)]
    std = values.std()
    return {"mean": pytest.approx([values.mean()], rel=1e-5, abs=1e-5 * std), "std": pytest.approx([std], rel=1e-5)}


NORMAL = np.random.default_rng(0).normal(5, 2, 36_000)
ORDINARY = {
    "normal": NORMAL,
    "exponential": np.random.default_rng(1).exponential(3, 36_000),
    "long tail": np.random.default_rng(2).lognormal(0, 2, 36_000),
    "mostly zero": np.where(np.random.default_rng(3).random(36_000) < 0.98, 0, np.random.default_rng(4).random(36_000)),
    "rare flag": (np.random.default_rng(5).random(36_000) < 0.001) * 1.0,
    "counts": np.random.default_rng(6).poisson(0.3, 36_000) * 1.0,
    "constant": np.full(36_000, 7.0),
    "two far groups": np.random.default_rng(7).choice([0.0, 1e6], 36_000),
    "a far group of 2%": np.where(np.random.default_rng(8).random(36_000) < 0.02, NORMAL + 1000, NORMAL),
}


@pytest.mark.parametrize("values", ORDINARY.values(), ids=ORDINARY)
def test_statistics_of_ordinary_values_are_exact(values):
    stat, far, _ = found_in(values)
    assert not far
    if values.std():
        assert {key: stat[key] for key in ("mean", "std")} == exact(values)


@pytest.mark.parametrize("values", [ORDINARY[name] for name in ("normal", "exponential", "mostly zero", "counts")])
@pytest.mark.parametrize("absurd_values", [[1e30], [-1e30], [3e38, -3e38], [1e6], [1e30] * 40, [1e9, 2e12, -5e20]])
def test_absurd_values_are_counted_and_do_not_make_the_statistics(values, absurd_values):
    spoilt = values.copy()
    at = np.random.default_rng(0).choice(len(values), len(absurd_values), replace=False)
    spoilt[at] = absurd_values
    stat, far, _ = found_in(spoilt)
    assert far == len(absurd_values)
    assert {key: stat[key] for key in ("mean", "std")} == exact(np.delete(values, at))
    assert stat["missing"] == 0


@pytest.mark.slow
@given(
    st.sampled_from(sorted(ORDINARY)),
    st.lists(st.floats(1e3, 3e38), max_size=20),
    st.integers(0, 2**32),
)
def test_a_feature_goes_on_telling_items_apart(name, worst, seed):
    """Whatever a few values are, those of all others spread over a tenth of a deviation at least."""
    values = ORDINARY[name]
    rng = np.random.default_rng(seed)
    scale = max(np.abs(values).max(), 1)
    spoilt = values.copy()
    spoilt[rng.choice(len(values), len(worst), replace=False)] = np.minimum(np.array(worst) * scale, 3e38)
    if name in ("constant", "rare flag"):  # nothing, or too little, tells what is far
        return
    stat, far, _ = found_in(spoilt)
    assert 0.1 < values.std() / stat["std"][0] < 10
    assert far <= len(worst) or name == "long tail"


def test_elements_of_a_vector_are_looked_at_by_themselves():
    values = np.random.default_rng(0).normal(size=(5000, 3))
    spoilt = values.copy()
    spoilt[17, 1] = 1e20
    stat, far, _ = found_in(spoilt, size=3)
    assert far == 1
    assert stat["std"][1] == pytest.approx(np.delete(values[:, 1], 17).std(), rel=1e-5)
    assert np.delete(stat["std"], 1) == pytest.approx(values.std(0)[[0, 2]], rel=1e-5)


def test_missing_values_are_not_far():
    values = NORMAL.copy()
    values[::3] = NAN
    values[1] = 1e30
    stat, far, _ = found_in(values)
    assert far == 1 and stat["missing"] == pytest.approx(1 / 3)
    assert found_in([NAN] * 20) == ({"mean": [0.0], "std": [1.0], "missing": 1.0}, 0, None)


def test_a_spread_is_worked_out_by_hand():
    spread = Spread.of(np.array([[0, NAN], [1, NAN], [2, NAN], [3, NAN], [100, NAN]], np.float32))
    # The median 2; the inner ones of the quantiles are 1 and 3; nine tenths of 1, 1, 2, 98 lie within 2.
    assert spread.median[0] == 2 and spread.spread.tolist() == [2, np.inf]
    limits = spread.limits(20)
    assert (limits.low[0], limits.high[0]) == (-38, 42)
    assert limits.beyond(np.array([[42, 1e30], [43, NAN], [NAN, 0]])).tolist() == [[0, 0], [1, 0], [0, 0]]
    mostly = Spread.of(np.array([0] * 99 + [4], np.float32).reshape(-1, 1))
    assert mostly.spread.tolist() == [4]


@pytest.mark.parametrize(
    ("values", "stand_in", "stands"),
    [
        (np.abs(NORMAL), -999, True),
        (NORMAL, 1e9, True),
        (NORMAL, -9999, True),
        (np.random.default_rng(1).exponential(800, 36_000), -999, True),  # near others, and the one below 0
        (np.random.default_rng(1).random(36_000), -1, True),
        (np.random.default_rng(1).integers(0, 3, 36_000), -1, False),  # may be one of four values
        (np.random.default_rng(1).random(36_000), 1, False),
        (NORMAL, 5, False),
    ],
)
@pytest.mark.parametrize("part", [0.004, 0.03, 0.3])
def test_likely_stand_ins_for_missing_values(values, stand_in, stands, part):
    mixed = np.where(np.random.default_rng(9).random(len(values)) < part, stand_in, values)
    found = found_in(mixed)[2]
    assert (found is not None) == stands
    if found:
        assert found["value"] == np.float32(stand_in) and found["share"] == pytest.approx(part, rel=0.5)


def test_ordinary_values_have_no_stand_in():
    assert {name: found_in(values)[2] for name, values in ORDINARY.items() if "far" not in name} == dict.fromkeys(
        name for name in ORDINARY if "far" not in name
    )


def mixed_rows(requests=400, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.cumsum(np.append(0, rng.integers(1, 40, requests)))
    n = offsets[-1]
    return pa.table(
        {
            "request_id": [f"r{i}" for i in range(requests)],
            "item_id": nest(pa.array([f"i{x}" for x in rng.permutation(n)]), offsets),
            "p": nest(rng.normal(size=n).astype(np.float32), offsets),
            "u": rng.normal(size=requests).astype(np.float32),
        }
    )


MIXED = Schema(schema_of("p").features + schema_of("u", side="user").features, {})


@pytest.mark.slow
def test_a_sample_is_of_the_lowest_keyed_numbers_one_at_a_time(monkeypatch):
    """Against loops, item by item and request by request."""
    monkeypatch.setattr(outliers, "SAMPLED", 50)
    rows, numbers = mixed_rows(), {}
    for request, items, values, user in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
        for item, value in zip(items, values, strict=True):
            keys = (hash_ids(pa.array([request])), hash_ids(pa.array([item])))
            numbers[float(keyed_uniform(0, "statistics", *keys)[0])] = request, value, user
    for below in (1.0, 0.1):
        low = [numbers[key] for key in sorted(numbers) if key < below]
        users = list({request: user for request, _, user in reversed(low)}.items())[::-1]
        found = sample(rows, MIXED, below)
        assert found["item"].values["p"][:, 0].tolist() == [value for _, value, _ in low][:50]
        of_request = dict(sorted(((low.index(next(x for x in low if x[0] == r)), u) for r, u in users)))
        assert found["request"].values["u"][:, 0].tolist() == list(of_request.values())[:50]


@pytest.mark.slow
@given(st.lists(st.integers(0, 400), max_size=6), st.permutations(range(7)))
def test_a_sample_is_the_same_for_any_parts_in_any_order(cuts, order):
    rows = mixed_rows()
    whole, bounds = sample(rows, MIXED, 0.5), [0, *sorted(cuts), 400]
    parts = [rows.slice(a, b - a) for a, b in itertools.pairwise(bounds)]
    total: dict[str, Sample] = {}
    for place in order:
        if place < len(parts):
            merge(total, sample(parts[place], MIXED, 0.5))
    for name, one in whole.items():
        assert total[name].number.tolist() == one.number.tolist()
        assert {f: v.tolist() for f, v in total[name].values.items()} == {f: v.tolist() for f, v in one.values.items()}


def test_many_parts_are_not_asked_for_many_rows_each():
    assert share(1000) == 1 and share(0) == 1
    assert share(10**9) * 10**9 == pytest.approx(8 * outliers.SAMPLED)
