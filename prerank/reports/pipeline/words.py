"""What a pipeline's results come to, in sentences: the headline, and how to read each figure."""

from prerank.reports.results import Results, named, students, vs_base
from prerank.reports.search.section import gain
from prerank.reports.words import change, label, micros, number, percent
from prerank.training.single import SIDES

SPACES = {
    "candidates": "all candidates that pre-ranking received",
    "fine_lists": "the items that fine-ranking scored, as the logs hold no candidates: "
    "what the pre-ranker of the time had dropped is not in it",
}
"""By `logs.space`: what stands for a request in the evaluation."""


def finding(results: Results) -> str:
    """The headline: what the techniques together, or else the strongest arm, change over the base, and how surely.

    Then what a searched network changes over them.
    """
    k, name = results["logs"]["k"], f"recall_at_{results['logs']['k']}"
    arms = {
        row["name"]: (row, interval)
        for row in students(results)
        if row["name"] not in ("searched", *SIDES) and (interval := vs_base(row, name))
    }
    base = named(results, "base")
    if not arms or base is None or number(base, name) is None:
        return f"Recall@{k} and hit-rate@{k} of each arm.{gain(results)}"
    best, best_change = max(arms.values(), key=lambda arm: arm[1][0])
    arm, arm_change = arms.get("all", (best, best_change))
    who = "Strategies and scores together" if arm["name"] == "all" else f"The strongest arm, {label(arm['name'])},"
    keeps = "keep" if arm["name"] == "all" else "keeps"
    sentence = (
        f"{who} {keeps} {percent(number(arm, name))}% of the teacher's top {k}, the base student "
        f"{percent(number(base, name))}%: {change(arm_change)}"
    )
    hits = vs_base(arm, f"hit_rate_at_{k}")
    if hits:
        sentence += f"; and {percent(number(arm, f'hit_rate_at_{k}'))}% of the clicked items: {change(hits)}"
    if best is not arm:
        sentence += f". The strongest arm is {label(best['name'])}: {change(best_change)}"
    return f"{sentence}.{gain(results)}"


def captions(results: Results) -> dict[str, tuple[str, str]]:
    """`{figure: (what it shows, for who does not see it; how to read it)}`."""
    k = results["logs"]["k"]
    changes = [
        f"{label(row['name'])} {change(interval)}"
        for row in students(results)
        if (interval := vs_base(row, f"recall_at_{k}"))
    ]
    at_end = {
        metric: ", ".join(
            f"{label(row['name'])} {percent(means[-1])}%"
            for row in results["rows"]
            if (curve := row.get("curve")) and (means := curve.get(metric))
        )
        for metric in ("recall", "hit_rate")
    }
    timed = ", ".join(
        f"{label(row['name'])} {percent(number(row, f'recall_at_{k}'))}% in {micros(time)} µs"
        for row in students(results, base=True)
        if (time := row.get("latency_us")) is not None
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
            "by the formula, inference as measured where nothing else ran (the fifth percentile). Dots at nearly one "
            "time are pushed apart to stand side by side. A dotted line is the budget of the search. The teacher, 100% "
            "but for ties, is left out.",
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
