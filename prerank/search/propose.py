"""Proposals: what each valuer's values come to, as the best set for every network apart, so that no unit is mixed."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prerank.core.errors import InputError
from prerank.latency.formula import fetch_us
from prerank.logs.schema import Feature, Schema
from prerank.models.arch import Arch
from prerank.search.derive import cheapest, too_little
from prerank.search.knapsack import Costs, Knapsack, Network, network_of
from prerank.search.spec import Spec

CAPS = 3
"""Fetch times under which a network of its own values what can be fetched."""
NETWORKS = 24
"""Most networks that each valuer's values are turned into a set for."""

Values = Mapping[str, float]
"""By feature what it is worth; of those that are not named, nothing."""


@dataclass(frozen=True)
class Space:
    """What proposals are made of."""

    features: tuple[Feature, ...]
    schema: Schema
    costs: Costs
    networks: tuple[Network, ...]

    def best(self, values: Values, network: Network, budget_us: float) -> Arch | None:
        """The set of the most value that fits with the network; None where none does."""
        value_M = np.array([float(values.get(feature.name, 0.0)) for feature in self.features])
        found = Knapsack(self.costs, value_M, budget_us, 1e-6 * max(value_M.max(), 1e-12)).solve([network])
        return None if found is None else self.arch(found[0], network)

    def cheapest(self, budget_us: float) -> Arch:
        """Of a single feature; raises InputError where not even that fits."""
        name, widths, us = cheapest(self.costs, self.networks)
        if us > budget_us * (1 + 1e-9):
            raise InputError(too_little(budget_us, name, widths, us))
        return Arch((name,), widths)

    def arch(self, kept_M: np.ndarray, network: Network) -> Arch:
        return Arch(tuple(f.name for f, keep in zip(self.features, kept_M, strict=True) if keep), network.widths)

    def scores(self, arch: Arch) -> bool:
        """Whether it reads anything of the items."""
        return any(feature.name in arch.features for feature in self.features if not feature.of_request)

    def latency_us(self, arch: Arch) -> float:
        kept_M = np.array([feature.name in arch.features for feature in self.features])
        return float(self.costs.of(kept_M[None], network_of(self.costs.table, arch.widths))[0])


def space_of(spec: Spec, schema: Schema) -> Space:
    features = spec.features(schema)
    costs = Costs(features, schema.fetch, spec.table)
    return Space(features, schema, costs, networks_of(costs, spec.candidates, spec.search.layers, spec.arm.widths))


def networks_of(costs: Costs, widths: Sequence[int], layers: int, base: tuple[int, ...]) -> tuple[Network, ...]:
    """The base first, then those that do not widen from one layer to the next, the cheapest first; skips stand last.

    Of more than `NETWORKS`, those evenly spread by what they cost.
    """
    hidden = sorted({width for width in widths if width}, reverse=True)
    depths = range(layers + 1) if 0 in widths else (layers,)
    every = {
        (*chosen, *(0,) * (layers - depth))
        for depth in depths
        for chosen in itertools.combinations_with_replacement(hidden, depth)
    }
    every -= {base, tuple(w for w in base if w) + (0,) * sum(not w for w in base)}
    others = sorted((network_of(costs.table, chosen) for chosen in every), key=lambda n: (n.rest_us, n.widths))
    if len(others) > NETWORKS:
        others = [others[i] for i in np.linspace(0, len(others) - 1, NETWORKS).round().astype(int)]
    return (network_of(costs.table, base), *others)


def below_caps(space: Space, budgets_us: Iterable[float]) -> Iterator[tuple[str, ...]]:
    """Sets to value apart: for some limits of the time to fetch, all features that are there within it.

    Sources are fetched side by side, so one limit is one for each source. A network on everything leans on the dearest
    features, and those that could stand in for them look idle beside them: below the limit that leaves those out they
    are told apart.
    """
    alone_us = np.array([fetch_us([feature], space.schema.fetch) for feature in space.features])
    seen = {tuple(feature.name for feature in space.features)}
    for budget_us in budgets_us:
        room_us = budget_us - space.costs.table.overhead_us
        limits = np.unique(alone_us[alone_us < room_us])
        # From the largest that fits downwards, each with at least three tenths fewer features than the one before.
        last: list[float] = [math.inf]
        for limit in limits[::-1]:
            within_M = alone_us <= limit
            if len(last) > CAPS or not (within_M & space.costs.item_M).any():
                break
            if within_M.sum() > 0.7 * last[-1]:
                continue
            last.append(float(within_M.sum()))
            names = tuple(f.name for f, within in zip(space.features, within_M, strict=True) if within)
            if names not in seen:
                seen.add(names)
                yield names


def proposals(space: Space, valued: Sequence[Values], budget_us: float) -> list[list[Arch]]:
    """For each valuer the best set within the budget of every network that has one; the base network's first."""
    each = ([space.best(values, network, budget_us) for network in space.networks] for values in valued)
    return [[arch for arch in sets if arch is not None] for sets in each]


def neighbours(space: Space, arch: Arch, valued: Sequence[Values], budget_us: float, tries: int) -> list[Arch]:
    """Near a set, by what its features are worth to it and what others may add: the best set of every network, with
    one more feature whatever leaves for it, and with one less whatever takes its place."""
    found: dict[Arch, None] = {}

    def offer(values: Values, network: Network) -> None:
        near = space.best(values, network, budget_us)
        if near is not None:
            found.setdefault(near)

    here = network_of(space.costs.table, arch.widths)
    names = [feature.name for feature in space.features]
    for values in valued:
        for network in (here, *space.networks):
            offer(values, network)
        outside = sorted((n for n in names if n not in arch.features), key=lambda n: -values.get(n, 0.0))
        more_than_all = 2 * sum(value for value in values.values() if value > 0)
        for name in outside[:tries]:
            offer({**values, name: more_than_all}, here)
    for name in sorted(arch.features, key=lambda n: valued[0].get(n, 0.0))[:tries]:
        offer({**valued[0], name: 0.0}, here)
    found.pop(arch, None)
    return list(found)
