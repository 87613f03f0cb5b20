"""The front of a search: the most that was kept within each latency."""

from matplotlib.figure import Figure

from prerank.reports.drawing import INK, MUTED, SERIES, new_axes, new_figure
from prerank.search.confirmed import Front


def front_figure(front: Front, budget_us: float) -> Figure:
    """Steps over a logarithmic latency, the budget, and the hand-picked features beside them."""
    figure = new_figure(3.4)
    axes = new_axes(figure, title=f"{front['metric'].capitalize()} on the validation of what fits each latency, %")
    points = front["points"]
    axes.axvline(budget_us, color=SERIES["all"][0], linewidth=1.4, linestyle=(0, (2, 2)))
    axes.plot(
        [point["latency_us"] for point in points],
        [100 * point["metric"] for point in points],
        color=SERIES["contrast"][0],
        marker="o",
        markersize=4,
        linewidth=1.8,
        drawstyle="steps-post",
    )
    held = front["incumbent"]
    if held is not None:
        axes.plot([held["latency_us"]], [100 * held["metric"]], "*", color=INK, markersize=10)
        axes.annotate("hand-picked", (held["latency_us"], 100 * held["metric"]), (6, -10), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xlabel(
        f"predicted latency of a request, µs (dotted: the budget, {budget_us:,.0f})", color=MUTED, fontsize=9
    )
    return figure
