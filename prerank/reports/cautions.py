"""Where the figures of an evaluation mean less than they seem to."""

import sys

from prerank.evaluation.summed import Facts
from prerank.training.few import FEW, points_of


def warn_of(facts: Facts) -> None:
    """Prints a line for each reason there is."""
    if facts["space"] == "fine_lists":
        print(
            "note: no candidates/ of the test days to evaluate on (or the teacher is logged): these figures are over "
            "the fine lists"
        )
    others = facts["noted"].get("not_drawn")
    if others:
        print(f"note: {facts['requests']:,} requests of the test were drawn, {others['requests']:,} were left out")
    lost = sum(n["rows"] for n in facts["dropped"].values())
    if lost:
        print(f"note: {lost:,} rows of the test were dropped for faults: {', '.join(facts['dropped'])}")
    if "pooled" in facts:
        print(f"note: AUC is over {facts['pooled']:,} of {facts['requests']:,} requests, drawn by request_id")
    if facts["requests_at_most_k"]:
        few = f"{facts['requests_at_most_k']} of {facts['requests']} requests"
        print(f"note: {few} have at most {facts['k']} candidates: their recall is 1")
    if "at_most_m" in facts["noted"]:
        few = f"{facts['noted']['at_most_m']['requests']} of {facts['requests']} requests"
        print(f"note: {few} have at most {facts['m']} candidates, all the teacher's top: any student keeps as many")
    if facts["requests"] < FEW:
        wide = f"a share over them is known to ±{points_of(facts['requests']):.0f} points"
        print(f"note: {facts['requests']} requests of the test: {wide}; a difference, to its own interval")
    warn_of_ties(facts)


def warn_of_ties(facts: Facts) -> None:
    """Says where scores do not tell items apart; results of earlier versions do not know."""
    if "ties" not in facts:
        return
    requests, top, same = facts["requests"], facts["ties"]["teachers_top"], facts["ties"]["one_score"]
    if 2 * same.get("teacher", 0) > requests:
        said = f"the teacher gives all items of {same['teacher']:,} of {requests:,} requests one score"
        print(f"WARNING: {said}: no student's recall is above another's there", file=sys.stderr)
    if top:
        said = f"in {top:,} of {requests:,} requests ties decide the teacher's top {facts['m']}"
        print(f"note: {said}: recall there is the mean over all ways to break them, and below 1 at best")
    for name, n in same.items():
        if name != "teacher" and 2 * n > requests:
            said = f"{name} gives all items of {n:,} of {requests:,} requests one score"
            print(f"note: {said}: there it is a blind draw")
