"""Evaluates a student on the test days: overlap with the teacher, hit-rates, NDCG, AUC, and the replay of the cascade.

    python -m workflows.evaluate --logs runs/logs --teacher runs/teacher --student runs/student --out runs/results.json

Beside `results.json` stands `results.requests.parquet`, the metrics request by request, for paired comparisons.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import Positive, Seed, Within
from prerank.core.outputs import write_json
from prerank.core.storage import place, write_parquet
from prerank.evaluation.evaluate import evaluate
from prerank.evaluation.plan import plan
from prerank.evaluation.preflight import LOGGED
from prerank.evaluation.results_file import beside, finished
from prerank.logs.folder import open_logs
from prerank.reports.cautions import warn_of


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


if __name__ == "__main__":
    cli.run(main, Evaluate)
