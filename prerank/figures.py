"""The figures of a pipeline's results, and what its rows hold for whoever shows them.

Everything is read from `results.json` alone. Shares (recall, hit-rate, click-through) are shown in percent, their
differences in percentage points; a whisker is the 95% bootstrap interval over requests.
"""

import io
import math
import re
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

Results = dict[str, Any]

INK, MUTED, GRID = "#20242b", "#636b78", "#dfe3e9"
# Colour-blind safe (after Okabe and Ito), each with its twin for a dark page; a line also has its own dash.
SERIES = {
    "base": ("#7a7f87", "#a0a6b0", "-"),
    "low_rank_negatives": ("#3a93cf", "#56b4e9", (0, (5, 1.5))),
    "rank_pairs": ("#008f68", "#2cc295", (0, (1, 1))),
    "bin_pairs": ("#c58300", "#e6a91e", (0, (3, 1, 1, 1))),
    "score": ("#b0568a", "#dd8fba", (0, (6, 1, 1, 1, 1, 1))),
    "contrast": ("#0062a3", "#7f9cf5", (0, (8, 2))),
    "all": ("#d04e00", "#ff8244", "-"),
    "teacher": (INK, "#e8eaee", (0, (1, 2))),
}


def figures(results: Results) -> dict[str, Figure]:
    """The figures that the results have data for: ladder, recall_at_k, hit_rate_at_k, training, teacher_proof.

    Plain `Figure` objects on white: nothing is registered anywhere, so nothing has to be closed.
    """
    k = results["logs"]["k"]
    recall = series_of(results, "recall", skip="teacher")  # the teacher's own is 1 at every k
    hit_rate = series_of(results, "hit_rate")
    validated = f"val/recall_at_{k}"
    training = {
        row["name"]: [(e["epoch"], 100 * e[validated]) for e in row["history"] if e.get(validated) is not None]
        for row in students(results, base=True)
        if row.get("history")
    }
    training = {name: points for name, points in training.items() if points}
    drawn = {
        "ladder": _ladder(results),
        "recall_at_k": _curves(recall, "Recall@k of the teacher's top k, %", mark=k) if recall else None,
        "hit_rate_at_k": _curves(hit_rate, "Hit-rate@k of clicked items, %", mark=k) if hit_rate else None,
        "training": _curves(training, f"Validation recall@{k} after each epoch, %") if training else None,
        "teacher_proof": _teacher_proof(results),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _escape(text: str) -> str:
    return text.replace("$", r"\$")  # Matplotlib reads a pair of dollars as mathematics


def _style(name: str, index: int) -> tuple[str, Any]:
    light, _, dash = SERIES.get(name) or list(SERIES.values())[1 + index % 5]
    return light, dash


def _figure(height: float) -> Figure:
    """Narrow, in inches, so that its text is still read where the page is as wide as a phone."""
    return Figure(figsize=(4.3, height), dpi=200, layout="constrained")


def _axes(figure: Figure, *args: int, title: str = "") -> Axes:
    axes = figure.add_subplot(*args)
    axes.set_facecolor("none")
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, pad=8)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _ladder(results: Results) -> Figure | None:
    k, panels = results["logs"]["k"], []
    for metric, title in ((f"recall_at_{k}", f"Δ recall@{k}"), (f"hit_rate_at_{k}", f"Δ hit-rate@{k}")):
        arms = [
            (row["name"], [100 * value for value in interval])
            for row in students(results)
            if (interval := vs_base(row, metric))
        ]
        if arms:
            panels.append((title, arms))
    if not panels:
        return None
    names = list(dict.fromkeys(name for _, arms in panels for name, _ in arms))
    figure = _figure(0.9 + 0.33 * len(names))
    for index, (title, arms) in enumerate(panels):
        axes = _axes(figure, 1, len(panels), index + 1, title=title)
        for name, (middle, lo, hi) in arms:
            y, colour = names.index(name), _style(name, names.index(name))[0]
            axes.plot([lo, hi], [y, y], color=colour, linewidth=2, solid_capstyle="round")
            sure = excludes_zero([middle, lo, hi])
            face = colour if sure else "#ffffff"
            axes.plot(middle, y, "o", color=colour, markersize=7, markerfacecolor=face, markeredgewidth=1.8)
            axes.annotate(
                f"{middle:+.1f}", (middle, y), (0, 5), textcoords="offset points", ha="center", va="bottom",
                fontsize=8.5, color=INK, bbox={"facecolor": "#ffffff", "edgecolor": "none", "pad": 0.4},
            )  # fmt: skip
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(len(names) - 0.5, -0.75)
        axes.set_yticks(range(len(names)), [_escape(label(name)) for name in names] if index == 0 else [])
        axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=False))
        axes.margins(x=0.12)
    return figure


def _curves(series: dict[str, list[tuple[float, float]]], title: str, mark: int | None = None) -> Figure:
    """Lines that carry their names at their right end; `mark` is the k that is served."""
    figure = _figure(3.1)
    axes = _axes(figure, 1, 1, 1, title=title)
    xs = sorted({x for points in series.values() for x, _ in points})
    for index, (name, points) in enumerate(series.items()):
        colour, dash = _style(name, index)
        thick = 2.4 if name in ("base", "all") else 1.6
        dots = "o" if len(points) < 3 else ""
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=dash, linewidth=thick, marker=dots, markersize=5)
    if mark is not None and len(xs) > 1:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(_spread_ticks(xs, mark)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.axvline(mark, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.set_xlabel("k", color=MUTED, fontsize=9)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("k" if mark is not None else "epoch", color=MUTED, fontsize=9)
    axes.margins(x=0.01)
    axes.grid(axis="x", visible=False)
    _name_ends(axes, series)
    return figure


def _spread_ticks(xs: list[float], mark: float) -> list[float]:
    """Ticks among `xs` that do not collide on a logarithmic axis; `mark` is always one of them."""
    ticks = [mark]
    for x in (xs[0], xs[-1], *xs):
        if all(abs(_log_share(x, tick, xs)) > 0.085 for tick in ticks):
            ticks.append(x)
    return sorted(ticks)


def _log_share(a: float, b: float, xs: list[float]) -> float:
    return math.log(a / b) / math.log(xs[-1] / xs[0])


def _name_ends(axes: Axes, series: dict[str, list[tuple[float, float]]]) -> None:
    """The names to the right of the axes, pushed apart where the lines end close together."""
    low, high = axes.get_ylim()
    gap = 0.062
    ends = sorted((points[-1][1], index, name) for index, (name, points) in enumerate(series.items()))
    shares = [(y - low) / (high - low) for y, _, _ in ends]
    spread = list(shares)
    for _ in range(200):  # relaxation: few labels, settles in a few rounds
        moved = False
        for i in range(1, len(spread)):
            overlap = gap - (spread[i] - spread[i - 1])
            if overlap > 1e-6:
                spread[i - 1] -= overlap / 2
                spread[i] += overlap / 2
                moved = True
        if not moved:
            break
    ceiling = 1.0  # above it stands the title
    for i in reversed(range(len(spread))):
        spread[i] = min(spread[i], ceiling)
        ceiling = spread[i] - gap
    for (_, index, name), share, at in zip(ends, shares, spread, strict=True):
        colour, _ = _style(name, index)
        axes.plot(
            [1.005, 1.035, 1.05], [share, at, at], color=colour, linewidth=1.2, transform=axes.transAxes, clip_on=False
        )
        axes.text(1.06, at, _escape(label(name)), transform=axes.transAxes, va="center", fontsize=8.5, color=INK)
    axes.set_ylim(low, high)


def _teacher_proof(results: Results) -> Figure | None:
    groups = {name: value for name, value in (results.get("teacher_groups") or {}).items() if value is not None}
    if not groups:
        return None
    k = results["logs"]["k"]
    figure = _figure(0.9 + 0.36 * len(groups))
    axes = _axes(figure, 1, 1, 1, title=f"Hit-rate@{k} by what the model sees, %")
    values = [100 * value for value in groups.values()]
    strong = SERIES["contrast"][0]
    colours = [strong if name == "teacher" else SERIES["base"][0] for name in groups]
    axes.barh(range(len(groups)), values, height=0.62, color=colours)
    for y, value in enumerate(values):
        axes.annotate(
            f"{value:.1f}", (value, y), (4, 0), textcoords="offset points", va="center", fontsize=9, color=INK
        )
    random = blind_draw(results)
    if random is not None:
        axes.axvline(100 * random, color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)))
    axes.set_yticks(range(len(groups)), [_escape(label(name)) for name in groups])
    axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max([*values, 1e-9]))
    axes.grid(axis="y", visible=False)
    return figure


def inline_svg(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as an element of the page: its own ids, and the page's colours, so that it follows light and dark."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    opening = re.match(r"<svg[^>]*>", svg).group()
    box = re.search(r'viewBox="[^"]*"', opening).group()
    colours = {INK: "--ink", MUTED: "--muted", GRID: "--grid", "#ffffff": "--paper"}
    colours |= {pair[0]: f"--{series.replace('_', '-')}" for series, pair in SERIES.items() if pair[0] != INK}
    svg = re.sub("|".join(colours), lambda match: f"var({colours[match.group()]})", svg.removeprefix(opening))
    return Markup('<svg role="img" aria-label="{}" ').format(alt) + Markup(f"{box}>{svg.strip()}")


# --- what the rows hold


def students(results: Results, *, base: bool = False) -> list[dict]:
    """The students that are compared with the base."""
    return [row for row in results["rows"] if row["name"] != "teacher" and (base or row["name"] != "base")]


def blind_draw(results: Results) -> float | None:
    """The recall, and the hit-rate, of a blind draw: the evaluation is of the same requests in every row."""
    key = f"random_recall_at_{results['logs']['k']}"
    return next((row[key] for row in results["rows"] if row.get(key) is not None), None)


def vs_base(row: dict, key: str) -> list[float] | None:
    """`[difference, lo, hi]`; None where there is none, or where it says nothing: the teacher's recall of itself."""
    interval = (row.get("vs_base") or {}).get(key)
    if row["name"] == "base" or (row["name"] == "teacher" and key.startswith("recall_")):
        return None
    return interval if is_whole(interval) else None


def label(name: str) -> str:
    return str(name).replace("_", " ")


def is_whole(interval: list | None) -> bool:
    return bool(interval) and all(value is not None for value in interval)


def excludes_zero(interval: list) -> bool:
    return interval[1] > 0 or interval[2] < 0


def series_of(results: Results, metric: str, skip: str = "") -> dict[str, list[tuple[float, float]]]:
    series = {
        row["name"]: [
            (k, 100 * value)
            for k, value in zip(row["curve"]["k"], row["curve"].get(metric) or [], strict=False)
            if value is not None
        ]
        for row in results["rows"]
        if row["name"] != skip and row.get("curve")
    }
    return {name: points for name, points in series.items() if points}
