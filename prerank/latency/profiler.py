"""Measures what a ranker's pieces cost to serve on this host, and whole networks to check their sum against.

Shapes: N candidates of one request, M features; all times are microseconds.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from prerank.latency.pieces import PIECES, Setting, Stats
from prerank.logs.schema import Feature
from prerank.serving.timing import TURNS, micros, stat, timed

Network = tuple[tuple[str, ...], tuple[int, ...]]
"""Names of features, hidden widths."""


def input_orders(names: Iterable[str], *, orders: int, seed: int) -> list[list[str]]:
    """Random orders of the features, each followed by its reverse."""
    rng, out = np.random.default_rng(seed), []
    for number in range(orders):
        out.append(out[-1][::-1] if number % 2 else list(rng.permutation(list(names))))
    return out


def inputs_of(
    by_name: dict[str, Feature], orders: list[list[str]], times: list[list[list[np.ndarray]]]
) -> dict[str, dict[str, float]]:
    """By feature what its input path adds to a network, on average over the features that are there already.

    Features share work (the numbers are normalised together, all are joined), so what one adds depends on the others:
    they are put in one by one in `orders`, `times` has the runs with none, the first, the first two, ..., and
    differences between neighbours are averaged over the orders (the Shapley value; the sum over an order is the whole).
    Features of items of the same kind and size take the same path and share one value, and so do features of a request
    of the same kind. p50 is the average difference of medians, and so on.
    """
    added: dict[tuple, list[dict[str, float]]] = {}
    for order, runs in zip(orders, times, strict=True):
        for name, (without, with_it) in zip(order, itertools.pairwise(runs), strict=True):
            added.setdefault(_path(by_name[name]), []).append(_difference(with_it, without))
    return {name: _pooled(added[_path(feature)]) for name, feature in by_name.items()}


def _difference(with_it: list[np.ndarray], without: list[np.ndarray]) -> dict[str, float]:
    """p50 within each turn, as neighbours run one after the other, and the median of that over the turns."""
    p50 = np.median([np.median(a) - np.median(b) for a, b in zip(with_it, without, strict=True)])
    more, less = stat(with_it), stat(without)
    return {key: more[key] - less[key] for key in ("mean", "p99")} | {"count": more["count"], "p50": float(p50)}


def _path(feature: Feature) -> tuple:
    """What the time of a feature's path depends on; in the one row of a request the widths do not show."""
    own = () if feature.of_request else (feature.width, feature.size)
    return feature.of_request, "ids" if feature.kind == "ids" else "id" if feature.dim else "dense", *own


def _pooled(differences: list[dict[str, float]]) -> dict[str, float]:
    """Nothing costs less than nothing: a difference below 0 is noise."""
    mean, p50, p99 = (max(0.0, float(np.mean([d[key] for d in differences]))) for key in ("mean", "p50", "p99"))
    count = sum(int(d["count"]) for d in differences)
    return {"count": count, "mean": micros(mean), "p50": micros(p50), "p99": micros(max(p50, p99))}


def _without_overhead(times: dict[str, float], overhead: dict[str, float]) -> dict[str, float]:
    """A piece's statistics without what any run costs."""
    return times | {key: micros(max(0.0, times[key] - overhead["p50"])) for key in ("mean", "p50", "p99")}


def profile(
    setting: Setting,
    features: Sequence[Feature],
    stats: Stats,
    *,
    layers: Sequence[tuple[int, int]],
    networks: Sequence[Network],
    list_length: int,
    orders: int,
    repeats: int,
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """One entry of `settings` in latency.json, and the statistics of `networks`, which the entry knows nothing of.

    `stats` is as in stats.json; features without have mean 0 and deviation 1, which costs the same.
    """
    plain = {f.name: {"mean": [0.0] * f.size, "std": [1.0] * f.size} for f in features if not f.dim}
    torch_threads = torch.get_num_threads()
    try:
        pieces = PIECES[setting.runtime](setting, features, plain | stats, list_length)
        put_in = input_orders(pieces.by_name, orders=orders, seed=seed)
        runs = [
            pieces.overhead(),
            *itertools.starmap(pieces.layer, layers),
            *itertools.starmap(pieces.network, networks),
        ]
        for order in put_in:
            runs += [pieces.overhead(), *(pieces.paths(order[: end + 1]) for end in range(len(order)))]
        times = timed(runs, repeats, tick)  # all in turns: a host that changes its pace changes that of every piece
    finally:
        torch.set_num_threads(torch_threads)
    of_inputs = [times[len(times) - (k + 1) * (len(features) + 1) :][: len(features) + 1] for k in range(orders)][::-1]
    inputs = inputs_of(pieces.by_name, put_in, of_inputs)
    overhead, *rest = (stat(one) for one in times[: 1 + len(layers) + len(networks)])
    entry = asdict(setting) | {"overhead_us": overhead, "inputs_us": inputs, "layers_us": []}
    for (width_in, width_out), times in zip(layers, rest[: len(layers)], strict=True):
        entry["layers_us"].append({"in": width_in, "out": width_out} | _without_overhead(times, overhead))
    return entry, rest[len(layers) :]


def turns(features: Sequence[Feature], layers: Sequence, networks: Sequence, orders: int) -> int:
    """How often `profile` calls `tick`."""
    return TURNS * (orders * (len(features) + 1) + 1 + len(layers) + len(networks))


def random_networks(features: Sequence[Feature], widths: Sequence[int], *, networks: int, seed: int) -> list[Network]:
    """Any share of the features, one of an item at least, and 0 to 3 hidden layers."""
    rng = np.random.default_rng(seed)
    of_items = [index for index, feature in enumerate(features) if not feature.of_request]
    out = []
    for _ in range(networks):
        kept = rng.random(len(features)) < rng.random()
        kept[rng.choice(of_items)] = True
        names = tuple(feature.name for feature, keep in zip(features, kept, strict=True) if keep)
        out.append((names, tuple(int(width) for width in rng.choice(widths, rng.integers(0, 4)))))
    return out


def grid(widths: Iterable[int], most: int) -> list[tuple[int, int]]:
    """The layers to measure: [in, out] of the candidate widths and the head, each from each.

    The first layer may take any number of inputs up to `most`, so `in` is also 1, 2, 4, ... and the middles between.
    """
    between = [size for power in range(20) for size in (2**power, 3 * 2**power // 2)]
    ins = {size for size in between if size < most and (size < 4 or size % 4 == 0)} | {most, *widths}
    return list(itertools.product(sorted(ins), sorted({1, *widths})))


def errors(check: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of predictions over networks: shares of the prediction."""
    error = np.abs([row["error"] for row in check])
    p50, p90 = np.percentile(error, [50, 90])
    return {"networks": len(error), "median_abs": _share(p50), "p90_abs": _share(p90), "worst": _share(error.max())}


def _share(value: float) -> float:
    return round(float(value), 4)
