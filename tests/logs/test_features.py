import warnings
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids, keyed_uniform, mix
from prerank.logs.encoding import encode, encoded_type, expected, fits
from prerank.logs.schema import Feature, Schema
from prerank.logs.statistics import Moments, moments, statistics


def schema_of(**keys) -> Schema:
    return Schema((Feature(**({"name": "f", "side": "item", "source": "F1", "fetch_us": 1.0} | keys)),), {})


def encoded(values: pa.Array, **keys) -> tuple[list, dict]:
    schema = schema_of(**keys)
    table, counts = encode(pa.table({"f": values}), schema)
    assert table["f"].type == encoded_type(schema.features[0])
    return table["f"].to_pylist(), {name: dict(found) for name, found in counts.items() if found}


def test_mix_is_splitmix64():
    # First outputs of the reference implementation seeded with 0 (https://prng.di.unimi.it/splitmix64.c).
    golden = 0x9E3779B97F4A7C15
    states = np.array([0, golden, 2 * golden % 2**64], np.uint64)
    assert mix(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_hashes_do_not_depend_on_how_ids_are_stored():
    assert hash_ids(pa.array([7, -3], pa.int32())).tolist() == hash_ids(pa.array([7, -3], pa.int64())).tolist()
    strings = pa.array(["b", "a", None, "b", ""])
    plain = hash_ids(strings)
    assert plain.tolist() == hash_ids(strings.dictionary_encode()).tolist()
    assert plain.tolist() == hash_ids(pa.chunked_array([strings[:2], strings[2:]])).tolist()
    assert plain.tolist() == hash_ids(strings.cast(pa.large_string())).tolist()
    assert plain[0] == plain[3] and plain[2] == 0 and len(set(plain.tolist())) == 4
    assert hash_ids(pa.array(["item-1"])).tolist() == [17411121567957968829]  # a change would change every sample


def test_keyed_numbers_are_uniform_and_independent_of_their_neighbours():
    n, bins = 100_000, 50
    request, item = mix(np.arange(n) // 100), mix(np.arange(n) % 100)
    numbers = keyed_uniform(1, "a", request, item)
    for other in (
        keyed_uniform(2, "a", request, item),
        keyed_uniform(1, "b", request, item),
        keyed_uniform(1, "a", item, request),
    ):
        assert abs(np.corrcoef(numbers, other)[0, 1]) < 5 / np.sqrt(n)
    found = np.histogram(numbers, bins, (0, 1))[0]
    chi_square = ((found - n / bins) ** 2 / (n / bins)).sum()
    assert chi_square < bins + 5 * np.sqrt(2 * bins)
    assert keyed_uniform(1, "a", request[::-1], item[::-1]).tolist() == numbers[::-1].tolist()


def test_dense_numbers():
    values, counts = encoded(pa.array([1.5, None, float("nan"), float("inf"), 1e300]), kind="dense")
    assert values[0] == 1.5 and np.isnan(values[1:]).all()
    assert counts == {"not_finite": {"f": 4}}
    assert encoded(pa.array([True, False]), kind="dense") == ([1.0, 0.0], {})
    assert encoded(pa.array([3, -4], pa.int16()), kind="dense") == ([3.0, -4.0], {})


@pytest.mark.parametrize("type_", [pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.large_list(pa.int32())])
def test_vectors(type_):
    values, counts = encoded(pa.array([[1, 2], None, [3, None]], type_), kind="embedding", size=2)
    assert values[0] == [1.0, 2.0] and np.isnan(values[1]).all() and values[2][0] == 3.0 and np.isnan(values[2][1])
    assert counts == {"not_finite": {"f": 3}}


def test_vector_of_a_wrong_length_is_named():
    with pytest.raises(InputError, match=r"'f'.*lists of 2 numbers.*found one of 3"):
        encoded(pa.array([[1.0, 2.0], [1.0, 2.0, 3.0]]), kind="dense", size=2)


def test_ids():
    values, counts = encoded(pa.array([0, 4, 5, -1, None]), kind="id", size=5, dim=2)
    assert values == [0, 4, 5, 5, 5] and counts == {"unknown_id": {"f": 3}}
    assert encoded(pa.array([2**64 - 1, 3], pa.uint64()), kind="id", size=5, dim=2)[0] == [5, 3]
    strings = pa.array(["x", None, "y", "x"])
    by_hash = (hash_ids(strings) % np.uint64(5)).tolist()
    for column in (strings, strings.dictionary_encode()):
        values, counts = encoded(column, kind="id", size=5, dim=2)
        assert values == [by_hash[0], 5, by_hash[2], by_hash[0]] and counts == {"unknown_id": {"f": 1}}


def test_lists_of_ids():
    values, counts = encoded(pa.array([[1, 9], None, [], [None, 0]]), kind="ids", size=5, dim=2)
    assert values == [[1, 5], [], [], [5, 0]] and counts == {"unknown_id": {"f": 2}}
    words, _ = encoded(pa.array([["x"], ["y", "x"]]), kind="ids", size=5, dim=2)
    assert words[0] == words[1][1:]
    sliced, _ = encoded(pa.array([[4], [1, 9], [2]])[1:], kind="ids", size=5, dim=2)
    assert sliced == [[1, 5], [2]]


@pytest.mark.parametrize("type_", [pa.float64(), pa.float32(), pa.int16(), pa.int64()])
def test_declared_missing_numbers(type_):
    values, counts = encoded(pa.array([7, -999, None, -1, 3], type_), kind="dense", missing=(-999, -1.0))
    assert [values[0], values[4]] == [7.0, 3.0] and np.isnan(values[1:4]).all()
    assert counts == {"not_finite": {"f": 1}, "declared_missing": {"f": 2}}
    # As float32, which is what a network is given: 0.1 of a double is the 0.1 of a float.
    assert encoded(pa.array([0.1, 0.2]), kind="dense", missing=(0.1,))[1] == {"declared_missing": {"f": 1}}
    rows, counts = encoded(pa.array([[1.0, -9.0], None, [-9.0, -9.0]]), kind="embedding", size=2, missing=(-9,))
    assert rows[0][0] == 1 and np.isnan([rows[0][1], *rows[1], *rows[2]]).all()
    assert counts == {"not_finite": {"f": 2}, "declared_missing": {"f": 3}}


def test_declared_missing_ids():
    keys = {"size": 5, "dim": 2}
    for type_ in (pa.int8(), pa.int64(), pa.uint64()):
        values, counts = encoded(pa.array([0, 4, None, 9], type_), kind="id", missing=(0,), **keys)
        assert values == [5, 4, 5, 5] and counts == {"declared_missing": {"f": 1}, "unknown_id": {"f": 2}}
    values, counts = encoded(pa.array([2**64 - 1, 3], pa.uint64()), kind="id", missing=(2**64 - 1,), **keys)
    assert values == [5, 3] and counts == {"declared_missing": {"f": 1}}
    assert encoded(pa.array([2**64 - 1], pa.uint64()), kind="id", missing=(-1,), **keys)[1] == counts  # the same bits
    texts = pa.array(["x", "", None, "N/A"])
    values, counts = encoded(texts, kind="id", missing=("", "N/A"), **keys)
    assert values == [int(hash_ids(texts)[0] % np.uint64(5)), 5, 5, 5]
    assert counts == {"declared_missing": {"f": 2}, "unknown_id": {"f": 1}}
    lists, counts = encoded(pa.array([[0, 1], None, [0], [7]]), kind="ids", missing=(0,), **keys)
    assert lists == [[5, 1], [], [5], [5]] and counts == {"declared_missing": {"f": 2}, "unknown_id": {"f": 1}}


def splitmix(x: int) -> int:
    """By the published text, in integers of Python."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


@pytest.mark.slow
@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3)), max_size=20))
def test_hashed_integers(ids):
    size, no_ids = 1000, (-(2**63), -(2**63) + 1)
    expected = [size if x is None or x in (7, *no_ids) else splitmix(x % 2**64) % size for x in ids]
    keys = {"kind": "id", "size": size, "dim": 2, "hash": True, "missing": (7,)}
    signed = pa.array(ids, pa.int64())
    values, counts = encoded(signed, **keys)
    assert values == expected
    assert counts.get("unknown_id", {}).get("f", 0) == sum(x is None or x in no_ids for x in ids)
    unsigned = pa.array([None if x is None else x % 2**64 for x in ids], pa.uint64())
    assert encoded(unsigned, **keys) == (values, counts)
    assert encoded(pa.array([ids], pa.list_(pa.int64())), **keys | {"kind": "ids"})[0] == [expected]


@pytest.mark.parametrize(
    ("values", "keys", "complaint"),
    [
        (pa.array(["x", None]), {"hash": True}, "'f': \"hash\" is for integers; the logs hold text.*take it out"),
        (pa.array(["x", None]), {"missing": (-999,)}, 'missing has -999, and the logs hold text; write "-999"'),
        (pa.array([1, None]), {"missing": ("N/A",)}, "missing has 'N/A', and the logs hold integers; write an integer"),
    ],
)
def test_ids_of_another_type_than_declared_are_named(values, keys, complaint):
    for kind, type_ in (("id", values.type), ("ids", pa.list_(values.type))):
        feature = schema_of(kind=kind, size=5, dim=2, **keys).features[0]
        assert not fits(feature, type_) and fits(replace(feature, hash=False, missing=()), type_)
        assert fits(feature, pa.null()) and ("integers (" in expected(feature)) == (values.type == pa.string())
    with pytest.raises(InputError, match=complaint) as caught:
        encoded(values, kind="id", size=5, dim=2, **keys)
    assert "\n" not in str(caught.value)
    nothing = pa.nulls(3, values.type)  # a table without a value may be of any type
    assert encoded(nothing, kind="id", size=5, dim=2, **keys)[0] == [5, 5, 5]


@given(
    st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=40),
    st.lists(st.integers(0, 40), max_size=3),
)
def test_moments_merge_to_those_of_numpy_whatever_the_parts(values, cuts):
    """The whole of every feature against numpy, from parts cut anywhere."""
    values = np.array([np.nan if v is None else v for v in values], np.float32).reshape(-1, 1)
    values[~np.isfinite(values)] = np.nan
    values = np.clip(values, -1e18, 1e18)
    total = Moments.of(values[:0])
    for part in np.split(values, sorted(min(c, len(values)) for c in cuts)):
        total = total + Moments.of(part)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean, std = np.nanmean(values.astype(np.float64)), np.nanstd(values.astype(np.float64))
    assert total.count[0] == np.isfinite(values).sum()
    if total.count[0]:
        assert total.mean[0] == pytest.approx(mean, rel=1e-9, abs=1e-9 * max(std, 1e-300))
        assert np.sqrt(total.squares[0] / total.count[0]) == pytest.approx(std, rel=1e-6, abs=1e-9 * abs(mean))


def test_statistics_weigh_a_request_once_and_an_item_once():
    features = tuple(
        Feature(name=name, side=side, kind=kind, source="F1", fetch_us=1, size=size)
        for name, side, kind, size in (
            ("u", "user", "dense", 1),
            ("p", "item", "dense", 1),
            ("e", "item", "embedding", 2),
        )
    )
    nan = float("nan")
    samples = pa.table(
        {
            "u": pa.array([1.0, 5.0], pa.float32()),
            "p": pa.array([[2.0, 4.0, nan], [6.0]], pa.list_(pa.float32())),
            "e": pa.array([[[0, 1], [0, 3], [0, nan]], [[0, 8]]], pa.list_(pa.list_(pa.float32(), 2))),
        }
    )
    found = statistics(moments(samples, Schema(features, {})))
    assert found["u"] == {"mean": [3.0], "std": [2.0], "missing": 0.0}
    assert found["p"] == {"mean": [4.0], "std": [1.63299], "missing": 0.25}
    assert found["e"] == {"mean": [0.0, 4.0], "std": [1.0, 2.94392], "missing": 0.125}


def test_statistics_do_not_show_the_order_of_summing():
    values = np.random.default_rng(0).normal(size=(10_000, 1)).astype(np.float32)
    values -= values.mean()  # a mean of rounding noise
    forwards, backwards = Moments.of(values[:1]), Moments.of(values[-1:])
    for cut in np.array_split(np.arange(1, 10_000), 7):
        forwards += Moments.of(values[cut])
        backwards += Moments.of(values[9_999 - cut])
    assert statistics({"f": forwards}) == statistics({"f": backwards})
    nothing = statistics({"f": Moments.of(np.full((3, 1), np.nan, np.float32))})
    assert nothing == {"f": {"mean": [0.0], "std": [1.0], "missing": 1.0}}
