"""The look of every figure: colours for a light and a dark page, text that a phone shows, names at lines' ends."""

import io
import math
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from numpy.typing import ArrayLike

Dash = str | tuple[float, tuple[float, ...]]
"""As Matplotlib has it: `-`, or an offset and the lengths of strokes and gaps."""

INK, MUTED, GRID = "#20242b", "#636b78", "#dfe3e9"
# Colour-blind safe (after Okabe and Ito), each with its twin for a dark page; a line also has its own dash.
SERIES: dict[str, tuple[str, str, Dash]] = {
    "base": ("#7a7f87", "#a0a6b0", "-"),
    "low_rank_negatives": ("#3a93cf", "#56b4e9", (0, (5, 1.5))),
    "rank_pairs": ("#008f68", "#2cc295", (0, (1, 1))),
    "bin_pairs": ("#c58300", "#e6a91e", (0, (3, 1, 1, 1))),
    "score": ("#b0568a", "#dd8fba", (0, (6, 1, 1, 1, 1, 1))),
    "contrast": ("#0062a3", "#7f9cf5", (0, (8, 2))),
    "all": ("#d04e00", "#ff8244", "-"),
    "searched": ("#a3001e", "#ff5a6e", (0, (10, 1.5))),
    "teacher": (INK, "#e8eaee", (0, (1, 2))),
}
# Of what is compared in groups: a group keeps its colour and its mark in every figure.
GROUPS = [
    (SERIES[name][0], mark)
    for name, mark in zip(("contrast", "all", "rank_pairs", "score", "bin_pairs"), "osD^v", strict=True)
]
MANY = 60
"""Points from which on each is drawn paler."""


def escape(text: str) -> str:
    return text.replace("$", r"\$")  # Matplotlib reads a pair of dollars as mathematics


def style(name: str, index: int) -> tuple[str, Dash]:
    """The colour on a light page and the dash of a series; of one without its own, by its place."""
    light, _, dash = SERIES.get(name) or list(SERIES.values())[1 + index % 5]
    return light, dash


def new_figure(height: float) -> Figure:
    """Narrow, in inches, so that its text is still read where the page is as wide as a phone."""
    return Figure(figsize=(4.3, height), dpi=200, layout="constrained")


def new_axes(figure: Figure, at: tuple[int, int, int] | SubplotSpec = (1, 1, 1), *, title: str = "") -> Axes:
    """Axes at one place (rows, columns, which) of the figure, by default all of it."""
    axes = figure.add_subplot(at) if isinstance(at, SubplotSpec) else figure.add_subplot(*at)
    axes.set_facecolor("none")
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, pad=8)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def paler(points: int) -> float:
    """The opacity of one of so many points."""
    return 0.75 if points <= MANY else max(0.15, 0.75 * math.sqrt(MANY / points))


def whiskers(axes: Axes, x: ArrayLike, intervals: Sequence[Sequence[float]], colour: str, alpha: float) -> None:
    """Intervals of shares, in percent, as upright lines."""
    edges_N2 = 100 * np.array(intervals, float).reshape(-1, 2)
    axes.vlines(x, edges_N2[:, 0], edges_N2[:, 1], color=colour, linewidth=1, alpha=alpha)


def legend_below(figure: Figure, columns: int = 2) -> None:
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8, labelcolor=INK)


def name_ends(axes: Axes, ends: list[tuple[str, float, str]], gap: float = 0.062) -> None:
    """Names to the right of the axes, each `(text, y, colour)`, pushed apart to `gap` of the axes' height at least."""
    low, high = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end[1])
    shares = [(y - low) / (high - low) for _, y, _ in ends]
    places = pushed_apart(shares, gap)
    ceiling = 1.0  # above it stands the title
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    for (text, _, colour), share, at in zip(ends, shares, places, strict=True):
        axes.plot(
            [1.005, 1.035, 1.05], [share, at, at], color=colour, linewidth=1.2, transform=axes.transAxes, clip_on=False
        )
        axes.text(1.06, at, escape(text), transform=axes.transAxes, va="center", fontsize=8.5, color=INK)
    axes.set_ylim(low, high)


def pushed_apart(values: list[float], gap: float) -> list[float]:
    """Ascending values, each moved as little as leaves `gap` between neighbours."""
    places = list(values)
    for _ in range(200):  # relaxation: few values, settles in a few rounds
        moved = False
        for i in range(1, len(places)):
            overlap = gap - (places[i] - places[i - 1])
            if overlap > 1e-6 * gap:
                places[i - 1] -= overlap / 2
                places[i] += overlap / 2
                moved = True
        if not moved:
            break
    return places


def inline_svg(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as an element of the page: its own ids, and the page's colours, so that it follows light and dark."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    opening, _, svg = svg.partition(">")
    box = re.findall(r'viewBox="[^"]*"', opening)[0]
    colours = {INK: "--ink", MUTED: "--muted", GRID: "--grid", "#ffffff": "--paper"}
    colours |= {pair[0]: f"--{series.replace('_', '-')}" for series, pair in SERIES.items() if pair[0] != INK}
    svg = re.sub("|".join(colours), lambda match: f"var({colours[match.group()]})", svg)
    return Markup('<svg role="img" aria-label="{}" ').format(alt) + Markup(f"{box}>{svg.strip()}")
