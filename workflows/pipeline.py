"""The whole line on one folder of logs: samples, teacher, students of every technique, a search, evaluation, report.

    python -m workflows.pipeline --logs runs/logs --out runs/demo

Each step writes a folder of its own under `--out`; the same command goes on where it was stopped. At the end stand
`results.json`, `report.html` and a table, and everything is in MLflow.

    python -m workflows.pipeline --logs runs/logs --out runs/demo --study ladder --seeds 3

compares on the same samples what pre-ranking has been: each model tuned by a few trainings on the validation day, then
trained with every seed; `study/ladder/` has study.json, study.html and study.png. `distill` does so with what is
distilled, `search` with what a search finds, `all` with the three.
"""

import time
from dataclasses import replace
from typing import cast

from rich.console import Console

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import names, plain, widths
from prerank.core.outputs import write_json
from prerank.core.storage import write_parquet
from prerank.evaluation.evaluate import evaluate
from prerank.evaluation.plan import plan
from prerank.evaluation.results_file import finished
from prerank.latency.served import serving_costs
from prerank.logs.folder import open_logs
from prerank.reports.cautions import warn_of
from prerank.reports.pipeline.page import write_report
from prerank.reports.pipeline.summary import log, rows_of
from prerank.reports.pipeline.table import terminal_table
from prerank.reports.results import Results
from prerank.search.study import Results as StudyResults
from prerank.tracking.runs import run
from prerank.training.arms import student_arm
from prerank.training.group import train_models
from prerank.training.ladder import ladder
from prerank.training.single import of_one_feature
from workflows.line.options import Pipeline, command
from workflows.line.steps import check, child, prepared, searched
from workflows.line.study import studied

CURVE = (10, 25, 50, 75, 100, 150, 200, 300, 400)


def main(config: Pipeline) -> Results | StudyResults:
    """Returns what stands in results.json, or in the study's study.json."""
    if config.study != "none":
        return studied(config)
    begun = time.monotonic()
    config.compute.check()
    logs, out = open_logs(config.logs.resolve()), config.out.resolve()
    teacher = out / "teacher"
    check(config, logs)
    start_ray()
    with run("pipeline", out=out, state=out / "run.json", params=plain(config)) as parent:
        table, taught, proof = prepared(config, logs, out, parent)
        shared = {name: getattr(config, name) for name in ("hard", "positions", "distill", "optim", "seed")}
        base = student_arm(taught, features=names(config.features), widths=widths(config.widths), **shared)
        rungs = of_one_feature(base, taught, config.k) | ladder(base)
        search = searched(config, taught, table, out, parent)
        found = {"features": tuple(search["arch"]["features"]), "widths": tuple(search["arch"]["widths"])}
        rungs["searched"] = (
            "all, with the features and widths that a search found within the latency of the others",
            replace(rungs["all"][1], name="searched", **found),
        )
        students = {out / "students" / name: arm for name, (_, arm) in rungs.items()}
        shared = {"work": out / ".students.work", "compute": config.compute, "k": config.k}
        trained = train_models(students, taught, kind="student", parent=parent, **shared)
        planned = plan(logs, str(teacher), {path.name: path for path in students}, k=config.k, m=config.m, curve=CURVE)
        results = cast(Results | None, finished(out / "results.json", planned.key))
        if results is None:
            with child("evaluate", out, parent) as tracked:
                measured = evaluate(planned, seed=config.seed)
                tracked.metrics({name: float(measured.facts[name]) for name in ("requests", "candidates")})
            models = {path.name: (path, "student") for path in students} | {"teacher": (teacher, "teacher")}
            arch = search["arch"]
            costs = serving_costs(models, candidates=arch["candidates"], threads=arch["threads"])
            results = Results(
                logs={"path": str(config.logs), **measured.facts},
                rows=rows_of(measured, rungs, trained, costs),
                teacher_groups={name: values["hit_rate"] for name, values in proof.items()},
                commands=[command(config)],
                mlflow=parent.uri,
                key=planned.key,
                search=search,
            )
            write_parquet(measured.per_request, out / "requests.parquet")
            write_report(results, out / "report.html")
            log(results, out, parent)
            write_json(out / "results.json", results)
    Console(width=max(100, Console().width)).print(terminal_table(results))
    warn_of(results["logs"])
    print(f"{out}/report.html\nmlflow ui --backend-store-uri {parent.uri}   (run {parent.run_id})")
    print(f"{len(students)} students in {time.monotonic() - begun:.0f} s")
    return results


if __name__ == "__main__":
    cli.run(main, Pipeline)
