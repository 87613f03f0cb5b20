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
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, cast

from rich.console import Console

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import Positive, Seed, Share, Weight, Widths, Within, names, plain, widths
from prerank.core.counts import lines
from prerank.core.errors import InputError
from prerank.core.outputs import write_json
from prerank.core.storage import write_parquet
from prerank.evaluation.evaluate import evaluate, plan
from prerank.evaluation.preflight import check_clicks, check_lists, check_truth_of, space_of
from prerank.evaluation.results_file import finished
from prerank.latency.formula import latency_us
from prerank.latency.options import Latency
from prerank.latency.served import serving_costs
from prerank.latency.table import load_table
from prerank.logs.folder import Logs, open_logs
from prerank.logs.schema import load_schema
from prerank.models.checkpoint import Proof
from prerank.models.options import Arm, Distill, Hard, Optim, Positions
from prerank.reports.cautions import warn_of
from prerank.reports.pipeline.page import write_report
from prerank.reports.pipeline.summary import log, rows_of, search_facts
from prerank.reports.pipeline.table import terminal_table
from prerank.reports.results import Results, SearchFacts
from prerank.reports.study.show import terminal_table as study_table
from prerank.reports.study.show import write_study
from prerank.samples.build import Split
from prerank.samples.draw import DrawConfig
from prerank.samples.files import candidates_of, check_k
from prerank.search import study
from prerank.search.options import Search
from prerank.search.preflight import check_budget, check_features, check_search
from prerank.tracking.runs import Run, run
from prerank.training.arms import TEACHER, student_arm
from prerank.training.group import train_models
from prerank.training.ladder import ladder, only_scores
from prerank.training.options import Compute
from prerank.training.rungs import Rung, fed, models_of, of_models, of_search, of_techniques
from prerank.training.study import studied as study_of
from prerank.training.worker import Job
from workflows import build_samples, profile_latency, search_arch, teach, train_teacher

CURVE = (10, 25, 50, 75, 100, 150, 200, 300, 400)


@dataclass(frozen=True)
class Pipeline:
    """Run the whole line, from logs to an evaluated, distilled pre-ranking student."""

    logs: Path
    out: Path
    features: str = ""
    """The students' features, with commas; empty: the schema's hand_picked, or all that are not teacher_only."""
    widths: Widths = "64,32"
    """Hidden widths of the students, with commas."""
    teacher_widths: Widths = "256,128,64"
    """Hidden widths of the teacher, with commas."""
    unexposed_ratio: Weight = 3.0
    """Unexposed negatives for each exposed item in the teacher's training."""
    k: Positive = 150
    """Items that pre-ranking keeps."""
    m: Annotated[int | None, Within(1)] = None
    """The teacher's top M that the K are held against; by default K."""
    val_requests: Positive = 300
    """Requests of the validation day that decide on early stopping."""
    max_dropped: Share = 0.05
    """Stop where faults of the logs cost more than this share of the rows."""
    seed: Seed = 0
    draw: DrawConfig = DrawConfig()
    split: Split = Split()
    positions: Positions = "teacher"
    """Whose order of the fine lists the strategies and rank bins follow: the teacher's, or the one that was logged."""
    hard: Hard = "pairwise"
    """The students' loss of the strategies' pairs; as in train_student."""
    distill: Distill = Distill(score=1.0, contrast=10.0)
    """What the arms score and contrast distil; all and the search its scores, and_contrast both."""
    budget_us: Annotated[float | None, Within(0, above=True)] = None
    """Hard limit of fetch and inference of the searched student; by default what the students' features cost."""
    search: Search = Search()
    latency: Latency = Latency(candidates=0)
    """Of the search; 0 candidates: as many as the requests of the validation day have (their median)."""
    optim: Optim = Optim()
    """Of the students and the search."""
    teacher_optim: Optim = TEACHER
    compute: Compute = Compute()
    study: Literal["none", "ladder", "distill", "search", "all"] = "none"
    """Instead of the line's own comparison: models, what is distilled, what is searched, or all of these, by seeds."""
    seeds: Positive = 3
    """Of a study: this one and those after it."""
    models: str = ""
    """Of the ladder, with commas; empty: all, from the linear combination of 2016 on."""


def main(config: Pipeline) -> Results | study.Results:
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
        rungs = ladder(base)
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


def prepared(config: Pipeline, logs: Logs, out: Path, parent: Run) -> tuple[Path, Path, dict[str, Proof]]:
    """Builds samples, measures the host, trains the teacher and has it teach; what is there is left alone.

    Returns the latency table, the taught samples and the teacher's proof.
    """
    samples, teacher, taught = out / "samples", out / "teacher", out / "taught"
    with child("build_samples", out, parent) as tracked:
        shared = {name: getattr(config, name) for name in ("seed", "val_requests", "max_dropped", "draw", "split")}
        built = build_samples.main(build_samples.BuildSamples(logs.folder, samples, **shared))
        tracked.metrics({f"samples/{what}": float(rows) for what, _, rows in lines(built["counts"])})
        tracked.artifact(samples / "manifest.json")
    check_k(samples, config.k)
    check_clicks(samples)
    table = profiled(config, samples, out, parent)
    shared = {name: getattr(config, name) for name in ("unexposed_ratio", "k", "seed", "compute")}
    shared |= {"widths": config.teacher_widths, "optim": config.teacher_optim}
    to_teach = train_teacher.TrainTeacher(samples, teacher, **shared)
    proof = train_teacher.main(to_teach, parent)
    with child("teach", out, parent) as tracked:
        rows = teach.main(teach.Teach(samples, teacher, taught, gpu=config.compute.gpu))["rows"]
        tracked.metrics({"requests": float(sum(rows.values()))})
    return table, taught, proof


def studied(config: Pipeline) -> study.Results:
    """The samples, teacher and table of the line, made or found, and the study on them."""
    config.compute.check()
    logs, out = open_logs(config.logs.resolve()), config.out.resolve()
    models, folder = models_of(names(config.models)), out / "study" / config.study
    check(config, logs)
    if config.study in ("ladder", "all"):
        fed(models, names(config.features) or logs.schema.student_features, logs.schema)
    start_ray()
    with run("study", out=folder, state=folder / "run.json", params=plain(config)) as parent:
        table, taught, _ = prepared(config, logs, out, parent)
        shared = {name: getattr(config, name) for name in ("hard", "positions", "distill", "optim", "seed")}
        plain_ = student_arm(taught, features=names(config.features), widths=widths(config.widths), **shared)
        base = ladder(plain_)["all"][1]
        rungs: list[Rung] = []
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
    Console(width=max(110, Console().width)).print(study_table(results))
    for sentence in results["said"]:
        print(sentence)
    warn_of(results["logs"])
    print(f"{folder}/study.html\nmlflow ui --backend-store-uri {parent.uri}   (run {parent.run_id})")
    return results


def cold_features(config: Pipeline, taught: Path, table: Path, out: Path, parent: Run) -> tuple[str, ...]:
    """Those that squeeze and excitation values most within the budget."""
    sought_ = sought(config, taught, table, out)
    cold = replace(sought_, out=out / "study" / "cold", search=replace(config.search, method="squeeze_excite"))
    return tuple(search_arch.main(cold, parent)["features"])


def check(config: Pipeline, logs: Logs) -> None:
    """Raises InputError where a later step would find fault with the logs or the options, as far as one can know."""
    if config.split.test_days < 1:
        raise InputError(f"split.test_days {config.split.test_days}: expected 1 or more, to evaluate the students on")
    val_from, test_from = config.split.bounds(logs)
    space_of(logs, test_from)
    check_truth_of(logs, test_from)
    check_lists(logs, val_from, test_from, k=config.k, m=config.m)
    features = check_features(logs.schema, names(config.features), budget_us=config.budget_us)
    options = {name: getattr(config, name) for name in ("hard", "distill", "optim")}
    base = Arm("student", features, widths(config.widths), **options)
    arms = [arm for _, arm in ladder(base).values()]
    ratio, optim = config.unexposed_ratio, config.teacher_optim
    teacher = Arm("teacher", logs.schema.names, widths(config.teacher_widths), hard="listwise", optim=optim)
    for arm in (*arms, replace(teacher, unexposed_ratio=ratio)):
        arm.check()
    check_search(config.search, config.latency, config.distill, name="pipeline")


def child(name: str, out: Path, parent: Run) -> AbstractContextManager[Run]:
    """The run of one step."""
    return run(name, out=out, state=out / f".{name}.run.json", params={}, parent=parent)


def profiled(config: Pipeline, samples: Path, out: Path, parent: Run) -> Path:
    """The latency table of the search; raises InputError where not even the cheapest network fits the budget."""
    table = out / "latency.json"
    candidates = config.latency.candidates or candidates_of(samples)
    profile = profile_latency.ProfileLatency(
        samples,
        table,
        widths=",".join(name for name in names(f"{config.search.widths},{config.widths}") if name != "0"),
        candidates=str(candidates),
        threads=str(config.latency.threads),
        runtimes="onnxruntime",
        repeats=50,
        networks=10,
    )
    profile_latency.main(profile, parent, any_host=True)  # a job that lost its head goes on where the next one is
    check_budget(search_arch.spec_of(sought(config, samples, table, out)), load_schema(samples))
    return table


def sought(config: Pipeline, samples: Path, table: Path, out: Path) -> search_arch.SearchArch:
    """The search under what the students' features and widths cost, or the budget that is given."""
    schema, latency = load_schema(samples), config.latency
    latency = replace(latency, candidates=latency.candidates or candidates_of(samples))
    measured = load_table(table, candidates=latency.candidates, threads=latency.threads)
    features = schema.select(names(config.features) or schema.student_features, where="--features")
    of_base_us = latency_us(measured, features, schema.fetch, widths(config.widths))
    shared = {name: getattr(config, name) for name in ("widths", "k", "seed", "search", "optim", "compute")}
    shared |= {"distill": only_scores(config.distill)}
    limits = {"budget_us": config.budget_us or of_base_us, "latency": latency}
    return search_arch.SearchArch(samples, table, out / "search", **limits, **shared)


def searched(config: Pipeline, taught: Path, table: Path, out: Path, parent: Run) -> SearchFacts:
    arch = search_arch.main(sought(config, taught, table, out), parent)
    return search_facts(arch, out / "search", load_schema(taught), widths(config.search.widths))


def command(config: Pipeline) -> str:
    """The command line that says the same."""
    defaults = plain(Pipeline(config.logs, config.out))
    changed = [f"--{key} {value}" for key, value in plain(config).items() if value != defaults[key]]
    return " ".join([f"python -m workflows.pipeline --logs {config.logs} --out {config.out}", *changed])


if __name__ == "__main__":
    cli.run(main, Pipeline)
