"""Heads of several objectives: each learns what a model of its objective alone learns."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch
from labels_fixture import HEADS, taught_of_both
from samples_fixture import rows_of

from prerank.core.errors import InputError
from prerank.logs.schema import load_schema
from prerank.models.distill import Distiller
from prerank.models.fusion import Fusion
from prerank.models.options import Arm, Distill, Optim
from prerank.models.scorers import scorer_of
from prerank.models.stats import load_stats
from prerank.samples.batches import columns, training_batch
from prerank.samples.files import sample_files
from prerank.training import student as students
from prerank.training.arms import student_arm, teacher_arms
from prerank.training.finished import fit_here
from prerank.training.options import Compute
from prerank.training.preflight import check

OPTIM = Optim(batch=16, epoch_steps=1, epochs=2)
FEATURES = ("price", "brand", "match")
OPTIONS = {"features": FEATURES, "widths": (8,), "distill": Distill(score=1.0), "optim": OPTIM}


@pytest.fixture(scope="module")
def both(logs, tmp_path_factory):
    return taught_of_both(logs, tmp_path_factory.mktemp("both"))


def arm_of(**options) -> Arm:
    return Arm("a", FEATURES, (6,), strategies=("exposed", "rank_pairs"), **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"distill": Distill(score=0.5)},
        {"distill": Distill(score=0.5, items="exposed"), "hard": "topk"},
        {"hard": "listwise", "unexposed_ratio": 2.0},
    ],
)
def test_the_loss_is_the_mean_of_the_single_objectives(both, options):
    """Of their own batches, with the other label and the other teacher's score in the place of the click's."""
    *_, taught = both
    arm = arm_of(heads=HEADS, shares=(0.75, 0.25), **options)
    features = load_schema(taught).select(FEATURES, where="test")
    table = pq.read_table(sample_files(taught, "train")[0][0])
    needed = table.select([*dict.fromkeys(columns(arm, "teacher_score"))])
    torch.manual_seed(0)
    distiller = Distiller(scorer_of(arm.arch, features, load_stats(taught)), arm)
    loss, parts = distiller(training_batch(needed, arm, features, 0, "teacher_score"))
    single, expected = arm_of(**options), 0.0
    for place, (label, score, share) in enumerate(
        (("clicked", "teacher_score", 0.75), ("converted", "/teacher/converted", 0.25))
    ):
        swapped = table.set_column(table.column_names.index("clicked"), "clicked", table[label])
        swapped = swapped.set_column(table.column_names.index("teacher_score"), "teacher_score", table[score])
        batch = training_batch(swapped, single, features, 0, "teacher_score")
        alone = Distiller(scorer_of(single.arch, features, load_stats(taught)), single)
        weights = {k: v[place : place + 1] if k.startswith("layers.1") else v for k, v in distiller.finished().items()}
        alone.student.load_state_dict(weights)
        one, _ = alone(batch)
        assert one.item() > 0
        expected += share * one.item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert {"hard", "hard_click", "hard_converted"} <= parts.keys()
    loss.backward()
    assert distiller.student.linears[-1].weight.grad.abs().sum(1).min() > 0


@pytest.mark.slow
def test_the_teachers_heads_are_columns(both):
    _, samples, _, taught = both
    for split in ("train", "val"):
        before, after = rows_of(samples, split)[0], rows_of(taught, split)[0]
        added = {"teacher_score", "/teacher/converted"} | ({"teacher_repr"} if split == "train" else set())
        assert after.keys() - before.keys() == added
        assert after["teacher_score"] != after["/teacher/converted"]


def test_click_alone_is_the_student_of_always(both, tmp_path):
    """The same arm, and to the last bit the same weights."""
    *_, taught = both
    assert student_arm(taught, fusion="click=1,converted=0", **OPTIONS) == student_arm(taught, **OPTIONS)
    assert not {"heads", "shares", "learned"} & student_arm(taught, **OPTIONS).said().keys()


@pytest.mark.slow
def test_a_student_of_both_learns_and_says_what_of_each(both, tmp_path):
    *_, taught = both
    student = students.train(taught, tmp_path / "student", k=10, fusion="click=1,converted=1", **OPTIONS)
    assert student.model.arch.fusion == Fusion(HEADS, (0.5, 0.5))
    best = student.model.manifest["best"]
    assert {
        "val/recall_at_10",
        "val/recall_click_at_10",
        "val/recall_converted_at_10",
        "train/hard_click",
    } <= best.keys()
    alone = students.train(taught, tmp_path / "alone", k=10, fusion="converted=1", **OPTIONS)
    best = alone.model.manifest["best"]
    assert best["val/recall_at_10"] == best["val/recall_converted_at_10"] != best.get("val/recall_click_at_10")


def test_the_teacher_has_a_head_for_each_and_ranks_by_clicks(both, tmp_path):
    _, samples, *_ = both
    teacher, *small = teacher_arms(samples, widths=(8,), unexposed_ratio=1.0, optim=OPTIM)
    assert teacher.fusion == Fusion(HEADS, (1.0, 0.0)) and teacher.learned == (0.5, 0.5)
    assert not any(arm.heads for arm in small)
    trained = fit_here([teacher], samples, tmp_path, compute=Compute(), k=10, runs={})["teacher"]
    last = trained.best["layers.1.weight"]
    assert last.shape == (2, 8) and trained.state.history[0]["train/hard_converted"] > 0
    [gbdt, *_] = teacher_arms(samples, model="gbdt")
    assert not gbdt.heads


def test_what_heads_do_not_go_with_is_one_line(both, taught, tmp_path):
    _, samples, _, ours = both
    with pytest.raises(InputError, match=r"unknown objective 'converted'.*declares no 'labels'"):
        student_arm(taught, fusion="click=1,converted=1", **OPTIONS)
    with pytest.raises(InputError, match="follow the order of one objective"):
        both_of = student_arm(ours, **OPTIONS | {"distill": Distill(contrast=1.0)}, fusion="click=1,converted=1")
        check([both_of], ours)
    with pytest.raises(InputError, match="needs the heads of --model mlp"):
        check([student_arm(ours, fusion="converted=1", model="two_tower", features=("brand", "user_age"))], ours)
    untaught = student_arm(samples, fusion="converted=1", **OPTIONS | {"distill": Distill()})
    with pytest.raises(InputError, match="no teacher's score of 'converted'"):
        check([replace(untaught, select_by="auc")], samples)
