"""What the swept keys have to do with the recall of the runs: parallel coordinates, and recall against each key.

Shares are shown in percent; a whisker is the 95% bootstrap interval over requests.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from prerank.evaluation.compare_json import ComparedRow, Front
from prerank.reports.drawing import (
    GRID,
    GROUPS,
    INK,
    MANY,
    MUTED,
    SERIES,
    escape,
    legend_below,
    new_axes,
    new_figure,
    paler,
    whiskers,
)

Param = float | str | None
STRONG, BEST = SERIES["contrast"][0], SERIES["all"][0]
DECADES = 20
"""The largest over the smallest value from which on an axis is logarithmic."""


def parallel(rows: Sequence[ComparedRow], keys: Sequence[str], k: int) -> Figure:
    """A horizontal axis a key, one below the other, so that names and labels have room; a line a run."""
    scales = {key: _scale([row["params"][key] for row in rows]) for key in keys}
    figure = new_figure(0.8 + 0.62 * (len(keys) + 1))
    axes = new_axes(figure)
    figure.suptitle(f"The swept keys and recall@{k}, a line a run", x=0.01, ha="left", fontsize=9.5, color=INK)
    recall_N = np.array([row["recall"] for row in rows])
    scale = _Scale.of((100 * recall_N).tolist())
    strength_N = np.searchsorted(np.sort(recall_N), recall_N) / max(1, len(rows) - 1)
    order = np.argsort(recall_N, kind="stable")
    opacity, contrast = (0.82, 1.5) if len(rows) <= MANY else (0.7, 8.0)  # of many, the best few
    places = {key: [scales[key].place(row["params"][key]) for row in rows] for key in keys}
    line_NK = np.column_stack([*places.values(), [scale.place(100 * float(value)) for value in recall_N]])
    ys = np.arange(len(keys) + 1)
    pale = LineCollection(
        [np.column_stack([line_NK[i], ys]) for i in order],
        colors=[(STRONG, opacity * (0.08 + 0.92 * strength_N[i] ** contrast)) for i in order],
        linewidths=[0.7 + 0.5 * strength_N[i] for i in order],
        zorder=2,
    )
    axes.add_collection(pale)
    axes.plot(line_NK[order[-1]], ys, color=BEST, linewidth=2.2, zorder=3)
    for y, (name, one) in enumerate([*scales.items(), (f"recall@{k}, %", scale)]):
        axes.axhline(y, color=GRID, linewidth=1, zorder=1)
        _tell(axes, name, (0, y), 6, fontsize=8.5, color=INK, ha="left", va="bottom")
        for place, text in one.ticks():
            axes.plot([place, place], [y - 0.05, y + 0.05], color=MUTED, linewidth=0.8, zorder=1)
            side = "left" if place < 0.02 else "right" if place > 0.98 else "center"
            _tell(axes, text, (place, y), -5, fontsize=7.5, color=MUTED, ha=side, va="top")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(keys) + 0.4, -0.45)
    axes.set_axis_off()
    return figure


def _tell(
    axes: Axes, text: str, at: tuple[float, float], above: float, *, fontsize: float, color: str, ha: str, va: str
) -> None:
    """Text so many points above a place, on a ground of its own."""
    ground = {"facecolor": "#ffffff", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    axes.annotate(
        escape(text), at, (0, above), textcoords="offset points", bbox=ground, zorder=5, fontsize=fontsize, color=color,
        ha=ha, va=va,
    )  # fmt: skip


def response(rows: Sequence[ComparedRow], keys: Sequence[str], groups: Sequence[Front], k: int) -> Figure:
    """Recall against each key: numbers two panels a row, and below a strip for each key of labels."""
    numeric = [key for key in keys if numbers([row["params"][key] for row in rows]) is not None]
    strips = {key: sorted({str(row["params"][key]) for row in rows}) for key in keys if key not in numeric}
    heights = [1.75] * -(-len(numeric) // 2) + [0.55 + 0.32 * len(values) for values in strips.values()]
    several = len(groups) > 1
    figure = new_figure(0.35 + sum(heights) + 0.17 * several * -(-len(groups) // 2))
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    figure.suptitle(f"Recall@{k} against each swept key, %", x=0.01, ha="left", fontsize=9.5, color=INK)
    edges = [100 * edge for row in rows for edge in row["recall_ci"]]
    pad = 0.05 * (max(edges) - min(edges)) or 1.0
    limits = min(edges) - pad, max(edges) + pad
    for place, key in enumerate(numeric):
        alone = place % 2 == 0 and place == len(numeric) - 1
        axes = new_axes(figure, grid[place // 2, :] if alone else grid[place // 2, place % 2])
        axes.set_ylim(*limits)
        _points(axes, rows, key, groups)
        axes.set_xlabel(escape(key), color=INK, fontsize=8.5)
        if place % 2:
            axes.set_yticklabels([])
    for place, (key, values) in enumerate(strips.items()):
        axes = new_axes(figure, grid[-(-len(numeric) // 2) + place, :])
        _strip(axes, rows, key, values, groups)
        axes.set_xlim(*limits)
        axes.set_title(escape(key), loc="left", fontsize=8.5, color=INK, pad=3)
    if several:
        for group, (colour, mark) in zip(groups, cycle(GROUPS), strict=False):
            if any(row["group"] == group["id"] for row in rows):
                figure.axes[0].plot(
                    [], [], marker=mark, label=escape(group["name"]), color=colour, markersize=5, markeredgewidth=0,
                    linestyle="",
                )  # fmt: skip
        legend_below(figure)
    return figure


def running_median(x: ArrayLike, y: ArrayLike) -> list[tuple[float, float]]:
    """The median of y at each value of x: of its points where values repeat, else of the nearest quarter, 7 at least.

    Empty where there are fewer than 8 points: a line through these would be read for more than it is.
    """
    x_N, y_N = np.asarray(x, float), np.asarray(y, float)
    values = np.unique(x_N)
    if len(x_N) < 8 or len(values) < 2:
        return []
    if len(values) <= len(x_N) / 2:
        return [(float(value), float(np.median(y_N[x_N == value]))) for value in values]
    window = max(7, round(len(x_N) / 4))
    line = []
    for value in values:
        away_N = np.abs(x_N - value)
        near_N = away_N <= np.partition(away_N, window - 1)[window - 1]
        line.append((float(value), float(np.median(y_N[near_N]))))
    return line


def numbers(values: Sequence[Param]) -> list[float] | None:
    """The values that are known, where all of them are numbers; None else."""
    known = [value for value in values if value is not None]
    as_numbers: list[float] = [value for value in known if isinstance(value, int | float)]
    return as_numbers if len(as_numbers) == len(known) else None


def is_logarithmic(values: ArrayLike) -> bool:
    """Whether the values span decades, and not just because one of many is small: most of them are small."""
    values_N = np.asarray(values, float)
    low, high = values_N.min(), values_N.max()
    return bool(low > 0 and high / low >= DECADES and np.median(values_N) < (low + high) / 4)


def short(text: str, length: int = 44) -> str:
    """Both ends of a label that is longer: labels may differ in either."""
    head = length // 2
    return text if len(text) <= length else f"{text[:head]}…{text[head + 1 - length :]}"


def _points(axes: Axes, rows: Sequence[ComparedRow], key: str, groups: Sequence[Front]) -> None:
    known = [row for row in rows if row["params"][key] is not None]
    values = np.array([row["params"][key] for row in known], float)
    recall = 100 * np.array([row["recall"] for row in known])
    logs = is_logarithmic(values)
    if logs:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        subs = (1.0,) if values.max() / values.min() > 1000 else (1.0, 3.0)
        ticks = LogLocator(10, subs=subs).tick_values(values.min(), values.max())
        within = [tick for tick in ticks if 0.999 * values.min() <= tick <= 1.001 * values.max()]
        axes.xaxis.set_major_locator(FixedLocator(within))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    for mine, colour, mark in _by_group(known, groups):
        whiskers(axes, values[mine], [known[i]["recall_ci"] for i in mine], colour, 0.5 * paler(len(rows)))
        _dots(axes, values[mine], recall[mine], colour, mark, len(rows))
    line = running_median(np.log(values) if logs else values, recall)
    if line:
        x, y = zip(*line, strict=True)
        axes.plot(np.exp(x) if logs else x, y, color=INK, linewidth=1.5, zorder=4)
    axes.margins(x=0.06)
    axes.grid(axis="x", visible=False)


def _strip(axes: Axes, rows: Sequence[ComparedRow], key: str, values: Sequence[str], groups: Sequence[Front]) -> None:
    for y, value in enumerate(values):
        here = [row for row in rows if str(row["params"][key]) == value]
        recall = 100 * np.array([row["recall"] for row in here])
        aside = 0.16 + 0.4 * ((0.618 * np.arange(len(here))) % 1 - 0.5)  # spread, the same every time
        for mine, colour, mark in _by_group(here, groups):
            _dots(axes, recall[mine], y + aside[mine], colour, mark, len(rows))
        if len(here) > 1:
            middle = float(np.median(recall))
            axes.plot([middle, middle], [y - 0.1, y + 0.42], color=INK, linewidth=1.8, zorder=4)
        axes.text(
            0, y - 0.3, escape(short(value)), transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=MUTED
        )
    axes.set_yticks([])
    axes.set_ylim(len(values) - 0.5, -0.55)


def _by_group(rows: Sequence[ComparedRow], groups: Sequence[Front]) -> Iterator[tuple[list[int], str, str]]:
    """Of each group its places among the rows, its colour and its mark."""
    for place, group in enumerate(groups):
        mine = [i for i, row in enumerate(rows) if row["group"] == group["id"]]
        if mine:
            yield mine, *GROUPS[place % len(GROUPS)]


def _dots(axes: Axes, x: ArrayLike, y: ArrayLike, colour: str, mark: str, points: int) -> None:
    """Dots among so many points."""
    axes.plot(
        x, y, marker=mark, linestyle="", color=colour, alpha=paler(points), markersize=3.4, markeredgewidth=0
    )  # fmt: skip


@dataclass(frozen=True)
class _Scale:
    """Places numbers between 0 and 1, by size or by its logarithm."""

    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, values: Sequence[float]) -> "_Scale":
        return cls(min(values), max(values), is_logarithmic(values))

    def place(self, value: Param) -> float:
        """NaN of a run that has no value."""
        if not isinstance(value, int | float):
            return math.nan
        size = math.log if self.log else float
        span = size(self.high) - size(self.low)
        return (size(value) - size(self.low)) / span if span else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Places and what stands there: the ends, and round numbers between that keep clear."""
        locator = LogLocator(10, subs=(1.0, 3.0)) if self.log else MaxNLocator(5)
        between = [float(value) for value in locator.tick_values(self.low, self.high)]
        ticks = [self.low, self.high]
        for value in between:
            if self.low < value < self.high and all(abs(self.place(value) - self.place(tick)) > 0.11 for tick in ticks):
                ticks.append(value)
        return [(self.place(value), f"{value:.3g}") for value in sorted(set(ticks))]


@dataclass(frozen=True)
class _Labels:
    """Places labels evenly between 0 and 1."""

    known: list[str]

    def place(self, value: Param) -> float:
        """NaN of a run that has no value."""
        return math.nan if value is None else self.known.index(str(value)) / max(1, len(self.known) - 1)

    def ticks(self) -> list[tuple[float, str]]:
        return [(self.place(value), short(value, max(5, 52 // len(self.known)))) for value in self.known]


def _scale(values: Sequence[Param]) -> _Scale | _Labels:
    as_numbers = numbers(values)
    if as_numbers is None:
        return _Labels(sorted({str(value) for value in values if value is not None}))
    return _Scale.of(as_numbers)
