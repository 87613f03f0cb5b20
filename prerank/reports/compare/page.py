"""Compared runs as a table in the terminal, and as one HTML page that needs nothing beside it."""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from prerank.reports.compare.figures import compare_figures
from prerank.reports.compare.words import Results, captions, finding, front_sentences, shown, versus
from prerank.reports.page import Cell, difference_cell, plus_minus, table_of, value_cell, write_page
from prerank.reports.words import excludes_zero, label, micros, percent

OF = {"validation": "the validation requests", "test": "the test requests"}


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
                f"{100 * against[0]:+.1f} ±{50 * (against[2] - against[1]):.1f}" if against else "base",
                style="bold" if against and excludes_zero(against) else "dim",
            ),
            plus_minus(row, "hit_rate"),
            *([micros(row["latency_us"]), "•" if row["front"] else ""] if timed else []),
            "-" if row["features"] is None else str(len(row["features"])),
            *(shown(row["params"][key]) for key in keys),
        ]
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in (label(row["label"]), *cells)))
    return table


def write_page_of(results: Results, path: Path, *, top: int) -> Path:
    """Writes the page, of which the first `top` rows are shown at once and the others on demand."""
    rows, k = results["rows"], results["k"]
    figures = compare_figures(results)
    words = captions(results)
    given = "" if results["base_given"] else ", the best mean recall"
    facts = {
        "Runs compared": f"{len(rows):,}",
        "Left out": f"{len(results['left_out']):,}",
        "Requests": f"{results['requests']:,} of {results['requests_of']}",
        "Compared with": f"{label(results['base'])}{given}",
        "Epochs spent": f"{sum(group['epochs'] for group in results['groups']):,}",
    }
    return write_page(
        "compare/compare.html.jinja",
        path,
        figures={name: (figure, *words[name]) for name, figure in figures.items()},
        title="Runs compared: " + "; ".join(group["name"] for group in results["groups"]),
        finding=finding(results),
        facts=list(facts.items()),
        k=k,
        runs=len(rows),
        base=label(results["base"]),
        base_given=results["base_given"],
        timed=any(row["latency_us"] is not None for row in rows),
        tables={"best": _table(results, rows[:top]), "others": _table(results, rows[top:])},
        more=max(0, len(rows) - top),
        fronts=_fronts(results),
        sentences=front_sentences(results),
        reference=results.get("reference"),
        left_out=_left_out(results),
        requests_of=OF[results["requests_of"]],
        mlflow=results["mlflow"],
        mlflow_link=results["mlflow"].startswith(("http://", "https://")),
        command=results.get("command"),
    )


def _table(results: Results, rows: list[dict]) -> dict[str, Any]:
    k, several = results["k"], len(results["groups"]) > 1
    groups = {group["id"]: group["name"] for group in results["groups"]}
    described = [
        {
            **{key: value for key, value in row.items() if key != "label"},
            "describes": " · ".join(
                [
                    *([groups[row["group"]]] if several else []),
                    *(["stopped early"] if row["stopped_early"] else []),
                    *([row["status"].lower()] if row["status"] != "FINISHED" else []),
                    f"run {row['run_id'][:8]}",
                ]
            ),
        }
        for row in rows
    ]
    return table_of(
        described,
        [
            (f"Recall@{k}, %", value_cell("recall", 1)),
            ("Δ recall, points", difference_cell(lambda row: versus(row, "recall"))),
            (f"Hit@{k}, %", value_cell("hit_rate", 1)),
            ("Δ hit, points", difference_cell(lambda row: versus(row, "hit_rate"))),
            ("Fetch + inference, µs", _time),
            ("On the front", _text(lambda row: "•" if row["front"] else "")),
            ("Features", _text(lambda row: "" if row["features"] is None else str(len(row["features"])))),
            ("Hidden widths", _text(lambda row: _widths(row["widths"]))),
            ("Epochs", _text(lambda row: "" if row["epochs"] is None else str(row["epochs"]))),
            *((key, _text(lambda row, key=key: shown(row["params"][key]))) for key in results["swept"]),
        ],
    )


def _time(row: dict) -> dict[str, Any] | None:
    """The latency, and under it fetch and inference."""
    if row["latency_us"] is None:
        return None
    parts = [row[key] for key in ("fetch_us", "inference_us")]
    return {"text": micros(row["latency_us"]), "small": " + ".join(map(micros, parts)), "sure": False}


def _fronts(results: Results) -> dict[str, Any] | None:
    """A row a group; None where there are not two fronts to compare."""
    if not results["pairs"]:
        return None
    names = {row["label"]: label(row["name"]) for row in results["rows"]}
    headings = ["Points on its front", "Hypervolume, %", "Epochs", "Runs", "Left out", "Scheduler", "Metric"]
    return {
        "headings": headings,
        "rows": [
            {
                "name": group["name"],
                "describes": ", ".join(names[one] for one in group["front"]),
                "cells": [
                    {"text": text, "small": None, "sure": False}
                    for text in (
                        str(len(group["front"])),
                        percent(group["hypervolume"]),
                        f"{group['epochs']:,}",
                        f"{group['runs']:,}",
                        f"{group['left_out']:,}",
                        group["scheduler"] or "-",
                        group["metric"] or "-",
                    )
                ],
            }
            for group in results["groups"]
        ],
    }


def _left_out(results: Results) -> dict[str, Any]:
    """How many for each reason, and a row a run."""
    rows, groups = results["left_out"], {group["id"]: group["name"] for group in results["groups"]}
    several = len(groups) > 1
    counts = {
        reason: sum(row["reason"] == reason for row in rows) for reason in dict.fromkeys(r["reason"] for r in rows)
    }
    described = [
        {
            **row,
            "describes": f"{groups[row['group']]} · run {row['run_id'][:8]}" if several else f"run {row['run_id'][:8]}",
        }
        for row in rows
    ]
    columns = [
        ("Epochs", _text(lambda row: "" if row["epochs"] is None else str(row["epochs"]))),
        (
            f"Last validation recall@{results['k']}, %",
            _text(lambda row: percent(row["curve"][-1][1]) if row["curve"] else ""),
        ),
        ("Why", _text(lambda row: row["reason"])),
    ]
    return {"counts": counts, **table_of(described, columns)}


def _text(of: Any) -> Cell:
    """A cell of text; empty text is no cell."""

    def cell(row: dict) -> dict | None:
        text = of(row)
        return {"text": text, "small": None, "sure": False} if text else None

    return cell


def _widths(widths: list[int] | None) -> str:
    return "" if widths is None else ",\N{NO-BREAK SPACE}".join(map(str, widths)) or "none"
