"""The comparison at equal budgets, as a figure, and as a table and lines for the terminal."""

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from prerank.reports.drawing import INK, MUTED, Dash, escape, new_axes, new_figure
from prerank.reports.words import label
from prerank.search.contest import AUTOFAS, Results
from prerank.search.equal_budget import Spread, Versus

# A method keeps its colour, its dash and its mark whichever others it is shown with.
LINES: dict[str, tuple[str, Dash, str]] = {
    "propose": ("#a3001e", "-", "o"),
    "autofas": ("#6b3fa0", (0, (4, 1)), "h"),
    "autofas_free": ("#9a7fc0", (0, (4, 1)), "H"),
    "autofas_fixed_widths": ("#d04e00", (0, (6, 1.5)), "s"),
    "fscd": ("#0062a3", (0, (8, 2)), "D"),
    "squeeze_excite": ("#3a93cf", (0, (5, 1.5)), "v"),
    "permutation": ("#008f68", (0, (3, 1, 1, 1)), "^"),
    "gradient": ("#c58300", (0, (1, 1)), "P"),
    "shuffle_gate": ("#5f6f00", (0, (6, 1, 1, 1)), "p"),
    "cegb": ("#7a5200", (0, (2, 1)), "<"),
    "random": ("#b0568a", (0, (2, 2)), "X"),
    "hand_picked": (INK, (0, (4, 2)), "*"),
}


def recall_against_latency(results: Results) -> Figure:
    """A line a method over the budgets; a whisker is one standard deviation of the seeds to either side."""
    figure = new_figure(4.2)
    axes = new_axes(figure, title=f"Recall@{results['logs']['k']} of what fits each budget, %")
    for budget_us in sorted({row["budget_us"] for row in results["rows"] if row["budget_us"]}):
        axes.axvline(budget_us, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    there = {row["method"] for row in results["rows"]}
    for method, (colour, dash, mark) in LINES.items():
        free = f"{method}_free" in there and method not in AUTOFAS
        method = f"{method}_free" if free else method  # of both, the one that chooses its widths
        rows = [row for row in results["rows"] if row["method"] == method]
        if rows:
            axes.errorbar(
                [row["latency_us"] for row in rows],
                [100 * row["recall"]["mean"] for row in rows],
                [100 * (row["recall"]["std"] or 0.0) for row in rows],
                color=colour,
                linestyle=dash,
                marker=mark,
                linewidth=2.2 if method == "propose" else 1.5,
                markersize=5,
                elinewidth=1,
                capsize=2,
                label=escape(label(method)),
            )
    axes.set_xlabel("predicted latency of a request, µs (dotted: the budgets)", color=MUTED, fontsize=9)
    axes.margins(x=0.05)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8, handlelength=3.5)
    return figure


def terminal_table(results: Results) -> Table:
    """One line a budget and method; a difference in bold is one whose interval excludes 0."""
    logs = results["logs"]
    title = (
        f"Recall@{logs['k']}, ± one standard deviation of {results['seeds']} seeds; Δ to hand_picked at its budget, "
        f"points, with the 95% interval over requests and seeds ({logs['requests']} requests)"
    )
    table = Table(title=title, title_justify="left", title_style="", box=None, padding=(0, 1, 0, 0))
    for heading in ("budget", "method", "features", "widths", "fetch", "infer", "µs", "Recall", "Hit", "Δ points"):
        table.add_column(heading, justify="left" if heading in ("method", "widths") else "right", no_wrap=True)
    last = results["rows"][0]["factor"] if results["rows"] else None
    for row in results["rows"]:
        if row["factor"] != last:
            table.add_section()
        last = row["factor"]
        times = (f"{us:.0f}" for us in (row["fetch_us"], row["inference_us"], row["latency_us"]))
        table.add_row(
            f"{last:g}x {row['budget_us']:.0f}" if last else "none",
            label(row["method"]),
            _range(row["features"]),
            " ".join(sorted({",".join(map(str, widths)) for widths in row["widths"]})),
            *times,
            _share(row["recall"]),
            _share(row["hit_rate"]),
            _delta(row.get("vs_hand_picked")),
        )
    return table


def best_lines(results: Results) -> list[str]:
    """How far our search is from the best of the others, a line a budget."""
    lines = []
    for best in results["best_rivals"]:
        recall = best["recall"]
        ours = f"{best['factor']:g}x: {best.get('method', 'autofas')} against {best['rival']}, the best rival"
        lines.append(
            f"{ours}: {100 * recall['mean']:+.1f} points [{100 * recall['lo']:+.1f}, {100 * recall['hi']:+.1f}], seeds "
            f"{100 * recall['seeds_lo']:+.1f} to {100 * recall['seeds_hi']:+.1f}"
        )
    return lines


def _range(numbers: list[int]) -> str:
    return f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)}-{max(numbers)}"


def _share(spread: Spread) -> str:
    std = "" if spread["std"] is None else f" ±{100 * spread['std']:.1f}"
    return f"{100 * spread['mean']:.1f}{std}"


def _delta(versus: Versus | None) -> Text:
    if not versus:
        return Text("")
    recall = versus["recall"]
    sure = recall["lo"] > 0 or recall["hi"] < 0
    text = f"{100 * recall['mean']:+.1f} [{100 * recall['lo']:+.1f}, {100 * recall['hi']:+.1f}]"
    return Text(text, style="bold" if sure else "dim")
