"""What a pipeline found, as a table in the terminal, as figures, and as one HTML page that needs nothing beside it.

All three read `results.json` alone. Shares (recall, hit-rate, click-through) are shown in percent, their differences
in percentage points; a bracket or a whisker is the 95% bootstrap interval over requests.
"""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from prerank.reports.page import Cell, difference_cell, plus_minus, table_of, time_cell, value_cell, write_page
from prerank.reports.pipeline.figures import figures
from prerank.reports.search.section import gain, pictures, section
from prerank.reports.words import (
    Results,
    blind_draw,
    change,
    decimals,
    excludes_zero,
    label,
    micros,
    percent,
    series_of,
    students,
    vs_base,
)

TIMES = {"fetch_us": "fetch", "inference_us": "infer", "latency_us": "total"}

# `logs.space`: what stands for a request in the evaluation
SPACES = {
    "candidates": "all candidates that pre-ranking received",
    "fine_lists": "the items that fine-ranking scored, as the logs hold no candidates: "
    "what the pre-ranker of the time had dropped is not in it",
}


def terminal_table(results: Results) -> Table:
    """One line an arm, 80 characters wide, 100 with what it takes to serve.

    A difference in bold is one whose interval excludes 0.
    """
    k = results["logs"]["k"]
    rows = results["rows"]
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
                f"{100 * difference[0]:+.1f} ±{50 * (difference[2] - difference[1]):.1f}" if difference else "",
                style="bold" if difference and excludes_zero(difference) else "dim",
            ),
            plus_minus(row, f"hit_rate_at_{k}"),
            *(decimals(row.get(name)) for name in ("ndcg_at_10", "gauc", "auc")),
            *([percent(row.get("ctr"), 2)] if has_ctr else []),
            *(micros(row.get(key)) for key in times.values()),
        ]
        # Text, because a name in brackets would be taken for markup
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in (label(row["name"]), *cells)))
    return table


def finding(results: Results) -> str:
    """The headline: what the techniques together, or else the strongest arm, change over the base, and how surely.

    Then what a searched network changes over them.
    """
    k, name = results["logs"]["k"], f"recall_at_{results['logs']['k']}"
    arms = {row["name"]: row for row in students(results) if row["name"] != "searched" and vs_base(row, name)}
    base = next((row for row in results["rows"] if row["name"] == "base"), None)
    if not arms or base is None or base.get(name) is None:
        return f"Recall@{k} and hit-rate@{k} of each arm.{gain(results)}"
    best = max(arms.values(), key=lambda row: row["vs_base"][name][0])
    arm = arms.get("all", best)
    who = "All techniques together" if arm["name"] == "all" else f"The strongest arm, {label(arm['name'])},"
    keeps = "keep" if arm["name"] == "all" else "keeps"
    sentence = (
        f"{who} {keeps} {percent(arm[name])}% of the teacher's top {k}, the base student {percent(base[name])}%: "
        f"{change(arm['vs_base'][name])}"
    )
    hits = vs_base(arm, f"hit_rate_at_{k}")
    if hits:
        sentence += f"; and {percent(arm.get(f'hit_rate_at_{k}'))}% of the clicked items: {change(hits)}"
    if best is not arm:
        sentence += f". The strongest arm is {label(best['name'])}: {change(best['vs_base'][name])}"
    return f"{sentence}.{gain(results)}"


def write_report(results: Results, path: Path) -> Path:
    """Writes the page: styles and figures are in it, light and dark, and it asks for nothing from anywhere."""
    k = results["logs"]["k"]
    words = _captions(results)
    drawn = {name: (figure, *words[name]) for name, figure in figures(results).items()} | pictures(results)
    logs, uri = results["logs"], results.get("mlflow")
    return write_page(
        "pipeline/report.html.jinja",
        path,
        figures=drawn,
        title=f"Pre-ranking: {Path(logs['path']).name or logs['path']}",
        finding=finding(results),
        facts=[(label(key), _fact(value)) for key, value in logs.items() if _fact(value) is not None],
        k=k,
        m=logs.get("m") or k,
        space=SPACES.get(logs.get("space")),
        has_truth=bool(logs.get("has_truth")),
        tables={"results": _results_table(results), "slices": _slices_table(results)},
        timed=any(row.get("inference_p99_us") is not None for row in results["rows"]),
        searched=section(results),
        random=blind_draw(results),
        curves=[
            {
                "heading": f"{heading}, %",
                "ks": sorted({x for points in series.values() for x, _ in points}),
                "rows": [(label(name), {x: f"{y:.1f}" for x, y in points}) for name, points in series.items()],
            }
            for heading, metric in (("Recall@k", "recall"), ("Hit-rate@k", "hit_rate"))
            if (series := series_of(results, metric))
        ],
        commands=results.get("commands") or [],
        mlflow=uri,
        mlflow_link=str(uri).startswith(("http://", "https://")),
    )


# --- what the rows say, in words and cells


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
    return table_of(
        results["rows"],
        [
            (f"Recall@{k}, %", value_cell(f"recall_at_{k}", 1)),
            ("Δ recall, points", _against_base(f"recall_at_{k}")),
            (f"Hit@{k}, %", value_cell(f"hit_rate_at_{k}", 1)),
            ("Δ hit, points", _against_base(f"hit_rate_at_{k}")),
            ("Converted kept, %", value_cell(f"hit_rate_converted_at_{k}", 1)),
            ("True best 10 kept, %", value_cell(f"true_hit_rate_at_{k}", 1)),
            ("CTR in replay, %", value_cell("ctr", 2)),
            ("NDCG@10", value_cell("ndcg_at_10")),
            ("GAUC", value_cell("gauc")),
            ("AUC", value_cell("auc")),
            ("Fetch, µs", time_cell("fetch_us")),
            ("Inference, µs", time_cell("inference_us", tail="inference_p99_us")),
            ("Total, µs", time_cell("latency_us")),
        ],
    )


def _slices_table(results: Results) -> dict:
    k = results["logs"]["k"]
    return table_of(
        results["rows"],
        [
            (f"{heading}, {where}", value_cell(key, digits, where=where))
            for heading, key, digits in (
                (f"Recall@{k}, %", f"recall_at_{k}", 1),
                ("GAUC", "gauc", None),
                ("AUC", "auc", None),
                ("NDCG@10", "ndcg_at_10", None),
            )
            for where in ("exposed", "unexposed")
        ],
    )


def _against_base(key: str) -> Cell:
    return difference_cell(lambda row: vs_base(row, key))


def _captions(results: Results) -> dict[str, tuple[str, str]]:
    """`{figure: (what it shows, for who does not see it; how to read it)}`."""
    k = results["logs"]["k"]
    changes = [
        f"{label(row['name'])} {change(interval)}"
        for row in students(results)
        if (interval := vs_base(row, f"recall_at_{k}"))
    ]
    at_end = {
        metric: ", ".join(
            f"{label(row['name'])} {percent(row['curve'][metric][-1])}%"
            for row in results["rows"]
            if (row.get("curve") or {}).get(metric)
        )
        for metric in ("recall", "hit_rate")
    }
    timed = ", ".join(
        f"{label(row['name'])} {percent(row.get(f'recall_at_{k}'))}% in {micros(row['latency_us'])} µs"
        for row in students(results, base=True)
        if row.get("latency_us") is not None
    )
    groups = results.get("teacher_groups") or {}
    bars = ", ".join(f"{label(name)} {percent(value)}%" for name, value in groups.items())
    return {
        "ladder": (
            f"Change of recall@{k} over the base, a dot and its interval for each technique: {'; '.join(changes)}.",
            "Each arm against the base student, in points, with its 95% interval. A hollow dot is a difference that "
            "these requests cannot tell from nothing.",
        ),
        "latency_recall": (
            f"Points of recall@{k} against the time of a request: {timed}.",
            "What a student keeps of the teacher's first k, with its 95% interval, against what a request takes: fetch "
            "by the formula, inference as measured, the median. Dots at nearly one time are pushed apart to stand side "
            "by side. A dotted line is the budget of the search. The teacher, 100% by definition, is left out.",
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
