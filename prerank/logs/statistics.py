"""Statistics of the numeric features over the training items, by which a ranker normalises them.

Exact, but where absurd values have made them useless: there they are of the others (`prerank.logs.outliers`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prerank.core.arrow import bounds
from prerank.logs.schema import Feature, Schema
from prerank.logs.types import is_list

TINY = 2.0**-126
"""The least number that float32 holds with all its digits; what differs by less is one value to some processors."""
STEPS = 16
"""A feature whose deviation is fewer steps of float32 is told of."""


@dataclass
class Moments:
    """Sums over the finite values of one feature that merge in any order; per element of its vector.

    Means and squared deviations rather than raw sums: no digits are lost where the mean is large (Chan et al., 1983).
    """

    seen: int
    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    """The least and the greatest value; infinite without one."""
    high: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Moments":
        """Of float32 [N, size]."""
        low, high = np.fmin.reduce(values, 0, initial=np.inf), np.fmax.reduce(values, 0, initial=-np.inf)
        values = values.astype(np.float64)
        count = np.isfinite(values).sum(0)
        mean = np.nansum(values, 0) / np.maximum(count, 1)
        return cls(len(values), count, mean, np.nansum((values - mean) ** 2, 0), low, high)

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * share * self.count
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Moments(self.seen + other.seen, count, self.mean + apart * share, squares, low, high)


@dataclass
class Ends:
    """The least and the greatest id of a feature; `merge` adds them up."""

    low: int
    high: int

    def __add__(self, other: "Ends") -> "Ends":
        return Ends(min(self.low, other.low), max(self.high, other.high))


def ends(samples: pa.Table, schema: Schema) -> dict[str, Ends]:
    """Of the encoded ids of sample rows, by feature; none of one without an id."""
    found = {}
    for feature in (feature for feature in schema.features if feature.dim):
        column = samples[feature.name]
        while is_list(column.type):
            column = pc.call_function("list_flatten", [column])
        low, high = bounds(column)
        if isinstance(low, int) and isinstance(high, int):
            found[feature.name] = Ends(low, high)
    return found


def of_one_value(sums: Mapping[str, Moments], ids: Mapping[str, Ends]) -> set[str]:
    """Features that are the same for all training items, where they are not missing."""
    with np.errstate(invalid="ignore"):
        numbers = {name for name, of in sums.items() if of.count.any() and not (of.high - of.low > TINY).any()}
    return numbers | {name for name, of in ids.items() if of.low == of.high}


def rounded(sums: Mapping[str, Moments]) -> dict[str, float]:
    """Features of which float32 holds little, as they vary little beside their size: by name the step between the
    numbers that it holds there, of the worst element."""
    found = {}
    for name, of in sums.items():
        step = np.spacing(np.maximum(np.abs(of.low), np.abs(of.high)).astype(np.float32)).astype(np.float64)
        std = deviation(of)
        lost = (of.count > 0) & (std > 0) & (std < STEPS * step)
        if lost.any():
            found[name] = float(step[lost].max())
    return found


def numeric(schema: Schema) -> Iterable[Feature]:
    return (feature for feature in schema.features if not feature.dim)


def values_of(samples: pa.Table, feature: Feature) -> np.ndarray:
    """float32 [N, size] of a dense feature or an embedding: one row a request, or one an item, as the side says."""
    column = samples[feature.name].combine_chunks()
    while is_list(column.type):
        column = column.flatten()
    return column.to_numpy(zero_copy_only=False).reshape(-1, feature.size)


def moments(samples: pa.Table, schema: Schema) -> dict[str, Moments]:
    """Of the dense features and embeddings of sample rows."""
    return {feature.name: Moments.of(values_of(samples, feature)) for feature in numeric(schema)}


class Stat(TypedDict):
    """Of one feature; a value for each element of its vector."""

    mean: list[float]
    std: list[float]
    missing: float
    """Share of the elements that were null, not finite or declared missing."""


def statistics(sums: Mapping[str, Moments], inside: Mapping[str, Moments] | None = None) -> dict[str, Stat]:
    """By feature, to six digits, so that no order of summing shows; of `inside` where it has a feature.

    A feature that never varies has std 1, one without a finite value mean 0: standardising is then harmless.
    """
    out: dict[str, Stat] = {}
    for name, of_all in sums.items():
        total = (inside or {}).get(name, of_all)
        std = deviation(total)
        scale = np.maximum(np.abs(total.mean), std)
        std = np.where(std <= np.maximum(1e-9 * scale, TINY), 0.0, std)
        mean = _round(total.mean, scale)
        elements = max(of_all.seen * len(of_all.count), 1)
        out[name] = {
            "mean": mean.tolist(),
            "std": np.where(std == 0, 1.0, _round(std, std)).tolist(),
            "missing": round(1 - float(of_all.count.sum()) / elements, 6) if of_all.seen else 0.0,
        }
    return out


def deviation(total: Moments) -> np.ndarray:
    """Standard deviation, float64 [size]."""
    return np.sqrt(total.squares / np.maximum(total.count, 1))


def _round(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """To six significant digits of `scale`: the mean of a centred feature is rounding noise around zero."""
    digits = [0 if s == 0 else 5 - int(np.floor(np.log10(s))) for s in scale]
    return np.array([round(float(v), d) + 0.0 for v, d in zip(values, digits, strict=True)])
