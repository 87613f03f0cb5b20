"""The pool of items and the pairs that each request is trained on (result-list distillation).

From a fine list with positions 0..n-1 (0 = best), exposed flags and clicks:

| strategy              | code | pairs (better, worse)                                                             |
|-----------------------|------|-----------------------------------------------------------------------------------|
| `exposed`             | 1    | clicked, exposed but not clicked                                                  |
| `low_rank_negatives`  | 2    | clicked, drawn from the tail of the fine list and never exposed                   |
| `rank_pairs`          | 4    | both drawn at random from the fine list, the better position first                |
| `bin_pairs`           | 8    | drawn per rank bin, only between different bins, the better bin first             |

Code 16 marks items drawn uniformly from those never exposed: the teacher's negatives, without pairs. A request gets
`uniform_items` of them, or `uniform_ratio` times its exposures where that is more; the ratio counts only where the
requests of the logs are shown more than `uniform_items / uniform_ratio` items on average (`prerank.samples.fitting`),
so that a few long requests among short ones change nothing. Where fewer are unexposed, all of them are taken.

Every draw is the lowest of numbers keyed by (seed, strategy, request, item): no order of rows, blocks or workers shows.
R requests, N items, P pairs; indices of items are flat until the end.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa

from prerank.core.config import LARGEST, Count, Numbers, Positive, Weight, Within
from prerank.core.counts import Drawn, Labelled, Number, count
from prerank.core.errors import InputError, nearest
from prerank.core.hashing import hash_ids, keyed, keyed_uniform, uniform_of
from prerank.core.nested import flat, flat_numpy, lowest_within, nest, offsets_from, offsets_of, segment_of
from prerank.logs.schema import Schema

CODES = {"exposed": 1, "low_rank_negatives": 2, "rank_pairs": 4, "bin_pairs": 8}
UNIFORM = 16
BY_PLACE = ("rank_pairs", "bin_pairs")
NEED_POSITIONS = ("low_rank_negatives", *BY_PLACE)


@dataclass(frozen=True)
class DrawConfig:
    tail_negatives: Count = 10
    """Items drawn a request for low_rank_negatives."""
    tail_share: Annotated[float, Within(0, 1, above=True)] = 0.5
    """They come from this last share of the fine list."""
    rank_items: Count = 20
    """Items drawn a request for rank_pairs."""
    bins: Annotated[int, Within(1, 32767)] = 10
    """Rank bins of equal width, where bin_edges is empty."""
    bin_edges: Annotated[str, Numbers(Within(0, LARGEST))] = ""
    """First positions of the bins, such as 0,5,10,20,50,100: finer at the top."""
    bin_items: Count = 3
    """Items drawn a bin for bin_pairs."""
    uniform_items: Count = 30
    """Items drawn a request from those never exposed, for the teacher's negatives, at least."""
    uniform_ratio: Weight = 3.0
    """So many for each exposed item, where that is more and the logs have many exposures a request; 0: never."""
    max_pairs: Positive = 200
    """Pairs kept a request and strategy, a random subset."""

    @property
    def edges(self) -> np.ndarray:
        return np.array([int(edge) for edge in self.bin_edges.split(",") if edge.strip()], np.int64)

    def uniform_of(self, exposures_R: np.ndarray) -> np.ndarray:
        """int64 [R]: unexposed items to draw of requests with so many exposures."""
        return np.maximum(self.uniform_items, np.round(self.uniform_ratio * exposures_R).astype(np.int64))

    def check(self) -> None:
        """Raises InputError naming the key at fault."""
        for key in ("tail_negatives", "rank_items", "bin_items", "uniform_items"):
            if getattr(self, key) < 0:
                raise InputError(f"draw.{key}: expected 0 or more, got {getattr(self, key)}")
        for key in ("bins", "max_pairs"):
            if getattr(self, key) < 1:
                raise InputError(f"draw.{key}: expected 1 or more, got {getattr(self, key)}")
        if not 0 <= self.uniform_ratio < math.inf:
            raise InputError(f"draw.uniform_ratio: expected 0 or more, got {self.uniform_ratio}")
        if not 0 < self.tail_share <= 1:
            raise InputError(f"draw.tail_share: expected a share above 0, at most 1, got {self.tail_share}")
        try:
            edges = self.edges
        except ValueError:
            edges = np.array([-1])
        if len(edges) and (edges[0] != 0 or (np.diff(edges) <= 0).any()):
            raise InputError(f"draw.bin_edges: expected rising positions from 0 (0,5,10), got {self.bin_edges!r}")


def parse_strategies(value: str) -> tuple[str, ...]:
    """`"exposed,bin_pairs"` or `"all"`, in the order of the codes."""
    named = [part.strip() for part in value.split(",") if part.strip()]
    for name in named:
        if name != "all" and name not in CODES:
            raise InputError(f"--strategy: unknown strategy {name!r}{nearest(name, ['all', *CODES])}")
    if not named:
        raise InputError(f"--strategy: expected all, or some of {', '.join(CODES)}")
    return tuple(name for name in CODES if name in named or "all" in named)


def rank_bins(position: np.ndarray, length: np.ndarray, config: DrawConfig) -> np.ndarray:
    """int16 [N]: the bin of a position in a list of that length, 0 = best."""
    if len(config.edges):
        return (np.searchsorted(config.edges, position, side="right") - 1).astype(np.int16)
    return (position * config.bins // length).astype(np.int16)


def draw(
    table: pa.Table, schema: Schema, config: DrawConfig, strategies: tuple[str, ...], *, seed: int
) -> tuple[pa.Table, Drawn]:
    """Request rows with whole lists in, request rows with their pool and pairs out, and counts of what was built.

    Lists keep their canonical order. Requests that no chosen strategy has a pair for, and that give the teacher nothing
    either (a click or another label, and uniform items), are left out. Where positions are unknown (-1) lists stay
    whole: only `exposed` pairs and the uniform items can be marked, and `draw` is called again when a teacher has given
    positions.
    """
    lists = Lists.of(table, seed)
    known = not (lists.position < 0).any()
    usable = [name for name in strategies if known or name not in NEED_POSITIONS]
    bins = rank_bins(lists.position, lists.length, config) if known else np.full(len(lists.position), -1, np.int16)

    drawn = np.where(lists.exposed, CODES["exposed"], 0).astype(np.uint8)
    pairs: dict[str, Pairs] = {}
    for name in usable:
        items, better, worse = STRATEGIES[name](lists, config, bins)
        drawn[items] |= CODES[name]
        pairs[name] = capped(lists, better, worse, config.max_pairs, name)
    wanted_R = config.uniform_of(np.bincount(lists.request[lists.exposed], minlength=lists.n))
    drawn[lists.draw(~lists.exposed, wanted_R, "uniform")] |= UNIFORM

    paired = np.zeros(lists.n, bool)
    for better, _ in pairs.values():
        paired[lists.request[better]] = True
    labels = {name: flat_numpy(table[name]).astype(bool) for name in schema.labels if name in table.column_names}
    positive = lists.any(np.logical_or.reduce([lists.clicked, *labels.values()]))
    useful = paired | (positive & lists.any(drawn & UNIFORM > 0))
    if len(usable) < len(strategies):
        useful[:] = True  # its pairs come with the positions
    keep = useful[lists.request] & ((drawn > 0) | (not known))

    out = _pool(table, schema, lists, useful, keep)
    out = out.append_column("drawn", nest(drawn[keep], offsets_of(out["item_id"])))
    out = out.append_column("bin", nest(bins[keep], offsets_of(out["item_id"])))
    out = _with_pairs(out, pairs, lists, useful, keep)
    noted: dict[str, Number] = {}
    missing_R = wanted_R - np.bincount(lists.request[~lists.exposed], minlength=lists.n)
    short = (missing_R > 0) & lists.any(lists.clicked)  # of others the teacher reads none
    count(noted, "fewer_unexposed_than_asked", int(missing_R[short].sum()), int(short.sum()))
    left_out: Number = {"requests": int((~useful).sum()), "rows": int((~useful)[lists.request].sum())}
    counts: Drawn = {
        "built": {"requests": out.num_rows, "rows": int(keep.sum())},
        "pairs": {name: len(better) for name, (better, _) in pairs.items()},
        "requests_with_pairs": {name: len(np.unique(lists.request[better])) for name, (better, _) in pairs.items()},
        "requests_with_click": int((useful & lists.any(lists.clicked)).sum()),
        "dropped": {"no_pairs": left_out} if left_out["requests"] else {},
        "noted": noted,
    }
    if labels:
        counts["labels"] = {name: _of_label(lists, label_N) for name, label_N in labels.items()}
    return out, counts


def undrawn(table: pa.Table) -> pa.Table:
    """Request rows with whole lists for evaluation: nothing drawn, no pairs; the columns of `draw`."""
    offsets = offsets_of(table["item_id"])
    table = table.append_column("drawn", nest(np.zeros(offsets[-1], np.uint8), offsets))
    table = table.append_column("bin", nest(np.full(offsets[-1], -1, np.int16), offsets))
    none = np.zeros(table.num_rows + 1, np.int64)
    for name, dtype in (("pair_hi", np.int32), ("pair_lo", np.int32), ("pair_strategy", np.uint8)):
        table = table.append_column(name, nest(np.empty(0, dtype), none))
    return table


@dataclass(frozen=True)
class Lists:
    """What strategies draw from: the fine lists of R requests, flat."""

    offsets: np.ndarray
    request: np.ndarray
    position: np.ndarray
    exposed: np.ndarray
    clicked: np.ndarray
    request_hash: np.ndarray
    item_hash: np.ndarray
    seed: int
    salt: str = ""
    """Draws of another salt are others."""
    of_list: np.ndarray | None = None
    """int64 [N]: the length of the list that an item is of, where it is not here as a whole."""

    @classmethod
    def of(cls, table: pa.Table, seed: int) -> "Lists":
        offsets = offsets_of(table["item_id"])
        request = segment_of(offsets)
        position = flat_numpy(table["position"]).astype(np.int64)
        exposed, clicked = (flat_numpy(table[name]).astype(bool) for name in ("exposed", "clicked"))
        hashes = hash_ids(table["request_id"])[request], hash_ids(flat(table["item_id"]))
        return cls(offsets, request, position, exposed, clicked, *hashes, seed)

    @property
    def n(self) -> int:
        return len(self.offsets) - 1

    @property
    def length(self) -> np.ndarray:
        """int64 [N]: length of the list that an item is in."""
        return np.diff(self.offsets)[self.request] if self.of_list is None else self.of_list

    def any(self, flags: np.ndarray) -> np.ndarray:
        """bool [R]"""
        return np.bincount(self.request[flags], minlength=self.n) > 0

    def draw(self, eligible: np.ndarray, k: int | np.ndarray, salt: str, cell: np.ndarray | None = None) -> np.ndarray:
        """Ascending indices of k random eligible items (or all there are) of each cell [N], by default each request.

        k [R] has a number for each request.
        """
        items = np.flatnonzero(eligible)
        number = keyed_uniform(self.seed, salt + self.salt, self.request_hash[items], self.item_hash[items])
        most = k if isinstance(k, int) else k[self.request[items]]
        return items[lowest_within((self.request if cell is None else cell)[items], number, most)]

    def cross(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every (item of a, item of b) of the same request; a and b ascending."""
        b_offsets = offsets_from(self.request[b], self.n)
        partners = np.diff(b_offsets)[self.request[a]]
        within = np.arange(partners.sum()) - np.repeat(np.cumsum(partners) - partners, partners)
        return np.repeat(a, partners), b[np.repeat(b_offsets[self.request[a]], partners) + within]

    def ordered(self, items: np.ndarray, value: np.ndarray) -> "Pairs":
        """Every two items of the same request of which the first has the lower value [N]; `items` ascending.

        In the order of `cross`, from a table of R x M x M flags, M the most items of a request.
        """
        offsets = offsets_from(self.request[items], self.n)
        row = self.request[items]
        place = np.arange(len(items)) - offsets[row]
        most = int(np.diff(offsets).max(initial=0))
        value_RM, there_RM = np.zeros((self.n, most), value.dtype), np.zeros((self.n, most), bool)
        value_RM[row, place], there_RM[row, place] = value[items], True
        below = (value_RM[:, :, None] < value_RM[:, None, :]) & there_RM[:, :, None] & there_RM[:, None, :]
        count = np.count_nonzero(below, axis=2)[row, place]  # of pairs of each item; no number of a pair is divided
        first = np.repeat(np.arange(len(items)), count)
        second = np.flatnonzero(below) - np.repeat((row * most + place) * most - offsets[row], count)
        return items[first], items[second]


Picked = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Items drawn, and of each pair the better and the worse one."""


Pairs = tuple[np.ndarray, np.ndarray]
"""The better and the worse item of each."""


def _exposed(lists: Lists, config: DrawConfig, bins: np.ndarray) -> Picked:
    clicked, passed = np.flatnonzero(lists.clicked), np.flatnonzero(lists.exposed & ~lists.clicked)
    return np.flatnonzero(lists.exposed), *lists.cross(clicked, passed)


def _low_rank_negatives(lists: Lists, config: DrawConfig, bins: np.ndarray) -> Picked:
    tail = ~lists.exposed & (lists.position >= lists.length * (1 - config.tail_share))
    items = lists.draw(tail, config.tail_negatives, "low_rank_negatives")
    return items, *lists.cross(np.flatnonzero(lists.clicked), items)


def _rank_pairs(lists: Lists, config: DrawConfig, bins: np.ndarray) -> Picked:
    items = lists.draw(np.ones(len(lists.request), bool), config.rank_items, "rank_pairs")
    return items, *lists.ordered(items, lists.position)


def _bin_pairs(lists: Lists, config: DrawConfig, bins: np.ndarray) -> Picked:
    cell = lists.request * (int(bins.max(initial=0)) + 1) + bins
    items = lists.draw(np.ones(len(lists.request), bool), config.bin_items, "bin_pairs", cell)
    return items, *lists.ordered(items, bins)


STRATEGIES = {
    "exposed": _exposed,
    "low_rank_negatives": _low_rank_negatives,
    "rank_pairs": _rank_pairs,
    "bin_pairs": _bin_pairs,
}


def _of_label(lists: Lists, label_N: np.ndarray) -> Labelled:
    """Of whole lists."""
    some = int((label_N & lists.exposed).sum())
    return {"requests": int(lists.any(label_N).sum()), "true": some, "false": int(lists.exposed.sum()) - some}


def capped(lists: Lists, better: np.ndarray, worse: np.ndarray, most: int, name: str) -> Pairs:
    request = lists.request[better]
    if np.bincount(request, minlength=1).max() <= most:
        return better, worse
    of_better = keyed(lists.seed, f"pairs of {name}{lists.salt}", lists.request_hash, lists.item_hash)[better]
    keep = lowest_within(request, uniform_of(of_better, lists.item_hash[worse]), most)
    return better[keep], worse[keep]


def _pool(table: pa.Table, schema: Schema, lists: Lists, useful: np.ndarray, keep: np.ndarray) -> pa.Table:
    """Rows where `useful` [R], in them the items where `keep` [N]."""
    of_request = {"request_id", "ts"} | {feature.name for feature in schema.features if feature.of_request}
    code = np.cumsum(useful) - 1
    offsets = offsets_from(code[lists.request[keep]], int(useful.sum()))
    items = pa.array(np.flatnonzero(keep))
    columns = {}
    for name in table.column_names:
        if name in of_request:
            columns[name] = table[name].filter(pa.array(useful))
        elif name not in ("drawn", "bin", "pair_hi", "pair_lo", "pair_strategy"):
            columns[name] = nest(flat(table[name]).take(items), offsets)
    return pa.table(columns)


def _with_pairs(out: pa.Table, pairs: dict[str, Pairs], lists: Lists, useful: np.ndarray, keep: np.ndarray) -> pa.Table:
    """Appends the pairs as indices within the request's pool, ordered by strategy, better and worse item."""
    empty = np.empty(0, np.int64)
    better = np.concatenate([empty, *(better for better, _ in pairs.values())])
    worse = np.concatenate([empty, *(worse for _, worse in pairs.values())])
    strategy = np.concatenate([empty, *(np.full(len(b), CODES[name]) for name, (b, _) in pairs.items())])
    order = np.argsort(lists.request[better], kind="stable")
    better, worse, strategy = better[order], worse[order], strategy[order]

    request = (np.cumsum(useful) - 1)[lists.request[better]]
    first = offsets_of(out["item_id"])[request]
    place = np.cumsum(keep) - 1
    offsets = offsets_from(request, out.num_rows)
    out = out.append_column("pair_hi", nest((place[better] - first).astype(np.int32), offsets))
    out = out.append_column("pair_lo", nest((place[worse] - first).astype(np.int32), offsets))
    return out.append_column("pair_strategy", nest(strategy.astype(np.uint8), offsets))
