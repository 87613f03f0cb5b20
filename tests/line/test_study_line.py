"""A study from a folder of logs to its page, and again; and each model by its own commands, to an export."""

import json

import pytest
from logs_fixture import write_logs

from prerank.core.errors import InputError
from prerank.models.checkpoint import load_model
from prerank.models.options import Distill, Optim
from prerank.search.options import Search
from prerank.training.options import Compute
from prerank.training.rungs import MODELS
from workflows import evaluate, export, pipeline, train_student
from workflows.line import study

pytestmark = [pytest.mark.ray, pytest.mark.slow]
OPTIM = Optim(batch=16, epoch_steps=1, epochs=1)


@pytest.fixture(scope="module")
def finished(ray_cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_logs(folder / "logs", requests=240)
    config = pipeline.Pipeline(
        folder / "logs",
        folder / "run",
        features="price,quality,brand,match,query_city,user_age",
        widths="8,4",
        k=12,
        search=Search(widths="8,4", trainings=30, steps=2, epochs=2, warmup_epochs=1),
        optim=OPTIM,
        teacher_optim=OPTIM,
        compute=Compute(cpus=0.5),
        study="ladder",
        seeds=2,
    )
    return config, pipeline.main(config)


def test_every_rung_is_tuned_and_timed(finished):
    config, results = finished
    folder = config.out / "study" / "ladder"
    assert json.loads((folder / "study.json").read_text()) == results
    assert [row["name"] for row in results["rows"]] == list(MODELS)
    for row in results["rows"]:
        over = row["recall"]
        assert over["lo"] <= over["mean"] <= over["hi"] and len(over["seeds"]) == len(row["students"]) == 2
        assert row["latency_us"] == row["fetch_us"] + row["inference_us"] and row["inference_us"] > 0
        values = [tried["value"] for tried in row["tries"]]
        assert values[row["chosen"]] == max(values)
        assert load_model(folder / row["students"][0], kind="student").arch.features == tuple(row["features"])
    assert "cold" in (folder / "study.html").read_text()


def test_again_it_is_there(finished, monkeypatch):
    config, results = finished
    monkeypatch.setattr(study, "evaluate", None)
    assert pipeline.main(config) == results


@pytest.mark.parametrize("model", ["two_tower_gbdt", "cold"])
def test_it_goes_through_the_commands(finished, model, tmp_path):
    config, _ = finished
    taught, teacher = config.out / "taught", config.out / "teacher"
    shared = {"widths": config.widths, "k": config.k, "optim": OPTIM, "compute": config.compute, "model": model}
    if model == "cold":
        table = config.out / "latency.json"
        candidates = json.loads(table.read_text())["settings"][0]["candidates"]
        shared |= {"latency_table": table, "latency": train_student.Latency(candidates=candidates), "budget_us": 1e4}
        with pytest.raises(InputError, match="--model cold needs --latency-table"):
            train_student.main(train_student.TrainStudent(taught, tmp_path / "student", model="cold"))
    else:
        shared |= {"features": config.features}
        shared |= {"compute": Compute(workers=2, cpus=0.5)}  # of which one grows the trees
    student = train_student.TrainStudent(taught, tmp_path / "student", distill=Distill(score=1.0), **shared)
    best = train_student.main(student)
    assert best["val/recall_at_12"] > 0
    tested = evaluate.main(
        evaluate.Evaluate(config.logs, str(teacher), tmp_path / "student", tmp_path / "results.json", k=config.k)
    )
    assert 0 < tested["recall_at_12"] <= 1
    made = export.main(export.Export(tmp_path / "student", tmp_path / "export", samples=taught, name=f"test-{model}"))
    assert max(each["worst"] for each in made["parity"].values()) < 1e-5
    assert (tmp_path / "export" / "item_vectors.parquet").is_file() == model.startswith("two_tower")
