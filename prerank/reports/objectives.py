"""The front of a student's objectives: a table for the terminal, a sentence, and a picture."""

from matplotlib.figure import Figure
from rich.table import Table

from prerank.evaluation.fronts import Front, Kept, Point
from prerank.reports.drawing import INK, MUTED, SERIES, escape, new_axes, new_figure

METRICS = {"hit_rate": "Hit-rate", "recall": "Recall"}


def front_table(front: Front) -> Table:
    """A row a student, in percent and points with half the 95% interval."""
    k, by, objectives = front["k"], front["by"], front["objectives"]
    table = Table(
        title=f"What students of several objectives keep of each ({front['logs']['requests']:,} test requests)"
    )
    table.add_column("fusion")
    others = [
        name
        for name in METRICS
        if name != by and all(objective in front["points"][0][name] for objective in objectives)
    ]
    for metric in (by, *others):
        for objective in objectives:
            table.add_column(f"{METRICS[metric]}@{k} {objective}, %", justify="right")
    singles = [point["alone"] for point in front["points"] if point["alone"]]
    for single in singles:
        table.add_column(f"to {single} alone: {', '.join(objectives)}", justify="right")
    table.add_column("front")
    for point in front["points"]:
        cells = [_percent(point[metric][objective]) for metric in (by, *others) for objective in objectives]
        gains = [point["gain"].get(single) for single in singles]
        cells += [", ".join(_points(gain[objective]) for objective in objectives) if gain else "" for gain in gains]
        table.add_row(said(point), *cells, "yes" if point["on_front"] else "")
    if by == "hit_rate" and front["teacher"]:
        table.add_row("teacher, each head", *(_percent(front["teacher"][objective]) for objective in objectives))
    return table


def said(point: Point) -> str:
    if point["alone"]:
        return f"{point['alone']} alone"
    return " ".join(f"{head}={share:.3g}" for head, share in point["fusion"].items())


def finding(front: Front) -> str:
    """How many stand on the front, and which of them a student of one objective dominates."""
    several = [point for point in front["points"] if not point["alone"]]
    on = [point for point in front["points"] if point["on_front"]]
    free = [point for point in several if not point["beaten_by"]]
    beaten = [f"{said(point)} (by {', '.join(point['beaten_by'])})" for point in several if point["beaten_by"]]
    out = (
        f"{len(on)} of {len(front['points'])} students stand on the front; {len(free)} of {len(several)} of several "
        "objectives are dominated by no student of one"
    )
    return out + (f"; dominated are {'; '.join(beaten)}" if beaten else "")


def front_figure(front: Front) -> Figure:
    """The first two objectives against each other; students of one objective are stars."""
    (x, y), by = front["objectives"][:2], front["by"]
    figure = new_figure(3.6)
    axes = new_axes(figure, title=f"{METRICS[by]}@{front['k']} of {escape(y)} against {escape(x)}, %")

    def at(point: Point) -> tuple[float, float]:
        (first, *_), (second, *_) = point[by][x], point[by][y]
        return 100 * (first or 0.0), 100 * (second or 0.0)

    on = sorted(at(point) for point in front["points"] if point["on_front"])
    axes.plot(*zip(*on, strict=True), color=SERIES["contrast"][0], linewidth=1.2, alpha=0.6)
    for point in front["points"]:
        mark, colour = ("*", INK) if point["alone"] else ("o", SERIES["contrast" if point["on_front"] else "base"][0])
        axes.plot(*at(point), mark, color=colour, markersize=9 if point["alone"] else 5)
        axes.annotate(escape(said(point)), at(point), (5, 4), textcoords="offset points", fontsize=7, color=INK)
    axes.set_xlabel(f"{escape(x)}, % (stars: students of one objective)", color=MUTED, fontsize=9)
    axes.margins(x=0.2, y=0.15)
    return figure


def _percent(kept: Kept) -> str:
    mean, low, high = kept
    if mean is None:
        return ""
    return f"{100 * mean:.1f}" + (f" ±{50 * (high - low):.1f}" if low is not None and high is not None else "")


def _points(kept: Kept) -> str:
    mean, low, high = kept
    if mean is None or low is None or high is None:
        return "-"
    return f"{100 * mean:+.1f} ±{50 * (high - low):.1f}"
