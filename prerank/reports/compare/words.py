"""What compared runs come to, in sentences: the headline, which front dominates which, and how to read each figure."""

from collections.abc import Iterable, Sequence

from prerank.evaluation.compare_json import ComparedRow, Results
from prerank.reports.words import Edges, change, excludes_zero, is_whole, label, micros, percent

ABOUT_THE_SAME = 0.05
"""Costs that differ by less, as a share, are called the same."""


def finding(results: Results) -> str:
    """The headline: which run keeps most, how surely, and how many others these requests cannot tell from the base."""
    rows, k = results["rows"], results["k"]
    best, base = rows[0], _base(results)
    sentence = (
        f"Of {len(rows):,} runs {label(best['label'])} keeps the most of the teacher's top {k}: "
        f"{percent(best['recall'])}% (95% interval {_edges(best['recall_ci'])})"
    )
    against = versus(best, "recall")
    if against:
        sentence += f", against {label(base['label'])} {change(against)}"
    even = _even(results)
    if len(rows) > 1:
        doubt = f"cannot tell {len(even):,} of the others from" if even else "tell all the others from"
        sentence += f". {results['requests']:,} requests {doubt} {'it' if best is base else label(base['label'])}"
    quickest = min(_timed([base, *even]), key=lambda timed: timed[0], default=None)
    if quickest and base["latency_us"] is not None and quickest[0] < base["latency_us"]:
        least, quick = quickest
        sentence += (
            f"; the quickest of these is {label(quick['label'])}, "
            f"{micros(least)} µs a request instead of {micros(base['latency_us'])}"
        )
    return f"{sentence}."


def not_shown(results: Results, top: int) -> list[str]:
    """What a table of the best `top` runs leaves to the page."""
    more, left_out = len(results["rows"]) - top, len(results["left_out"])
    said = [f"... and {more:,} more: --top N, or the page"] if more > 0 else []
    return said + ([f"{left_out:,} runs left out, with reasons on the page"] if left_out else [])


def front_sentences(results: Results) -> list[str]:
    """Of each pair of fronts which dominates which, in what, and at what cost."""
    spent = {group["name"]: group["epochs"] for group in results["groups"]}
    sizes = {group["name"]: len(group["front"]) for group in results["groups"]}
    said = []
    for pair in results["pairs"]:
        a, b = pair["a"], pair["b"]
        same = abs(spent[a] - spent[b]) <= ABOUT_THE_SAME * max(spent[a], spent[b])
        cost = f"{'of the same cost' if same else 'of another cost'} ({spent[a]:,} epochs against {spent[b]:,})"
        verb = "dominates" if pair["dominates"] == a else "does not dominate"
        counts = (
            f"it covers {pair['covered_of_b']} of the {sizes[b]} points of {b}, and {b} covers "
            f"{pair['covered_of_a']} of the {sizes[a]} points of {a}"
        )
        sentence = f"The front of {a} {verb} that of {b}, {cost}: {counts}."
        if pair["dominates"] == b:
            sentence += f" It is {b} whose front dominates that of {a}."
        if pair["difference"] is not None and is_whole(pair["difference"]):
            sentence += f" In hypervolume {a} differs from {b} by {change(pair['difference'])}."
        said.append(sentence)
    return said


def captions(results: Results) -> dict[str, tuple[str, str]]:
    """`{figure: (what it shows, for who does not see it; how to read it)}`."""
    k, rows = results["k"], results["rows"]
    best = rows[0]
    front = ", ".join(
        f"{label(row['label'])} {percent(row['recall'])}% in {micros(row['latency_us'])} µs"
        for _, row in sorted(_timed(row for row in rows if row["front"]), key=lambda timed: timed[0])
    )
    swept = ", ".join(f"{key} {shown(best['params'][key])}" for key in results["swept"])
    several = len(results["groups"]) > 1
    every = "each its own front as steps" if several else "the front as steps"
    stopped = any(row["stopped_early"] and row["curve"] for row in results["left_out"])
    untimed = sum(row["latency_us"] is None for row in rows)
    return {
        "pareto": (
            f"Points of recall@{k} against the latency of a request. On the front of all: {front}.",
            f"A point a run, {every}: at a time given, what the best that takes no longer keeps. Large points are on "
            "the front, with their 95% interval; a name stands at those on the front of all runs."
            + (f" {untimed:,} runs without a latency are not in it." if untimed else ""),
        ),
        "parallel": (
            f"Lines of the swept keys and recall@{k}, one a run. The best: {swept}.",
            "The stronger a line, the higher its recall among the runs; the best mean recall is thick. An axis is "
            "logarithmic where most values are small and they span decades.",
        ),
        "response": (
            f"Points of recall@{k} against each swept key. The best: {swept}.",
            "A point a run, with its 95% interval over requests. The line is the median: of the runs of each value, or "
            "of the quarter of the runs that lies nearest. The other keys vary along with the one that is shown.",
        ),
        "features": (
            "Shares of the runs that use each feature.",
            "How often a feature was chosen. A sampler that has found its way runs many alike, so that a large share "
            "of all runs is no evidence by itself; the front is made of few.",
        ),
        "curves": (
            f"Lines of validation recall@{k} by epoch, one a run. The best ends at "
            f"{percent(best['curve'][-1][1]) if best['curve'] else '-'}%.",
            "A line that still rises at its end would gain from more epochs."
            + (" A cross is where a run was stopped early." if stopped else ""),
        ),
    }


def versus(row: ComparedRow, metric: str) -> Sequence[float] | None:
    """`[difference, lo, hi]` to the base; None of the base itself."""
    interval = (row["vs_base"] or {}).get(metric)
    return interval if is_whole(interval) else None


def shown(value: float | str | None) -> str:
    """The value of a swept key."""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _base(results: Results) -> ComparedRow:
    return next(row for row in results["rows"] if row["vs_base"] is None)


def _even(results: Results) -> list[ComparedRow]:
    """The rows whose recall these requests cannot tell from the base's."""
    return [row for row in results["rows"] if (v := versus(row, "recall")) and not excludes_zero(v)]


def _timed(rows: Iterable[ComparedRow]) -> list[tuple[float, ComparedRow]]:
    return [(latency_us, row) for row in rows if (latency_us := row["latency_us"]) is not None]


def _edges(interval: Edges) -> str:
    return " to ".join(percent(edge) for edge in interval)
