"""A pipeline's results as a table in the terminal."""

from rich.table import Table
from rich.text import Text

from prerank.reports.pipeline.words import finding
from prerank.reports.results import Results, vs_base
from prerank.reports.words import decimals, excludes_zero, label, micros, number, percent, plus_minus, points

TIMES = {"fetch_us": "fetch", "inference_us": "infer", "latency_us": "total"}


def terminal_table(results: Results) -> Table:
    """One line an arm, 80 characters wide, 100 with what it takes to serve.

    A difference in bold is one whose interval excludes 0.
    """
    k, rows = results["logs"]["k"], results["rows"]
    table = Table(title=finding(results), title_justify="left", title_style="", box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True, style="bold")
    has_ctr = any(row.get("ctr") is not None for row in rows)
    headings = [f"Recall@{k}", "Δ points", f"Hit@{k}", "NDCG@10", "GAUC", "AUC", *(["CTR"] if has_ctr else [])]
    times = {f"{what}\nµs": key for key, what in TIMES.items() if any(row.get(key) is not None for row in rows)}
    for heading in (*headings, *times):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        difference = vs_base(row, f"recall_at_{k}")
        cells = [
            plus_minus(row, f"recall_at_{k}"),
            Text(
                points(difference) if difference else "",
                style="bold" if difference and excludes_zero(difference) else "dim",
            ),
            plus_minus(row, f"hit_rate_at_{k}"),
            *(decimals(number(row, name)) for name in ("ndcg_at_10", "gauc", "auc")),
            *([percent(number(row, "ctr"), 2)] if has_ctr else []),
            *(micros(number(row, key)) for key in times.values()),
        ]
        # Text, because a name in brackets would be taken for markup
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in (label(row["name"]), *cells)))
    return table
