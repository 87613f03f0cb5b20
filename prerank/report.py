"""What a pipeline found, as a table in the terminal, as figures, and as one HTML page that needs nothing beside it.

All three read `results.json` alone. Shares (recall, hit-rate, click-through) are shown in percent, their differences
in percentage points; a bracket or a whisker is the 95% bootstrap interval over requests.
"""

import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from rich.table import Table
from rich.text import Text

Results = dict[str, Any]
Cell = Callable[[dict], dict | None]
"""Gives what a row of the results shows in one column: `text`, `interval` (two texts or None) and `sure`."""

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
# `logs.space`: what stands for a request in the evaluation
SPACES = {
    "candidates": "all candidates that pre-ranking received",
    "fine_lists": "the items that fine-ranking scored, as the logs hold no candidates: "
    "what the pre-ranker of the time had dropped is not in it",
}


def terminal_table(results: Results) -> Table:
    """One line an arm, 80 characters wide; a difference in bold is one whose interval excludes 0."""
    k = results["logs"]["k"]
    rows = results["rows"]
    table = Table(title=finding(results), title_justify="left", title_style="", box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True, style="bold")
    has_ctr = any(row.get("ctr") is not None for row in rows)
    headings = [f"Recall@{k}", "Δ points", f"Hit@{k}", "NDCG@10", "AUC", "GAUC", *(["CTR"] if has_ctr else [])]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        difference = _vs_base(row, f"recall_at_{k}")
        cells = [
            _plus_minus(row, f"recall_at_{k}"),
            Text(
                f"{100 * difference[0]:+.1f} ±{50 * (difference[2] - difference[1]):.1f}" if difference else "",
                style="bold" if difference and _excludes_zero(difference) else "dim",
            ),
            _plus_minus(row, f"hit_rate_at_{k}"),
            *(_decimals(row.get(name)) for name in ("ndcg_at_10", "auc", "gauc")),
            *([_percent(row.get("ctr"), 2)] if has_ctr else []),
        ]
        # Text, because a name in brackets would be taken for markup
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in (_label(row["name"]), *cells)))
    return table


def finding(results: Results) -> str:
    """The headline: what the techniques together, or else the strongest arm, change over the base, and how surely."""
    k, name = results["logs"]["k"], f"recall_at_{results['logs']['k']}"
    arms = {row["name"]: row for row in _arms(results) if _vs_base(row, name)}
    base = next((row for row in results["rows"] if row["name"] == "base"), None)
    if not arms or base is None or base.get(name) is None:
        return f"Recall@{k} and hit-rate@{k} of each arm."
    best = max(arms.values(), key=lambda row: row["vs_base"][name][0])
    arm = arms.get("all", best)
    who = "All techniques together" if arm["name"] == "all" else f"The strongest arm, {_label(arm['name'])},"
    keeps = "keep" if arm["name"] == "all" else "keeps"
    sentence = (
        f"{who} {keeps} {_percent(arm[name])}% of the teacher's top {k}, the base student {_percent(base[name])}%: "
        f"{_change(arm['vs_base'][name])}"
    )
    hits = _vs_base(arm, f"hit_rate_at_{k}")
    if hits:
        sentence += f"; and {_percent(arm.get(f'hit_rate_at_{k}'))}% of the clicked items: {_change(hits)}"
    if best is not arm:
        sentence += f". The strongest arm is {_label(best['name'])}: {_change(best['vs_base'][name])}"
    return sentence + "."


def figures(results: Results) -> dict[str, Figure]:
    """The figures that the results have data for: ladder, recall_at_k, hit_rate_at_k, training, teacher_proof.

    Plain `Figure` objects on white: nothing is registered anywhere, so nothing has to be closed.
    """
    k = results["logs"]["k"]
    recall = _series(results, "recall", skip="teacher")  # the teacher's own is 1 at every k
    hit_rate = _series(results, "hit_rate")
    training = {
        row["name"]: [(e["epoch"], 100 * e["val/recall"]) for e in row["history"] if e.get("val/recall") is not None]
        for row in _arms(results, base=True)
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


def write_report(results: Results, path: Path) -> Path:
    """Writes the page: styles and figures are in it, light and dark, and it asks for nothing from anywhere."""
    k = results["logs"]["k"]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    words = _captions(results)
    drawn = {
        name: {"svg": _inline_svg(figure, name, words[name][0]), "caption": words[name][1]}
        for name, figure in figures(results).items()
    }
    colours = {f"--{name.replace('_', '-')}": pair[:2] for name, pair in SERIES.items()}
    logs, uri = results["logs"], results.get("mlflow")
    page = environment.get_template("report.html.jinja").render(
        title=f"Pre-ranking: {logs.get('name', 'results')}",
        finding=finding(results),
        facts=[(_label(key), _fact(value)) for key, value in logs.items() if _fact(value) is not None],
        k=k,
        m=logs.get("m") or k,
        space=SPACES.get(logs.get("space")),
        has_truth=bool(logs.get("has_truth")),
        tables={"results": _results_table(results), "slices": _slices_table(results)},
        random=_random(results),
        figures=drawn,
        curves=[
            {
                "heading": f"{heading}, %",
                "ks": sorted({x for points in series.values() for x, _ in points}),
                "rows": [(_label(name), {x: f"{y:.1f}" for x, y in points}) for name, points in series.items()],
            }
            for heading, metric in (("Recall@k", "recall"), ("Hit-rate@k", "hit_rate"))
            if (series := _series(results, metric))
        ],
        commands=results.get("commands") or [],
        mlflow=uri,
        mlflow_link=str(uri).startswith(("http://", "https://")),
        colours=colours,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


# --- what the rows say, in words and cells


def _arms(results: Results, *, base: bool = False) -> list[dict]:
    """The students that are compared with the base."""
    return [row for row in results["rows"] if row["name"] != "teacher" and (base or row["name"] != "base")]


def _random(results: Results) -> float | None:
    """The recall, and the hit-rate, of a blind draw: the evaluation is of the same requests in every row."""
    key = f"random_recall_at_{results['logs']['k']}"
    return next((row[key] for row in results["rows"] if row.get(key) is not None), None)


def _vs_base(row: dict, key: str) -> list[float] | None:
    """`[difference, lo, hi]`; None where there is none, or where it says nothing: the teacher's recall of itself."""
    interval = (row.get("vs_base") or {}).get(key)
    if row["name"] == "base" or (row["name"] == "teacher" and key.startswith("recall_")):
        return None
    return interval if _whole(interval) else None


def _label(name: str) -> str:
    return str(name).replace("_", " ")


def _whole(interval: list | None) -> bool:
    return bool(interval) and all(value is not None for value in interval)


def _excludes_zero(interval: list) -> bool:
    return interval[1] > 0 or interval[2] < 0


def _percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def _decimals(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _plus_minus(row: dict, name: str) -> str:
    interval = row.get(f"{name}_ci")
    half = 50 * (interval[1] - interval[0]) if _whole(interval) else 0
    return _percent(row.get(name)) + (f" ±{half:.1f}" if half else "")


def _change(interval: list) -> str:
    points = f"{100 * interval[0]:+.1f} points (95% interval {100 * interval[1]:+.1f} to {100 * interval[2]:+.1f})"
    return points if _excludes_zero(interval) else f"{points}, which these requests cannot tell from nothing"


def _fact(value: Any) -> str | None:
    """A fact of the logs as text; None for what is not a plain value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return value if isinstance(value, str) else None


def _results_table(results: Results) -> dict:
    k = results["logs"]["k"]
    return _table(
        results["rows"],
        [
            (f"Recall@{k}, %", _value(f"recall_at_{k}", 1)),
            ("Δ recall, points", _difference(f"recall_at_{k}")),
            (f"Hit@{k}, %", _value(f"hit_rate_at_{k}", 1)),
            ("Δ hit, points", _difference(f"hit_rate_at_{k}")),
            ("Converted kept, %", _value(f"hit_rate_converted_at_{k}", 1)),
            ("True best 10 kept, %", _value(f"true_hit_rate_at_{k}", 1)),
            ("CTR in replay, %", _value("ctr", 2)),
            ("NDCG@10", _value("ndcg_at_10")),
            ("AUC", _value("auc")),
            ("GAUC", _value("gauc")),
        ],
    )


def _slices_table(results: Results) -> dict:
    k = results["logs"]["k"]
    return _table(
        results["rows"],
        [
            (f"{heading}, {where}", _value(key, digits, where=where))
            for heading, key, digits in (
                (f"Recall@{k}, %", f"recall_at_{k}", 1),
                ("AUC", "auc", None),
                ("GAUC", "gauc", None),
                ("NDCG@10", "ndcg_at_10", None),
            )
            for where in ("exposed", "unexposed")
        ],
    )


def _table(rows: list[dict], columns: list[tuple[str, Cell]]) -> dict:
    """`{"headings", "rows": [{"name", "describes", "seconds", "cells"}]}`, without the columns that no row fills."""
    cells = [(heading, [cell(row) for row in rows]) for heading, cell in columns]
    cells = [(heading, column) for heading, column in cells if any(column)]
    return {
        "headings": [heading for heading, _ in cells],
        "rows": [
            {
                "name": _label(row["name"]),
                "describes": row.get("describes"),
                "seconds": row.get("seconds"),
                "cells": [column[i] for _, column in cells],
            }
            for i, row in enumerate(rows)
        ],
    }


def _value(key: str, digits: int | None = None, *, where: str = "") -> Cell:
    """A cell with its interval: in percent where `digits` is given, as it is with three decimals else."""
    show = f"{{:.{3 if digits is None else digits}f}}".format
    scale = 1 if digits is None else 100

    def cell(row: dict) -> dict | None:
        row = (row.get("slices") or {}).get(where) or {} if where else row
        if row.get(key) is None:
            return None
        interval = row.get(f"{key}_ci")
        return {
            "text": show(scale * row[key]),
            "interval": [show(scale * edge) for edge in interval] if _whole(interval) else None,
            "sure": False,
        }

    return cell


def _difference(key: str) -> Cell:
    def cell(row: dict) -> dict | None:
        interval = _vs_base(row, key)
        if interval is None:
            return None
        text, *edges = (f"{100 * value:+.1f}" for value in interval)
        return {"text": text, "interval": edges, "sure": _excludes_zero(interval)}

    return cell


def _captions(results: Results) -> dict[str, tuple[str, str]]:
    """`{figure: (what it shows, for who does not see it; how to read it)}`."""
    k = results["logs"]["k"]
    changes = [
        f"{_label(row['name'])} {_change(interval)}"
        for row in _arms(results)
        if (interval := _vs_base(row, f"recall_at_{k}"))
    ]
    at_end = {
        metric: ", ".join(
            f"{_label(row['name'])} {_percent(row['curve'][metric][-1])}%"
            for row in results["rows"]
            if (row.get("curve") or {}).get(metric)
        )
        for metric in ("recall", "hit_rate")
    }
    groups = results.get("teacher_groups") or {}
    bars = ", ".join(f"{_label(name)} {_percent(value)}%" for name, value in groups.items())
    return {
        "ladder": (
            f"Change of recall@{k} over the base, a dot and its interval for each technique: {'; '.join(changes)}.",
            "Each arm against the base student, with its 95% interval. A hollow dot is a difference that these "
            "requests cannot tell from nothing.",
        ),
        "recall_at_k": (
            f"Lines of recall at k, one for each student. At the largest k: {at_end['recall']}.",
            "Share of the teacher's first k that the student's first k holds.",
        ),
        "hit_rate_at_k": (
            f"Lines of hit-rate at k, one for each arm. At the largest k: {at_end['hit_rate']}.",
            "Share of the clicked items among the first k of all candidates, whatever the teacher thinks of them.",
        ),
        "training": (
            "Lines of validation recall by epoch, one for each student.",
            "A line that still rises at its end would gain from more epochs.",
        ),
        "teacher_proof": (
            f"Bars of the teacher's hit-rate by feature group: {bars}.",
            "A student can only learn what its teacher knows: the teacher with all its features, against models that "
            "see one group of them. The dotted line is a blind draw.",
        ),
    }


# --- figures


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


def _series(results: Results, metric: str, skip: str = "") -> dict[str, list[tuple[float, float]]]:
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


def _ladder(results: Results) -> Figure | None:
    k, panels = results["logs"]["k"], []
    for metric, title in ((f"recall_at_{k}", f"Δ recall@{k}, points"), (f"hit_rate_at_{k}", f"Δ hit-rate@{k}, points")):
        arms = [
            (row["name"], [100 * value for value in interval])
            for row in _arms(results)
            if (interval := _vs_base(row, metric))
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
            sure = _excludes_zero([middle, lo, hi])
            face = colour if sure else "#ffffff"
            axes.plot(middle, y, "o", color=colour, markersize=7, markerfacecolor=face, markeredgewidth=1.8)
            axes.annotate(
                f"{middle:+.1f}", (middle, y), (0, 5), textcoords="offset points", ha="center", va="bottom",
                fontsize=8.5, color=INK, bbox={"facecolor": "#ffffff", "edgecolor": "none", "pad": 0.4},
            )  # fmt: skip
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(len(names) - 0.5, -0.75)
        axes.set_yticks(range(len(names)), [_escape(_label(name)) for name in names] if index == 0 else [])
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
    for (_, index, name), share, at in zip(ends, shares, spread, strict=True):
        colour, _ = _style(name, index)
        axes.plot(
            [1.005, 1.035, 1.05], [share, at, at], color=colour, linewidth=1.2, transform=axes.transAxes, clip_on=False
        )
        axes.text(1.06, at, _escape(_label(name)), transform=axes.transAxes, va="center", fontsize=8.5, color=INK)
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
    random = _random(results)
    if random is not None:
        axes.axvline(100 * random, color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)))
    axes.set_yticks(range(len(groups)), [_escape(_label(name)) for name in groups])
    axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max([*values, 1e-9]))
    axes.grid(axis="y", visible=False)
    return figure


def _inline_svg(figure: Figure, name: str, alt: str) -> Markup:
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
