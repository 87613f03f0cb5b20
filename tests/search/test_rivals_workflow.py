"""The comparison of all methods from samples to its table, and again with one method more."""

import json
from dataclasses import replace

import pytest
from mlflow.tracking import MlflowClient
from samples_fixture import build, made_up_latency, random_teacher, teach_here

from prerank.core.errors import InputError
from prerank.core.outputs import read_manifest
from prerank.models.options import Distill, Optim
from prerank.search.options import Search
from prerank.training.options import Compute
from workflows import rivals
from workflows.rivals import METHODS, Rivals

HERE = tuple(m for m in METHODS if not m.endswith("_free") or m in ("permutation_free", "cegb_free", "autofas_free"))


@pytest.fixture(scope="module")
def config(logs, taught, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rivals")
    table = made_up_latency(folder / "latency.json", taught, candidates=1000)
    return Rivals(
        logs,
        taught,
        folder / "teacher",
        table,
        folder / "run",
        budgets="2,1",
        seeds=2,
        methods=",".join(method for method in HERE if method != "gradient"),
        widths="4",
        k=12,
        search=Search(steps=1, trainings=30, widths="8,4,0", layers=1, epochs=2, warmup_epochs=1, fold=2),
        distill=Distill(score=1.0, contrast=0.5, projection=4),
        optim=Optim(batch=16, epoch_steps=1, epochs=1),
        compute=Compute(cpus=0.5),
    )


@pytest.mark.ray
@pytest.mark.slow
def test_rows_within_budget_and_more_methods_add_to_what_is_there(config, logs, ray_cluster, tmp_path):
    samples = build(logs, tmp_path / "samples")
    taught = teach_here(samples, random_teacher(samples, config.teacher), tmp_path / "taught")
    config = replace(config, samples=taught)
    results = rivals.main(config)
    assert json.loads((config.out / "results.json").read_text()) == results
    rows = {(row["factor"], row["method"]): row for row in results["rows"]}
    assert list(rows) == [(f, m) for f in (1.0, 2.0) for m in HERE if m != "gradient"] + [(None, "all_features")]
    for (factor, method), row in rows.items():
        assert len(row["recall"]["seeds"]) == len(row["features"]) == 2 and 0 < row["recall"]["mean"] < 1
        if factor:
            assert row["latency_us"] <= factor * results["reference"]["latency_us"] * (1 + 1e-6)
            assert method in ("autofas", "propose") or method.endswith("_free") or row["widths"] == [[4], [4]]
    picked = rows[1.0, "hand_picked"]
    assert picked["latency_us"] == pytest.approx(results["reference"]["latency_us"]) and len(picked["kept"]) == 3
    assert rows[2.0, "hand_picked"]["students"] == picked["students"]
    assert [best["factor"] for best in results["best_rivals"]] == [1.0, 2.0]

    students = {name: (config.out / "students" / name).stat().st_mtime for r in rows.values() for name in r["students"]}
    for name in students:
        said = read_manifest(config.out / "students" / name, kind="student")["config"]
        assert (said["distill.contrast"], said["seed"]) == (0.5, int(name[-1]))
    run = json.loads((config.out / "run.json").read_text())
    client = MlflowClient(results["mlflow"])
    logged = client.get_run(run["run_id"]).data.metrics
    assert logged["fscd/x2/recall_at_12"] == rows[2.0, "fscd"]["recall"]["mean"]
    assert {artifact.path for artifact in client.list_artifacts(run["run_id"])} == {"figures", "requests.parquet"}

    assert rivals.main(config) == results
    more = rivals.main(replace(config, methods=",".join(HERE)))
    assert {(row["factor"], row["method"]): row for row in more["rows"]}[2.0, "fscd"] == rows[2.0, "fscd"]
    assert all((config.out / "students" / name).stat().st_mtime == at for name, at in students.items())


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"methods": "fcsd"}, "--methods fcsd: expected some of"),
        ({"budgets": "half"}, "--budgets half: expected numbers"),
        ({"budgets": "0"}, "must be above 0"),
        ({"budgets": "0.01"}, "nothing fits"),
        ({"widths": "16"}, "AutoFAS must have them to choose from"),
    ],
)
def test_faults_of_the_options(config, changes, fault):
    with pytest.raises(InputError, match=fault):
        rivals.main(replace(config, **changes))
