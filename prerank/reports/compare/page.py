"""Compared runs as one HTML page that needs nothing beside it."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from prerank.evaluation.compare_json import ComparedRow, Known, LeftOut, Results
from prerank.reports.compare.figures import compare_figures
from prerank.reports.compare.words import captions, finding, front_sentences, shown, versus
from prerank.reports.page import (
    Cell,
    Column,
    Line,
    Picture,
    Table,
    difference_cell,
    table_of,
    text_cell,
    value_cell,
    write_page,
)
from prerank.reports.words import label, micros, percent

OF = {"validation": "the validation requests", "test": "the test requests"}


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
        pictures={name: Picture(figure, *words[name]) for name, figure in figures.items()},
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
        reasons=Counter(row["reason"] for row in results["left_out"]),
        left_out=_left_out(results),
        requests_of=OF[results["requests_of"]],
        mlflow=results["mlflow"],
        mlflow_link=results["mlflow"].startswith(("http://", "https://")),
        command=results.get("command"),
    )


def _table(results: Results, rows: list[ComparedRow]) -> Table:
    columns: list[Column[ComparedRow]] = [
        (f"Recall@{results['k']}, %", value_cell("recall", 1)),
        ("Δ recall, points", difference_cell(lambda row: versus(row, "recall"))),
        (f"Hit@{results['k']}, %", value_cell("hit_rate", 1)),
        ("Δ hit, points", difference_cell(lambda row: versus(row, "hit_rate"))),
        ("Fetch + inference, µs", _time),
        ("On the front", text_cell(lambda row: "•" if row["front"] else "")),
        ("Features", text_cell(lambda row: "" if row["features"] is None else str(len(row["features"])))),
        ("Hidden widths", text_cell(lambda row: _widths(row["widths"]))),
        ("Epochs", text_cell(_epochs)),
        *((key, _param(key)) for key in results["swept"]),
    ]
    return table_of(rows, columns, lambda row: " · ".join([*_group(results, row), *_end(row), _run(row)]))


def _left_out(results: Results) -> Table:
    columns: list[Column[LeftOut]] = [
        ("Epochs", text_cell(_epochs)),
        (f"Last validation recall@{results['k']}, %", text_cell(_last)),
        ("Why", text_cell(lambda row: row["reason"])),
    ]
    return table_of(results["left_out"], columns, lambda row: " · ".join([*_group(results, row), _run(row)]))


def _group(results: Results, row: Known) -> list[str]:
    """The name of a row's group, where there are several."""
    groups = results["groups"]
    return [group["name"] for group in groups if group["id"] == row["group"]] if len(groups) > 1 else []


def _end(row: Known) -> list[str]:
    early = ["stopped early"] if row["stopped_early"] else []
    return early + ([row["status"].lower()] if row["status"] != "FINISHED" else [])


def _run(row: Known) -> str:
    return f"run {row['run_id'][:8]}"


def _time(row: ComparedRow) -> Cell | None:
    """The latency, and under it fetch and inference."""
    if row["latency_us"] is None:
        return None
    return Cell(micros(row["latency_us"]), f"{micros(row['fetch_us'])} + {micros(row['inference_us'])}")


def _epochs(row: Known) -> str:
    return "" if row["epochs"] is None else str(row["epochs"])


def _last(row: Known) -> str:
    return percent(row["curve"][-1][1]) if row["curve"] else ""


def _param(key: str) -> Callable[[ComparedRow], Cell | None]:
    return text_cell(lambda row: shown(row["params"][key]))


def _widths(widths: list[int] | None) -> str:
    return "" if widths is None else ",\N{NO-BREAK SPACE}".join(map(str, widths)) or "none"


def _fronts(results: Results) -> Table | None:
    """A row a group; None where there are not two fronts to compare."""
    if not results["pairs"]:
        return None
    names = {row["label"]: label(row["name"]) for row in results["rows"]}
    headings = ["Points on its front", "Hypervolume, %", "Epochs", "Runs", "Left out", "Scheduler", "Metric"]
    lines = []
    for group in results["groups"]:
        texts = (
            str(len(group["front"])),
            percent(group["hypervolume"]),
            f"{group['epochs']:,}",
            f"{group['runs']:,}",
            f"{group['left_out']:,}",
            group["scheduler"] or "-",
            group["metric"] or "-",
        )
        describes = ", ".join(names[one] for one in group["front"])
        lines.append(Line(group["name"], [Cell(text) for text in texts], describes))
    return Table(headings, lines)
