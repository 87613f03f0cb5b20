"""The best architecture within a latency budget, by an exact mixed-integer program (HiGHS).

Shapes: M features, S slots of hidden layers, C candidate widths of a slot, V unknowns of the program.
"""

import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import milp
from torch import Tensor

from prerank.core.errors import InputError
from prerank.latency.formula import item_width, latency_us
from prerank.latency.table import HEAD, Table
from prerank.logs.schema import Feature
from prerank.models.arch import Arch

TOLERANCE = 1e-6
"""To the solver, numbers are whole and goals are equal within it."""

Array = NDArray[np.float64]
Row = tuple[Array, float, float]
"""Coefficients of the unknowns, and between what their sum must lie."""
Limit = tuple[Array, float]
"""Coefficients, and what their sum may come to."""


@dataclass(frozen=True)
class _Network:
    widths: tuple[int, ...]
    log_p: float
    first: int
    """What the inputs are multiplied to; `HEAD` without a hidden layer."""
    rest_us: float
    """All layers but the first, whose time depends on the features."""


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
    program = _Program(features, fetch, table, networks, worth_M)

    # The solver's tolerances are absolute: values and costs are brought to the size of 1.
    log_p = [network.log_p for network in networks]
    value_V = program.value_V / (max(worth_M.max(), max(log_p) - min(log_p)) or 1.0)
    cost_V = program.cost_V / max(budget_us, 1.0)
    in_budget = cost_V, float(budget_us - table.overhead_us) / max(budget_us, 1.0)
    best_V = program.solve(-value_V, in_budget)
    if best_V is None:
        cheapest = program.arch(program.solved(cost_V))
        kept = [feature for feature in features if feature.name in cheapest.features]
        raise InputError(
            f"--budget-us {budget_us:g} (workflows.rivals: --budgets): nothing fits; the cheapest, "
            f"{', '.join(cheapest.features)} with widths {cheapest.widths}, takes "
            f"{latency_us(table, kept, fetch, cheapest.widths):.1f}; allow at least that"
        )
    # Once more, for the cheapest of those that are as good: ties are settled by time, not by the solver's path.
    return program.arch(program.solved(cost_V, in_budget, (-value_V, float(-value_V @ best_V) + TOLERANCE)))


def _networks(table: Table, widths: tuple[int, ...], log_p_SC: list[list[float]]) -> list[_Network]:
    """Those that can be best: of those with one `first`, none that another is as likely as and no slower than.

    What the features cost in the first layer hangs on its width alone, so two networks with one `first` differ by a
    constant whatever is kept: the slower and less likely of them is never taken, and need not be an unknown.
    """
    networks = []
    for choice in itertools.product(range(len(widths)), repeat=len(log_p_SC)):
        log_p = sum(slot[c] for slot, c in zip(log_p_SC, choice, strict=True))
        if log_p > -np.inf:
            layers = (*(widths[c] for c in choice if widths[c]), HEAD)
            rest_us = sum(table.at(*pair) for pair in itertools.pairwise(layers))
            networks.append(_Network(tuple(widths[c] for c in choice), log_p, layers[0], rest_us))
    best: dict[int, list[_Network]] = {}
    for network in sorted(networks, key=lambda network: (network.rest_us, -network.log_p)):
        of_first = best.setdefault(network.first, [])
        if not of_first or network.log_p > of_first[-1].log_p:
            of_first.append(network)
    return [network for of_first in best.values() for network in of_first]


class _Program:
    """The unknowns, each from 0 to 1 but `fetch`: microseconds.

    - keep: the feature is kept. wait: it is, or a slower one of its source is. fetch: the time of the slowest source.
    - network: it is chosen.
    - segment: the first layer, to one of the widths that it may have, gets a width between two measured neighbours,
      where its time is linear. part: how far it lies from the lower one to the upper.
    """

    def __init__(
        self,
        features: tuple[Feature, ...],
        fetch: Mapping[str, Mapping[str, float]],
        table: Table,
        networks: list[_Network],
        value_M: Array,
    ):
        self._features, self._networks = features, networks
        most = item_width(features)
        firsts = sorted({network.first for network in networks})
        measured = itertools.pairwise([0, *(width for width in table.ins if width < most), most])
        segments = [(first, low, high) for low, high in measured for first in firsts]
        self._sizes = {
            **{"keep": len(features), "wait": len(features), "fetch": 1, "network": len(networks)},
            **{"segment": len(segments), "part": len(segments)},
        }
        low_us = np.array([table.at(low, first) for first, low, _ in segments])
        high_us = np.array([table.at(high, first) for first, _, high in segments])
        inputs_us = [table.inputs_us[feature.name] for feature in features]
        rest_us = [network.rest_us for network in networks]

        self.value_V = self._over(keep=value_M, network=[network.log_p for network in networks])
        self.cost_V = self._over(keep=inputs_us, fetch=1, network=rest_us, segment=low_us, part=high_us - low_us)
        """Microseconds of all but the overhead."""

        of_item_M = np.array([not feature.of_request for feature in features])
        self._whole_V = self._over(keep=1, network=1, segment=1)
        most_V = self._over(keep=of_item_M | (value_M > 0), wait=1, fetch=np.inf, network=1, segment=1, part=1)
        self._between = np.zeros_like(most_V), most_V

        wanted_M = of_item_M & (value_M > 0)
        enough = max(wanted_M.sum(), 1)
        item_M = np.array([feature.width for feature in features]) * of_item_M
        self._rows: list[Row] = [
            # A ranker needs a feature of the items.
            (self._over(keep=of_item_M), 1, np.inf),
            # The wanted, or one other: one that is not wanted fills the whole sum, and leaves no room beside it.
            (self._over(keep=np.where(wanted_M, 1, enough * of_item_M)), 0, enough),
            (self._over(network=1), 1, 1),
            # The width that the first layer gets is that of the kept features of items.
            (
                self._over(
                    keep=-item_M,
                    segment=[low for _, low, _ in segments],
                    part=[high - low for _, low, high in segments],
                ),
                0,
                0,
            ),
        ]
        # A network chooses one segment, of its own first layer; `part` is 0 outside of the chosen one.
        for first in firsts:
            chosen = [float(network.first == first) for network in networks]
            self._rows.append((self._over(network=chosen, segment=[-float(s[0] == first) for s in segments]), 0, 0))
        self._rows += [(self._over(part=one, segment=-one), -np.inf, 0) for one in np.eye(len(segments))]
        self._rows += self._fetch_rows(fetch)
        self._rows += self._twin_rows(inputs_us, value_M)

    def _fetch_rows(self, fetch: Mapping[str, Mapping[str, float]]) -> list[Row]:
        """Of a source, by rising fetch_us: the sum of the rises that are waited for is the slowest that is kept.

        A maximum is not linear. But with the features in order, waiting for one means waiting for all that are faster
        (wait[slower] <= wait[faster]), and Σ rise · wait is then the time of the last that is waited for; `fetch` is
        above it for every source, and being priced, lies on the slowest. So `wait` and `fetch` need not be whole.
        """
        one_MM = np.eye(len(self._features))
        rows: list[Row] = [(self._over(keep=one_M, wait=-one_M), -np.inf, 0) for one_M in one_MM]
        by_source: dict[str, list[int]] = {}
        for m in sorted(range(len(self._features)), key=lambda m: self._features[m].fetch_us):
            by_source.setdefault(self._features[m].source, []).append(m)
        for source, members in by_source.items():
            rise_us = np.diff([self._features[m].fetch_us for m in members], prepend=0.0)
            count_us = fetch[source]["per_feature_us"] * one_MM[members].sum(axis=0)
            rows.append((self._over(keep=count_us, wait=rise_us @ one_MM[members], fetch=-1), -np.inf, 0))
            for faster, slower in itertools.pairwise(members):
                rows.append((self._over(wait=one_MM[slower] - one_MM[faster]), -np.inf, 0))
        return rows

    def _twin_rows(self, inputs_us: list[float], value_M: Array) -> list[Row]:
        """A feature is kept only with the earlier one that is its like."""
        one_MM = np.eye(len(self._features))
        rows, earlier = [], {}
        for m, f in enumerate(self._features):
            like = (f.of_request, f.source, f.fetch_us, f.width, inputs_us[m], value_M[m])
            if like in earlier:
                rows.append((self._over(keep=one_MM[m] - one_MM[earlier[like]]), -np.inf, 0))
            earlier[like] = m
        return rows

    def _over(self, **parts: ArrayLike) -> Array:
        """A coefficient for each unknown, 0 for those that are not named."""
        return np.concatenate(
            [np.broadcast_to(np.asarray(parts.get(n, 0), np.float64), size) for n, size in self._sizes.items()]
        )

    def solved(self, goal_V: Array, *limits: Limit) -> Array:
        """`solve` where there is a solution."""
        found_V = self.solve(goal_V, *limits)
        assert found_V is not None
        return found_V

    def solve(self, goal_V: Array, *limits: Limit) -> Array | None:
        """The unknowns with the least goal, of those whose sums of the limits' rows are within; None if there are none.

        To the solver 0.999999 is whole, which lets it overrun a limit a little, and what fits exactly may seem not to.
        So it is given a little more; what it finds is rounded and, where it does overrun, ruled out.
        """
        rows = [*self._rows, *((row_V, -np.inf, high + TOLERANCE) for row_V, high in limits)]
        while (found_V := self._milp(goal_V, rows, self._between)) is not None:
            # The choice is made whole, and the rest of the unknowns are reckoned anew for it.
            whole_V = np.round(found_V)
            low_V, high_V = (np.where(self._whole_V, whole_V, bound_V) for bound_V in self._between)
            exact_V = self._milp(self.cost_V, self._rows, (low_V, high_V))
            assert exact_V is not None
            if all(row_V @ exact_V <= high + 1e-9 for row_V, high in limits):
                return exact_V
            # From now on at least one of the whole unknowns must be another: Σ |x - whole| >= 1, linear for bits.
            rows.append((self._whole_V * (1 - 2 * whole_V), float(1 - self._whole_V @ whole_V), np.inf))
        return None

    def _milp(self, goal_V: Array, rows: list[Row], between: tuple[Array, Array]) -> Array | None:
        matrix, low, high = zip(*rows, strict=True)
        with _silent():
            result = milp(
                goal_V,
                integrality=self._whole_V,
                bounds=between,
                constraints=(np.stack(matrix), low, high),
                # With presolve, HiGHS 1.12 calls some programs infeasible that are not; without, it is as fast here.
                options={"mip_rel_gap": 0.0, "presolve": False},
            )
        if result.status not in (0, 2):  # found; infeasible
            raise RuntimeError(f"milp: {result.message}")
        return result.x

    def arch(self, found_V: Array) -> Arch:
        ends = np.cumsum(list(self._sizes.values()))[:-1]
        chosen = dict(zip(self._sizes, np.split(found_V > 0.5, ends), strict=True))
        kept = tuple(f.name for f, keep in zip(self._features, chosen["keep"], strict=True) if keep)
        return Arch(kept, self._networks[int(chosen["network"].argmax())].widths)


@contextmanager
def _silent() -> Iterator[None]:
    """HiGHS 1.12 prints a line of its own debugging, whatever it is told, to the process's standard output."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
