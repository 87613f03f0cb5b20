"""Exports a student: ONNX, what it takes, how fast it is, and a version in the MLflow model registry.

    python -m workflows.export --student runs/student --out runs/export --samples runs/taught

`runs/export` is an MLflow model in itself: `mlflow models serve -m runs/export --env-manager local` serves it, as it
does `models:/prerank-student@candidate`.
"""

from dataclasses import dataclass
from pathlib import Path

from prerank.core import cli
from prerank.core.config import Positive
from prerank.core.outputs import fingerprint, is_done, publish
from prerank.core.storage import rmtree, staged
from prerank.logs.schema import load_schema
from prerank.models.checkpoint import load_model, require_same_features
from prerank.models.stats import load_stats
from prerank.samples.files import samples_manifest
from prerank.serving import export
from prerank.serving.export import ExportManifest, export_manifest
from prerank.tracking.runs import Run, run, send_unsent


@dataclass(frozen=True)
class Export:
    """Export a student to ONNX, hold it against torch, measure it and register it in MLflow."""

    student: Path
    """A folder made by workflows.train_student or workflows.pipeline."""
    out: Path
    samples: Path | None = None
    """Samples whose validation day is scored as well when ONNX is held against torch."""
    results: Path | None = None
    """A results.json, whose recall on the test days then stands beside the times."""
    row: str = ""
    """The student's row in it; empty: the name that it was trained under."""
    name: str = "prerank-student"
    """The registered model that gets a new version."""
    alias: str = "candidate"
    """The alias that is moved to this version."""
    threads: Positive = 1
    """Threads of ONNX Runtime, when measured and when served."""
    packed: bool = False
    """One matrix of numbers and one of ids a side in place of an input a feature, which saves what each input costs;
    signature.json says what goes where."""


def main(config: Export, parent: Run | None = None) -> ExportManifest:
    """Returns the manifest of the export."""
    student, out = config.student.resolve(), config.out.resolve()
    settings = {"name": config.name, "alias": config.alias, "threads": config.threads}
    export.check(**settings)
    settings |= {"packed": True} if config.packed else {}  # exports from before there was a choice stay what they are
    model = load_model(student, kind="student")
    inputs, recall = {"student": model.manifest["fingerprint"]}, export.kept(model.manifest["best"], "val/")
    if config.samples:
        inputs["samples"] = samples_manifest(config.samples)["fingerprint"]
        require_same_features(model, load_schema(config.samples), folder=student, where=config.samples)
    if config.results:
        row = export.results_row(config.results, config.row or str(model.manifest["config"]["name"]))
        inputs["results"] = fingerprint(row)
        recall |= export.kept({f"test/{key}": value for key, value in row.items()}, "test/recall", "test/hit_rate")
    if is_done(out, kind="export", config=settings, inputs=inputs):
        send_unsent(out)
        print(f"{out}: already done")
        return export_manifest(out)
    work = out.parent / f".{out.name}.work"
    with publish(out, kind="export", config=settings, inputs=inputs) as (final, facts), staged(final) as staging:
        stats = load_stats(student)
        made = export.write_export(
            staging, model, stats, threads=config.threads, samples=config.samples, packed=config.packed
        )
        facts |= {**made, "recall": recall}
        times = export.times_of(made)
        worst = max(each["worst"] for each in made["parity"].values())
        state = work / f"run-{fingerprint([settings, inputs])}.json"
        with run("export", out=out, state=state, params=settings, tags=inputs, parent=parent) as tracked:
            tracked.metrics(times | recall | {"parity": worst})
            tracked = tracked.online()
            tags = inputs | {key: f"{value:.6g}" for key, value in (times | recall).items()}
            uri = export.register(tracked, staging, name=config.name, alias=config.alias, tags=tags)
        facts["mlflow"] = {"uri": tracked.uri, "run_id": tracked.run_id, "model": uri}
    rmtree(work)
    shown = ", ".join(
        f"{n} candidates {stat['p5']:.0f} us (median {stat['p50']:.0f}, p99 {stat['p99']:.0f})"
        for n, stat in made["inference_us"].items()
    )
    print(f"{out}: within {worst:.1e} of torch; {shown}")
    print(f"{uri} is {config.name}@{config.alias} at {tracked.uri}")
    return export_manifest(out)


if __name__ == "__main__":
    cli.run(main, Export)
