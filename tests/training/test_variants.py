"""What a teacher learns beside clicks, the variant that is kept, and how far it agrees with the logs and the truth."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from samples_fixture import random_teacher
from scipy.stats import spearmanr
from training_fixture import ONE

from prerank.core.errors import InputError
from prerank.logs.folder import open_logs
from prerank.models.checkpoint import State, load_model, model_manifest, weights
from prerank.models.options import Arm, Distill, Optim
from prerank.samples.batches import scoring_batch
from prerank.samples.files import files_of, sample_files
from prerank.training.agreement import agreement, rank_correlation
from prerank.training.arms import teacher_arms
from prerank.training.finished import finished_models, fit_here
from prerank.training.preflight import check
from prerank.training.variants import Learn, best_of, check_learn, learning, variants_of
from prerank.training.worker import Job, Trained
from workflows import train_teacher

ARM = Arm("teacher", ("user", "price"), (4,), hard="listwise")


def test_a_teacher_learns_from_what_is_logged(samples, taught):
    """These logs have scores and no large table; of taught samples the scores are the teacher's own, or another's."""
    both = Learn(fine_score=100.0, id_dropout=0.8)
    teacher, *groups = teacher_arms(samples, learn=both)
    assert teacher.distill == Distill(score=100.0, on="correlation") and teacher.id_dropout == 0
    assert not any(arm.distill.active for arm in groups)
    assert not teacher_arms(taught, learn=both)[0].distill.active
    with pytest.raises(InputError, match="learn: of a teacher of --model mlp, and this is a gbdt"):
        teacher_arms(samples, model="gbdt", learn=both)
    alone = replace(teacher, distill=Distill())
    assert teacher_arms(samples)[0] == teacher_arms(samples, learn=Learn(0.0, 0.8))[0] == alone
    assert learning(teacher, samples, Learn(fine_score=2.0)).distill.score == 2.0


def test_variants_are_told_apart():
    both = replace(ARM, distill=Distill(score=3.0, on="correlation"), id_dropout=0.5)
    others = variants_of(both)
    assert {name: (arm.distill.score, arm.id_dropout) for name, arm in others.items()} == {
        "clicks": (0.0, 0.0), "fine_score": (3.0, 0.0), "id_dropout": (0.0, 0.5)
    }  # fmt: skip
    assert list(variants_of(replace(ARM, id_dropout=0.5))) == ["clicks"]
    assert not variants_of(ARM)

    def trained(arm: Arm, auc: float) -> Trained:
        return Trained(arm, State(epoch=1, best_epoch=0, history=[{"epoch": 0, "val/auc": auc}]), {})

    aucs = {"teacher": 0.7, "teacher_clicks": 0.6, "teacher_fine_score": 0.8, "teacher_id_dropout": 0.7}
    of = {arm.name: trained(arm, aucs[arm.name]) for arm in (both, *others.values())}
    kept = best_of(of, "teacher", others)
    assert kept["teacher"].arm == replace(both, id_dropout=0.0) and kept["teacher_all"].arm == both
    of["teacher_fine_score"] = trained(others["fine_score"], 0.7)
    assert best_of(of, "teacher", others)["teacher"].arm == both


def test_rank_correlations_are_spearmans():
    rng = np.random.default_rng(0)
    request = np.repeat(np.arange(5), (30, 7, 2, 1, 12))
    a, b = rng.integers(0, 6, len(request)).astype(float), rng.normal(size=len(request))
    b[request == 4] = 3.0  # says nothing
    expected = [spearmanr(a[request == r], b[request == r]).statistic for r in range(3)]
    np.testing.assert_allclose(rank_correlation(request, a, b), [*expected, np.nan, np.nan], atol=1e-12)


def test_a_teacher_is_held_against_the_logs_and_the_truth(logs, samples, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    for path in logs.iterdir():
        (folder / path.name).symlink_to(path)
    model = load_model(random_teacher(samples, tmp_path / "teacher"), kind="teacher")
    teacher = Trained(
        replace(ARM, features=model.arch.features, widths=model.arch.widths), State(), weights(model.ranker)
    )
    without = agreement(teacher, samples, open_logs(folder), 5)
    assert list(without) == ["fine_score"]

    candidates = pa.concat_tables(pq.read_table(path) for path in sorted((logs / "candidates").iterdir()))
    truth = candidates.select(["request_id", "item_id"])
    p = np.random.default_rng(1).random(len(truth))
    (folder / "truth").mkdir()
    pq.write_table(truth.append_column("click_probability", pa.array(p)), folder / "truth" / "all.parquet")
    got = agreement(teacher, samples, open_logs(folder), 5)
    true = dict(zip(zip(*(truth[name].to_pylist() for name in truth.column_names), strict=True), p, strict=True))
    fine = pa.concat_tables(pq.read_table(path) for path in sorted((logs / "fine_lists").iterdir()))
    logged = dict(
        zip(
            zip(fine["request_id"].to_pylist(), fine["item_id"].to_pylist(), strict=True),
            fine["fine_score"].to_pylist(),
            strict=True,
        )
    )
    each: dict[str, list[float]] = {name: [] for name in ("fine_score", "in_list", "outside", "kept")}
    features = model.schema.select(model.arch.features, where="test")
    table = pa.concat_tables(pq.read_table(path) for path in files_of(samples, "val"))
    batch = scoring_batch(table, features)
    with torch.inference_mode():
        scores = model.ranker(batch.features, batch.request_I)[0].numpy()
    for r, (request, items) in enumerate(
        zip(table["request_id"].to_pylist(), table["item_id"].to_pylist(), strict=True)
    ):
        score = scores[batch.request_I.numpy() == r]
        keys = [(request, item) for item in items]
        here, t = np.array([key in logged for key in keys]), np.array([true[key] for key in keys])
        each["fine_score"].append(spearmanr(score[here], [logged[key] for key in keys if key in logged]).statistic)
        each["in_list"].append(spearmanr(score[here], t[here]).statistic)
        each["outside"].append(spearmanr(score[~here], t[~here]).statistic)
        each["kept"].append(len({*np.argsort(-score)[:5]} & {*np.argsort(-t)[:5]}) / 5)
    assert got == pytest.approx({name: np.mean(values) for name, values in each.items()}, abs=1e-6)
    assert got["fine_score"] == without["fine_score"]


@pytest.mark.slow
def test_the_best_variant_is_published_and_said(logs, samples, tmp_path, monkeypatch, capsys):
    def here(arms, samples, *, kind, work, compute, k, beside, parent):
        job = Job(samples, compute, k)
        return finished_models(arms, job, kind=kind, work=work, fit=fit_here, beside=beside, parent=parent)

    monkeypatch.setattr(train_teacher, "start_ray", lambda: None)
    monkeypatch.setattr(train_teacher, "train_models", here)
    asked = {"widths": "8", "k": 5, "optim": Optim(lr=1e-2, epochs=2, batch=16, epoch_steps=4), "compute": ONE}
    learn = Learn(fine_score=100.0, variants=True)
    config = train_teacher.TrainTeacher(samples, tmp_path / "t", logs=logs, learn=learn, **asked)
    proof = train_teacher.main(config)
    manifest, said = model_manifest(tmp_path / "t", kind="teacher"), capsys.readouterr().out
    tried = manifest["variants"]
    assert set(tried) == {"all", "clicks"} and set(proof) == {"teacher", "item", "cross"}
    assert manifest["best"]["val/auc"] == proof["teacher"]["auc"] == max(tried.values())
    kept = "all" if tried["all"] >= tried["clicks"] else "clicks"
    assert f"kept: the variant '{kept}'" in said and "with the logged fine_score" in said
    assert train_teacher.main(config) == proof and f"kept: the variant '{kept}'" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"learn\.variants"):
        train_teacher.main(replace(config, learn=Learn(fine_score=100.0)))
    with pytest.raises(InputError, match=r"--learn\.variants: nothing to leave out"):
        train_teacher.main(replace(config, learn=Learn(variants=True)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop_columns(["shown_position"]), "built before samples held shown_position"),
        (lambda table: constant(table, -1), "no request has items of different shown_position"),
        (lambda table: constant(table, 7), "no request has items of different shown_position"),
    ],
)
def test_places_that_say_nothing_are_refused(samples, tmp_path, change, said):
    copy = shutil.copytree(samples, tmp_path / "samples")
    arm = replace(ARM, features=("price",), by_place=True, unexposed_ratio=0.0)
    check([arm], copy)
    for path, _ in sample_files(copy, "train"):
        pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(InputError, match=said):
        check([arm], copy)


def constant(table: pa.Table, place: int) -> pa.Table:
    column = table["shown_position"].combine_chunks()
    same = pa.ListArray.from_arrays(column.offsets, pa.array(np.full(len(column.values), place, np.int32)))
    return table.set_column(table.column_names.index("shown_position"), "shown_position", same)


@pytest.mark.parametrize("learn", [Learn(fine_score=1.0), Learn(shown_position=True)])
def test_what_is_of_clicks_alone_meets_no_other_objective(learn):
    with pytest.raises(InputError, match=r"schema\.json has the labels liked, shared, each with a head"):
        check_learn(learn, "mlp", ("liked", "shared"))
    check_learn(learn, "mlp", ())
    check_learn(Learn(id_dropout=0.5), "mlp", ("liked",))
