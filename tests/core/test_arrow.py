"""Arrow's functions against plain loops, nulls included."""

import numpy as np
import pyarrow as pa
import pytest

from prerank.core import arrow

VALUES = [3, None, 1, 7, 3]


@pytest.mark.parametrize(("low", "high"), [(3, None), (None, 3), (2, 7)])
def test_between(low, high):
    inside = [None if v is None else (low is None or v >= low) and (high is None or v < high) for v in VALUES]
    for column in (pa.array(VALUES), pa.chunked_array([VALUES[:2], VALUES[2:]], pa.int64())):
        assert arrow.between(column, low, high).to_pylist() == inside


def test_between_times_in_the_columns_unit():
    times = pa.array([0, 86_400_000_000], pa.timestamp("us"))
    assert arrow.between(times, np.datetime64("1970-01-02", "us"), None).to_pylist() == [False, True]


def test_the_others():
    assert arrow.bounds(pa.array(VALUES)) == (1, 7) and arrow.bounds(pa.array([], pa.int64())) == (None, None)
    assert arrow.lengths(pa.array([[1, 2], None, []])).to_pylist() == [2, None, 0]
    assert arrow.inverted(pa.array([True, False])).to_pylist() == [False, True]
    assert arrow.is_in(pa.array(VALUES), pa.array([7, 3])).to_pylist() == [True, False, False, True, True]
