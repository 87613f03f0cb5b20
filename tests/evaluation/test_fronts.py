"""What students keep of each objective, by sets of items; and which no other one beats, by comparing all pairs."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from labels_fixture import headed_model, taught_of_both
from samples_fixture import build, here, random_teacher, rows_of

from prerank.core.errors import InputError
from prerank.core.nested import offsets_of
from prerank.evaluation.evaluate import evaluate
from prerank.evaluation.fronts import dominates, front_of
from prerank.evaluation.plan import plan
from prerank.evaluation.scores import head_scores_of
from prerank.logs.folder import open_logs
from prerank.models.arch import load_arch
from prerank.models.checkpoint import load_model
from prerank.models.fusion import Fusion
from prerank.reports.objectives import finding, front_figure, front_table
from prerank.samples.build import Split
from prerank.samples.files import sample_files

K = 12
LABELS = {"click": "clicked", "converted": "converted"}


@pytest.fixture(scope="module")
def both(logs, tmp_path_factory):
    return taught_of_both(logs, tmp_path_factory.mktemp("both"))


@pytest.fixture
def local(monkeypatch):
    monkeypatch.setattr("prerank.evaluation.evaluate.whole_requests", here)
    monkeypatch.setattr("prerank.evaluation.evaluate.executed", lambda parts: parts)


@pytest.fixture(scope="module")
def students(both, tmp_path_factory):
    _, samples, *_ = both
    folder = tmp_path_factory.mktemp("students")
    out = {"click": random_teacher(samples, folder / "click", kind="student", features=("price", "match"), seed=1)}
    for seed, share in ((2, 0.5), (3, 0.2)):
        name = f"both {share}"
        out[name] = headed_model(samples, folder / name, kind="student", shares=(share, 1 - share), seed=seed)
    return out


@pytest.mark.slow
def test_each_objective_by_sets_of_items(local, both, students, tmp_path):
    labelled, _, teacher, _ = both
    found = evaluate(plan(open_logs(labelled), str(teacher), students, k=K))
    build(labelled, tmp_path / "test", split=Split(val_days=1, test_days=0))
    rows, model = rows_of(tmp_path / "test", "val"), load_model(teacher, kind="teacher")
    student = load_model(students["both 0.5"], kind="student")
    heads, fused = {"click": [], "converted": []}, []
    for file, _ in sample_files(tmp_path / "test", "val"):
        table = pq.read_table(file)
        cuts = offsets_of(table["item_id"])[1:-1]
        for head, score in head_scores_of(table, model).items():
            heads[head] += np.split(score, cuts)
        mine = head_scores_of(table, student)
        fused += np.split(0.5 * mine["click"] + 0.5 * mine["converted"], cuts)

    def top(items, score):
        return {items[i] for i in np.argsort(-score, kind="stable")[:K]}

    hits, recalls = {"click": [], "converted": []}, {"click": [], "converted": []}
    for place, row in enumerate(rows):
        kept = top(row["item_id"], fused[place])
        for head, label in LABELS.items():
            recalls[head].append(len(kept & top(row["item_id"], heads[head][place])) / K)
            has = {item for item, flag in zip(row["item_id"], row[label], strict=True) if flag}
            hits[head] += [len(has & kept) / len(has)] if has else []
    said = found.rows["both 0.5"]
    for head in ("click", "converted"):
        assert said[f"recall_{head}_at_{K}"] == pytest.approx(np.mean(recalls[head]), abs=1e-9)
        assert said[f"hit_rate_{head}_at_{K}"] == pytest.approx(np.mean(hits[head]), abs=1e-9)
        own = [
            len(has & top(row["item_id"], heads[head][place])) / len(has)
            for place, row in enumerate(rows)
            if (has := {item for item, flag in zip(row["item_id"], row[LABELS[head]], strict=True) if flag})
        ]
        assert found.rows["teacher"][f"own_hit_rate_{head}_at_{K}"] == pytest.approx(np.mean(own), abs=1e-9)
    assert said[f"recall_at_{K}"] == pytest.approx(said[f"recall_click_at_{K}"])  # of students of several fusions
    assert "fusion" not in found.facts


def test_a_student_is_held_against_the_teacher_fused_alike(local, both, students):
    labelled, _, teacher, _ = both
    found = evaluate(plan(open_logs(labelled), str(teacher), {"both 0.2": students["both 0.2"]}, k=K))
    assert found.facts["fusion"] == "click=0.2,converted=0.8" and found.rows["teacher"][f"recall_at_{K}"] == 1.0
    assert found.rows["both 0.2"][f"recall_at_{K}"] != found.rows["both 0.2"][f"recall_click_at_{K}"]
    click = evaluate(plan(open_logs(labelled), str(teacher), {"click": students["click"]}, k=K))
    assert "fusion" not in click.facts
    assert click.rows["click"][f"recall_at_{K}"] == click.rows["click"][f"recall_click_at_{K}"]


def test_a_front_by_comparing_all_pairs():
    values = np.random.default_rng(0).integers(0, 4, (40, 3))
    expected = [[all(a >= b) and any(a > b) for b in values] for a in values]
    assert np.array_equal(dominates(values), expected)


@pytest.mark.parametrize("by", ["hit_rate", "recall"])
def test_the_front_its_table_and_its_picture(local, both, students, by):
    labelled, _, teacher, _ = both
    found = evaluate(plan(open_logs(labelled), str(teacher), students, k=K))
    named = {name: (str(path), load_arch(path / "arch.json").fusion) for name, path in students.items()}
    front = front_of(found, named, ("click", "converted"), by)
    pairs = {p["name"]: (p[by]["click"][0], p[by]["converted"][0]) for p in front["points"]}
    for point in front["points"]:
        mine = pairs[point["name"]]
        beaten = [n for n, o in pairs.items() if o[0] >= mine[0] and o[1] >= mine[1] and o != mine]
        assert point["on_front"] == (not beaten) and point["beaten_by"] == [n for n in beaten if n == "click"]
    single, several = (next(p for p in front["points"] if (p["alone"] is None) == of) for of in (False, True))
    assert single["alone"] == "click" and not single["gain"]
    gain = several["gain"]["click"]["converted"]
    difference = pairs[several["name"]][1] - pairs["click"][1]
    assert gain[0] == pytest.approx(difference) and gain[1] <= gain[0] <= gain[2]
    assert front_table(front).row_count == 3 + (by == "hit_rate") and "students stand on the front" in finding(front)
    assert front_figure(front).axes


def test_a_front_needs_the_teachers_heads_for_recall(local, both, students, tmp_path):
    labelled, samples, *_ = both
    other = random_teacher(samples, tmp_path / "teacher")
    found = evaluate(plan(open_logs(labelled), str(other), {"click": students["click"]}, k=K))
    named = {"click": (str(students["click"]), Fusion())}
    assert front_of(found, named, ("click", "converted"), "hit_rate")["points"]
    with pytest.raises(InputError, match="the teacher has no head of it"):
        front_of(found, named, ("click", "converted"), "recall")
