"""Values of numeric features that would spoil their statistics: absurd ones, and likely stand-ins for missing ones.

Where absurd values (1e30 from a division by almost zero) make a feature's deviation so large that the feature would be
gone, its statistics are taken again over the values within limits that come from a sample, and the others are counted.
A ranker cuts what is far in any case.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pyarrow as pa

from prerank.core.hashing import hash_ids, keyed_uniform
from prerank.core.nested import flat, offsets_of, segment_of
from prerank.logs.schema import Schema
from prerank.logs.statistics import Moments, deviation, numeric, values_of

SAMPLED = 4096
"""Training items, and requests, that limits are taken from: those of the lowest keyed numbers."""
FAR_OFF = 20.0
"""Absurd is what lies so many spreads from the median."""
STAND_IN = 5.0
"""A value that is repeated exactly is likely to stand for a missing one where it lies so many spreads from the median
of the others, and none of these does."""
REPEATED = 3
"""So often at least in the sample."""
MANY = 10
"""Distinct values."""


@dataclass
class Sample:
    """The rows of the lowest keyed numbers, `SAMPLED` at most: the same for any parts, merged in any order."""

    number: np.ndarray
    """float64 [n], ascending."""
    values: dict[str, np.ndarray]
    """float32 [n, size] by feature."""

    @classmethod
    def lowest(cls, number: np.ndarray, values: Mapping[str, np.ndarray]) -> "Sample":
        order = np.argsort(number, kind="stable")[:SAMPLED]
        return cls(number[order], {name: rows[order] for name, rows in values.items()})

    def __add__(self, other: "Sample") -> "Sample":
        values = {name: np.concatenate([rows, other.values[name]]) for name, rows in self.values.items()}
        return Sample.lowest(np.concatenate([self.number, other.number]), values)


def share(rows: int) -> float:
    """`below` of `sample` for fine lists of so many rows, of which an eighth at least is trained on."""
    return min(1.0, 8 * SAMPLED / max(rows, 1))


def sample(samples: pa.Table, schema: Schema, below: float) -> dict[str, Sample]:
    """A sample of the items, `item`, and one of the requests, `request`, of sample rows with their whole requests.

    An item has a number by (request, item), a request the lowest of its items; above `below` none is looked at, so that
    many parts are not asked for `SAMPLED` rows each.
    """
    request_N = segment_of(offsets_of(samples["item_id"]))
    item, request = hash_ids(flat(samples["item_id"])), hash_ids(samples["request_id"])[request_N]
    number = keyed_uniform(0, "statistics", request, item)
    rows = np.flatnonzero(number < below)
    rows = rows[np.argsort(number[rows], kind="stable")]
    _, first = np.unique(request_N[rows], return_index=True)
    out = {}
    for name, of_request, lowest in (("item", False, rows), ("request", True, rows[np.sort(first)])):
        chosen = lowest[:SAMPLED]
        at = request_N[chosen] if of_request else chosen
        features = [feature for feature in numeric(schema) if feature.of_request is of_request]
        out[name] = Sample(number[chosen], {feature.name: values_of(samples, feature)[at] for feature in features})
    return out


@dataclass(frozen=True)
class Spread:
    """Of a feature's sampled values, by element [size]: where most lie, whatever the outermost are."""

    median: np.ndarray
    """NaN without a value."""
    spread: np.ndarray
    """Infinite where all are one value: then nothing tells what is far."""

    @classmethod
    def of(cls, values: np.ndarray) -> "Spread":
        """Of float32 [n, size].

        The farthest of the 1% and the 99% quantile from the median, or that within which nine tenths lie of the values
        that differ from the median, if that is more (most may be 0). Quantiles are values of the sample, the inner one
        of two, so that a single absurd value never is one.
        """
        found = [_spread(column[np.isfinite(column)]) for column in values.T.astype(np.float64)]
        median, spread = np.array(found).reshape(-1, 2).T
        return cls(median, spread)

    def limits(self, times: float) -> "Limits":
        return Limits(self.median - times * self.spread, self.median + times * self.spread)


def _spread(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return np.nan, np.inf
    found, last = np.sort(values), len(values) - 1
    median = found[last // 2]
    apart = np.sort(np.abs(found[found != median] - median))
    if not len(apart):
        return median, np.inf
    outer = found[int(0.99 * last)] - median, median - found[int(np.ceil(0.01 * last))]
    return median, max(*outer, apart[int(0.9 * (len(apart) - 1))])


@dataclass(frozen=True)
class Limits:
    """The least and the greatest value that is not absurd, by element [size]."""

    low: np.ndarray
    high: np.ndarray

    def beyond(self, values: np.ndarray) -> np.ndarray:
        """bool [N, size]; a missing value is not."""
        return (values < self.low) | (values > self.high)


def absurd(total: Mapping[str, Moments], samples: Mapping[str, Sample]) -> dict[str, Limits]:
    """The limits of those features of which absurd values have made the deviation what it is; by element, as they are.

    That is where some lie beyond `FAR_OFF` spreads and the deviation is larger than the spread, so that 98% of the
    values would be normalised to within 1. A long tail alone does not do that.
    """
    out = {}
    for name, values in _sampled(samples):
        of, spread = total[name], Spread.of(values)
        limits = spread.limits(FAR_OFF)
        beyond = limits.beyond(np.stack([of.low, of.high])).any(0) & (deviation(of) > spread.spread)
        if beyond.any():
            out[name] = Limits(np.where(beyond, limits.low, -np.inf), np.where(beyond, limits.high, np.inf))
    return out


@dataclass(frozen=True)
class Within:
    """By feature, of the values within its limits; `merge` adds up the `vars` of several."""

    moments: dict[str, Moments]
    far: dict[str, int]
    """Elements that are not."""


def within(samples: pa.Table, schema: Schema, limits: Mapping[str, Limits]) -> Within:
    """Of sample rows."""
    out = Within({}, {})
    for name, limit in limits.items():
        values = values_of(samples, schema.by_name[name])
        beyond = limit.beyond(values)
        out.moments[name] = Moments.of(np.where(beyond, np.nan, values))
        out.far[name] = int(beyond.sum())
    return out


class StandIn(TypedDict):
    """A value that is likely to stand for a missing one."""

    value: float
    share: float
    """Of the sampled elements, roughly."""


def stand_ins(samples: Mapping[str, Sample]) -> dict[str, StandIn]:
    """By feature a value that is repeated exactly and far off all others of the sample, such as -999 among prices."""
    out: dict[str, StandIn] = {}
    for name, values in _sampled(samples):
        for column in values.T:
            found = column[np.isfinite(column)]
            for value in (found.min(), found.max()) if len(found) else ():
                repeated, others = int((found == value).sum()), found[found != value]
                if repeated >= REPEATED and _apart(float(value), others):
                    out.setdefault(name, {"value": float(value), "share": round(repeated / len(column), 4)})
    return out


def _apart(value: float, others: np.ndarray) -> bool:
    """Beyond the limits of the others, as none of them is; or the one whole number below 0 beside many others."""
    distinct = len(np.unique(others))
    if distinct >= MANY and value < 0 <= others.min() and value == int(value):
        return True
    limits = Spread.of(others.reshape(-1, 1)).limits(STAND_IN)
    return distinct > 1 and bool(limits.beyond(np.array([[value]])).all()) and not limits.beyond(others).any()


def _sampled(samples: Mapping[str, Sample]) -> Iterator[tuple[str, np.ndarray]]:
    for one in samples.values():
        yield from one.values.items()
