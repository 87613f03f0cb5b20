"""The arms of the trained models, from options and from what the samples hold."""

import json
from dataclasses import replace

import pytest
import torch

from prerank.core.errors import InputError
from prerank.models.checkpoint import State
from prerank.models.options import Distill, Optim
from prerank.training.arms import proof_of, student_arm, teacher_arms
from prerank.training.finished import rising
from prerank.training.worker import Trained


def test_a_student_by_default_and_by_options(samples, taught, tmp_path):
    arm = student_arm(taught)
    assert arm.features == ("query_city", "price", "brand")  # the schema's hand_picked, in its order
    assert arm.widths == (64, 32) and arm.select_by == "recall" and arm.name == "student"
    assert arm.strategies == ("exposed", "low_rank_negatives", "rank_pairs", "bin_pairs")
    asked = {
        "strategies": ("exposed",),
        "positions": "logged",
        "distill": Distill(score=0.5),
        "optim": Optim(lr=0.1),
        "seed": 3,
    }
    named = student_arm(taught, features=("match", "price"), widths=(8,), **asked)
    assert named == replace(arm, features=("price", "match"), widths=(8,), **asked)
    path = tmp_path / "arch.json"
    path.write_text(json.dumps({"features": ["match"], "widths": [4, 0]}))
    assert student_arm(taught, arch=path, features=("price",)) == replace(arm, features=("match",), widths=(4, 0))
    with pytest.raises(InputError, match=r"^--features: unknown feature 'pricy'"):
        student_arm(taught, features=("pricy",))
    with pytest.raises(InputError, match=r"^--features: 'secret' is teacher_only"):
        student_arm(taught, features=("price", "secret"))
    path.write_text(json.dumps({"features": ["pricy"], "widths": [4]}))
    with pytest.raises(InputError, match=r"arch.json: unknown feature 'pricy'"):
        student_arm(taught, arch=path)


def test_a_teacher_and_what_it_has_to_beat(samples):
    teacher, item, cross = teacher_arms(samples, widths=(16,), unexposed_ratio=2.0, seed=5)
    assert len(teacher.features) == 12 and teacher.widths == (16,) and teacher.hard == "listwise"
    assert item.features == ("price", "quality", "brand", "item_tags", "item_vector") and item.widths == (64, 32)
    assert cross.features == ("match", "secret") and {item.name, cross.name} == {"item", "cross"}
    assert {(arm.unexposed_ratio, arm.select_by, arm.seed) for arm in (teacher, item, cross)} == {(2.0, "auc", 5)}
    assert [arm.name for arm in teacher_arms(samples, features=("price", "hour"))] == ["teacher", "item"]


def test_the_proof_is_of_the_best_epoch(samples):
    teacher, item, _ = teacher_arms(samples)
    of = [{"epoch": n, "val/hit_rate_at_10": n / 10, "val/auc": 0.5 + n / 10} for n in range(3)]
    trained = {
        arm.name: Trained(arm, State(epoch=3, best_epoch=best, history=of), {"w": torch.zeros(1)})
        for arm, best in ((teacher, 2), (item, 0))
    }
    assert proof_of(trained, 10) == {
        "proof": {"teacher": {"hit_rate": 0.2, "auc": 0.7}, "item": {"hit_rate": 0.0, "auc": 0.5}}
    }


@pytest.mark.parametrize(("epochs", "best", "expected"), [(6, 5, True), (6, 3, True), (6, 2, False), (5, 4, False)])
def test_who_was_still_rising(samples, epochs, best, expected):
    """Ended by the most epochs, 6 here, before 3 without a better one had passed."""
    arm = replace(teacher_arms(samples)[0], optim=Optim(epochs=6, patience=3))
    assert rising(Trained(arm, State(epoch=epochs, best_epoch=best), {})) == expected
