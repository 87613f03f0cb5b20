"""Measures what a ranker's pieces cost to serve on this host, and checks their sum on whole networks.

Shapes: N candidates of one request, M features; all times are microseconds.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch

from prerank.latency.file import Checked, Entry, Errors, LayerTimes
from prerank.latency.formula import inference_us, item_width
from prerank.latency.pieces import PIECES, Setting
from prerank.latency.plan import Network, Plan, random_networks
from prerank.latency.table import HEAD, Table, table_of
from prerank.logs.schema import Feature
from prerank.serving.timing import Stat, Times, micros, stat, timed
from prerank.serving.watch import Watch


def measured(
    plan: Plan, setting: Setting, number: int, tick: Callable[[], None] = lambda: None
) -> tuple[Entry, list[Checked]]:
    """The entry of a setting, the so-manieth, in latency.json, and how far its predictions are off."""
    seed = plan.seed + number
    networks = random_networks(plan.features, plan.widths, networks=plan.networks, seed=seed)
    entry, times = profile(plan, setting, networks, seed=seed, tick=tick)
    table = table_of(entry, "")
    checked = [_checked(table, plan.features, *each) for each in zip(networks, times, strict=True)]
    entry["error"] = errors(checked)
    return entry, checked


def profile(
    plan: Plan, setting: Setting, networks: Sequence[Network], *, seed: int, tick: Callable[[], None] = lambda: None
) -> tuple[Entry, list[Stat]]:
    """What the pieces take, and the times of `networks`, which the entry knows nothing of."""
    layers, features, orders = plan.layers, plan.features, plan.orders
    torch_threads = torch.get_num_threads()
    try:
        pieces = PIECES[setting.runtime](setting, features, plan.all_stats, plan.list_length)
        put_in = [order[: plan.put_in] for order in input_orders(pieces.by_name, orders=orders, seed=seed)]
        runs = [
            pieces.overhead(),
            *itertools.starmap(pieces.layer, layers),
            *itertools.starmap(pieces.network, networks),
        ]
        for order in put_in:
            runs += [pieces.paths(order[:end]) for end in range(len(order) + 1)]
        watch = Watch()
        times = timed(runs, plan.repeats, tick, watch)  # in turns: a host that changes its pace changes every piece's
    finally:
        torch.set_num_threads(torch_threads)
    # The runs of the orders stand last: of each, one with no feature and then one more for each that is put in.
    each = plan.put_in + 1
    of_inputs = [times[len(times) - (k + 1) * each :][:each] for k in range(orders)][::-1]
    overhead, *rest = (stat(one) for one in times[: 1 + len(layers) + len(networks)])
    with_head = dict(zip(layers, rest, strict=False))
    layers_us = [
        _layer(*layer, whole, overhead if layer[1] == HEAD else with_head[layer[1], HEAD])
        for layer, whole in with_head.items()
    ]
    entry: Entry = {
        "runtime": setting.runtime,
        "candidates": setting.candidates,
        "threads": setting.threads,
        "overhead_us": overhead,
        "inputs_us": {},
        "layers_us": layers_us,
        "meanwhile": watch.meanwhile(),
    }
    head = table_of(entry, "")
    entry["inputs_us"], entry["numbers_us"] = inputs_of(
        pieces.by_name, put_in, of_inputs, lambda width: head.at(max(1, width), HEAD)
    )
    return entry, rest[len(layers) :]


def _layer(width_in: int, width_out: int, times: Stat, less: Stat) -> LayerTimes:
    """A layer's times without the head behind it, and the head's without what any run costs."""

    def without(us: float) -> float:
        return micros(max(0.0, us - less["p5"]))

    return {
        "in": width_in,
        "out": width_out,
        "count": times["count"],
        "mean": without(times["mean"]),
        "p5": without(times["p5"]),
        "p50": without(times["p50"]),
        "p99": without(times["p99"]),
    }


def input_orders(names: Iterable[str], *, orders: int, seed: int) -> list[list[str]]:
    """Random orders of the features, each followed by its reverse: who is put in early is put in late as well."""
    rng = np.random.default_rng(seed)
    out: list[list[str]] = []
    for number in range(orders):
        out.append(out[-1][::-1] if number % 2 else list(rng.permutation(list(names))))
    return out


def inputs_of(
    by_name: Mapping[str, Feature],
    orders: list[list[str]],
    times: Sequence[Sequence[Times]],
    head_us: Callable[[int], float] = lambda width: 0.0,
) -> tuple[dict[str, Stat], Stat]:
    """By feature what its input path adds to a network, on average over the features that are there already; and beside
    it what numbers cost once.

    Once, as those of a side are normalised together: whichever is the first pays for all. The network has no hidden
    layer; what its head takes of so many inputs an item is `head_us`, and does not count.

    Features share work (all are joined), so what one adds depends on the others: they are put in one by one in
    `orders`, `times` has the runs with none, the first, the first two, ..., and differences between neighbours are
    averaged over the orders (the Shapley value where an order has all features). Features of items of the same kind and
    size take the same path and share one value, and so do features of a request of the same kind. p5 is the average
    difference of their p5, and so on.
    """
    added, firsts = dict[object, list[Stat]](), dict[bool, list[tuple[object, Stat]]]()
    for order, runs in zip(orders, times, strict=True):
        width, seen = 0, set[bool]()
        for name, (without, with_it) in zip(order, itertools.pairwise(map(stat, runs)), strict=True):
            feature = by_name[name]
            wider = width + item_width([feature])
            more_us, width = head_us(wider) - head_us(width), wider
            difference, path = _difference(with_it, without, more_us), _path(feature)
            if feature.dim or feature.of_request in seen:
                added.setdefault(path, []).append(difference)
            else:
                seen.add(feature.of_request)
                firsts.setdefault(feature.of_request, []).append((path, difference))
    values, once = {path: _pooled(differences) for path, differences in added.items()}, list[Stat]()
    for of_side in firsts.values():
        # Of a path that has been none but the first, what is its own is known where another path says what is shared.
        shared = [_difference(first, values[path]) for path, first in of_side if path in values]
        once += [_pooled(shared)] if shared else []
        for path in {path for path, _ in of_side} - values.keys():
            alone = [first for of, first in of_side if of == path]
            values[path] = _pooled([_difference(first, once[-1]) if shared else first for first in alone])
    return {name: values[_path(feature)] for name, feature in by_name.items()}, _sum(once)


def _difference(more: Stat, less: Stat, more_us: float = 0.0) -> Stat:
    """Of what each says of itself, less `more_us`."""
    return {
        "count": more["count"],
        "mean": more["mean"] - less["mean"] - more_us,
        "p5": more["p5"] - less["p5"] - more_us,
        "p50": more["p50"] - less["p50"] - more_us,
        "p99": more["p99"] - less["p99"] - more_us,
    }


def _path(feature: Feature) -> tuple[bool | str | int, ...]:
    """What the time of a feature's path depends on; in the one row of a request the widths do not show."""
    own = feature.hash, len(feature.missing), *(() if feature.of_request else (feature.width, feature.size))
    return feature.of_request, "ids" if feature.kind == "ids" else "id" if feature.dim else "dense", *own


def _pooled(differences: list[Stat]) -> Stat:
    """Nothing costs less than nothing: a difference below 0 is noise."""
    count = sum(int(d["count"]) for d in differences)
    mean, p5, p50, p99 = (
        micros(max(0.0, float(np.mean(values))))
        for values in zip(*((d["mean"], d["p5"], d["p50"], d["p99"]) for d in differences), strict=True)
    )
    return {"count": count, "mean": mean, "p5": p5, "p50": p50, "p99": p99}


def _sum(stats: Sequence[Stat]) -> Stat:
    p5, p50 = sum(each["p5"] for each in stats), sum(each["p50"] for each in stats)
    mean, p99 = sum(each["mean"] for each in stats), sum(each["p99"] for each in stats)
    count = sum(each["count"] for each in stats)
    return {"count": count, "mean": micros(mean), "p5": micros(p5), "p50": micros(p50), "p99": micros(p99)}


def _checked(table: Table, features: tuple[Feature, ...], network: Network, times: Stat) -> Checked:
    """A network's measured times against what the table, read as the search reads it, predicts."""
    names, widths = network
    predicted = inference_us(table, [feature for feature in features if feature.name in names], widths)
    return {
        "runtime": table.runtime,
        "candidates": table.candidates,
        "threads": table.threads,
        "features": list(names),
        "widths": list(widths),
        "predicted_us": round(predicted, 3),
        "measured_us": times,
        "error": round(times["p5"] / predicted - 1, 4),
    }


def errors(checked: Sequence[Checked]) -> Errors:
    """Of predictions over networks."""
    error = np.abs([row["error"] for row in checked])
    p50, p90 = np.percentile(error, [50, 90])
    return {"networks": len(error), "median_abs": _share(p50), "p90_abs": _share(p90), "worst": _share(error.max())}


def _share(value: float) -> float:
    return round(float(value), 4)
