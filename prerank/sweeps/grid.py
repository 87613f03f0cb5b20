"""A space laid out as a grid: what a sweep of the same cost is held against."""

import math

import numpy as np
from ray.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform

from prerank.core.errors import InputError


def grid(space: dict[str, Domain], trials: int) -> dict[str, list]:
    """Values of each key, as many of them as evenly as keep their product within `trials`.

    Of n values of a range, value i is its quantile (i + 1/2) / n. Raises InputError for what has no quantiles.
    """
    levels = dict.fromkeys(space, 1)
    most = {key: len(d.categories) if isinstance(d, Categorical) else trials for key, d in space.items()}
    while True:
        more = [
            k
            for k in levels
            if levels[k] < most[k] and math.prod(levels.values()) // levels[k] * (levels[k] + 1) <= trials
        ]
        if not more:
            return {key: _values(key, domain, levels[key]) for key, domain in space.items()}
        levels[min(more, key=levels.__getitem__)] += 1


def _values(key: str, domain: Domain, n: int) -> list:
    if isinstance(domain, Categorical):
        return list(domain.categories[:n])
    if not isinstance(domain, Float | Integer):
        raise InputError(f"{key}: a grid needs a range or a choice, got {domain}")
    low, high = domain.lower, domain.upper
    share = (np.arange(n) + 0.5) / n
    logs = isinstance(domain.get_sampler(), LogUniform)
    values = low * (high / low) ** share if logs else low + (high - low) * share
    return sorted({int(v) for v in values}) if isinstance(domain, Integer) else [float(v) for v in values]
