"""The figures of compared runs: what recall costs in time, which features were chosen, how the runs trained.

Everything is read from the results of compared runs. Shares are shown in percent; a whisker is the 95%
bootstrap interval over requests.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prerank.evaluation import pareto
from prerank.evaluation.compare_json import ComparedRow, Front, Known, LeftOut, Results
from prerank.reports.compare.swept import BEST, STRONG, parallel, response
from prerank.reports.drawing import (
    GROUPS,
    INK,
    MUTED,
    SERIES,
    Dash,
    escape,
    legend_below,
    new_axes,
    new_figure,
    paler,
    whiskers,
)
from prerank.reports.words import label

QUIET = SERIES["base"][0]


def compare_figures(results: Results) -> dict[str, Figure]:
    """The figures that there is data for: pareto, parallel, response, features, curves."""
    rows, k = results["rows"], results["k"]
    keys = [key for key in results["swept"] if len({row["params"][key] for row in rows}) > 1]
    drawn = {
        "pareto": _pareto(rows, results["groups"], k),
        "parallel": parallel(rows, keys, k) if keys and len(rows) > 2 else None,
        "response": response(rows, keys, results["groups"], k) if keys and len(rows) > 2 else None,
        "features": _features(rows),
        "curves": _curves(rows, results["left_out"], k),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def chosen_shares(rows: Sequence[ComparedRow]) -> dict[str, tuple[float, float | None]]:
    """Of each feature the share of the rows that use it, and of those on the front; the most used first.

    Empty where all rows use the same, so that there was nothing to choose.
    """
    used = [set(row["features"]) for row in rows if row["features"]]
    if not used or all(one == used[0] for one in used):
        return {}
    front = [set(row["features"]) for row in rows if row["features"] and row["front"]]
    shares = {name: (_share(name, used), _share(name, front) if front else None) for name in sorted(set().union(*used))}
    return dict(sorted(shares.items(), key=lambda item: tuple(-(share or 0.0) for share in item[1])))


def _pareto(rows: Sequence[ComparedRow], groups: Sequence[Front], k: int) -> Figure | None:
    timed = [row for row in rows if row["latency_us"] is not None]
    if not timed:
        return None
    shown = [group for group in groups if any(row["group"] == group["id"] for row in timed)]
    figure = new_figure(3.6 + 0.17 * (len(shown) > 1) * -(-len(shown) // 2))
    axes = new_axes(figure, title=f"Recall@{k} against time, %")
    times = np.array([row["latency_us"] for row in timed], float)
    limit, first = float(times.max()), float(times.min())
    room = 0.04 * (limit - first) or 1.0
    for place, group in enumerate(groups):
        mine = [row for row in timed if row["group"] == group["id"]]
        if not mine:
            continue
        colour, mark = GROUPS[place % len(GROUPS)]
        x, y = np.array([row["latency_us"] for row in mine], float), 100 * np.array([row["recall"] for row in mine])
        on = pareto.front(y, x)
        axes.plot(x[~on], y[~on], mark, color=colour, markersize=3.6, alpha=paler(len(timed)), markeredgewidth=0)
        order = np.argsort(x[on], kind="stable")
        ends_x, ends_y = [*x[on][order], limit + room], [*y[on][order], y[on].max()]
        axes.plot(ends_x, ends_y, color=colour, linewidth=1.6, drawstyle="steps-post", alpha=0.8)
        whiskers(axes, x[on], [row["recall_ci"] for row, is_on in zip(mine, on, strict=True) if is_on], colour, 1.0)
        name = escape(group["name"])
        axes.plot(x[on], y[on], mark, color=colour, markersize=6, markeredgewidth=0, zorder=3, label=name)
    axes.set_xlim(first - 3 * room, limit + room)
    axes.margins(y=0.08)
    _name_front(axes, [row for row in timed if row["front"]])
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("latency of a request, µs", color=MUTED, fontsize=9)
    if len(shown) > 1:
        legend_below(figure)
    return figure


def _name_front(axes: Axes, front: Sequence[ComparedRow]) -> None:
    """Names to the upper left of the front's points, where no point can be; one too near to the last is left out."""
    low, high = axes.get_ylim()
    last = -math.inf
    for row in sorted(front, key=lambda row: -row["recall"]):
        x, y = row["latency_us"], 100 * row["recall"]
        if x is None or abs(last - y) < 0.055 * (high - low):
            continue
        last = y
        left, right = axes.get_xlim()
        near = (x - left) / (right - left) < 0.25  # no room to the left
        axes.annotate(
            escape(label(row["name"])), (x, y), (4, 4) if near else (-5, 2), textcoords="offset points",
            ha="left" if near else "right", va="bottom", fontsize=7.5, color=INK,
        )  # fmt: skip


def _features(rows: Sequence[ComparedRow]) -> Figure | None:
    shares = chosen_shares(rows)
    if not shares:
        return None
    figure = new_figure(0.9 + 0.19 * len(shares))
    axes = new_axes(figure, title="Share of the runs that use a feature, %")
    fronts = next(iter(shares.values()))[1] is not None
    for y, (every, front) in enumerate(shares.values()):
        axes.plot([0, 100 * every], [y, y], color=QUIET, linewidth=5, solid_capstyle="butt", alpha=0.55)
        if front is not None:
            axes.plot(100 * front, y, "o", color=BEST, markersize=6, markeredgewidth=0, zorder=3, clip_on=False)
    axes.plot([], [], color=QUIET, linewidth=5, alpha=0.55, label="of all runs")
    if fronts:
        axes.plot([], [], "o", color=BEST, markersize=6, markeredgewidth=0, label="of those on the front")
    axes.set_yticks(range(len(shares)), [escape(label(name)) for name in shares])
    axes.tick_params(axis="y", labelcolor=INK, labelsize=8)
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.grid(axis="y", visible=False)
    legend_below(figure)
    return figure


def _curves(rows: Sequence[ComparedRow], left_out: Sequence[LeftOut], k: int) -> Figure | None:
    done = [row for row in rows if len(row["curve"]) > 1]
    if not done:
        return None
    figure = new_figure(3.1)
    axes = new_axes(figure, title=f"Validation recall@{k} after each epoch, %")
    stopped = [row for row in left_out if row["stopped_early"] and row["curve"]]
    if stopped:
        _lines(axes, stopped, QUIET, 0.8, paler(len(stopped)), (0, (2, 2)))
        x, y = zip(*(row["curve"][-1] for row in stopped), strict=True)
        axes.plot(x, 100 * np.array(y), "x", color=QUIET, markersize=4, alpha=paler(len(stopped)))
    others = [row for row in done if row is not rows[0]]
    _lines(axes, others, STRONG, 0.9, 0.7 * paler(len(done)))
    if rows[0] in done:
        _lines(axes, rows[:1], BEST, 2.2, order=3)
    axes.autoscale_view()
    axes.plot([], [], color=BEST, linewidth=2.2, label=escape(label(rows[0]["name"])))
    axes.plot([], [], color=STRONG, linewidth=0.9, label="the others")
    if stopped:
        axes.plot([], [], "x", color=QUIET, linestyle=(0, (2, 2)), linewidth=0.8, markersize=4, label="stopped early")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("epoch", color=MUTED, fontsize=9)
    axes.margins(x=0.02)
    legend_below(figure, 3)
    return figure


def _share(name: str, used: list[set[str]]) -> float:
    return sum(name in one for one in used) / len(used)


def _lines(
    axes: Axes, rows: Sequence[Known], colour: str, width: float, alpha: float = 1.0, dash: Dash = "-", order: int = 2
) -> None:
    """The curves as one collection: a thousand lines are drawn in the time of one."""
    curves = [[(x, 100 * y) for x, y in row["curve"]] for row in rows]
    axes.add_collection(
        LineCollection(curves, color=colour, linewidths=width, alpha=alpha, linestyles=[dash], zorder=order)
    )
