"""The evaluation against loops over the logs' own rows, and the same for any number of parts."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from logs_fixture import write_logs
from samples_fixture import build, random_teacher, rows_of

from prerank.errors import InputError
from prerank.evaluate import evaluate, plan
from prerank.logs import open_logs
from workflows import evaluate as workflow

K = 12


@pytest.fixture(scope="module")
def models(samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    teacher = random_teacher(samples, folder / "teacher", seed=0)
    student = random_teacher(samples, folder / "student", kind="student", features=("price", "brand", "match"), seed=1)
    return teacher, student


def run(logs, models, blocks=None, **options):
    planned = plan(open_logs(logs), str(models[0]), {"student": models[1]}, k=K, **options)
    return evaluate(planned, blocks=blocks)


@pytest.mark.ray
def test_any_number_of_parts_gives_the_same(ray_cluster, logs, models):
    """Every request once, in one order; metrics differ by no more than a tie that rounding a score may turn."""
    one, five = run(logs, models, 1), run(logs, models, 5)
    assert five.per_request["request_id"].to_pylist() == one.per_request["request_id"].to_pylist()
    for name in one.per_request.column_names[1:]:
        columns = (found.per_request[name].to_numpy() for found in (one, five))
        assert np.allclose(*columns, atol=1 / K + 1e-9, equal_nan=True), name
    assert five.facts == one.facts
    for key in (f"recall_at_{K}", f"hit_rate_at_{K}", "auc", "gauc", "ndcg_at_10"):
        assert five.rows["student"][key] == pytest.approx(one.rows["student"][key], abs=1e-3)


@pytest.mark.ray
def test_recall_and_hit_rate_by_hand(ray_cluster, logs, models, samples, tmp_path):
    """Scores from the models' own code, sets of items in Python."""
    from prerank.batches import scoring_batch
    from prerank.checkpoint import load_model

    found = run(logs, models)
    test_day = build(logs, tmp_path / "test", split=_test_as_validation())
    tops = {}
    for kind, folder in zip(("teacher", "student"), models, strict=True):
        model = load_model(folder, kind=kind)
        features = model.schema.select(model.arch.features, where="test")
        scores = []
        for path in sorted((test_day / "val").iterdir()):
            batch = scoring_batch(pq.read_table(path), features)
            scores.append(model.ranker(batch.features, batch.request_I)[0].detach().numpy())
        tops[kind] = np.concatenate(scores)
    recalls, hits, at = {}, {}, 0
    for row in rows_of(test_day, "val"):
        end = at + len(row["item_id"])
        teacher, student = (
            {row["item_id"][i] for i in np.argsort(-tops[kind][at:end], kind="stable")[:K]} for kind in tops
        )
        recalls[row["request_id"]] = len(teacher & student) / K
        clicked = {item for item, click in zip(row["item_id"], row["clicked"], strict=True) if click}
        hits[row["request_id"]] = len(clicked & student) / len(clicked) if clicked else float("nan")
        at = end
    table = found.per_request
    assert dict(zip(table["request_id"].to_pylist(), table["student.recall"].to_pylist(), strict=True)) == recalls
    assert found.rows["student"][f"recall_at_{K}"] == pytest.approx(np.mean(list(recalls.values())))
    assert found.rows["student"][f"hit_rate_at_{K}"] == pytest.approx(np.nanmean(list(hits.values())))
    assert found.rows["teacher"][f"recall_at_{K}"] == 1.0
    assert found.facts["requests"] == 60 and found.facts["candidates"] == 48 and found.facts["space"] == "candidates"


def _test_as_validation():
    """The test day of a build is the validation day of one that leaves no day out."""
    from prerank.samples import Split

    return Split(val_days=1, test_days=0)


@pytest.mark.ray
def test_the_command_and_its_interface(ray_cluster, logs, models, tmp_path):
    out = tmp_path / "results.json"
    workflow.main(workflow.Evaluate(logs, str(models[0]), models[1], out, k=K))
    results = json.loads(out.read_text())
    for name in (f"recall_at_{K}", f"hit_rate_at_{K}", "auc", "gauc", "ndcg_at_10"):
        low, high = results[f"{name}_ci"]
        assert low <= results[name] <= high
    assert results["requests"] == 60
    assert pq.read_table(tmp_path / "results.requests.parquet").num_rows == 60


@pytest.mark.ray
def test_the_logs_own_scores_are_a_teacher_over_the_fine_lists(ray_cluster, logs, models):
    found = evaluate(plan(open_logs(logs), "logged", {"student": models[1]}, k=6))
    assert found.facts["space"] == "fine_lists" and found.facts["candidates"] == 24
    assert found.rows["teacher"]["recall_at_6"] == 1.0


@pytest.mark.ray
def test_truth_and_the_replay_of_the_cascade(ray_cluster, logs, models, tmp_path):
    """The student keeps K, the teacher orders them, ten are shown: their mean click probability, by hand."""
    import shutil

    import pyarrow as pa

    shutil.copytree(logs, tmp_path / "logs")
    candidates = pq.read_table(logs / "candidates", columns=["request_id", "item_id"])
    truth = {
        (request, item): (hash((request, item)) % 1000) / 1000
        for request, item in zip(*(candidates[name].to_pylist() for name in candidates.column_names), strict=True)
    }
    (tmp_path / "logs/truth").mkdir()
    table = candidates.append_column("click_probability", pa.array(list(truth.values())))
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), tmp_path / "logs/truth/0.parquet")
    found = run(tmp_path / "logs", models, 3)
    whole = run(logs, models, 1)
    assert "ctr" not in whole.rows["student"]
    assert found.rows["teacher"]["ctr"] != found.rows["student"]["ctr"]
    lost = pq.read_table(tmp_path / "logs/truth/0.parquet").slice(5)
    pq.write_table(lost, tmp_path / "logs/truth/0.parquet")
    with pytest.raises(InputError, match="have no click_probability"):
        run(tmp_path / "logs", models, 3)


def test_models_that_do_not_belong_together_are_refused(logs, models, tmp_path):
    manifest = models[1] / "manifest.json"
    text = manifest.read_text()
    try:
        manifest.write_text(text.replace("2024-03-04", "2024-03-05"))
        with pytest.raises(InputError, match="different test days"):
            plan(open_logs(logs), str(models[0]), {"student": models[1]}, k=K)
    finally:
        manifest.write_text(text)
    write_logs(tmp_path / "unranked", positions=False)
    with pytest.raises(InputError, match="no fine_score"):
        plan(open_logs(tmp_path / "unranked"), "logged", {"student": models[1]}, k=K)
