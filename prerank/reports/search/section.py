"""What a report says of a searched network: its gain, its features and widths, its time predicted and measured."""

from types import SimpleNamespace
from typing import Any

from matplotlib.figure import Figure

from prerank.models.arch import Arch
from prerank.reports.search.figures import by_source, search_figures
from prerank.reports.words import Results, change, label, micros, named, percent, vs_all

TIMES = {"fetch_us": "Fetch, µs", "inference_us": "Inference, µs", "latency_us": "Total, µs"}


def gain(results: Results) -> str:
    """What the searched student gains over `all`, and in what time; empty where they were not compared."""
    k, name = results["logs"]["k"], f"recall_at_{results['logs']['k']}"
    row, all_ = named(results, "searched"), named(results, "all")
    interval = vs_all(row, name) if row else None
    if interval is None or all_ is None or row.get(name) is None or all_.get(name) is None:
        return ""
    budget_us = _arch(results).get("budget_us")
    under = f" under a budget of {micros(budget_us)} µs a request" if budget_us else ""
    keeps, kept = (
        f"{percent(r[name])}%{of}" + (f" in {micros(r['latency_us'])} µs" if r.get("latency_us") is not None else "")
        for r, of in ((row, f" of the teacher's top {k}"), (all_, ""))
    )
    return (
        f" Searched{under}, features and widths keep {keeps}, "
        f"those of all techniques together {kept}: {change(interval)}."
    )


def section(results: Results) -> dict[str, Any] | None:
    """What the page's section shows; None without a searched row."""
    row = named(results, "searched")
    if row is None:
        return None
    arch, search = _arch(results), results.get("search") or {}
    kept = tuple(row.get("features") or arch.get("features") or ())
    features = [f for f in _features(search) if f.name in kept]
    features += [SimpleNamespace(name=n, source="", fetch_us=None) for n in kept if n not in {f.name for f in features}]
    order = {name: -place for place, name in enumerate(kept)}
    return {
        "sources": [
            {
                "name": label(source),
                "count": len(members),
                "slowest": micros(max((f.fetch_us for f in members if f.fetch_us is not None), default=None)),
                "features": [(label(f.name), "" if f.fetch_us is None else f"{f.fetch_us:,.4g}") for f in members],
            }
            for source, members in by_source(features, _last(search).get("gates") or order).items()
        ],
        "kept": len(kept),
        "of": len(_features(search)),
        "widths": _said(row.get("widths") or arch.get("widths")),
        "changes": _changes(kept, (named(results, "all") or {}).get("features")),
        "times": _times(row, named(results, "all"), arch),
        "error": _error(row, arch),
    }


def pictures(results: Results) -> dict[str, tuple[Figure, str, str]]:
    """Of each figure of the search: itself, what it shows for who does not see it, and how to read it."""
    search, arch = results.get("search") or {}, _arch(results)
    if named(results, "searched") is None or not (search.get("history") and arch.get("features")):
        return {}
    drawn = search_figures(
        search["history"],
        arch=Arch(tuple(arch["features"]), tuple(arch.get("widths") or ())),
        features=_features(search),
        widths=tuple(search.get("widths") or ()),
        budget_us=arch.get("budget_us"),
    )
    last = _last(search)
    words = {
        "gates": (
            "Tiles of each feature's gate by epoch, the features by source. Kept at the end: "
            f"{', '.join(label(name) for name in arch['features'])}.",
            "Each feature's gate by epoch, the fuller the likelier. Beside the name, what the feature takes to fetch, "
            "µs; on the right the last probability, and a dot where it was kept: the best set that fits the budget.",
        ),
        "latency": (
            "Lines of the expected time by epoch: "
            + ", ".join(f"{what} {micros(last.get(key))}" for key, what in TIMES.items())
            + f", budget {micros(arch.get('budget_us'))} at the end.",
            "What a request is expected to take while features and widths are still a matter of chance, and how "
            "undecided they are. Where the entropy stays high, the choice is nearly a toss.",
        ),
        "widths": (
            f"Lines of the probability of each width, a panel a layer. Chosen: {_said(arch.get('widths'))}.",
            "A layer of the width skip is left out. The width that was chosen is thick and has a dot.",
        ),
    }
    return {name: (figure, *words[name]) for name, figure in drawn.items()}


def _arch(results: Results) -> dict[str, Any]:
    return (results.get("search") or {}).get("arch") or {}


def _last(search: dict[str, Any]) -> dict[str, Any]:
    return (search.get("history") or [{}])[-1]


def _features(search: dict[str, Any]) -> list[SimpleNamespace]:
    return [SimpleNamespace(**feature) for feature in search.get("features") or ()]


def _said(widths: list[int] | None) -> str:
    if widths is None:
        return "-"
    said = ", ".join(str(width) for width in widths if width) or "none: the scores are linear in the features"
    skipped = sum(not width for width in widths)
    return said + (f" ({skipped} of {len(widths)} layers skipped)" if skipped and skipped < len(widths) else "")


def _changes(kept: tuple[str, ...], before: list[str] | None) -> str:
    if not kept or not before:
        return ""
    added, dropped = ([label(n) for n in a if n not in b] for a, b in ((kept, before), (before, kept)))
    said = [f"adds {', '.join(added)}"] * bool(added) + [f"leaves out {', '.join(dropped)}"] * bool(dropped)
    return f"Against the features of all, the search {' and '.join(said)}." if said else ""


def _times(row: dict, all_: dict | None, arch: dict[str, Any]) -> dict[str, Any]:
    budget = {"latency_us": arch.get("budget_us")}
    lines = {"predicted": arch, "measured": row, "all, measured": all_ or {}, "budget": budget}
    lines = {name: line for name, line in lines.items() if any(line.get(key) is not None for key in TIMES)}
    return {
        "headings": list(TIMES.values()),
        "rows": [{"name": name, "cells": [_cell(line.get(key)) for key in TIMES]} for name, line in lines.items()],
    }


def _cell(value: float | None) -> dict[str, Any] | None:
    return None if value is None else {"text": micros(value), "small": None, "sure": False}


def _error(row: dict, arch: dict[str, Any]) -> str:
    predicted, measured = arch.get("inference_us"), row.get("inference_us")
    return f"{100 * (measured / predicted - 1):+.0f}%" if predicted and measured is not None else ""
