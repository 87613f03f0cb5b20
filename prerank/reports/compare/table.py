"""Compared runs as a table in the terminal."""

from rich.table import Table
from rich.text import Text

from prerank.evaluation.compare_json import Results
from prerank.reports.compare.words import finding, shown, versus
from prerank.reports.words import excludes_zero, label, micros, plus_minus, points


def terminal_table(results: Results, top: int) -> Table:
    """The best `top` runs, one a line; a difference in bold is one whose interval excludes 0."""
    k, rows = results["k"], results["rows"]
    table = Table(title=finding(results), title_justify="left", title_style="", box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True, style="bold")
    keys = [key for key in results["swept"] if len({row["params"][key] for row in rows}) > 1]
    timed = any(row["latency_us"] is not None for row in rows)
    for heading in (f"Recall@{k}", "Δ points", f"Hit@{k}", *(["µs", "front"] if timed else []), "features"):
        table.add_column(heading, justify="right", no_wrap=True)
    for key in keys:
        table.add_column(key.rpartition(".")[2], justify="right", no_wrap=True, overflow="ellipsis", max_width=14)
    for row in rows[:top]:
        against = versus(row, "recall")
        cells = [
            plus_minus(row, "recall"),
            Text(
                points(against) if against else "base",
                style="bold" if against and excludes_zero(against) else "dim",
            ),
            plus_minus(row, "hit_rate"),
            *([micros(row["latency_us"]), "•" if row["front"] else ""] if timed else []),
            "-" if row["features"] is None else str(len(row["features"])),
            *(shown(row["params"][key]) for key in keys),
        ]
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in (label(row["label"]), *cells)))
    return table
