"""The figures of a pipeline's results.

Everything is read from `results.json` alone. Shares (recall, hit-rate, click-through) are shown in percent, their
differences in percentage points; a whisker is the 95% bootstrap interval over requests.
"""

import math

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from prerank.reports.drawing import INK, MUTED, SERIES, escape, name_ends, new_axes, new_figure, pushed_apart, style
from prerank.reports.results import Results, blind_draw, series_of, students, vs_base
from prerank.reports.words import edges, excludes_zero, label, number


def figures(results: Results) -> dict[str, Figure]:
    """The figures that the results have data for: ladder, latency_recall, recall_at_k, hit_rate_at_k, training,
    teacher_proof.

    Plain `Figure` objects on white: nothing is registered anywhere, so nothing has to be closed.
    """
    k = results["logs"]["k"]
    few = results.copy()  # lines of the ablation would hide the others: the ladder alone shows it
    few["rows"] = [row for row in results["rows"] if not row["name"].startswith(("no_", "and_"))]
    recall = series_of(few, "recall", skip="teacher")  # the teacher's own is 1 at every k
    hit_rate = series_of(few, "hit_rate")
    validated = f"val/recall_at_{k}"
    training = {
        row["name"]: [(e["epoch"], 100 * e[validated]) for e in history if e.get(validated) is not None]
        for row in students(few, base=True)
        if (history := row.get("history"))
    }
    training = {name: points for name, points in training.items() if points}
    drawn = {
        "ladder": _ladder(results),
        "latency_recall": _latency_recall(few),
        "recall_at_k": _curves(recall, "Recall@k of the teacher's top k, %", mark=k) if recall else None,
        "hit_rate_at_k": _curves(hit_rate, "Hit-rate@k of clicked items, %", mark=k) if hit_rate else None,
        "training": _curves(training, f"Validation recall@{k} after each epoch, %") if training else None,
        "teacher_proof": _teacher_proof(results),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


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
    figure = new_figure(0.9 + 0.33 * len(names))
    for index, (title, arms) in enumerate(panels):
        axes = new_axes(figure, (1, len(panels), index + 1), title=title)
        for name, (middle, lo, hi) in arms:
            y, colour = names.index(name), style(name, names.index(name))[0]
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
        axes.set_yticks(range(len(names)), [escape(label(name)) for name in names] if index == 0 else [])
        axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=False))
        axes.margins(x=0.12)
    return figure


def _latency_recall(results: Results) -> Figure | None:
    """A point a student; the teacher's recall of itself says nothing. Those at one time stand side by side."""
    key = f"recall_at_{results['logs']['k']}"
    points = []
    for place, row in enumerate(students(results, base=True)):
        time, recall = number(row, "latency_us"), number(row, key)
        if time is not None and recall is not None:
            points.append((time, recall, row, place))
    if not points:
        return None
    points.sort(key=lambda point: point[0])
    times = [time for time, *_ in points]
    search = results.get("search")
    budget_us = search["arch"]["budget_us"] if search else None
    limit_us = 1.1 * max(times[-1], budget_us or 0.0)
    figure = new_figure(3.3)
    axes = new_axes(figure, title=f"Recall@{results['logs']['k']} against time, %")
    if budget_us:
        axes.axvline(budget_us, color=MUTED, linewidth=1.2, linestyle=(0, (2, 2)), zorder=1)
    ends = []
    for (_, recall, row, place), x in zip(points, pushed_apart(times, 0.016 * limit_us), strict=True):
        colour, y, interval = style(row["name"], place)[0], 100 * recall, edges(row, key)
        axes.plot([x, limit_us], [y, y], color=colour, linewidth=0.8, alpha=0.45)
        if interval:
            axes.plot([x, x], [100 * edge for edge in interval], color=colour, linewidth=1.2)
        axes.plot(x, y, "o", color=colour, markersize=5, markeredgewidth=0, zorder=3)
        ends.append((label(row["name"]), y, colour))
    axes.set_xlim(0, limit_us)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("fetch and inference, µs a request", color=MUTED, fontsize=9)
    name_ends(axes, ends)
    return figure


def _curves(series: dict[str, list[tuple[float, float]]], title: str, mark: int | None = None) -> Figure:
    """Lines that carry their names at their right end; `mark` is the k that is served."""
    figure = new_figure(3.1)
    axes = new_axes(figure, title=title)
    xs = sorted({x for points in series.values() for x, _ in points})
    for index, (name, points) in enumerate(series.items()):
        colour, dash = style(name, index)
        thick = 2.4 if name in ("base", "all", "searched") else 1.6
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
    ends = [(points[-1][1], style(name, index)[0]) for index, (name, points) in enumerate(series.items())]
    name_ends(axes, [(label(name), *end) for name, end in zip(series, ends, strict=True)])
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


def _teacher_proof(results: Results) -> Figure | None:
    groups = {name: value for name, value in (results.get("teacher_groups") or {}).items() if value is not None}
    if not groups:
        return None
    k = results["logs"]["k"]
    figure = new_figure(0.9 + 0.36 * len(groups))
    axes = new_axes(figure, title=f"Hit-rate@{k} by what the model sees, %")
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
    axes.set_yticks(range(len(groups)), [escape(label(name)) for name in groups])
    axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max([*values, 1e-9]))
    axes.grid(axis="y", visible=False)
    return figure
