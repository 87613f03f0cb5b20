"""The whole line on one folder of logs: samples, teacher, students of every technique, a search, evaluation, report.

    python -m workflows.pipeline --logs runs/logs --out runs/demo

Each step writes a folder of its own under `--out`; the same command goes on where it was stopped. At the end stand
`results.json`, `report.html` and a table, and everything is in MLflow.
"""

import json
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import names, plain, widths
from prerank.core.counts import lines
from prerank.core.outputs import write_json
from prerank.core.storage import write_parquet
from prerank.evaluation.evaluate import Evaluation, evaluate, plan
from prerank.latency.formula import latency_us
from prerank.latency.options import Latency
from prerank.latency.served import serving_costs
from prerank.latency.table import load_table
from prerank.logs.folder import open_logs
from prerank.logs.schema import load_schema
from prerank.models.options import Arm, Distill, Optim
from prerank.reports.pipeline.figures import figures
from prerank.reports.pipeline.page import write_report
from prerank.reports.pipeline.table import terminal_table
from prerank.reports.search.section import pictures
from prerank.samples.build import Split
from prerank.samples.draw import DrawConfig
from prerank.samples.files import candidates_of, check_k
from prerank.search.options import Search
from prerank.tracking.runs import Run, run
from prerank.training.group import train_models
from prerank.training.ladder import ladder
from prerank.training.options import Compute
from workflows import build_samples, profile_latency, search_arch, teach, train_teacher
from workflows.evaluate import finished, warn_of

CURVE = (10, 25, 50, 75, 100, 150, 200, 300, 400)


@dataclass(frozen=True)
class Pipeline:
    """Run the whole line, from logs to an evaluated, distilled pre-ranking student."""

    logs: Path
    out: Path
    features: str = ""
    """The students' features, with commas; empty: the schema's hand_picked, or all that are not teacher_only."""
    widths: str = "64,32"
    """Hidden widths of the students, with commas."""
    teacher_widths: str = "256,128,64"
    """Hidden widths of the teacher, with commas."""
    unexposed_ratio: float = 3.0
    """Unexposed negatives for each exposed item in the teacher's training."""
    k: int = 150
    """Items that pre-ranking keeps."""
    m: int | None = None
    """The teacher's top M that the K are held against; by default K."""
    val_requests: int = 300
    """Requests of the validation day that decide on early stopping."""
    max_dropped: float = 0.05
    """Stop where faults of the logs cost more than this share of the rows."""
    seed: int = 0
    draw: DrawConfig = DrawConfig()
    split: Split = Split()
    distill: Distill = Distill(score=1.0, contrast=0.5)
    """What the arms score, contrast and all distil, and the search."""
    budget_us: float | None = None
    """Hard limit of fetch and inference of the searched student; by default what the students' features cost."""
    search: Search = Search()
    latency: Latency = Latency(candidates=0)
    """Of the search; 0 candidates: as many as the requests of the validation day have (their median)."""
    optim: Optim = Optim()
    compute: Compute = Compute()


def main(config: Pipeline) -> dict[str, Any]:
    """Returns what stands in results.json."""
    begun = time.monotonic()
    logs, out = open_logs(config.logs.resolve()), config.out.resolve()
    start_ray()
    with run("pipeline", out=out, state=out / "run.json", params=plain(config)) as parent:
        samples, teacher, taught = out / "samples", out / "teacher", out / "taught"
        with child("build_samples", out, parent) as tracked:
            shared = {name: getattr(config, name) for name in ("seed", "val_requests", "max_dropped", "draw", "split")}
            built = build_samples.main(build_samples.BuildSamples(logs.folder, samples, **shared))
            tracked.metrics({f"samples/{what}": float(rows) for what, _, rows in lines(built["counts"])})
            tracked.artifact(samples / "manifest.json")
        check_k(samples, config.k)
        shared = {name: getattr(config, name) for name in ("unexposed_ratio", "k", "seed", "optim", "compute")}
        proof = train_teacher.main(
            train_teacher.TrainTeacher(samples, teacher, widths=config.teacher_widths, **shared), parent
        )
        with child("teach", out, parent) as tracked:
            rows = teach.main(teach.Teach(samples, teacher, taught, gpu=config.compute.gpu))["rows"]
            tracked.metrics({"requests": float(sum(rows.values()))})
        features = load_schema(taught).select(names(config.features), where="--features")
        features = tuple(f.name for f in features) or load_schema(taught).student_features
        base = Arm(
            "base", features, widths(config.widths), distill=config.distill, optim=config.optim, seed=config.seed
        )
        rungs = ladder(base)
        arch, search = searched(config, base, taught, out, parent)
        rungs["searched"] = (
            "all, with the features and widths that a search found within the latency of the others",
            replace(rungs["all"][1], name="searched", features=tuple(arch["features"]), widths=tuple(arch["widths"])),
        )
        students = {out / "students" / name: arm for name, (_, arm) in rungs.items()}
        trained = train_models(
            students,
            taught,
            kind="student",
            work=out / ".students.work",
            compute=config.compute,
            k=config.k,
            parent=parent,
        )
        planned = plan(logs, str(teacher), {path.name: path for path in students}, k=config.k, m=config.m, curve=CURVE)
        results = finished(out / "results.json", planned.key)
        if results is None:
            with child("evaluate", out, parent) as tracked:
                found = evaluate(planned, seed=config.seed)
                tracked.metrics({name: float(found.facts[name]) for name in ("requests", "candidates")})
            models = {path.name: (path, "student") for path in students} | {"teacher": (teacher, "teacher")}
            costs = serving_costs(models, candidates=arch["candidates"], threads=arch["threads"])
            results = summed_up(config, found, rungs, trained, proof, costs, parent.uri)
            results |= {"key": planned.key, "search": search}
            write_parquet(found.per_request, out / "requests.parquet")
            write_report(results, out / "report.html")
            log(results, out, parent)
            write_json(out / "results.json", results)
    Console(width=max(100, Console().width)).print(terminal_table(results))
    warn_of(results["logs"])
    print(f"{out}/report.html\nmlflow ui --backend-store-uri {parent.uri}   (run {parent.run_id})")
    print(f"{len(students)} students in {time.monotonic() - begun:.0f} s")
    return results


def child(name: str, out: Path, parent: Run) -> AbstractContextManager[Run]:
    """The run of one step."""
    return run(name, out=out, state=out / f".{name}.run.json", params={}, parent=parent)


def searched(
    config: Pipeline, base: Arm, taught: Path, out: Path, parent: Run
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the search found, arch.json, and what the report shows of it."""
    candidates = config.latency.candidates or candidates_of(taught)
    latency = replace(config.latency, candidates=candidates)
    table = out / "latency.json"
    profile = profile_latency.ProfileLatency(
        taught,
        table,
        widths=",".join(name for name in names(f"{config.search.widths},{config.widths}") if name != "0"),
        candidates=str(candidates),
        threads=str(latency.threads),
        runtimes="onnxruntime",
        repeats=50,
        networks=10,
    )
    profile_latency.main(profile, parent, any_host=True)  # a job that lost its head goes on where the next one is
    shared = {name: getattr(config, name) for name in ("widths", "k", "seed", "search", "distill", "optim", "compute")}
    schema, folder = load_schema(taught), out / "search"
    measured = load_table(table, candidates=candidates, threads=latency.threads)
    of_base_us = latency_us(measured, schema.select(base.features, where="--features"), schema.fetch, base.widths)
    limits = {"budget_us": config.budget_us or of_base_us, "latency": latency}
    arch = search_arch.main(search_arch.SearchArch(taught, table, folder, **limits, **shared), parent)
    return arch, {
        "arch": arch,
        "history": json.loads((folder / "history.json").read_text()),
        "widths": list(widths(config.search.widths)),
        "features": [asdict(feature) for feature in schema.features if not feature.teacher_only],
    }


def summed_up(
    config: Pipeline,
    found: Evaluation,
    rungs: dict[str, tuple[str, Arm]],
    trained: dict[str, dict[str, Any]],
    proof: dict[str, dict[str, float]],
    costs: dict[str, dict[str, Any]],
    uri: str,
) -> dict[str, Any]:
    """What results.json says: a row an arm, with what it is, how it trained and how it differs from `base`."""
    metrics = {f"recall_at_{config.k}": "recall", f"hit_rate_at_{config.k}": "hit_rate"}
    rows = []
    for name, (sentence, _) in rungs.items():
        row = {"name": name, "describes": sentence, **found.rows[name], **costs[name]}
        for other, applies in (("base", name != "base"), ("all", name == "searched")):
            against = {key: found.against(name, other, column) for key, column in metrics.items()} if applies else {}
            row |= {f"vs_{other}": against} if applies or other == "base" else {}
        rows.append({**row, "history": trained[name]["history"]})
    described = "the fine-ranking model, on all features"
    rows.append({"name": "teacher", "describes": described, **found.rows["teacher"], **costs["teacher"]})
    defaults = plain(Pipeline(config.logs, config.out))
    changed = [f"--{key} {value}" for key, value in plain(config).items() if value != defaults[key]]
    command = " ".join([f"python -m workflows.pipeline --logs {config.logs} --out {config.out}", *changed])
    return {
        "logs": {"path": str(config.logs), **found.facts},
        "rows": rows,
        "teacher_groups": {name: values["hit_rate"] for name, values in proof.items()},
        "commands": [command],
        "mlflow": uri,
    }


def log(results: dict[str, Any], out: Path, parent: Run) -> None:
    """The results where people look."""
    for row in results["rows"]:
        parent.metrics({f"test/{row['name']}/{key}": value for key, value in row.items() if isinstance(value, float)})
    parent.artifact(out / "report.html")
    parent.artifact(out / "requests.parquet")
    parent.figures(figures(results) | {name: figure for name, (figure, *_) in pictures(results).items()})


if __name__ == "__main__":
    cli.run(main, Pipeline)
