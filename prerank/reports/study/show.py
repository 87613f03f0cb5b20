"""A study's table, its picture of recall against microseconds, and its page, all from study.json."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.table import Table as Terminal
from rich.text import Text

from prerank.core.storage import whole
from prerank.reports.drawing import GROUPS, INK, MUTED, escape, new_axes, new_figure, pushed_apart
from prerank.reports.page import Cell, Picture, table_of, text_cell, write_page
from prerank.reports.words import excludes_zero, label, micros
from prerank.search.equal_budget import Difference
from prerank.search.study import Over, Results, Row


def finding(results: Results) -> str:
    """Who keeps most of the teacher, at what latency."""
    best, k = max(results["rows"], key=lambda row: row["recall"]["mean"]), results["logs"]["k"]
    return (
        f"{label(best['name'])} keeps most of the teacher's top {k}: {100 * best['recall']['mean']:.1f}% at "
        f"{micros(best['latency_us'])} µs a request of {results['candidates']:,} candidates"
    )


def terminal_table(results: Results) -> Terminal:
    """One line a rung; ± is half of the 95% interval, and a difference in bold is one whose interval excludes 0."""
    k, base = results["logs"]["k"], results["base"]
    title = (
        f"{finding(results)}\n{results['seeds']} seeds, {results['logs']['requests']} test requests; intervals over "
        f"both; Δ recall in points to {label(base)}"
    )
    table = Terminal(title=title, title_justify="left", title_style="", box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True, style="bold")
    has_ctr = any("ctr" in row for row in results["rows"])
    headings = ["article", f"Recall@{k}", "Δ points", f"Hit@{k}", *(["CTR"] if has_ctr else [])]
    for heading in (*headings, "features", "fetch\nµs", "infer\nµs", "total\nµs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results["rows"]:
        against = row.get("vs_base")
        bold = against and excludes_zero([against["mean"], against["lo"], against["hi"]])
        cells = [
            Text(row["article"]),
            Text(_share(row["recall"])),
            Text(_points(against), style="bold" if bold else "dim"),
            Text(_share(row["hit_rate"])),
            *([Text(_share(row["ctr"], 2) if "ctr" in row else "-")] if has_ctr else []),
            Text(str(len(row["features"]))),
            *(Text(micros(us)) for us in (row["fetch_us"], row["inference_us"], row["latency_us"])),
        ]
        table.add_row(Text(label(row["name"])), *cells)
    return table


def recall_against_latency(results: Results) -> Figure:
    """A point a rung, a whisker its interval over requests and seeds, a line along the article's years."""
    figure = new_figure(4.0)
    axes = new_axes(figure, title=f"Recall@{results['logs']['k']}, %, against a request's latency")
    in_order = [row for row in results["rows"] if row["article"].isdigit()]
    axes.plot(
        [row["latency_us"] for row in in_order],
        [100 * row["recall"]["mean"] for row in in_order],
        color=MUTED,
        linewidth=0.9,
        linestyle=(0, (2, 2)),
    )
    times = [row["latency_us"] for row in results["rows"]]
    for index, row in enumerate(results["rows"]):
        colour, mark = GROUPS[index % len(GROUPS)]
        recall, x = row["recall"], row["latency_us"]
        axes.vlines(x, 100 * recall["lo"], 100 * recall["hi"], color=colour, linewidth=1.4)
        axes.plot([x], [100 * recall["mean"]], mark, color=colour, markersize=6)
    axes.set_xlabel("fetch and inference, µs (dashed: the article's order)", color=MUTED, fontsize=9)
    if max(times) > 10 * min(times):  # else all but the dearest would stand in one place
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda us, _: micros(us)))
    axes.margins(x=0.35, y=0.12)
    low, high = axes.get_ylim()
    in_height = sorted(results["rows"], key=lambda row: row["recall"]["mean"])
    places = pushed_apart([100 * row["recall"]["mean"] for row in in_height], 0.05 * (high - low))
    for row, y in zip(in_height, places, strict=True):
        said = label(row["name"]) + (f" ({row['article']})" if row["article"].isdigit() else "")
        at = {"textcoords": "offset points", "va": "center", "fontsize": 8, "color": INK}
        axes.annotate(escape(said), (row["latency_us"], y), (7, 0), **at)
    return figure


def write_study(results: Results, folder: Path) -> None:
    """Writes study.html, a page that needs nothing beside it, and its picture, study.png."""
    k, logs, base = results["logs"]["k"], results["logs"], label(results["base"])
    table = table_of(
        results["rows"],
        [
            ("Article", text_cell(lambda row: row["article"])),
            (f"Recall@{k}, %", lambda row: _cell(row["recall"])),
            (f"Δ to {base}, points", lambda row: _difference(row.get("vs_base"))),
            ("Δ to the rung before", lambda row: _difference(row.get("vs_before"))),
            (f"Hit@{k}, %", lambda row: _cell(row["hit_rate"])),
            ("CTR in replay, %", lambda row: _cell(row["ctr"], 2) if "ctr" in row else None),
            ("Fetch, µs", lambda row: Cell(micros(row["fetch_us"]))),
            ("Inference, µs", lambda row: Cell(micros(row["inference_us"]))),
            ("Total, µs", lambda row: Cell(micros(row["latency_us"]))),
            ("Tuned by", text_cell(_tuned)),
        ],
        lambda row: row["describes"],
    )
    caption = "Each point is the mean over seeds and test requests, its whisker the 95% interval over both."
    figure = recall_against_latency(results)
    with whole(folder / "study.png") as file:
        figure.savefig(file, format="png", dpi=110)
    write_page(
        "study/study.html.jinja",
        folder / "study.html",
        pictures={"recall": Picture(figure, "Recall against latency of each rung", caption)},
        title=f"A study: {results['study']}",
        finding=finding(results),
        facts=[
            ("Test requests", f"{logs['requests']:,}"),
            ("Candidates, mean", f"{logs['candidates']:,.0f}"),
            ("Seeds", str(results["seeds"])),
            ("Compared with", base),
        ],
        tables={"results": table},
        said=results["said"],
    )


def _tuned(row: Row) -> str:
    """What the tries differ in, as it was chosen."""
    chosen = row["tries"][row["chosen"]]["options"]
    named = {key: _named(value) for key, value in chosen.items()}
    return f"best of {len(row['tries'])}" + "".join(f", {key} {value}" for key, value in named.items())


def _named(value: object) -> str:
    if isinstance(value, list):
        return f"{len(value)} of them"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cell(over: Over, digits: int = 1) -> Cell:
    return Cell(f"{100 * over['mean']:.{digits}f}", f"{100 * over['lo']:.{digits}f} to {100 * over['hi']:.{digits}f}")


def _difference(of: Difference | None) -> Cell | None:
    if of is None:
        return None
    sure = excludes_zero([of["mean"], of["lo"], of["hi"]])
    return Cell(f"{100 * of['mean']:+.1f}", f"{100 * of['lo']:+.1f} to {100 * of['hi']:+.1f}", sure)


def _share(over: Over, digits: int = 1) -> str:
    return f"{100 * over['mean']:.{digits}f} ±{50 * (over['hi'] - over['lo']):.{digits}f}"


def _points(of: Difference | None) -> str:
    return f"{100 * of['mean']:+.1f} ±{50 * (of['hi'] - of['lo']):.1f}" if of else ""
