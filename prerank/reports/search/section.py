"""What a report says of a searched network: its gain, its features and widths, its time predicted and measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prerank.models.arch import Arch
from prerank.reports.page import Cell, Line, Picture, Table
from prerank.reports.results import Results, Row, named, vs_all
from prerank.reports.search.figures import by_source, search_figures
from prerank.reports.search.front import front_figure
from prerank.reports.words import change, label, micros, number, percent
from prerank.search.spec import FoundArch

TIMES = {"fetch_us": "Fetch, µs", "inference_us": "Inference, µs", "latency_us": "Total, µs"}


@dataclass(frozen=True)
class Source:
    """The features that were kept of one source."""

    name: str
    count: int
    slowest: str
    features: list[tuple[str, str]]
    """Name and microseconds."""


@dataclass(frozen=True)
class Section:
    """The part of the page on the searched network."""

    sources: list[Source]
    kept: int
    of: int
    """How many features there were to choose from."""
    widths: str
    changes: str
    """Against the features of `all`."""
    times: Table
    error: str
    """Of the predicted inference."""


@dataclass(frozen=True)
class _Priced:
    name: str
    source: str
    fetch_us: float


@dataclass(frozen=True)
class _Kept:
    name: str
    source: str
    fetch_us: float | None
    """None where the facts of the search do not name the feature."""


def gain(results: Results) -> str:
    """What the searched student gains over `all`, and in what time; empty where they were not compared."""
    k, name = results["logs"]["k"], f"recall_at_{results['logs']['k']}"
    row, all_ = named(results, "searched"), named(results, "all")
    interval = vs_all(row, name) if row else None
    if interval is None or row is None or all_ is None or number(row, name) is None or number(all_, name) is None:
        return ""
    search = results.get("search")
    under = f" under a budget of {micros(search['arch']['budget_us'])} µs a request" if search else ""
    keeps, kept = (
        f"{percent(number(r, name))}%{of}" + (f" in {micros(time)} µs" if time is not None else "")
        for r, of, time in (
            (row, f" of the teacher's top {k}", number(row, "latency_us")),
            (all_, "", number(all_, "latency_us")),
        )
    )
    return (
        f" Searched{under}, features and widths keep {keeps}, "
        f"those of strategies and scores together {kept}: {change(interval)}."
    )


def section(results: Results) -> Section | None:
    """What the page's section shows; None without a searched row."""
    row, all_ = named(results, "searched"), named(results, "all")
    if row is None:
        return None
    search = results.get("search")
    arch = search["arch"] if search else None
    offered = {feature["name"]: feature for feature in search["features"]} if search else {}
    kept = row.get("features") or (arch["features"] if arch else [])
    features = [
        _Kept(name, offered[name]["source"], offered[name]["fetch_us"]) if name in offered else _Kept(name, "", None)
        for name in kept
    ]
    gates = search["history"][-1].get("gates") if search and search["history"] else None
    return Section(
        sources=[
            Source(
                name=label(source),
                count=len(members),
                slowest=micros(max((f.fetch_us for f in members if f.fetch_us is not None), default=None)),
                features=[(label(f.name), "" if f.fetch_us is None else f"{f.fetch_us:,.4g}") for f in members],
            )
            for source, members in by_source(features, gates or _in_order(kept)).items()
        ],
        kept=len(kept),
        of=len(offered),
        widths=_said(row.get("widths") or (arch["widths"] if arch else None)),
        changes=_changes(kept, all_.get("features") if all_ else None),
        times=_times(row, all_, arch),
        error=_error(row, arch),
    )


def pictures(results: Results) -> dict[str, Picture]:
    """The figures of the search, each with its words."""
    search = results.get("search")
    if named(results, "searched") is None or not search:
        return {}
    if "front" in search:
        front, budget_us = search["front"], search["arch"]["budget_us"]
        points = ", ".join(f"{percent(p['metric'])}% in {micros(p['latency_us'])} µs" for p in front["points"])
        words = (
            f"Steps of the most that was kept within each latency: {points}.",
            "The most that a student keeps within each latency, on the validation days, of all that the search has "
            "trained; the star is the hand-picked features.",
        )
        return {"front": Picture(front_figure(front, budget_us), *words)}
    if not search["history"]:
        return {}
    arch, last = search["arch"], search["history"][-1]
    drawn = search_figures(
        search["history"],
        arch=Arch(tuple(arch["features"]), tuple(arch["widths"])),
        features=[_Priced(f["name"], f["source"], f["fetch_us"]) for f in search["features"]],
        widths=tuple(search["widths"]),
        budget_us=arch["budget_us"],
    )
    words = {
        "gates": (
            "Tiles of each feature's gate by epoch, the features by source. Kept at the end: "
            f"{', '.join(label(name) for name in arch['features'])}.",
            "Each feature's gate by epoch, the fuller the likelier. Beside the name, what the feature takes to fetch, "
            "µs; on the right the last probability, and a dot where it was kept: the best set that fits the budget.",
        ),
        "latency": (
            "Lines of the expected time by epoch: "
            + ", ".join(f"{what} {micros(number(last, key))}" for key, what in TIMES.items())
            + f", budget {micros(arch['budget_us'])} at the end.",
            "What a request is expected to take while features and widths are still a matter of chance, and how "
            "undecided they are. Where the entropy stays high, the choice is nearly a toss.",
        ),
        "widths": (
            f"Lines of the probability of each width, a panel a layer. Chosen: {_said(arch['widths'])}.",
            "A layer of the width skip is left out. The width that was chosen is thick and has a dot.",
        ),
    }
    return {name: Picture(figure, *words[name]) for name, figure in drawn.items()}


def _in_order(names: Sequence[str]) -> dict[str, float]:
    """In place of probabilities, where the search told none."""
    return {name: -place for place, name in enumerate(names)}


def _said(widths: list[int] | None) -> str:
    if widths is None:
        return "-"
    said = ", ".join(str(width) for width in widths if width) or "none: the scores are linear in the features"
    skipped = sum(not width for width in widths)
    return said + (f" ({skipped} of {len(widths)} layers skipped)" if skipped and skipped < len(widths) else "")


def _changes(kept: Sequence[str], before: list[str] | None) -> str:
    if not kept or not before:
        return ""
    added, dropped = ([label(n) for n in a if n not in b] for a, b in ((kept, before), (before, kept)))
    said = [f"adds {', '.join(added)}"] * bool(added) + [f"leaves out {', '.join(dropped)}"] * bool(dropped)
    return f"Against the features of all, the search {' and '.join(said)}." if said else ""


def _times(row: Row, all_: Row | None, arch: FoundArch | None) -> Table:
    lines: dict[str, Mapping[str, object]] = {
        "predicted": arch or {},
        "measured": row,
        "all, measured": all_ or {},
        "budget": {"latency_us": arch["budget_us"]} if arch else {},
    }
    cells = {name: [number(line, key) for key in TIMES] for name, line in lines.items()}
    return Table(
        list(TIMES.values()),
        [
            Line(name, [None if time is None else Cell(micros(time)) for time in times])
            for name, times in cells.items()
            if any(time is not None for time in times)
        ],
    )


def _error(row: Row, arch: FoundArch | None) -> str:
    measured = row.get("inference_us")
    return f"{100 * (measured / arch['inference_us'] - 1):+.0f}%" if arch and measured is not None else ""
