"""A student from Python: trained without a cluster, and the scores of rows as they are logged."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from logs_fixture import SCHEMA
from samples_fixture import random_teacher

from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.evaluation import evaluate
from prerank.evaluation.plan import plan
from prerank.logs.folder import open_logs, read_groups
from prerank.models.checkpoint import load_model
from prerank.models.stats import load_stats
from prerank.training import finished
from prerank.training import student as module
from prerank.training.student import Compute, Distill, Optim, load_student, train

pytestmark = pytest.mark.slow  # trains a student

FEATURES = tuple(feature["name"] for feature in SCHEMA["features"] if not feature.get("teacher_only"))
OPTIM = Optim(batch=16, epoch_steps=1, epochs=2)
OPTIONS = {"features": FEATURES, "widths": (16, 8), "distill": Distill(score=1.0), "optim": OPTIM}


@pytest.fixture(scope="module")
def folder(taught, tmp_path_factory):
    """Of a student of every kind of feature, trained in this process, without a cluster."""
    out = tmp_path_factory.mktemp("here") / "student"

    def refused(*_, **__):
        raise AssertionError("a cluster was asked for")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "start_ray", refused)
        patch.setattr(module, "train_models", refused)
        train(str(taught), str(out), k=10, **OPTIONS)
    return out


@pytest.fixture(scope="module")
def student(folder):
    return load_student(folder)


@pytest.fixture(scope="module")
def rows(logs):
    """Candidates of all days, requests mixed."""
    table = pq.read_table(logs / "candidates")
    return table.take(pa.array(np.random.default_rng(0).permutation(table.num_rows)))


def test_scores_are_those_of_an_evaluation(student, folder, logs, samples, rows, tmp_path):
    teacher, opened = random_teacher(samples, tmp_path / "teacher"), open_logs(logs)
    planned = plan(opened, str(teacher), {"student": folder}, k=10)
    read = [read_groups(opened.tables[name], opened.tables[name].groups) for name in ("candidates", "impressions")]
    found = evaluate.score(*read, planned, at_most=1.0)
    expected = {
        request: scores
        for request, scores in zip(found["request_id"].to_pylist(), found["student.score"].to_pylist(), strict=True)
    }
    assert len(expected) > 20
    score, request, item = student.score(rows), rows["request_id"].to_numpy(), hash_ids(rows["item_id"])
    assert score.dtype == np.float32 and score.shape == (rows.num_rows,)
    for number, scores in expected.items():
        mine = np.flatnonzero(request == number)
        ascending = mine[np.argsort(item[mine])]
        assert score[ascending] == pytest.approx(scores, abs=1e-6)


def test_the_order_of_rows_changes_nothing(student, rows):
    order = np.random.default_rng(1).permutation(rows.num_rows)
    assert (student.score(rows.take(pa.array(order))) == student.score(rows)[order]).all()
    assert student.score(rows.slice(0, 0)).shape == (0,)


def with_column(rows, name, values):
    """The rows with other values of a column."""
    return rows.set_column(rows.column_names.index(name), name, values)


def test_missing_numbers_and_unknown_ids_are_those_of_the_training(student, folder, rows):
    one = rows.filter(pa.array(rows["request_id"].to_numpy() == rows["request_id"][0].as_py()))
    n, mean = one.num_rows, load_stats(folder)["price"]["mean"][0]
    price = [student.score(with_column(one, "price", pa.array([x] * n, pa.float64()))) for x in (None, np.nan, mean)]
    assert price[0] == pytest.approx(price[2], abs=1e-6) and (price[0] == price[1]).all()
    brand = [student.score(with_column(one, "brand", pa.array([x] * n, pa.int64()))) for x in (None, -1, 12, 0)]
    assert (brand[0] == brand[1]).all() and (brand[0] == brand[2]).all() and (brand[0] != brand[3]).any()


def test_rows_in_other_types_have_the_same_scores(student, rows):
    """Those of other writers: large and view layouts, dictionaries, tensors, unsigned ids, nothing but nulls."""
    other = with_column(rows, "request_id", rows["request_id"].cast(pa.uint64()))
    other = with_column(other, "item_id", rows["item_id"].cast(pa.large_string()).dictionary_encode())
    other = with_column(other, "price", rows["price"].cast(pa.decimal128(9, 1)))
    vectors = np.array(rows["item_vector"].to_pylist(), np.float32)
    other = with_column(other, "item_vector", pa.FixedShapeTensorArray.from_numpy_ndarray(vectors))
    tags = pa.array(rows["item_tags"].to_pylist(), pa.large_list(pa.int16()))
    other = with_column(other, "item_tags", tags)
    assert (student.score(other) == student.score(rows)).all()
    nulls = [with_column(rows, "match", pa.nulls(rows.num_rows, type_)) for type_ in (pa.null(), pa.float64())]
    assert (student.score(nulls[0]) == student.score(nulls[1])).all()


def test_rows_that_cannot_be_scored_are_named(student, rows):
    with pytest.raises(InputError, match=r"^table: column 'match' is missing; expected numbers; found brand, hour"):
        student.score(rows.drop_columns("match"))
    with pytest.raises(InputError, match=r"^table: column 'price' has type string, expected numbers"):
        student.score(with_column(rows, "price", rows["item_id"]))
    with pytest.raises(InputError, match=r"^table: column 'request_id' is null in \d+ rows"):
        student.score(with_column(rows, "request_id", pa.nulls(rows.num_rows, pa.int64())))
    short = pa.array([[1.0]] * rows.num_rows)
    with pytest.raises(InputError, match="'item_vector': expected lists of 4 numbers"):
        student.score(with_column(rows, "item_vector", short))


def test_what_is_no_student_is_named(folder, taught, samples, tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no manifest.json: not a finished output"):
        load_student(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds samples, expected student"):
        load_student(taught)
    with pytest.raises(InputError, match=r"nowhere: no manifest.json.* expected samples"):
        train(tmp_path / "nowhere", tmp_path / "student")
    with pytest.raises(InputError, match=r"no teacher_repr for --distill.contrast; run workflows"):
        train(samples, tmp_path / "student", distill=Distill(contrast=1.0))
    with pytest.raises(InputError, match="unknown feature 'pricy'; did you mean 'price'"):
        train(taught, tmp_path / "student", features=("pricy",))
    with pytest.raises(InputError, match="already holds another run: config seed was 0, now 1"):
        train(taught, folder, k=10, **OPTIONS, seed=1)


def test_a_student_that_is_there_is_taken(folder, taught, student, monkeypatch):
    monkeypatch.setattr(finished, "train_any", None)
    again = train(taught, folder, k=10, **OPTIONS)
    assert again.model.manifest == student.model.manifest
    assert len(again.model.manifest["history"]) == 2 and not list(folder.parent.glob(".student.work"))


def test_threads_are_given_back(folder, taught, tmp_path, monkeypatch):
    before, asked = torch.get_num_threads(), []
    set_threads = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda n: asked.append(n) or set_threads(n))
    other = 1 if before > 1 else 2
    monkeypatch.setattr("os.cpu_count", lambda: max(before, other))
    optim = replace(OPTIM, epochs=1)
    train(taught, tmp_path / "one", k=10, compute=Compute(cpus=other), **OPTIONS | {"optim": optim})
    assert other in asked and torch.get_num_threads() == before


@pytest.mark.ray
def test_a_worker_of_ray_train_learns_the_same(ray_cluster, folder, taught, tmp_path):
    compute = Compute(cpus=0.5)
    train(taught, tmp_path / "student", k=10, compute=compute, cluster=True, **OPTIONS)
    here, there = load_model(folder, kind="student"), load_model(tmp_path / "student", kind="student")
    assert here.manifest["history"] == there.manifest["history"]
    assert all(torch.equal(here.ranker.state_dict()[k], v) for k, v in there.ranker.state_dict().items())
