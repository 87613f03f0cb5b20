"""The evaluation against loops over the logs' own rows, and the same for any number of parts."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from logs_fixture import write_logs
from samples_fixture import build, here, random_models, rows_of
from sklearn.metrics import roc_auc_score

from prerank.core.errors import InputError
from prerank.core.nested import offsets_of
from prerank.evaluation.evaluate import evaluate
from prerank.evaluation.plan import plan
from prerank.logs.folder import open_logs
from prerank.models.checkpoint import load_model
from prerank.reports.cautions import warn_of
from prerank.samples.batches import scoring_batch
from prerank.samples.build import Split, number_of
from prerank.samples.files import sample_files
from workflows import evaluate as workflow

K = 12


@pytest.fixture(scope="module")
def models(samples, tmp_path_factory):
    return random_models(samples, tmp_path_factory.mktemp("models"))


def run(logs, models, blocks=None, **options):
    planned = plan(open_logs(logs), str(models[0]), {"student": models[1]}, k=K, **options)
    return evaluate(planned, blocks=blocks)


@pytest.mark.ray
def test_any_number_of_parts_gives_the_same(ray_cluster, logs, models):
    """Every request once, in one order, with the same labels; metrics but for a tie that rounding turns."""
    one, five = run(logs, models, 1), run(logs, models, 5)
    assert five.facts == one.facts
    for name in ("request_id", "student.n", "student.n_exposed", "student.clicks", "student.random_recall"):
        assert five.per_request[name].to_pylist() == one.per_request[name].to_pylist()
    turned = 0
    for name in one.per_request.column_names[1:]:
        a, b = (found.per_request[name].to_numpy() for found in (one, five))
        turned += int((~np.isclose(a, b, atol=1e-9, equal_nan=True)).sum())
    assert turned <= 2
    for key in (f"recall_at_{K}", f"hit_rate_at_{K}", "auc", "gauc", "ndcg_at_10"):
        assert five.rows["student"][key] == pytest.approx(one.rows["student"][key], abs=1e-3)


def scored_by_hand(logs, models, folder):
    """The rows of the test day, and each model's scores of them, by the models' own code."""
    build(logs, folder, split=Split(val_days=1, test_days=0))  # the test day is the last day, whatever it is called
    rows, scores = rows_of(folder, "val"), {}
    for kind, path in zip(("teacher", "student"), models, strict=True):
        model = load_model(path, kind=kind)
        features = model.schema.select(model.arch.features, where="test")
        scores[kind] = []
        for file, _ in sample_files(folder, "val"):
            table = pq.read_table(file)
            batch = scoring_batch(table, features)
            score = model.ranker(batch.features, batch.request_I)[0].detach().numpy()
            scores[kind] += np.split(score, offsets_of(table["item_id"])[1:-1])
    return rows, scores


@pytest.mark.ray
def test_recall_and_hit_rate_by_hand(ray_cluster, logs, models, tmp_path):
    """Sets of items in Python."""
    found = run(logs, models)
    rows, scores = scored_by_hand(logs, models, tmp_path / "test")
    recalls, hits = {}, {}
    for row, *pair in zip(rows, scores["teacher"], scores["student"], strict=True):
        teacher, student = ({row["item_id"][i] for i in np.argsort(-score, kind="stable")[:K]} for score in pair)
        recalls[row["request_id"]] = len(teacher & student) / K
        clicked = {item for item, click in zip(row["item_id"], row["clicked"], strict=True) if click}
        hits[row["request_id"]] = len(clicked & student) / len(clicked) if clicked else float("nan")
    table = found.per_request
    assert dict(zip(table["request_id"].to_pylist(), table["student.recall"].to_pylist(), strict=True)) == recalls
    assert found.rows["student"][f"recall_at_{K}"] == pytest.approx(np.mean(list(recalls.values())))
    assert found.rows["student"][f"hit_rate_at_{K}"] == pytest.approx(np.nanmean(list(hits.values())))
    assert found.rows["teacher"][f"recall_at_{K}"] == 1.0
    assert found.facts["requests"] == 60 and found.facts["candidates"] == 48 and found.facts["space"] == "candidates"


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
    again = workflow.main(workflow.Evaluate(logs, str(models[0]), models[1], out, k=K))
    assert again == results
    with pytest.raises(InputError, match="already holds the results of other logs, models or options"):
        workflow.main(workflow.Evaluate(logs, str(models[0]), models[1], out, k=K + 1))


@pytest.mark.ray
def test_the_logs_own_scores_are_a_teacher_over_the_fine_lists(ray_cluster, logs, models):
    found = evaluate(plan(open_logs(logs), "logged", {"student": models[1]}, k=6))
    assert found.facts["space"] == "fine_lists" and found.facts["candidates"] == 24
    assert found.rows["teacher"]["recall_at_6"] == 1.0


@pytest.mark.parametrize("table", ["fine_lists", "candidates"])
def test_of_many_requests_some_are_drawn_and_the_others_counted(table, logs, models, monkeypatch, capsys):
    """The same for any number of parts, and of each the very figures that it has among all."""
    monkeypatch.setattr("prerank.evaluation.evaluate.whole_requests", here)
    monkeypatch.setattr("prerank.evaluation.evaluate.executed", lambda parts: parts)
    teacher = "logged" if table == "fine_lists" else str(models[0])
    planned = plan(open_logs(logs), teacher, {"student": models[1]}, k=6)
    whole = evaluate(planned)
    warn_of(whole.facts)
    assert whole.facts["space"] == table and whole.facts["requests"] == 60 and "left out" not in capsys.readouterr().out
    monkeypatch.setattr("prerank.evaluation.evaluate.MOST_REQUESTS", 20)
    some, in_parts = evaluate(planned), evaluate(planned, blocks=5)
    assert some.per_request.num_rows == some.facts["requests"] == 20 and in_parts.facts == some.facts
    items = [sum(found.per_request["student.n"].to_pylist()) for found in (whole, some)]
    assert some.facts["noted"]["not_drawn"] == {"requests": 40, "rows": items[0] - items[1]}
    drawn = pc.is_in(whole.per_request["request_id"], some.per_request["request_id"].combine_chunks())
    number_R = number_of(whole.per_request["request_id"], 0)
    assert (number_R[drawn.to_numpy()].max() < number_R[~drawn.to_numpy()]).all()
    for name in ("request_id", "student.clicks", "teacher.auc", "teacher.ndcg_at_10"):
        expected = whole.per_request[name].filter(drawn).to_numpy()
        np.testing.assert_array_equal(some.per_request[name].to_numpy(), expected)
    warn_of(some.facts)
    assert "note: 20 requests of the test were drawn, 40 were left out" in capsys.readouterr().out


def test_scores_of_more_candidates_than_the_driver_gathers_are_pooled_of_some(logs, models, monkeypatch, capsys):
    """Everything but the pooled AUC stays as it is, which is that of scikit-learn over the requests that are drawn."""
    monkeypatch.setattr("prerank.evaluation.evaluate.whole_requests", here)
    gathered = []
    monkeypatch.setattr("prerank.evaluation.evaluate.executed", lambda parts: gathered.append(list(parts)) or parts)
    planned = plan(open_logs(logs), "logged", {"student": models[1]}, k=6)
    whole = evaluate(planned)
    ids, items = (pa.concat_tables(gathered[-1])[name] for name in ("request_id", "student.score"))
    clicks = pa.concat_tables(gathered[-1])["clicked"]
    of = {id: both for id, *both in zip(ids.to_pylist(), items.to_pylist(), clicks.to_pylist(), strict=True)}
    monkeypatch.setattr("prerank.evaluation.evaluate.POOLED", 20 * 24)
    some, in_parts = evaluate(planned), evaluate(planned, blocks=5)
    assert in_parts.facts == some.facts and in_parts.rows == some.rows
    there = pa.concat_tables(gathered[-1])
    drawn = [id for id, row in zip(there["request_id"].to_pylist(), there["clicked"].to_pylist(), strict=True) if row]
    assert 5 < len(drawn) == some.facts.pop("pooled") < 40
    assert some.facts == whole.facts
    assert some.per_request.to_pandas().equals(whole.per_request.to_pandas())  # where NaN is NaN
    for name, row in some.rows.items():
        expected = whole.rows[name]
        changed = {key for key in row if key != "slices" and row[key] != expected[key]}
        assert (
            changed == {"auc", "auc_ci"} and row["slices"]["exposed"]["gauc"] == expected["slices"]["exposed"]["gauc"]
        )
    labels, scores = (np.concatenate([of[id][side] for id in drawn]) for side in (1, 0))
    assert some.rows["student"]["auc"] == pytest.approx(roc_auc_score(labels, scores))
    warn_of(some.facts | {"pooled": len(drawn)})
    assert f"note: AUC is over {len(drawn)} of 60 requests" in capsys.readouterr().out


@pytest.fixture
def known(logs, tmp_path):
    """Logs whose candidates have a made-up truth, and that truth by (request, item)."""
    shutil.copytree(logs, tmp_path / "logs")
    candidates = pq.read_table(logs / "candidates", columns=["request_id", "item_id"])
    rng = np.random.default_rng(0)
    table = candidates.append_column("click_probability", pa.array(rng.random(len(candidates))))
    (tmp_path / "logs/truth").mkdir()
    pq.write_table(table.take(rng.permutation(len(table))), tmp_path / "logs/truth/0.parquet")
    rows = table.to_pylist()
    return tmp_path / "logs", {(row["request_id"], row["item_id"]): row["click_probability"] for row in rows}


@pytest.mark.ray
def test_the_replay_of_the_cascade_by_hand(ray_cluster, known, models, samples, tmp_path):
    """The student keeps K, the teacher orders them, ten are shown: their mean click probability."""
    folder, truth = known
    found = run(folder, models, 3)
    rows, tops = scored_by_hand(folder, models, tmp_path / "test")
    expected = {}
    for row, teacher, student in zip(rows, tops["teacher"], tops["student"], strict=True):
        kept = set(np.argsort(-student, kind="stable")[:K].tolist())
        shown = [i for i in np.argsort(-teacher, kind="stable") if i in kept][:10]
        expected[row["request_id"]] = np.mean([truth[row["request_id"], row["item_id"][i]] for i in shown])
    table = found.per_request
    for request, ctr in zip(table["request_id"].to_pylist(), table["student.ctr"].to_pylist(), strict=True):
        assert ctr == pytest.approx(expected[request])
    assert found.facts["has_truth"]


@pytest.mark.ray
def test_a_truth_that_is_not_of_every_candidate(ray_cluster, known, models):
    """An error over the candidates; of no matter to logged scores, which are compared over the fine lists."""
    folder, _ = known
    path = folder / "truth/0.parquet"
    truth = pq.read_table(path)
    pq.write_table(truth.slice(len(truth) // 2), path)
    with pytest.raises(InputError, match="have no click_probability"):
        run(folder, models, 3)
    found = evaluate(plan(open_logs(folder), "logged", {"student": models[1]}, k=6))
    assert not found.facts["has_truth"]


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
