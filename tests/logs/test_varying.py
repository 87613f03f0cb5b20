"""Features of the request that differ from item to item, against a loop over requests."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.core.nested import nest
from prerank.logs import varying as module
from prerank.logs.schema import Feature, Schema
from prerank.logs.varying import unlike_the_last, varying

FEW = [None, float("nan"), float("inf"), 0.0, -0.0, 1.0, 1.0 + 1e-12, -999.0]
KINDS = {
    "dense": (dict(kind="dense", missing=(-999,)), pa.float64(), st.sampled_from(FEW)),
    "vector": (
        dict(kind="embedding", size=2, missing=(-999,)),
        pa.list_(pa.float64()),
        st.one_of(st.none(), st.lists(st.sampled_from(FEW), min_size=2, max_size=2)),
    ),
    "fixed": (
        dict(kind="embedding", size=2),
        pa.list_(pa.float32(), 2),
        st.one_of(st.none(), st.lists(st.sampled_from([None, 0.0, 1.0]), min_size=2, max_size=2)),
    ),
    "flag": (dict(kind="dense"), pa.bool_(), st.sampled_from([None, True, False])),
    "id": (dict(kind="id", size=4, dim=1), pa.int64(), st.sampled_from([None, -1, 0, 3, 4, 2**60])),
    "text": (dict(kind="id", size=1000, dim=1), pa.string(), st.sampled_from([None, "", "a", "b"])),
    "ids": (
        dict(kind="ids", size=4, dim=1),
        pa.list_(pa.int64()),
        st.one_of(st.none(), st.lists(st.sampled_from([None, 0, 1, 9, 10]), max_size=3)),
    ),
    "texts": (
        dict(kind="ids", size=1000, dim=1, missing=("a",)),
        pa.list_(pa.string()),
        st.one_of(st.none(), st.lists(st.sampled_from([None, "a", "b"]), max_size=3)),
    ),
}


def read(value, kind):
    """A value as the network reads it, by plain Python."""
    feature = KINDS[kind][0]
    if kind in ("ids", "texts"):
        return [read(each, "id" if kind == "ids" else "text") for each in value or []] if kind == "ids" else [
            "unknown" if each is None or each == "a" else each for each in value or []
        ]  # fmt: skip
    if feature["kind"] == "id":
        unknown = value is None or (isinstance(value, int) and not 0 <= value < feature["size"])
        return "unknown" if unknown else value
    if feature["kind"] == "embedding":
        return [number(each, feature) for each in value or [None, None]]
    return number(value, feature)


def number(value, feature):
    if value is None or not math.isfinite(value) or value in feature.get("missing", ()):
        return "missing"
    return float(np.float32(value)) + 0.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_counted_as_by_a_loop(kind, data):
    keys, type_, values = KINDS[kind]
    sizes = data.draw(st.lists(st.integers(1, 4), max_size=5))
    one = [data.draw(values) for _ in sizes]
    logged = [
        [v if data.draw(st.booleans()) else data.draw(values) for _ in range(n)]
        for v, n in zip(one, sizes, strict=True)
    ]
    others = data.draw(st.integers(0, 3))  # rows of the logs that are in no request, as of other days
    column = [value for request in logged for value in request] + [one[0] if one else None] * others
    order = np.array(data.draw(st.permutations(range(len(column))) if data.draw(st.booleans()) else
                               st.just(list(range(len(column))))), int)  # fmt: skip
    rows = pa.table({"f": pa.array([column[i] for i in order], type_)})
    row = np.argsort(order)[: sum(sizes)]
    requests = pa.table({"row": nest(row, np.cumsum([0, *sizes]))})
    schema = Schema((Feature(name="f", side="context", source="F", fetch_us=1, **keys),), {})
    differing = sum(any(read(v, kind) != read(request[0], kind) for v in request) for request in logged)
    assert varying(requests, rows, schema) == ({"f": differing} if differing else {})


def test_features_of_items_may_differ():
    requests = pa.table({"row": nest(np.arange(4), np.array([0, 2, 4]))})
    rows = pa.table({"f": [1.0, 2.0, 3.0, 4.0]})
    assert not varying(requests, rows, Schema((Feature("f", "item", "dense", "F", 1),), {}))


@pytest.mark.parametrize("size", [0, 1, 3])
def test_lists_are_compared_over_the_ends_of_blocks(size, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 4)
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 2, rng.integers(0, size + 1)).tolist() for _ in range(50)]
    expected = [False, *(a != b for a, b in itertools.pairwise(lists))]
    assert unlike_the_last(pa.array(lists, pa.list_(pa.int32()))).tolist() == expected
    assert unlike_the_last(pa.array([[], *lists], pa.list_(pa.int32()))[1:]).tolist() == expected
