"""A pipeline's results as one HTML page that needs nothing beside it, written from `results.json` alone.

Shares (recall, hit-rate, click-through) are shown in percent, their differences in percentage points; a bracket or a
whisker is the 95% bootstrap interval over requests.
"""

from collections.abc import Callable
from pathlib import Path

from prerank.reports.page import Cell, Picture, Table, difference_cell, table_of, time_cell, value_cell, write_page
from prerank.reports.pipeline.figures import figures
from prerank.reports.pipeline.words import SPACES, captions, finding
from prerank.reports.results import Results, Row, blind_draw, series_of, vs_base
from prerank.reports.search.section import pictures, section
from prerank.reports.words import label


def write_report(results: Results, path: Path) -> Path:
    """Writes the page: styles and figures are in it, light and dark, and it asks for nothing from anywhere."""
    k, logs, uri = results["logs"]["k"], results["logs"], results.get("mlflow")
    words = captions(results)
    drawn = {name: Picture(figure, *words[name]) for name, figure in figures(results).items()} | pictures(results)
    return write_page(
        "pipeline/report.html.jinja",
        path,
        pictures=drawn,
        title=f"Pre-ranking: {Path(logs['path']).name or logs['path']}",
        finding=finding(results),
        facts=[(label(key), said) for key, value in logs.items() if (said := _fact(value)) is not None],
        k=k,
        m=logs.get("m") or k,
        space=SPACES.get(logs.get("space", "")),
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
            for heading, series in (
                ("Recall@k", series_of(results, "recall")),
                ("Hit-rate@k", series_of(results, "hit_rate")),
            )
            if series
        ],
        commands=results.get("commands") or [],
        mlflow=uri,
        mlflow_link=str(uri).startswith(("http://", "https://")),
    )


def _fact(value: object) -> str | None:
    """A fact of the logs as text; None for what is not a plain value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return value if isinstance(value, str) else None


def _results_table(results: Results) -> Table:
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
        lambda row: row.get("describes"),
    )


def _slices_table(results: Results) -> Table:
    k = results["logs"]["k"]
    return table_of(
        results["rows"],
        [
            (f"{heading}, {where}", _of_slice(where, value_cell(key, digits)))
            for heading, key, digits in (
                (f"Recall@{k}, %", f"recall_at_{k}", 1),
                ("GAUC", "gauc", None),
                ("AUC", "auc", None),
                ("NDCG@10", "ndcg_at_10", None),
            )
            for where in ("exposed", "unexposed")
        ],
    )


def _against_base(key: str) -> Callable[[Row], Cell | None]:
    return difference_cell(lambda row: vs_base(row, key))


def _of_slice(where: str, cell: Callable[[dict[str, object]], Cell | None]) -> Callable[[Row], Cell | None]:
    return lambda row: cell((row.get("slices") or {}).get(where) or {})
