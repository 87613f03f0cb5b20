"""The best architecture within a latency budget, by an exact program (`prerank.search.knapsack`).

Shapes: M features, S slots of hidden layers, C candidate widths of a slot.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from prerank.core.errors import InputError
from prerank.latency.formula import item_width
from prerank.latency.table import Table
from prerank.logs.schema import Feature
from prerank.models.arch import Arch
from prerank.search.knapsack import Costs, Knapsack, Network, network_of

TOLERANCE = 1e-6
"""Sums of values are equal within this share of the largest value, or of the spread of log p."""


def derive(
    *,
    features: tuple[Feature, ...],
    fetch: Mapping[str, Mapping[str, float]],
    table: Table,
    widths: tuple[int, ...],
    budget_us: float,
    value_M: Tensor | Sequence[float],
    log_p_SC: Tensor | Sequence[Sequence[float]],
) -> Arch:
    """The architecture of the largest Σ value of the kept features + Σ log p of the chosen widths within the budget.

    `features` in the schema's order; `value_M` are losses, as `AutoFAS.values` gives them, or any other importance;
    `log_p_SC` is of slot s and `widths[c]`, -inf where it may not be chosen. A feature whose value is not positive is
    left out; but as a ranker needs an item or cross feature, one of those is kept where none of positive value is.

    Losses and nats are summed as they are, though not of one unit: of twice the loss, features weigh twice as much
    against widths.

    Ties, to a millionth of the largest value or of the spread of log p, go to the fewest microseconds; of features
    that are alike in all that counts, the first in the schema is kept. The same arguments give the same answer.

    Raises InputError if nothing fits, naming the cheapest total, and for what the table does not know.
    """
    table.check(item_width(features), features=features)
    if all(feature.of_request for feature in features):
        raise InputError(
            "no feature of the side item or cross to choose from: nothing tells one candidate from another"
        )
    networks = _networks(table, widths, [[float(log_p) for log_p in slot] for slot in log_p_SC])
    worth_M = np.array([float(value) for value in value_M])
    log_p = [network.value for network in networks]
    largest = max(worth_M.max(), max(log_p) - min(log_p)) or 1.0
    costs = Costs(features, fetch, table)
    found = Knapsack(costs, worth_M, budget_us, TOLERANCE * largest).solve(networks)
    if found is None:
        raise InputError(too_little(budget_us, *cheapest(costs, networks)))
    kept_M, network = found
    return Arch(tuple(f.name for f, keep in zip(features, kept_M, strict=True) if keep), network.widths)


def too_little(budget_us: float, name: str, widths: tuple[int, ...], us: float) -> str:
    return (
        f"--budget-us {budget_us:g} (workflows.rivals: --budgets): nothing fits; the cheapest, {name} with widths "
        f"{widths}, takes {us:.1f}; allow at least that"
    )


def cheapest(costs: Costs, networks: Sequence[Network]) -> tuple[str, tuple[int, ...], float]:
    """The feature that alone costs least, with which widths, and what, microseconds."""
    alone_MM = np.eye(len(costs.features), dtype=bool)[costs.item_M]
    names = [feature.name for feature in costs.features if not feature.of_request]
    every = [(float(us), name, n) for n in networks for name, us in zip(names, costs.of(alone_MM, n), strict=True)]
    us, name, network = min(every, key=lambda row: row[0])
    return name, network.widths, us


def _networks(table: Table, widths: tuple[int, ...], log_p_SC: list[list[float]]) -> list[Network]:
    """Those that can be best: of those with one `first`, none that another is as likely as and no slower than.

    What the features cost in the first layer hangs on its width alone, so two networks with one `first` differ by a
    constant whatever is kept: the slower and less likely of them is never taken, and need not be an unknown.
    """
    networks = []
    for choice in itertools.product(range(len(widths)), repeat=len(log_p_SC)):
        log_p = sum(slot[c] for slot, c in zip(log_p_SC, choice, strict=True))
        if log_p > -np.inf:
            networks.append(network_of(table, tuple(widths[c] for c in choice), log_p))
    best: dict[int, list[Network]] = {}
    for network in sorted(networks, key=lambda network: (network.rest_us, -network.value)):
        of_first = best.setdefault(network.first, [])
        if not of_first or network.value > of_first[-1].value:
            of_first.append(network)
    return [network for of_first in best.values() for network in of_first]
