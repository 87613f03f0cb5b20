"""The most valuable features that fit a budget, exactly: branch and bound over how slow each source may be.

With the network chosen and the slowest feature of every source fixed, it is a knapsack but for two things: the sources
are fetched side by side, so that only the slowest counts, and the first layer's time is no straight line. Both are
bounded from below by straight lines, which leaves a knapsack whose linear relaxation is a sort (Dantzig, 1957).

Shapes: M features, G sources, P straight lines that bound the cost, F free features of a box, N sets.
"""

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prerank.latency.formula import item_width
from prerank.latency.table import HEAD, Table
from prerank.logs.schema import Feature

BOXES, LISTED = 5_000, 300_000
"""So many boxes are looked into, and so many sets listed, at most: a few seconds. What is found until then is the
answer; random programs of 300 features and one network are proven in a tenth of that."""
SETS = 4_096
"""Largest number of sets that one box is listed as, before it is split instead."""

PREFIXES = 8
STEEPER = np.array([0.5, 0.8, 1.25, 2.0, 5.0, 25.0])
"""Other slopes to bound the first layer's time by: the steeper, the less pays a set that is wider than its box."""

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Network:
    widths: tuple[int, ...]
    value: float
    first: int
    """What the inputs are multiplied to; `HEAD` without a hidden layer."""
    rest_us: float
    """All layers but the first, whose time depends on the features."""


def network_of(table: Table, widths: tuple[int, ...], value: float = 0.0) -> Network:
    layers = (*(width for width in widths if width), HEAD)
    return Network(widths, value, layers[0], sum(table.at(*pair) for pair in itertools.pairwise(layers)))


class Costs:
    """What sets of features cost, many at a time: the same as `prerank.latency.formula.latency_us` of each."""

    def __init__(self, features: tuple[Feature, ...], fetch: Mapping[str, Mapping[str, float]], table: Table):
        self.features, self.table = features, table
        sources = sorted({feature.source for feature in features})
        self.source_M = np.array([sources.index(feature.source) for feature in features])
        self.member_MG = np.eye(len(sources))[self.source_M]
        self.fetch_M = np.array([feature.fetch_us for feature in features])
        self.inputs_M = np.array([table.inputs_us[feature.name] for feature in features])
        self.item_M = np.array([not feature.of_request for feature in features])
        self.width_M = np.array([feature.width for feature in features]) * self.item_M
        self.count_G = np.array([fetch[source]["per_feature_us"] for source in sources])
        alike = np.column_stack([self.source_M, self.item_M, self.inputs_M, self.width_M])
        self.group_M = np.unique(alike, axis=0, return_inverse=True)[1].ravel()
        """Features of one number cost the same, but for how long they take to fetch."""
        most = item_width(features)
        self.knots = np.array([0.0, *(width for width in table.ins if width < most), most])
        """Item widths between which the first layer's time is a straight line."""
        outs = sorted({out for out in table.outs})
        self.first_us = {out: np.array([table.at(int(knot), out) for knot in self.knots]) for out in outs}

    def of(self, kept_NM: Bools, network: Network) -> Array:
        """Microseconds [N]."""
        member_NM = kept_NM.astype(float)
        sums = member_NM @ np.column_stack([self.inputs_M, self.width_M, self.member_MG * self.count_G])
        inputs_N, width_N, count_NG = sums[:, 0], sums[:, 1], sums[:, 2:]
        slowest = [(member_NM[:, mine_M > 0] * self.fetch_M[mine_M > 0]).max(axis=1) for mine_M in self.member_MG.T]
        fetch_N = (np.column_stack(slowest) + count_NG).max(axis=1)
        first_N = np.interp(width_N, self.knots, self.first_us[network.first])
        return fetch_N + inputs_N + first_N + (self.table.overhead_us + network.rest_us)


@dataclass(frozen=True)
class Box:
    """The sets of one network whose slowest features, item width and some members lie within limits."""

    network: Network
    low_G: tuple[int, ...]
    """Of each source the fastest that its slowest kept feature may be, as a place in `levels`; 0: none is kept."""
    high_G: tuple[int, ...]
    knots: tuple[int, int]
    """Places in `Costs.knots` between which the item width lies."""
    kept: tuple[int, ...] = ()
    left: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Bound:
    value: float
    """No set of the box is worth more."""
    free_F: NDArray[np.intp]
    order_F: NDArray[np.intp]
    """Of the free, those of most value for their cost first."""
    worth_F: Array
    """What each of the free adds, beyond what its cost could buy elsewhere: none of the best sets is off by more."""
    torn: int
    """The feature that the relaxation keeps a part of; -1: none."""


class Knapsack:
    """One program: features of value above 0 may be kept, and of the items' at least one must."""

    def __init__(self, costs: Costs, value_M: Array, budget_us: float, tolerance: float):
        self.costs, self.value_M, self.budget_us, self.tolerance = costs, value_M, budget_us, tolerance
        self.wanted_M = value_M > 0
        self.best = -np.inf
        self.found: list[tuple[float, float, Bools, Network]] = []
        """(microseconds, value) of what is as good as the best: the cheaper, the less it is worth."""
        self.listed = 0
        self.proven = True
        """Whether nothing can be better: not where the search was cut short."""

    def solve(self, networks: Sequence[Network]) -> tuple[Bools, Network] | None:
        """The features and the network of the largest sum of values that fits; None where nothing does.

        Of those that are as good, to the tolerance, the fastest, and then the first by the order of the features.
        """
        if (self.wanted_M & self.costs.item_M).any():
            self._search([self._root(network, ()) for network in networks])
        # Or one that is not wanted, where no wanted one of the items is kept: a ranker needs one.
        of_request = self.value_M[self.wanted_M & ~self.costs.item_M].sum()
        for m in np.flatnonzero(self.costs.item_M & ~self.wanted_M):
            of_use = [n for n in networks if n.value + self.value_M[m] + of_request >= self.best - self.tolerance]
            self._search([self._root(network, (int(m),)) for network in of_use])
        if not self.found:
            return None
        return min(self.found, key=lambda row: (round(row[0], 9), tuple(~row[2])))[2:]

    def _root(self, network: Network, forced: tuple[int, ...]) -> Box:
        """All sets of the network; where one of the items is `forced`, no other of them is kept."""
        costs = self.costs
        left = tuple(np.flatnonzero(self.wanted_M & costs.item_M).tolist()) if forced else ()
        may_M = self.wanted_M.copy()
        may_M[list(left)] = False
        may_M[list(forced)] = True
        self.levels = [
            np.unique([0.0, *costs.fetch_M[may_M & (costs.source_M == source)]]) for source in range(len(costs.count_G))
        ]
        # A feature that takes no time at all has the level of none kept: its count is paid for all the same.
        self.level_M = np.array(
            [np.searchsorted(self.levels[s], us) for s, us in zip(costs.source_M, costs.fetch_M, strict=True)]
        )
        high = tuple(len(levels) - 1 for levels in self.levels)
        return Box(network, (0,) * len(high), high, (0, len(costs.knots) - 1), forced, left)

    def _search(self, roots: Sequence[Box]) -> None:
        heap: list[tuple[float, int, Box, _Bound]] = []
        ticket = itertools.count()

        def push(boxes: Iterable[Box]) -> None:
            for box in boxes:
                bound = self._bound(box)
                if bound.value >= self.best - self.tolerance:
                    self._offer_prefixes(box, bound)
                    heapq.heappush(heap, (-bound.value, next(ticket), box, bound))

        push(roots)
        while heap and -heap[0][0] >= self.best - self.tolerance:
            if next(ticket) > BOXES or self.listed > LISTED:
                self.proven = False
                return
            *_, box, bound = heapq.heappop(heap)
            push(self._split(box, bound))

    def _split(self, box: Box, bound: _Bound) -> list[Box]:
        """Two parts of the box; none where all sets in it that may be best were listed."""
        spread = [self.levels[s][high] - self.levels[s][low] for s, (low, high) in enumerate(_ends(box))]
        source = int(np.argmax(spread))
        if spread[source] > 0:
            middle = (box.low_G[source] + box.high_G[source]) // 2
            return [
                self._held(replace(box, high_G=_with(box.high_G, source, middle)), source),
                self._held(replace(box, low_G=_with(box.low_G, source, middle + 1)), source),
            ]
        if self._list(box, bound):
            return []
        low, high = box.knots
        if high - low > 1:
            middle = (low + high) // 2
            return [replace(box, knots=(low, middle)), replace(box, knots=(middle, high))]
        torn = bound.torn if bound.torn >= 0 else int(bound.free_F[np.abs(bound.worth_F).argmin()])
        return [replace(box, kept=(*box.kept, torn)), replace(box, left=(*box.left, torn))]

    def _held(self, box: Box, source: int) -> Box:
        """With the slowest feature of the source among the kept, where there is but one that it can be."""
        level = box.low_G[source]
        if level == box.high_G[source] and level:
            members = np.flatnonzero(self.wanted_M & (self.costs.source_M == source) & (self.level_M == level))
            members = [int(m) for m in members if m not in box.left]
            if len(members) == 1 and members[0] not in box.kept:
                return replace(box, kept=(*box.kept, *members))
        return box

    def _bound(self, box: Box) -> _Bound:
        """By the best of several straight lines below the true cost.

        The time of the fetch is at least any mean of the sources' times; that of the first layer at least any line
        that is below it at its knots.
        """
        costs, nothing = self.costs, np.zeros(0, np.intp)
        low_G, kept = np.array(box.low_G), list(box.kept)
        for m in kept:
            low_G[costs.source_M[m]] = max(low_G[costs.source_M[m]], self.level_M[m])
        may_M = self.wanted_M & (self.level_M <= np.array(box.high_G)[costs.source_M])
        may_M[[*box.kept, *box.left]] = False
        free_F = np.flatnonzero(may_M)
        of_kept = float(costs.width_M[kept].sum())
        x_K, us_K = (of[box.knots[0] : box.knots[1] + 1] for of in (costs.knots, costs.first_us[box.network.first]))
        out = _Bound(-np.inf, nothing, nothing, np.zeros(0), -1)
        if (low_G > box.high_G).any() or of_kept > x_K[-1] or of_kept + costs.width_M[free_F].sum() < x_K[0]:
            return out
        low_us_G = np.array([levels[low] for levels, low in zip(self.levels, low_G, strict=True)])
        fixed_us = costs.table.overhead_us + box.network.rest_us + costs.inputs_M[kept].sum()
        sure = box.network.value + self.value_M[kept].sum()
        value_F = self.value_M[free_F]

        def relaxed(mean_PG: Array, slope_P: Array) -> tuple[int, float, Array, Array, NDArray[np.intp]]:
            """The place and the value of the lowest bound, with its weights, the parts kept and their order."""
            from_P = (us_K - slope_P[:, None] * x_K).min(axis=1)
            count_PG = mean_PG * costs.count_G
            weight_PF = costs.inputs_M[free_F] + slope_P[:, None] * costs.width_M[free_F]
            weight_PF = weight_PF + count_PG[:, costs.source_M[free_F]]
            of_kept_P = slope_P * of_kept + count_PG[:, costs.source_M[kept]].sum(axis=1)
            room_P = self.budget_us * (1 + 1e-9) - fixed_us - from_P - mean_PG @ low_us_G - of_kept_P
            room_P -= np.minimum(weight_PF, 0).sum(axis=1)
            positive_PF = np.maximum(weight_PF, 1e-12)
            order_PF = np.argsort(-value_F / positive_PF, axis=1, kind="stable")
            sorted_PF = np.take_along_axis(positive_PF, order_PF, axis=1)
            part_PF = np.clip((room_P[:, None] - sorted_PF.cumsum(axis=1)) / sorted_PF + 1, 0, 1)
            bound_P = np.where(room_P < 0, -np.inf, sure + (value_F[order_PF] * part_PF).sum(axis=1))
            p = int(bound_P.argmin())
            return p, float(bound_P[p]), weight_PF[p], part_PF[p], order_PF[p]

        sources = len(costs.count_G)
        slopes = np.unique(np.maximum(np.diff(us_K) / np.diff(x_K), 0.0))
        slope = max(0.0, (us_K[-1] - us_K[0]) / max(x_K[-1] - x_K[0], 1.0))
        corners = np.concatenate([np.eye(sources), np.full((1, sources), 1 / sources)])
        mean_G, lowest = corners[-1], np.inf
        for near in (1.0, 0.5, 0.2):
            mean_PG = np.concatenate([mean_G[None], mean_G + near * (corners - mean_G)])
            p, _, *_ = relaxed(mean_PG, np.full(len(mean_PG), slope))
            mean_G = mean_PG[p]
            tried = np.concatenate([[slope], slopes, np.maximum(slope, 1e-3) * STEEPER])
            p, lowest, weight_F, part_F, order_F = relaxed(np.tile(mean_G, (len(tried), 1)), tried)
            slope = tried[p]
            if lowest < self.best - self.tolerance:
                return replace(out, value=lowest)
        torn = np.flatnonzero(part_F < 1)
        price = 0.0
        if len(torn):
            price = value_F[order_F[torn[0]]] / max(weight_F[order_F[torn[0]]], 1e-12)
        return _Bound(
            lowest, free_F, order_F, value_F - price * weight_F, int(free_F[order_F[torn[0]]]) if len(torn) else -1
        )

    def _offer_prefixes(self, box: Box, bound: _Bound) -> None:
        """The first so many by value for their cost, and a few less: the relaxation is whole but for one."""
        ordered = bound.free_F[bound.order_F]
        most = int(np.flatnonzero(ordered == bound.torn)[0]) if bound.torn >= 0 else len(ordered)
        numbers = range(max(0, most - PREFIXES), most + 1)
        kept_NM = np.zeros((len(numbers), len(self.value_M)), bool)
        kept_NM[:, list(box.kept)] = True
        for row, n in enumerate(numbers):
            kept_NM[row, ordered[:n]] = True
        self._offer(kept_NM, box.network)

    def _list(self, box: Box, bound: _Bound) -> bool:
        """Offers every set of the box that may be as good as the best; False where there are too many.

        A set is worth the bound at most, less what each feature costs it that is kept against its worth, or left.
        """
        slack = bound.value - self.best + self.tolerance
        base_M = np.zeros(len(self.value_M), bool)
        base_M[[*box.kept, *bound.free_F[bound.worth_F > 0]]] = True
        lost_N, kept_NM = np.zeros(1), base_M[None]
        for group in np.unique(self.costs.group_M[bound.free_F]):
            # Of features that cost the same, beside the slowest, those of the most value are kept.
            mine = np.flatnonzero(self.costs.group_M[bound.free_F] == group)
            mine = mine[np.lexsort((bound.free_F[mine], -bound.worth_F[mine]))]
            worth, members = bound.worth_F[mine], bound.free_F[mine]
            n = int((worth > 0).sum())
            fewer, more = worth[:n][::-1].cumsum(), -worth[n:].cumsum()
            others = [(n - i, lost) for i, lost in enumerate(fewer, 1)] + [
                (n + i, lost) for i, lost in enumerate(more, 1)
            ]
            parts = [(lost_N, kept_NM)]
            for number, lost in others:
                here_N = np.flatnonzero(lost_N + lost <= slack)
                other_NM = kept_NM[here_N]
                other_NM[:, members] = np.arange(len(members)) < number
                parts.append((lost_N[here_N] + lost, other_NM))
            if sum(len(lost) for lost, _ in parts) > SETS:
                return False
            lost_N, kept_NM = (np.concatenate(part) for part in zip(*parts, strict=True))
        self.listed += len(kept_NM)
        self._offer(kept_NM, box.network)
        return True

    def _offer(self, kept_NM: Bools, network: Network) -> None:
        kept_NM = kept_NM[(kept_NM & self.costs.item_M).any(axis=1)]
        value_N = kept_NM @ self.value_M + network.value
        good_N = value_N >= self.best - self.tolerance
        kept_NM, value_N = kept_NM[good_N], value_N[good_N]
        us_N = self.costs.of(kept_NM, network)
        fits_N = us_N <= self.budget_us * (1 + 1e-9)
        if not fits_N.any():
            return
        self.best = max(self.best, float(value_N[fits_N].max()))
        rows = [*self.found, *((us_N[n], value_N[n], kept_NM[n], network) for n in np.flatnonzero(fits_N))]
        rows = sorted(
            (row for row in rows if row[1] >= self.best - self.tolerance),
            key=lambda row: (round(row[0], 9), -row[1], tuple(~row[2])),
        )
        self.found, most = [], -np.inf
        for row in rows:
            if row[1] > most:
                self.found.append(row)
                most = row[1]


def _ends(box: Box) -> Iterable[tuple[int, int]]:
    return zip(box.low_G, box.high_G, strict=True)


def _with(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])
