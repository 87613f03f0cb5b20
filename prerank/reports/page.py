"""What the pages share: one template of styles, cells of tables, figures in the page's own colours, light and dark."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from prerank.reports.drawing import SERIES, inline_svg
from prerank.reports.words import excludes_zero, is_whole, label, micros, percent

Cell = Callable[[dict], dict | None]
"""Gives what a row of the results shows in one column: `text`, `small` (what stands under it, or None) and `sure`."""


def write_page(template: str, path: Path, *, figures: dict[str, tuple[Figure, str, str]], **words: Any) -> Path:
    """Renders a template beside this file; styles and figures are in the page, and it asks for nothing from anywhere.

    figures: of each the figure, what it shows for who does not see it, and how to read it.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template(template).render(
        colours={f"--{name.replace('_', '-')}": pair[:2] for name, pair in SERIES.items()},
        figures={
            name: {"svg": inline_svg(figure, name, alt), "caption": caption}
            for name, (figure, alt, caption) in figures.items()
        },
        **words,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def table_of(rows: list[dict], columns: list[tuple[str, Cell]]) -> dict:
    """`{"headings", "rows": [{"name", "describes", "cells"}]}`, without the columns that no row fills."""
    cells = [(heading, [cell(row) for row in rows]) for heading, cell in columns]
    cells = [(heading, column) for heading, column in cells if any(column)]
    return {
        "headings": [heading for heading, _ in cells],
        "rows": [
            {
                "name": label(row["name"]),
                "describes": row.get("describes"),
                "cells": [column[i] for _, column in cells],
            }
            for i, row in enumerate(rows)
        ],
    }


def value_cell(key: str, digits: int | None = None, *, where: str = "") -> Cell:
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
            "small": interval_text(*(show(scale * edge) for edge in interval)) if is_whole(interval) else None,
            "sure": False,
        }

    return cell


def difference_cell(of: Callable[[dict], list | None]) -> Cell:
    """A cell of `[difference, lo, hi]` in points, sure where the interval excludes 0."""

    def cell(row: dict) -> dict | None:
        interval = of(row)
        if interval is None:
            return None
        text, *edges = (f"{100 * value:+.1f}" for value in interval)
        return {"text": text, "small": interval_text(*edges), "sure": excludes_zero(interval)}

    return cell


def time_cell(key: str, tail: str = "") -> Cell:
    """Microseconds, and under them the 99th percentile."""

    def cell(row: dict) -> dict | None:
        if row.get(key) is None:
            return None
        small = f"p99 {micros(row[tail])}" if row.get(tail) is not None else None
        return {"text": micros(row[key]), "small": small, "sure": False}

    return cell


def interval_text(low: str, high: str) -> str:
    return f"{low} to {high}"


def plus_minus(row: dict, name: str) -> str:
    """A share in percent, and half the width of its interval."""
    interval = row.get(f"{name}_ci")
    half = 50 * (interval[1] - interval[0]) if is_whole(interval) else 0
    return percent(row.get(name)) + (f" ±{half:.1f}" if half else "")
