"""A space laid out as a grid: what a sweep of the same cost is held against.

Ours, as Tune's grid_search and Optuna's GridSampler take the values of a grid, not the ranges of a space.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from prerank.core.cluster.private import Range, parts_of
from prerank.core.errors import InputError

if TYPE_CHECKING:
    from prerank.core.cluster.private import Domain


def grid(space: dict[str, "Domain"], trials: int) -> dict[str, list[object]]:
    """Values of each key, as many of them as evenly as keep their product within `trials`.

    Of n values of a range, value i is its quantile (i + 1/2) / n. Raises InputError for what has no quantiles.
    """
    levels, parts = dict.fromkeys(space, 1), {key: parts_of(domain) for key, domain in space.items()}
    most = {key: len(part) if isinstance(part, list) else trials for key, part in parts.items()}
    while True:
        more = [
            k
            for k in levels
            if levels[k] < most[k] and math.prod(levels.values()) // levels[k] * (levels[k] + 1) <= trials
        ]
        if not more:
            break
        levels[min(more, key=levels.__getitem__)] += 1
    values: dict[str, list[object]] = {}
    for key, part in parts.items():
        if part is None:
            raise InputError(f"{key}: a grid needs a range or a choice, got {space[key]}")
        values[key] = part[: levels[key]] if isinstance(part, list) else _quantiles(part, levels[key])
    return values


def _quantiles(of: Range, n: int) -> list[object]:
    share = (np.arange(n) + 0.5) / n
    values = of.low * (of.high / of.low) ** share if of.logs else of.low + (of.high - of.low) * share
    return [*sorted({int(v) for v in values})] if of.whole else [float(v) for v in values]
