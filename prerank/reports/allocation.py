"""An allocation, shown: the table of its budgets, what came of it in a sentence, and the figure."""

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from prerank.evaluation.allocated import Allotted, Found
from prerank.reports.drawing import MUTED, SERIES, legend_below, new_axes, new_figure
from prerank.reports.words import change, excludes_zero, percent, points

NAMES = {
    "ctr": "expected clicks on what is shown",
    "teacher": "the teacher's ten that are kept",
    "clicked": "the clicked that are kept",
}

COLUMNS = ("K for all", "cost", "scored", "kept (5%, mean, 95%)", "K for all %", "allotted %", "Δ points")
COLUMNS += ("Δ same scored", "oracle Δ")


def terminal_table(found: Found) -> Table:
    """One line a budget; a difference in bold is one whose interval excludes 0.

    "Δ same scored": over one K for all where as many are scored, so what is kept request by request alone brings.
    """
    title = f"{NAMES[found['value']]}, % of {found['requests']['test']:,} test requests, each line at equal cost"
    table = Table(title=title, title_justify="left", title_style="", box=None, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in found["rows"]:
        bold = "bold" if excludes_zero(row["difference"]) else "dim"
        table.add_row(
            f"{row['k']:,}",
            f"{row['cost']:,.0f}",
            percent(row["share"], 0) + "%",
            ", ".join(f"{value:,.0f}" for value in row["kept"]),
            percent(row["constant"], 2),
            percent(row["policy"], 2),
            Text(points(row["difference"]) if row["fitted"] else "K for all", style=bold),
            points(row["same_share"]) if row["share"] < 1 else "",
            points(row["oracle_difference"]),
        )
    return table


def sentence(found: Found) -> str:
    """What the policy of K came to on the test days, and why it is K for all where it is."""
    [row] = (row for row in found["rows"] if row["k"] == found["k"])
    most = f"an oracle that knew each request's curve would gain {100 * row['oracle_difference'][0]:+.1f}"
    if row["fitted"]:
        return f"K {row['k']}: {change(row['difference'])} at equal cost; {most}"
    return f"K {row['k']} for all: {row['why']}{_held_out(row)}; {most}"


def _held_out(row: Allotted) -> str:
    """Of the best share."""
    if not row["held_out"]:
        return ""
    difference, low, high = max(row["held_out"].values())
    return f" ({100 * difference:+.2f} points, 90% interval {100 * low:+.2f} to {100 * high:+.2f})"


def figure(found: Found) -> Figure:
    """The value of each budget: the same K for all, allotted, and by the oracle."""
    drawn = new_figure(3.4)
    axes = new_axes(drawn, title=f"{NAMES[found['value']].capitalize()}, %")
    cost = [row["cost"] for row in found["rows"]]
    ways = {"K for all": ("constant", "base"), "allotted": ("policy", "all"), "oracle": ("oracle", "teacher")}
    for name, (key, series) in ways.items():
        colour, _, dash = SERIES[series]
        values = [100 * float(row[key]) for row in found["rows"]]
        axes.plot(cost, values, color=colour, linestyle=dash, marker="o", markersize=4, linewidth=1.8, label=name)
    axes.set_xscale("log")
    axes.set_xticks(cost, [f"{row['cost']:,.0f}\nK {row['k']:,}" for row in found["rows"]])
    axes.minorticks_off()
    axes.set_xlabel("mean cost of a request, in fine-ranked candidates, and its K", color=MUTED, fontsize=9)
    legend_below(drawn, columns=3)
    return drawn
