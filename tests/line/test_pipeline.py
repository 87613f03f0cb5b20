"""The main job from a folder of logs to its results, and again."""

import json
import time
from dataclasses import replace

import pytest
from logs_fixture import write_logs
from mlflow.tracking import MlflowClient

from prerank.core.errors import InputError
from prerank.core.outputs import read_manifest
from prerank.latency.formula import fetch_us
from prerank.logs.schema import load_schema
from prerank.models.options import Optim
from prerank.search.options import Search
from prerank.training.options import Compute
from workflows import evaluate, pipeline, train_student
from workflows.pipeline import Pipeline

pytestmark = [pytest.mark.ray, pytest.mark.slow]
STRATEGIES = ["low_rank_negatives", "rank_pairs", "bin_pairs"]
NAMES = [
    "popular",
    "best_feature",
    "base",
    *STRATEGIES,
    "score",
    "contrast",
    "all",
    *(f"no_{name}" for name in STRATEGIES),
]
NAMES += ["no_score", "and_contrast", "searched", "teacher"]


@pytest.fixture(scope="module", params=[True, False], ids=["positions", "no_positions"])
def finished(request, ray_cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    write_logs(folder / "logs", requests=240, positions=request.param)
    config = Pipeline(
        folder / "logs",
        folder / "run",
        k=12,
        search=Search(trainings=30, steps=2, front=""),
        optim=Optim(batch=16, epoch_steps=1, epochs=2),
        teacher_optim=Optim(batch=16, epoch_steps=1, epochs=2),
        compute=Compute(workers=1, cpus=0.5),
    )
    return config, pipeline.main(config)


def test_every_row_of_the_interface(finished):
    config, results = finished
    assert json.loads((config.out / "results.json").read_text()) == results
    assert [row["name"] for row in results["rows"]] == NAMES
    for row in results["rows"]:
        for key in ("recall_at_12", "hit_rate_at_12", "auc", "gauc", "ndcg_at_10"):
            low, high = row[f"{key}_ci"]
            assert low <= row[key] <= high
        assert row["requests"] == 60
        assert row["latency_us"] == row["fetch_us"] + row["inference_us"] and row["inference_us"] > 0
    assert results["rows"][-1]["recall_at_12"] == 1.0
    schema = load_schema(config.out / "samples")
    by_name = {row["name"]: row for row in results["rows"]}
    assert by_name["all"]["fetch_us"] == fetch_us(schema.select(schema.hand_picked, where="test"), schema.fetch)
    searched, arch = by_name["searched"], json.loads((config.out / "search" / "arch.json").read_text())
    assert [searched[key] for key in ("features", "widths")] == [arch["features"], arch["widths"]]
    assert searched["fetch_us"] == arch["fetch_us"] and arch["latency_us"] <= arch["budget_us"]
    assert len(searched["vs_all"]["recall_at_12"]) == 3
    page = (config.out / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>") and "low rank negatives" in page.lower()


def test_one_parent_run_and_a_child_a_step(finished):
    config, results = finished
    client = MlflowClient(results["mlflow"])
    run = json.loads((config.out / "run.json").read_text())
    children = client.search_runs([run["experiment_id"]], f"tags.`mlflow.parentRunId` = '{run['run_id']}'")
    expected = {"build_samples", "teach", "profile_latency", "search", "evaluate", *NAMES}
    assert {child.info.run_name for child in children} == expected and len(children) == len(expected)
    assert {child.info.status for child in children} == {"FINISHED"}
    names = {artifact.path for artifact in client.list_artifacts(run["run_id"])}
    assert names == {"requests.parquet", "report.html", "figures"}
    base = next(row for row in results["rows"] if row["name"] == "base")
    logged = client.get_run(run["run_id"]).data.metrics
    assert logged["test/base/recall_at_12"] == base["recall_at_12"]


def test_the_same_command_again_changes_nothing_and_trains_nothing(finished):
    config, results = finished
    begun = time.monotonic()
    again = pipeline.main(config)
    assert time.monotonic() - begun < 30
    assert [row["recall_at_12"] for row in again["rows"]] == [row["recall_at_12"] for row in results["rows"]]
    with pytest.raises(InputError, match="already holds another run: config seed was 0, now 1"):
        pipeline.main(replace(config, seed=1))


def test_a_student_by_itself_is_the_arm_of_the_pipeline(finished, tmp_path):
    """The single commands and the pipeline are the same code: the same arm gets the same result."""
    config, results = finished
    student, out = tmp_path / "student", tmp_path / "results.json"
    train_student.main(
        train_student.TrainStudent(
            config.out / "taught", student, strategy="exposed", k=12, optim=config.optim, compute=config.compute
        )
    )
    evaluate.main(evaluate.Evaluate(config.logs, str(config.out / "teacher"), student, out, k=12))
    base = next(row for row in results["rows"] if row["name"] == "base")
    found = json.loads(out.read_text())
    for key in ("recall_at_12", "hit_rate_at_12", "auc", "gauc", "ndcg_at_10", "requests"):
        assert found[key] == pytest.approx(base[key], abs=1e-6)
    assert (
        read_manifest(student, kind="student")["history"]
        == read_manifest(config.out / "students" / "base", kind="student")["history"]
    )
