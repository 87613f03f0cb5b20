"""The models that are not the MLP: trained, kept, scored and exported as it is, each from what it can read."""

import json
from dataclasses import replace

import lightgbm
import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
from logs_fixture import SCHEMA
from ranker_fixture import FEATURES as FEATURES_OF_ALL
from ranker_fixture import STATS
from samples_fixture import teach_here
from training_fixture import BASE

from prerank.core.config import plain
from prerank.core.errors import InputError
from prerank.core.nested import flat_numpy
from prerank.evaluation.metrics import Candidates, Validation
from prerank.evaluation.scores import scores_of
from prerank.latency.served import serving_costs
from prerank.logs.schema import load_schema
from prerank.models.arch import Arch, load_arch
from prerank.models.checkpoint import load_model
from prerank.models.stats import load_stats
from prerank.models.towers import tower
from prerank.models.trees import Boosted
from prerank.samples.batches import scoring_batch
from prerank.serving import export
from prerank.training import boosted
from prerank.training.arms import teacher_arms
from prerank.training.finished import Beside, finished_models, fit_here
from prerank.training.options import Compute
from prerank.training.student import Distill, Optim, load_student, train
from prerank.training.worker import Job, per_request

pytestmark = pytest.mark.slow  # each model is trained, exported and timed

FEATURES = tuple(feature["name"] for feature in SCHEMA["features"] if not feature.get("teacher_only"))
OPTIM = Optim(batch=16, epoch_steps=1, epochs=2)
OPTIONS = {
    "logistic": {"crosses": ("brand*query_city",), "unexposed_ratio": 1.0},
    "two_tower": {"widths": (8, 4), "distill": Distill(score=1.0)},
    "two_tower_gbdt": {"widths": (8, 4)},
    "linear": {},
}
READS = {
    "logistic": FEATURES,
    "two_tower": tuple(name for name in FEATURES if name != "match"),
    "two_tower_gbdt": FEATURES,
    "linear": ("price", "quality", "item_vector", "match"),
}


def trained(model, taught, out, **options):
    return train(taught, out, k=10, model=model, **{"features": FEATURES, "optim": OPTIM, **OPTIONS[model], **options})


@pytest.fixture(scope="module", params=list(OPTIONS))
def student(request, taught, tmp_path_factory):
    return trained(request.param, taught, tmp_path_factory.mktemp(request.param) / "student")


def test_it_is_kept_and_comes_back(student, taught):
    model = student.model.arch.model
    assert student.model.arch.features == READS[model]
    again = load_student(student.folder)
    assert again.model.manifest == student.model.manifest
    table = pq.read_table(next((taught / "val").glob("*.parquet")))
    assert (scores_of(table, again.model) == scores_of(table, student.model)).all()
    assert np.ptp(scores_of(table, again.model)) > 0


def test_it_is_exported_and_timed_as_it_is_served(student, taught, tmp_path):
    model, arch = student.model, student.model.arch
    made = export.write_export(tmp_path, model, load_stats(student.folder), samples=taught, repeats=10)
    assert max(each["worst"] for each in made["parity"].values()) < 1e-5
    costs = serving_costs({"student": (student.folder, "student")}, candidates=20, repeats=10)["student"]
    assert costs["inference_us"] > 0
    if not arch.model.startswith("two_tower"):
        return
    served = {each.name for each in export.open_session(onnx.load(tmp_path / "served.onnx"), 1).get_inputs()}
    assert served == {"user_age", "user_vector", "user_tags", "query_city", "hour", "/item_vector"} | (
        {"match"} if arch.model == "two_tower_gbdt" else set()
    )
    assert made["parity"]["towers"]["requests"] > 40
    vectors = pq.read_table(tmp_path / "item_vectors.parquet")
    assert len(set(vectors["item_id"].to_pylist())) == vectors.num_rows
    # Of all features of the request and the vector, in place of all that the item's tower reads.
    of_request = {"F1": [1, 2, 1, 1], "F2": [20]}
    cross = 90 if arch.model == "two_tower_gbdt" else 0
    assert costs["fetch_us"] == max(max(of_request["F1"]) + 4, max(60, cross) + 2 * (2 + bool(cross)))


def test_vectors_of_items_are_those_of_their_last_rows(taught, tmp_path):
    student = trained("two_tower", taught, tmp_path / "student")
    folder = tmp_path / "export"
    folder.mkdir()
    export.write_export(folder, student.model, load_stats(student.folder), samples=taught, repeats=10)
    by_item = dict(zip(*pq.read_table(folder / "item_vectors.parquet").to_pydict().values(), strict=True))
    files = sorted((taught / "val").glob("*.parquet"))
    table = pq.read_table(files[-1])
    last = table.slice(table.num_rows - 1)
    vectors = np.array([by_item[item] for item in last["item_id"][0].as_py()], np.float32)
    towers = student.model.ranker
    batch = scoring_batch(last, student.model.schema.select(student.model.arch.features, where="test"))
    with torch.no_grad():
        u = tower(towers.request, towers.embed.side(batch.features, 0))[0].numpy()
    np.testing.assert_allclose(vectors @ u, scores_of(last, student.model), atol=1e-5)


def test_clicks_are_learned_by_themselves(taught, tmp_path):
    """The loss of a logistic regression that knows nothing is log 2; one that learns is below."""
    history = trained("logistic", taught, tmp_path / "student").model.manifest["history"]
    assert history[-1]["train/hard"] < history[0]["train/hard"] < np.log(2)


def test_what_cannot_be_is_refused_by_a_line(taught, tmp_path):
    out = tmp_path / "student"
    for model, options, said in (
        ("two_tower", {"features": ("match", "user_age")}, "needs a feature of the side item; name some"),
        ("two_tower", {"features": ("match", "price")}, "needs a feature of the side user, query or context"),
        ("two_tower", {"widths": (0,)}, "a tower needs a layer"),
        ("two_tower", {"distill": Distill(contrast=1.0)}, "a two_tower has none; leave them out"),
        ("two_tower", {"crosses": ("brand*query_city",)}, "of --model logistic alone, and this is two_tower"),
        ("logistic", {"crosses": ("brand*price",)}, r"--crosses brand\*price: expected two of the features of kind id"),
        ("two_tower_gbdt", {"features": ("price", "user_age")}, "needs a feature of the side cross, of numbers"),
        ("linear", {"features": ("brand", "user_age")}, "needs a number of an item or cross side"),
        ("logistic", {"crosses": ("brand",)}, "there are: query_city, brand"),
    ):
        with pytest.raises(InputError, match=said):
            trained(model, taught, out, **options)
    assert not out.exists()


def test_trees_are_grown_from_what_lightgbm_is_given(taught, tmp_path, monkeypatch):
    """The finished model scores as LightGBM's own predict does from the towers' score and the cross feature."""
    boosters = []
    made = lightgbm.Booster
    monkeypatch.setattr(lightgbm, "Booster", lambda *args: boosters.append(made(*args)) or boosters[-1])
    student = trained("two_tower_gbdt", taught, tmp_path / "student")
    model, (booster,) = student.model.ranker, boosters
    features = student.model.schema.select(student.model.arch.features, where="test")
    batch = scoring_batch(pq.read_table(next((taught / "val").glob("*.parquet"))), features)
    x_IF = model.inputs(batch.features, batch.request_I).detach()
    towers, match = model.towers(batch.features, batch.request_I)[0], batch.features["match"]
    stats = load_stats(student.folder)["match"]
    assert torch.equal(x_IF[:, 0], towers) and x_IF.shape[1] == 2
    normal = ((match[:, 0] - stats["mean"][0]) / stats["std"][0]).nan_to_num().clamp(-8, 8)
    assert torch.allclose(x_IF[:, 1], normal, atol=1e-6)
    kept = len(model.trees.leaf_TL)
    assert kept == boosted.LOOK_EVERY * len(student.model.manifest["history"])
    np.testing.assert_allclose(model.trees(x_IF), booster.predict(x_IF.numpy(), num_iteration=kept), atol=1e-6)


def test_weights_of_a_linear_student_are_the_best_that_were_looked_at(taught, tmp_path):
    student = trained("linear", taught, tmp_path / "student")
    ranker = student.model.ranker
    best = student.model.manifest["best"]
    features = student.model.schema.select(student.model.arch.features, where="test")

    def recall():
        return np.nanmean(per_request(ranker, features, taught, 10)["recall"].to_numpy())

    assert best["val/recall_at_10"] == pytest.approx(recall())
    weight = ranker.linears[0].weight.detach().clone()
    assert weight.norm() == pytest.approx(1.0)
    with torch.no_grad():
        for axis in range(weight.shape[1]):
            ranker.linears[0].weight.copy_(weight)
            ranker.linears[0].weight[0, axis] = 0.0  # without an input it is not better
            assert recall() <= best["val/recall_at_10"] + 0.02


def test_the_fewest_trees_that_are_surely_no_worse():
    """Of looks at 100 requests: 1 point worse by ±2 is within its error of 0.2 not, 0.1 worse by ±2 is."""
    rng = np.random.default_rng(0)
    best_R = rng.random(100)
    noise_R = rng.standard_normal(100)
    noise_R = 0.02 * (noise_R - noise_R.mean()) / noise_R.std()
    looks = [best_R - 0.01 + noise_R, best_R - 0.001 + noise_R, best_R - 0.0001 + noise_R, best_R]
    assert boosted._fewest(looks, 3) == 1
    assert boosted._fewest([*looks[:1], best_R], 1) == 1
    assert boosted._fewest([best_R, best_R], 1) == 0


def test_numbers_that_tell_nothing_apart_are_a_line():
    scorer, day = Boosted(FEATURES_OF_ALL[:1], STATS), boosted.Day([])
    rows = boosted.Rows(np.zeros((40, 1), np.float32), np.arange(40) % 2, np.array([20, 20]))
    with pytest.raises(InputError, match="base: no split of its 1 numbers tells 40 rows apart"):
        boosted.grow(scorer, BASE, rows, day, 10)


def test_few_rows_are_split_too():
    """Of 40 rows, of which LightGBM's own default would make one leaf."""
    rng = np.random.default_rng(0)
    x_NF = rng.normal(size=(40, 1)).astype(np.float32)
    grade_N, offsets = (x_NF[:, 0] > 0).astype(np.int32), np.array([0, 20, 40])
    no_N = np.zeros(40, bool)
    candidates = Candidates(offsets, no_N, grade_N > 0, no_N)
    scorer, day = Boosted(FEATURES_OF_ALL[:1], STATS), boosted.Day([(x_NF, Validation(candidates, x_NF[:, 0], k=5))])
    rows = boosted.Rows(x_NF, grade_N, np.array([20, 20]))
    boosted.grow(scorer, BASE, rows, day, 10)
    score_N = scorer.trees(torch.from_numpy(x_NF))
    assert score_N[grade_N > 0].min() > score_N[grade_N == 0].max()


def test_more_rows_than_memory_are_a_line(taught, tmp_path, monkeypatch):
    monkeypatch.setattr(boosted, "items_of", lambda samples, split: np.array([2**40]))
    with pytest.raises(InputError, match=r"1,099,511,627,776 rows of 2 numbers take 12,288.0 GiB for the trees of st"):
        trained("two_tower_gbdt", taught, tmp_path / "student")


def test_files_of_earlier_versions_are_of_the_mlp(tmp_path):
    path = tmp_path / "arch.json"
    Arch(("a",), (4,)).save(path)
    assert "model" not in json.loads(path.read_text())
    assert load_arch(path) == Arch(("a",), (4,))
    towers = Arch(("a",), (4,), "two_tower")
    towers.save(path)
    assert load_arch(path) == towers
    path.write_text('{"features": ["a"], "widths": [], "model": "tree"}')
    with pytest.raises(InputError, match="model must be one of mlp, linear"):
        load_arch(path)


def test_arms_of_before_are_known_by_what_they_were_known_by():
    new = {"model", "crosses", "by_place", "id_dropout", "heads", "shares", "learned"}
    assert set(plain(BASE)) - set(BASE.said()) == new
    towers = replace(BASE, model="two_tower")
    assert towers.said() == {**BASE.said(), "model": "two_tower"}


def test_a_student_of_before_is_the_same_run(taught, tmp_path):
    """Its manifest does not say what it is, and the same command takes it."""
    options = {"features": FEATURES, "widths": (4,), "optim": OPTIM}
    first = train(taught, tmp_path / "student", k=10, **options)
    assert not {"model", "crosses"} & set(first.model.manifest["config"])
    assert train(taught, tmp_path / "student", k=10, **options).model.manifest == first.model.manifest
    assert load_model(first.folder, kind="student").arch.model == "mlp"


def test_a_teacher_of_trees_is_distilled_by_its_scores(samples, tmp_path):
    """Its scores become a column, which a student keeps; it has no representation, and contrast says so."""
    teacher, *groups = teacher_arms(samples, model="gbdt", unexposed_ratio=1.0, optim=OPTIM)
    out, job = tmp_path / "teacher", Job(samples, Compute(), 10)
    beside = Beside((), lambda trained: {})
    finished_models({out: teacher}, job, kind="teacher", work=tmp_path / "work", fit=fit_here, beside=beside)
    model = load_model(out, kind="teacher")
    assert model.arch.model == "gbdt" and len(groups) == 2
    taught = teach_here(samples, out, tmp_path / "taught")
    table = pq.read_table(next((taught / "train").glob("*.parquet")))
    assert "teacher_repr" not in table.column_names
    assert (scores_of(table, model) == flat_numpy(table["teacher_score"])).all()
    options = {"k": 10, "features": FEATURES, "optim": OPTIM}
    student = train(taught, tmp_path / "student", distill=Distill(score=1.0), **options)
    assert student.model.manifest["best"]["val/recall_at_10"] > 0
    with pytest.raises(
        InputError, match=r"the teacher is one of trees, which has no last hidden layer that --distill.con"
    ):
        train(taught, tmp_path / "other", distill=Distill(contrast=1.0), **options)


def test_an_id_is_what_its_value_was_clicked(samples):
    """The rate of the exposed items that have the value, with 20 of the mean rate beside them."""
    schema = load_schema(samples)
    features = schema.select(("price", "brand", "query_city", "item_tags"), where="test")
    scorer = Boosted(features, load_stats(samples))
    tables = [pq.read_table(path) for path in sorted((samples / "train").glob("*.parquet"))]
    boosted.learn_ids(scorer, features, tables)
    rows = [row for table in tables for row in table.to_pylist()]
    for feature in (feature for feature in features if feature.dim):
        seen = np.zeros((2, feature.size + 1))
        for row in rows:
            for place, exposed in enumerate(row["exposed"]):
                values = row[feature.name] if feature.of_request else row[feature.name][place]
                for value in values if isinstance(values, list) else [values]:
                    seen[0, value] += exposed
                    seen[1, value] += exposed and row["clicked"][place]
        mean = seen[1].sum() / seen[0].sum()
        rate = (seen[1] + 20 * mean) / (seen[0] + 20)
        expected = np.log(rate / (1 - rate))
        np.testing.assert_allclose(scorer.embed.table(feature.name).weight.detach()[:, 0], expected, rtol=1e-4)
