"""The whole line on one folder of logs: samples, teacher, students of every technique, their evaluation, the report.

    python -m workflows.pipeline --logs runs/logs --out runs/demo

Each step writes a folder of its own under `--out`; the same command goes on where it was stopped. At the end stand
`results.json`, `report.html` and a table, and everything is in MLflow.
"""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from prerank import cli
from prerank.config import names, plain
from prerank.counts import lines
from prerank.data import start_ray
from prerank.evaluate import Evaluation, evaluate, plan
from prerank.fit import train_models
from prerank.logs import open_logs
from prerank.options import Arm, Compute, Distill, Optim
from prerank.outputs import write_json
from prerank.report import figures, terminal_table, write_report
from prerank.schema import load_schema
from prerank.tracking import Run, run
from workflows import build_samples, teach, train_teacher
from workflows.evaluate import warn_of

CURVE = (10, 25, 50, 75, 100, 150, 200, 300, 400)


@dataclass(frozen=True)
class Pipeline:
    """Run the whole line, from logs to an evaluated, distilled pre-ranking student."""

    logs: Path
    out: Path
    widths: str = "64,32"
    """Hidden widths of the students, with commas."""
    teacher_widths: str = "256,128,64"
    """Hidden widths of the teacher, with commas."""
    unexposed_ratio: float = 3.0
    """Unexposed negatives for each exposed item in the teacher's training."""
    k: int = 150
    """Items that pre-ranking keeps."""
    val_requests: int = 300
    """Requests of the validation day that decide on early stopping."""
    seed: int = 0
    distill: Distill = Distill(score=0.3, contrast=0.5)
    """What the arms score, contrast and all distil."""
    optim: Optim = Optim()
    compute: Compute = Compute()


def arms(config: Pipeline, features: tuple[str, ...]) -> dict[str, tuple[str, Arm]]:
    """The ladder: what each arm is, in a sentence, and its configuration."""
    base = Arm(
        name="base",
        features=features,
        widths=tuple(int(width) for width in names(config.widths)),
        optim=config.optim,
        seed=config.seed,
    )
    score = replace(config.distill, contrast=0.0)
    contrast = replace(config.distill, score=0.0)
    low = ("exposed", "low_rank_negatives")
    ladder = {
        "base": ("clicked above exposed and passed over, as the logs have it", base),
        "low_rank_negatives": ("base, and the tail of the fine list as negatives", replace(base, strategies=low)),
        "rank_pairs": (
            "base, and random pairs in the order of the fine list",
            replace(base, strategies=("exposed", "rank_pairs")),
        ),
        "bin_pairs": (
            "base, and pairs across the fine list's rank bins",
            replace(base, strategies=("exposed", "bin_pairs")),
        ),
        "score": ("base, and the teacher's scores", replace(base, distill=score)),
        "contrast": (
            "base, and the teacher's representations, contrasted by rank bin",
            replace(base, distill=contrast),
        ),
        "all": (
            "all three strategies, scores and representations",
            replace(base, strategies=(*low, "rank_pairs", "bin_pairs"), distill=config.distill),
        ),
    }
    return {name: (sentence, replace(arm, name=name)) for name, (sentence, arm) in ladder.items()}


def main(config: Pipeline) -> dict[str, Any]:
    """Returns what stands in results.json."""
    begun = time.monotonic()
    logs_folder, out = config.logs.resolve(), config.out.resolve()
    logs = open_logs(logs_folder)
    start_ray()
    with run("pipeline", out=out, state=out / "run.json", params=plain(config)) as parent:

        def child(name: str) -> AbstractContextManager[Run]:
            return run(name, out=out, state=out / f".{name}.run.json", params={}, parent=parent)

        samples, teacher, taught = out / "samples", out / "teacher", out / "taught"
        with child("build_samples") as tracked:
            built = build_samples.main(
                build_samples.BuildSamples(logs_folder, samples, seed=config.seed, val_requests=config.val_requests)
            )
            tracked.metrics({f"samples/{what}": float(rows) for what, _, rows in lines(built["counts"])})
            tracked.artifact(samples / "manifest.json")
        proof = train_teacher.main(
            train_teacher.TrainTeacher(
                samples,
                teacher,
                widths=config.teacher_widths,
                unexposed_ratio=config.unexposed_ratio,
                k=config.k,
                seed=config.seed,
                optim=config.optim,
                compute=config.compute,
            ),
            parent,
        )
        with child("teach") as tracked:
            tracked.metrics({"taught": float(sum(teach.main(teach.Teach(samples, teacher, taught))["rows"].values()))})
        ladder = arms(config, load_schema(taught).student_features)
        students = {out / "students" / name: arm for name, (_, arm) in ladder.items()}
        work = out / ".students.work"
        manifests = train_models(
            students, taught, kind="student", work=work, compute=config.compute, k=config.k, parent=parent
        )
        with child("evaluate") as tracked:
            planned = plan(logs, str(teacher), {path.name: path for path in students}, k=config.k, curve=CURVE)
            found = evaluate(planned, seed=config.seed)
            tracked.metrics({name: float(found.facts[name]) for name in ("requests", "candidates")})
        results = _results(config, ladder, manifests, found, proof, parent.uri)
        pq.write_table(found.per_request, out / "requests.parquet")
        write_json(out / "results.json", results)
        write_report(results, out / "report.html")
        for row in results["rows"]:
            parent.metrics({f"test/{row['name']}/{key}": row[key] for key in row if isinstance(row[key], float)})
        for name in ("results.json", "report.html"):
            parent.artifact(out / name)
        parent.figures(figures(results))
    Console().print(terminal_table(results))
    warn_of(found.facts)
    print(f"{out}/report.html\nmlflow ui --backend-store-uri {parent.uri}   (run {parent.run_id})")
    print(f"{len(students)} students in {time.monotonic() - begun:.0f} s")
    return results


def _results(
    config: Pipeline,
    ladder: dict[str, tuple[str, Arm]],
    manifests: dict[str, dict[str, Any]],
    found: Evaluation,
    proof: dict[str, dict[str, float]],
    uri: str,
) -> dict[str, Any]:
    metrics = {f"recall_at_{config.k}": "recall", f"hit_rate_at_{config.k}": "hit_rate"}
    rows = []
    for name, (sentence, _) in ladder.items():
        versus = {key: found.against(name, "base", column) for key, column in metrics.items()} if name != "base" else {}
        history = manifests[name]["history"]
        rows.append({"name": name, "describes": sentence, **found.rows[name], "vs_base": versus, "history": history})
    rows.append({"name": "teacher", "describes": "the fine-ranking model, on all features", **found.rows["teacher"]})
    return {
        "logs": {"path": str(config.logs), **found.facts},
        "rows": rows,
        "teacher_groups": {name: values["hit_rate"] for name, values in proof.items()},
        "commands": [f"python -m workflows.pipeline --logs {config.logs} --out {config.out}"],
        "mlflow": uri,
    }


if __name__ == "__main__":
    cli.run(main, Pipeline)
