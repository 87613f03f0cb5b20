"""The composition of the losses, and which parameters they move."""

import json
from typing import get_args, get_type_hints

import pyarrow.parquet as pq
import pytest
import torch

from prerank.logs.schema import load_schema
from prerank.models import losses
from prerank.models.distill import DISTANCES, Distiller, Shown
from prerank.models.losses import Segments
from prerank.models.options import Arm, Distill, Hard
from prerank.models.ranker import Ranker
from prerank.samples.batches import columns, training_batch
from prerank.samples.files import sample_files


def setting(taught, widths=(6,), hard="pairwise", strategies=("exposed",), **distill):
    arm = Arm(
        "a",
        ("price", "brand", "match"),
        widths,
        hard=hard,
        strategies=strategies,
        distill=Distill(**{"projection": 5, "head": "free", "ordered": False, "contrasted": 99, **distill}),
    )
    features = load_schema(taught).select(arm.features, where="test")
    [(path, _)] = sample_files(taught, "train")
    batch = training_batch(
        pq.read_table(path, columns=list(columns(arm, "teacher_score"))), arm, features, 0, "teacher_score"
    )
    torch.manual_seed(0)
    stats = json.loads((taught / "stats.json").read_text())
    distiller = Distiller(Ranker(features, arm.widths, stats), arm, 8 if arm.distill.contrast else None)
    distiller.features, distiller.stats = features, stats
    return distiller, batch


def test_without_distillation_the_loss_is_the_hard_one(taught):
    distiller, batch = setting(taught)
    loss, parts = distiller(batch)
    score, _ = distiller.student(batch.features, batch.request_I)
    expected = losses.pairwise(score, (batch.hi_P, batch.lo_P), Segments(batch.group_P, batch.groups))
    assert set(parts) == {"hard"} and loss.item() == pytest.approx(expected.item())
    assert {name.split(".")[0] for name, _ in distiller.named_parameters()} == {"student"}


@pytest.mark.parametrize("hard", get_args(Hard))
def test_every_hard_loss_falls_as_the_order_gets_better(taught, hard):
    """Of scores in the teacher's order, at random, and against it; and it moves the student's weights alone."""
    distiller, batch = setting(taught, hard=hard, strategies=("rank_pairs", "bin_pairs"), score=1.0)
    best_I = losses.standardised(batch.teacher_I, Segments(batch.request_I, batch.requests))
    random_I = best_I[torch.randperm(len(best_I), generator=torch.Generator().manual_seed(0))]
    good, middling, bad = (distiller.hard(score_I, batch).item() for score_I in (best_I, random_I, -best_I))
    assert 0 < good < middling < bad
    distiller.hard(distiller.scores(batch)[0], batch).backward()
    assert all(weight.grad is not None for name, weight in distiller.named_parameters() if "layers.0" in name)


@pytest.mark.parametrize("hard", get_args(Hard))
def test_items_that_no_loss_reads_change_no_hard_loss(taught, hard):
    """With the scores distilled every item of the pool is in the batch, and else those of the pairs."""
    if hard == "lambda":
        pytest.skip("its ranks are those among all items of the batch")
    strategies = ("exposed", "low_rank_negatives", "bin_pairs")
    found = []
    for score in (0.0, 1.0):
        distiller, batch = setting(taught, hard=hard, strategies=strategies, score=score)
        found.append(distiller.hard(distiller.scores(batch)[0], batch).item())
    assert found[0] == pytest.approx(found[1], rel=1e-5) and found[0] > 0


def test_a_distance_for_each_value_of_the_option():
    assert set(DISTANCES) == set(get_args(get_type_hints(Distill)["on"]))


@pytest.mark.parametrize("on", ["logits", "centred", "softmax"])
def test_additive_and_convex_forms_and_warmup(taught, on):
    for form in ("additive", "convex"):
        distiller, batch = setting(taught, score=0.3, form=form, on=on)
        loss, parts = distiller(batch, 0.5)
        hard_weight = 1.0 if form == "additive" else 1 - 0.15
        assert loss.item() == pytest.approx((hard_weight * parts["hard"] + 0.15 * parts["score"]).item(), rel=1e-6)
        distance = {"logits": losses.score_mse, "centred": losses.centred_mse, "softmax": losses.softmax_mse}[on]
        score = distiller.student(batch.features, batch.request_I)[0]
        assert parts["score"].item() == pytest.approx(
            distance(score, batch.teacher_I, Segments(batch.request_I, batch.requests)).item(), rel=1e-6
        )


def test_all_parts_add_up(taught):
    distiller, batch = setting(taught, score=0.3, kl=0.2, contrast=0.7)
    loss, parts = distiller(batch)
    total = parts["hard"] + 0.3 * parts["score"] + 0.2 * parts["kl"] + 0.7 * parts["contrast"]
    assert loss.item() == pytest.approx(total.item(), rel=1e-6)


def test_exposed_items_alone_are_distilled_where_asked(taught):
    distiller, batch = setting(taught, score=1.0, contrast=1.0, items="exposed", on="logits")
    score = distiller.student(batch.features, batch.request_I)[0]
    shown = batch.exposed_I
    segments = Segments(batch.request_I[shown], batch.requests)
    expected = losses.score_mse(score[shown], batch.teacher_I[shown], segments)
    assert distiller(batch)[1]["score"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_positives_by_item_are_the_diagonal(taught):
    distiller, batch = setting(taught, contrast=1.0, positives="item")
    student, teacher = (
        torch.nn.functional.normalize(project(x), dim=1)
        for project, x in (
            (distiller.project_student, distiller.student(batch.features, batch.request_I)[1]),
            (distiller.project_teacher, batch.teacher_ID),
        )
    )
    total = 0.0
    for r in range(batch.requests):
        mine = batch.request_I == r
        logits = student[mine] @ teacher[mine].T / distiller.arm.distill.temperature
        total += torch.nn.functional.cross_entropy(logits, torch.arange(int(mine.sum())))
    assert distiller(batch)[1]["contrast"].item() == pytest.approx((total / batch.requests).item(), rel=1e-4)


@pytest.mark.parametrize("widths", [(6,), (6, 0, 4), ()])
def test_a_tied_head_is_merged_into_the_last_layer(taught, widths):
    """What is saved scores as the training did, through the projection and the reader."""
    distiller, batch = setting(taught, widths=widths, contrast=1.0, head="tied")
    distiller.reader.data = torch.randn(5, generator=torch.Generator().manual_seed(3))
    score, repr_ = distiller.student(batch.features, batch.request_I)
    through = distiller.project_student(repr_) @ distiller.reader
    fresh = Ranker(distiller.features, widths, distiller.stats)
    fresh.load_state_dict(distiller.finished())
    assert torch.allclose(fresh(batch.features, batch.request_I)[0], through, rtol=1e-5, atol=1e-5)
    shown = Shown(distiller.student, distiller.finished()).student(batch.features, batch.request_I)
    assert torch.allclose(shown[0], through, rtol=1e-5, atol=1e-5) and torch.equal(shown[1], repr_)
    hard = losses.pairwise(through, (batch.hi_P, batch.lo_P), Segments(batch.group_P, batch.groups))
    assert distiller(batch)[1]["hard"].item() == pytest.approx(hard.item(), rel=1e-6)
    assert not torch.allclose(through, score)


def test_the_reader_learns_from_the_teachers_side_alone(taught):
    """It comes to rest at the covariance, by hand; and the hard loss moves what it reads of the student, never it."""
    distiller, batch = setting(taught, contrast=1.0, head="tied")
    teacher = torch.nn.functional.normalize(distiller.project_teacher(batch.teacher_ID), dim=1).detach()
    covariance = 0.0
    for r in range(batch.requests):
        mine = batch.request_I == r
        if mine.any():
            scores = batch.teacher_I[mine]
            wanted = (scores - scores.mean()) / scores.std(correction=0)
            covariance = covariance + (wanted[:, None] * teacher[mine]).mean(0) / batch.requests
    distiller(batch)[0].backward()
    assert torch.allclose(distiller.reader.grad, -covariance, atol=1e-6)
    distiller.zero_grad()
    distiller.reader.data = covariance
    distiller(batch)[0].backward()
    assert distiller.reader.grad.abs().max() < 1e-6
    distiller.zero_grad()
    distiller.hard(distiller.scores(batch)[0], batch).backward()
    assert distiller.reader.grad is None and distiller.project_student.weight.grad.abs().sum() > 0


def test_relations_need_no_projection(taught):
    distiller, batch = setting(taught, relations=0.5)
    loss, parts = distiller(batch)
    assert loss.item() == pytest.approx((parts["hard"] + 0.5 * parts["relations"]).item(), rel=1e-6)
    student, teacher = (
        torch.nn.functional.normalize(x, dim=1)
        for x in (distiller.student(batch.features, batch.request_I)[1], batch.teacher_ID)
    )
    segments = Segments(batch.request_I, batch.requests)
    assert parts["relations"].item() == pytest.approx(losses.relations(student, teacher, segments).item(), rel=1e-6)
    assert {name.split(".")[0] for name, _ in distiller.named_parameters()} == {"student"}


def test_the_contrast_moves_the_students_trunk(taught):
    distiller, batch = setting(taught, contrast=1.0)
    loss = distiller(batch)[0] - distiller.hard(distiller.student(batch.features, batch.request_I)[0], batch)
    loss.backward()
    assert distiller.student.layers[0].weight.grad.abs().sum() > 0
    assert distiller.project_teacher.weight.grad.abs().sum() > 0
