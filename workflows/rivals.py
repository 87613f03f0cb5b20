"""Compares AutoFAS with other ways to choose a student's features, at equal latency budgets and over several seeds.

    python -m workflows.rivals --logs runs/logs --samples runs/demo/taught --teacher runs/demo/teacher \
        --latency-table runs/latency.json --out runs/rivals

The budgets are shares of what the schema's hand_picked set takes with the base widths. Every student that is derived is
trained from scratch with the same distillation, and all are evaluated together on the test days. The same command goes
on where it was stopped; with more seeds, budgets or methods it adds to what is there.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from rich.console import Console

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import Positive, Widths, plain
from prerank.core.errors import InputError
from prerank.core.outputs import write_json
from prerank.core.storage import write_parquet
from prerank.evaluation.evaluate import evaluate
from prerank.evaluation.plan import plan
from prerank.evaluation.preflight import check_truth_of
from prerank.latency.options import Latency
from prerank.logs.folder import open_logs
from prerank.logs.schema import load_schema
from prerank.models.options import Distill, Optim
from prerank.reports.cautions import warn_of
from prerank.reports.search.rivals import best_lines, recall_against_latency, terminal_table
from prerank.samples.files import samples_manifest
from prerank.search import contest
from prerank.search.contest import METHODS, Contest, Results
from prerank.search.options import Search
from prerank.tracking.runs import run
from prerank.training.group import train_models
from prerank.training.options import Compute
from prerank.training.worker import Job
from workflows import search_arch


@dataclass(frozen=True)
class Rivals:
    """Compare searched students with rivals of equal latency."""

    logs: Path
    samples: Path
    """A folder made by workflows.teach."""
    teacher: Path
    latency_table: Path
    """The latency.json of workflows.profile_latency."""
    out: Path
    budgets: str = "0.5,1,2"
    """Shares of the latency of the hand_picked set with the base widths, with commas."""
    seeds: Positive = 5
    """Of search and training both: 0, 1, ..."""
    methods: str = ",".join(METHODS)
    """With commas."""
    widths: Widths = "64,32"
    """Base widths, which rivals keep."""
    k: Positive = 150
    """Items that pre-ranking keeps."""
    search: Search = Search()
    latency: Latency = Latency()
    distill: Distill = Distill(score=1.0)
    optim: Optim = Optim()
    compute: Compute = Compute()


def main(config: Rivals) -> Results:
    """Returns what stands in results.json."""
    config.compute.check()
    methods, factors = contest.methods_of(config.methods), contest.factors_of(config.budgets, config.seeds)
    contest.check_widths(config.widths, config.search)
    logs, out = open_logs(config.logs.resolve()), config.out.resolve()
    samples, schema = config.samples.resolve(), load_schema(config.samples)
    rounds = Contest(search_arch.spec_of(_reference(config)), methods, factors, config.seeds)
    rounds.check(samples, schema)
    teacher = str(config.teacher.resolve())
    tested_from = plan(logs, teacher, {}, k=config.k).test_from
    check_truth_of(logs, tested_from)
    if tested_from != np.datetime64(samples_manifest(samples)["split"]["test_from"]):
        raise InputError(
            f"{teacher}: kept from the test days since {tested_from}, and {samples} from others; name the teacher that "
            "was trained on these samples"
        )
    start_ray()
    with run("rivals", out=out, state=out / "run.json", params=plain(config)) as parent:
        found = contest.searched(rounds.specs(), Job(samples, config.compute, config.k), out)
        entries = rounds.entries(found, schema)
        arms = {out / "students" / entry.student: rounds.student(entry) for entry in entries}
        work = out / ".students.work"
        train_models(arms, samples, kind="student", work=work, compute=config.compute, k=config.k, parent=parent)
        planned = plan(logs, teacher, {folder.name: folder for folder in arms}, k=config.k)
        key = contest.key_of_results(planned.key, rounds, entries)
        results = cast(Results | None, contest.known(out / "results.json", key))
        if results is None:
            measured = evaluate(planned)
            write_parquet(measured.per_request, out / "requests.parquet")
            results = rounds.results(entries, measured, key=key, logs=config.logs, mlflow=parent.uri)
            for metrics in contest.metrics_of(results):
                parent.metrics(metrics)
            parent.artifact(out / "requests.parquet")
            parent.figures({"recall_against_latency": recall_against_latency(results)})
            write_json(out / "results.json", results)
    Console(width=max(Console().width, 130)).print(terminal_table(results))
    for line in best_lines(results):
        print(line)
    warn_of(results["logs"])
    print(f"{out}/results.json\nmlflow ui --backend-store-uri {parent.uri}   (run {parent.run_id})")
    return results


def _reference(config: Rivals) -> search_arch.SearchArch:
    """The search whose budget is what the hand_picked features cost with the base widths."""
    shared = ("samples", "latency_table", "out", "widths", "k", "latency", "distill", "optim", "compute")
    options = {name: getattr(config, name) for name in shared}
    return search_arch.SearchArch(**options, search=replace(config.search, method="hand_picked"))


if __name__ == "__main__":
    cli.run(main, Rivals)
