"""Few requests with many exposures each: the line from samples to a student, what is said, and how they are dealt."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from few_fixture import DAYS, write_few
from samples_fixture import build, teach_here
from training_fixture import BASE

from prerank.core.errors import InputError
from prerank.core.outputs import read_manifest
from prerank.models.checkpoint import model_manifest
from prerank.models.options import Optim
from prerank.samples.draw import DrawConfig
from prerank.samples.files import items_of
from prerank.training import few, loop, preflight
from prerank.training.arms import student_arm, teacher_arms
from prerank.training.few import FEW, dealt_of, points_of, said_of_few, too_few
from prerank.training.finished import finished_models, fit_here
from prerank.training.group import others_of
from prerank.training.options import Compute
from prerank.training.preflight import check
from prerank.training.worker import Job

REAL = Path(os.environ.get("CLUEWEB_DIR", Path(__file__).parents[3] / "shared/data/clueweb09"))
COMPUTE = Compute(cpus=0.5)


def line(logs, folder, k):
    """Samples, a teacher, what it taught and a student of it: the folders."""
    samples, taught = build(logs, folder / "samples"), folder / "taught"
    for kind, of in (("teacher", samples), ("student", taught)):
        if kind == "student":
            teach_here(samples, folder / "teacher", taught)
        arm = teacher_arms(of, widths=(32, 16))[0] if kind == "teacher" else student_arm(of, widths=(16, 8))
        finished_models(
            {folder / kind: arm}, Job(of, COMPUTE, k), kind=kind, work=folder / f".{kind}.work", fit=fit_here
        )
    return samples, taught


@pytest.mark.slow
@pytest.mark.parametrize("items", [60, 80])
def test_the_line_learns_from_36_requests(tmp_path, capsys, monkeypatch, items):
    """60 exposures a request, of 60 candidates or of 80: no negatives at all, or fewer than the teacher asks for."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    write_few(tmp_path / "logs", items=items)
    samples, taught = line(tmp_path / "logs", tmp_path, k=20)
    said = capsys.readouterr().out
    assert read_manifest(samples, kind="samples")["counts"]["noted"]["fewer_unexposed_than_asked"]["requests"] > 30
    pairs = read_manifest(taught, kind="samples")["counts"]["pairs"]
    assert (pairs["low_rank_negatives"] == 0) == (items == 60) and pairs["exposed"]
    assert [said.count(f"note: {kind}: little to learn from: ") for kind in ("teacher", "student")] == [1, 1]
    assert "12 validation requests (a share over them is known to ±28 points)" in said
    assert "batches of 8 requests in place of 64, an epoch is 10 passes over the samples (40 steps)" in said
    teacher, student = (model_manifest(tmp_path / kind, kind=kind) for kind in ("teacher", "student"))
    assert teacher["dealt"] == student["dealt"] == {"batch": 8, "lanes": 8, "passes": 10}
    assert teacher["best"]["val/auc"] > 0.8
    assert student["best"]["val/recall_at_20"] > 20 / items + 0.2, "a blind draw keeps 20 of the items"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the ClueWeb09 logs: CLUEWEB_DIR")
def test_the_line_learns_from_real_queries(tmp_path, monkeypatch):
    """36 queries of the TREC Web Track: the student keeps more of the teacher's top 100 than a blind draw does."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    samples, _ = line(REAL, tmp_path, k=100)
    blind = np.mean(100 / items_of(samples, "val"))
    teacher, student = (model_manifest(tmp_path / kind, kind=kind) for kind in ("teacher", "student"))
    assert teacher["best"]["val/auc"] > 0.8
    assert blind + 0.05 < student["best"]["val/recall_at_100"] < 1


def manifest_of(**counts):
    counts = {"requests_with_click": FEW, "requests_with_pairs": {"exposed": FEW, "bin_pairs": 5000}} | counts
    return {"counts": counts, "rows": {"train/a.parquet": 5000, "val/a.parquet": FEW}}


@pytest.mark.parametrize(
    ("counts", "of_students", "of_teacher"),
    [
        ({}, "", ""),
        ({"requests_with_click": 99}, "", "99 training requests with a click"),
        (
            {"requests_with_pairs": {"exposed": 20, "bin_pairs": 5000}},
            "20 training requests with exposed pairs",
            "",
        ),
        ({"requests_with_pairs": {"exposed": 36, "bin_pairs": 36}}, "36 training requests with pairs", ""),
    ],
)
def test_what_is_too_little(counts, of_students, of_teacher):
    """From a hundred on a share is known to ±10 points, and nothing is said."""
    student, teacher = replace(BASE, strategies=("exposed", "bin_pairs")), replace(BASE, hard="listwise")
    manifest = manifest_of(**counts)
    assert too_few([student], manifest) == of_students
    assert too_few([teacher], manifest) == of_teacher
    if of_students and of_teacher:
        assert too_few([student, teacher], manifest) == f"{of_teacher}, {of_students}"


def test_few_validation_requests_have_wide_intervals():
    manifest = manifest_of() | {"rows": {"train/a.parquet": 5000, "val/a.parquet": 12, "val/b.parquet": 13}}
    assert too_few([BASE], manifest) == "25 validation requests (a share over them is known to ±20 points)"
    # The normal interval of a share of one half, over 25 draws.
    assert points_of(25) == pytest.approx(100 * 1.96 * np.sqrt(0.25 / 25), rel=1e-3)
    old = manifest_of()
    del old["counts"]["requests_with_click"]
    assert too_few([replace(BASE, hard="listwise")], old) == "", "samples of earlier versions do not say"


def test_enough_is_dealt_in_silence(samples, monkeypatch):
    """120 requests: one line says what an epoch is, and one where a single pass is asked for nothing."""
    monkeypatch.setattr(few, "too_few", lambda arms, manifest: "")
    arm = replace(BASE, optim=Optim(batch=16))
    assert said_of_few("student", [arm, replace(arm, name="other")], samples, COMPUTE) == [
        "note: student: an epoch is 6 passes over the samples (42 steps)"
    ]
    assert said_of_few("student", [replace(arm, optim=Optim(batch=16, epoch_steps=1))], samples, COMPUTE) == []
    assert dealt_of(replace(arm, optim=Optim(batch=16, epoch_steps=2)), samples, COMPUTE).batches == 7


def test_what_cannot_be_dealt_is_refused_beforehand(samples):
    with pytest.raises(InputError, match="lanes must divide the batch"):
        dealt_of(replace(BASE, optim=Optim(batch=30)), samples, COMPUTE)
    with pytest.raises(InputError, match="number of workers must divide the lanes"):
        dealt_of(BASE, samples, Compute(workers=3))
    with pytest.raises(InputError, match=r"optim.batch 128 is more than the 120 training requests.*lower it to 120"):
        dealt_of(replace(BASE, optim=Optim(batch=128)), samples, COMPUTE)


def test_checkpoints_of_another_version_are_told_of(tmp_path):
    """Their options have other keys, so that they have other names."""
    assert others_of(tmp_path / "none", ["ray_train-new"]) == others_of(tmp_path, ["ray_train-new"]) == []
    (tmp_path / "ray_train-old").mkdir()
    assert others_of(tmp_path, ["ray_train-new"]) == ["ray_train-old"]
    (tmp_path / "ray_train-new").mkdir()
    assert others_of(tmp_path, ["ray_train-new"]) == [], "it goes on from its own"


def test_a_teacher_without_a_click_is_refused_beforehand(samples, monkeypatch):
    manifest = read_manifest(samples, kind="samples")
    manifest["counts"]["requests_with_click"] = 0
    monkeypatch.setattr(preflight, "samples_manifest", lambda folder: manifest)
    with pytest.raises(InputError, match="no training request has a click, which teacher learns from"):
        check([replace(BASE, name="teacher", hard="listwise")], samples)


def test_each_pass_has_its_own_negatives(tmp_path, monkeypatch):
    """As each epoch has where it is one pass."""
    write_few(tmp_path / "logs", shown=4, items=60, days=(40, 10, 1))
    samples, seen = build(tmp_path / "logs", tmp_path / "samples", draw=DrawConfig(uniform_items=40)), []
    made = loop.training_batches

    def spied(tables, *how):
        return made((seen.append(number) or (number, table) for number, table in tables), *how)

    monkeypatch.setattr(loop, "training_batches", spied)
    arm = replace(teacher_arms(samples, widths=(8,))[0], optim=Optim(batch=16, epoch_steps=5, epochs=2, patience=9))
    fit_here([arm], samples, tmp_path, compute=COMPUTE, k=20, runs={})
    assert seen[:12] == [n for n in range(6) for _ in range(2)], "2 batches of 16 a pass, 3 passes an epoch"


def test_made_up_logs_are_of_that_form(tmp_path):
    write_few(tmp_path / "logs")
    samples = build(tmp_path / "logs", tmp_path / "samples")
    manifest = read_manifest(samples, kind="samples")
    assert not manifest["positions"] and sum(n for name, n in manifest["rows"].items() if "train" in name) == DAYS[0]
