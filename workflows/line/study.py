"""A study on the samples, teacher and table of the line: each rung tuned alike, then trained with every seed."""

from typing import cast

from rich.console import Console

from prerank.core.cluster.start import start_ray
from prerank.core.config import names, plain, widths
from prerank.core.outputs import write_json
from prerank.core.storage import write_parquet
from prerank.evaluation.evaluate import evaluate
from prerank.evaluation.results_file import finished
from prerank.logs.folder import open_logs
from prerank.reports.cautions import warn_of
from prerank.reports.study.show import terminal_table, write_study
from prerank.samples.files import candidates_of
from prerank.search import study
from prerank.tracking.runs import run
from prerank.training.arms import student_arm
from prerank.training.ladder import ladder
from prerank.training.rungs import Rung, fed, models_of, of_models, of_one, of_search, of_techniques
from prerank.training.study import studied as study_of
from prerank.training.worker import Job
from workflows.line.options import Pipeline
from workflows.line.steps import check, cold_features, prepared, searched


def studied(config: Pipeline) -> study.Results:
    """The samples, teacher and table of the line, made or found, and the study on them."""
    config.compute.check()
    logs, out = open_logs(config.logs.resolve()), config.out.resolve()
    models, folder = models_of(names(config.models)), out / "study" / config.study
    check(config, logs)
    if config.study in ("ladder", "all"):
        fed(models, names(config.features) or logs.schema.student_features, logs.schema)
    start_ray()
    tags = {"out": str(folder)}  # its MLflow is that of the line
    with run("study", out=out, state=folder / "run.json", params=plain(config), tags=tags) as parent:
        table, taught, _ = prepared(config, logs, out, parent)
        shared = {name: getattr(config, name) for name in ("hard", "positions", "distill", "optim", "seed")}
        plain_ = student_arm(taught, features=names(config.features), widths=widths(config.widths), **shared)
        base = ladder(plain_)["all"][1]
        rungs: list[Rung] = of_one(plain_, taught, config.k)
        if config.study in ("ladder", "all"):
            cold = cold_features(config, taught, table, out, parent) if "cold" in models else ()
            rungs += of_models(base, taught, models, cold)
        if config.study in ("distill", "all"):
            rungs += of_techniques(plain_)
        if config.study in ("search", "all"):
            found = searched(config, taught, table, out, parent)["arch"]
            rungs += of_search(base, (tuple(found["features"]), tuple(found["widths"])))
        job = Job(taught, config.compute, config.k)
        done = study_of(rungs, job, folder, seeds=config.seeds, parent=parent)
        asked = study.plan_of(config.study, done, logs, str(out / "teacher"), k=config.k, m=config.m)
        results = cast(study.Results | None, finished(folder / "study.json", asked.key))
        if results is None:
            measured = evaluate(asked.plan, seed=config.seed)
            candidates = config.latency.candidates or candidates_of(taught)
            shared = {"candidates": candidates, "threads": config.latency.threads, "mlflow": parent.uri}
            results = asked.results(measured, **shared)
            write_parquet(measured.per_request, folder / "requests.parquet")
            write_study(results, folder)
            parent.metrics({f"{row['name']}/recall_at_{config.k}": row["recall"]["mean"] for row in results["rows"]})
            for name in ("study.html", "study.png"):
                parent.artifact(folder / name)
            write_json(folder / "study.json", results)
    Console(width=max(110, Console().width)).print(terminal_table(results))
    for sentence in results["said"]:
        print(sentence)
    warn_of(results["logs"])
    print(f"{folder}/study.html\nmlflow ui --backend-store-uri {parent.uri}   (run {parent.run_id})")
    return results
