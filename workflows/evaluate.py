"""Evaluates a student on the test days: overlap with the teacher, hit-rates, NDCG, AUC, and the replay of the cascade.

    python -m workflows.evaluate --logs runs/logs --teacher runs/teacher --student runs/student --out runs/results.json

Beside `results.json` stands `results.requests.parquet`, the metrics request by request, for paired comparisons.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import Positive, Seed, Within
from prerank.core.errors import InputError
from prerank.core.outputs import write_json
from prerank.core.storage import place, write_parquet
from prerank.evaluation.evaluate import Facts, evaluate, plan
from prerank.evaluation.preflight import LOGGED
from prerank.logs.folder import open_logs
from prerank.training.few import FEW, points_of


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a student against its teacher on the test days of the logs."""

    logs: Path
    teacher: str
    """A folder made by workflows.train_teacher, or `logged` for the logs' own fine_score (over the fine lists)."""
    student: Path
    """A folder made by workflows.train_student."""
    out: Path
    """The results, a JSON file."""
    k: Positive = 150
    """Items that pre-ranking keeps."""
    m: Annotated[int | None, Within(1)] = None
    """The teacher's top M that the K are held against; by default K."""
    blocks: Annotated[int | None, Within(1)] = None
    """About how many parts to cut the logs into; changes no figure."""
    seed: Seed = 0
    """Of the bootstrap."""


def main(config: Evaluate) -> dict[str, object]:
    """Returns what it writes."""
    by_request = beside(config.out)
    logs = open_logs(config.logs.resolve())
    teacher = config.teacher if config.teacher == LOGGED else str(place(config.teacher).resolve())
    planned = plan(logs, teacher, {"student": config.student.resolve()}, k=config.k, m=config.m)
    done = finished(config.out, planned.key)
    if done:
        print(f"{config.out}: already done")
        return done
    start_ray()
    found = evaluate(planned, blocks=config.blocks, seed=config.seed)
    warn_of(found.facts)
    results: dict[str, object] = {**found.rows["student"], "logs": found.facts, "key": planned.key}
    write_parquet(found.per_request, by_request)
    write_json(config.out, results)
    shown = (f"recall_at_{config.k}", f"hit_rate_at_{config.k}", "ndcg_at_10", "auc", "gauc", "ctr")
    print(f"{config.out}: {', '.join(f'{key} {results[key]:.4f}' for key in shown if results.get(key) is not None)}")
    return results


def beside(out: Path) -> Path:
    """The table of requests of the results in `out`, named after all of its name but `.json`.

    Raises InputError where that is the table of other results: of `x.json` beside `x`.
    """
    stem = out.name.removesuffix(".json") or out.name
    twin = out.with_name(stem if stem != out.name else f"{out.name}.json")
    if twin.is_file():
        raise InputError(f"{out}: its {stem}.requests.parquet is that of {twin.name}; name another --out")
    return out.with_name(f"{stem}.requests.parquet")


def finished(out: Path, key: str) -> dict[str, object] | None:
    """The results in `out` if they are of this very evaluation; raises InputError if they are of another."""
    if not out.exists():
        return None
    try:
        results = json.loads(out.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{out}: is there and no results of this program ({error}); name another --out") from error
    if not isinstance(results, dict) or results.get("key") != key:
        raise InputError(f"{out}: already holds the results of other logs, models or options; name another --out")
    return results


def warn_of(facts: Facts) -> None:
    """Says where the figures mean less than they seem to."""
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


if __name__ == "__main__":
    cli.run(main, Evaluate)
