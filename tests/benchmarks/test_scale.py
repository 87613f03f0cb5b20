"""What is timed is what the commands train, and rates and sizes are those of one CPU, by hand."""

import pytest
from samples_fixture import build, random_teacher, teach_here

from prerank.benchmarks import scale
from prerank.core.errors import InputError
from prerank.core.outputs import read_manifest
from prerank.logs.folder import open_logs
from prerank.models.options import Distill, Optim
from workflows import train_student, train_teacher


@pytest.fixture(scope="module")
def inputs(logs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    samples = build(logs, folder / "samples")
    teacher = random_teacher(samples, folder / "teacher")
    return scale.Inputs(logs, teach_here(samples, teacher, folder / "taught"), teacher)


def test_the_arms_are_those_of_the_commands(inputs):
    two, arms = Optim(epochs=2, batch=16, epoch_steps=1), scale.arms_of(inputs, 16)
    distill = Distill(score=1.0, contrast=0.5)
    student = train_student.TrainStudent(inputs.taught, inputs.taught, distill=distill, optim=two)
    assert arms["train_student"] == [train_student.arm_of(student)]
    teacher = train_teacher.TrainTeacher(inputs.taught, inputs.teacher, optim=two)
    of_all, *groups = arms["train_teacher"]
    expected = train_teacher.arms_of(teacher)
    assert of_all.features == expected[0].features and [arm.name for arm in groups] == ["item", "cross"]
    assert groups == expected[1:]


def test_rates_are_those_of_one_cpu_where_all_are_busy(inputs, monkeypatch):
    monkeypatch.setattr(scale.os, "cpu_count", lambda: 3)  # two workers at most keep no more busy than there are
    steps = ("build_samples", "teach", "train_teacher", "train_student")
    timed = {step: {1: 10.0, 2: 18.0 + place, 4: 1000.0} for place, step in enumerate(steps)}
    rates, lists = scale.rates_of(inputs, timed), open_logs(inputs.logs).tables["fine_lists"]
    found = (rates.build_rows_s, rates.teach_items_s, rates.teacher_items_s, rates.student_items_s)
    assert found == (9.0, 9.5, 10.0, 10.5)
    files = inputs.logs / "fine_lists"
    assert rates.disk_bytes * lists.rows == pytest.approx(sum(path.stat().st_size for path in files.iterdir()))
    train = sum(path.stat().st_size for path in (inputs.taught / "train").iterdir())
    built = read_manifest(inputs.taught, kind="samples")["counts"]["built"]
    assert rates.sample_bytes == train / built["requests"] and rates.sample_items == built["rows"] / built["requests"]


def test_what_cannot_be_measured_is_named(inputs, monkeypatch):
    steps = scale.Steps(build=lambda *_: None, teach=lambda *_: None)
    with pytest.raises(InputError, match=r"training requests, expected 3000000 for three batches; lower --load\.batch"):
        scale.measured(inputs, steps, batch=1_000_000)
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:1")
    with pytest.raises(InputError, match="RAY_ADDRESS is somewhere:1: expected none"):
        scale.measured(inputs, steps, batch=1)


def test_two_workers_are_held_against_one_with_as_many_requests_for_each(inputs, monkeypatch):
    seen = []

    def of_training(arm, samples, workers):
        seen.append((arm.name, arm.optim.batch, workers))
        return {1: 10.0, 2: 16.0 if arm.optim.batch == Optim().batch else 18.0}[workers]

    monkeypatch.setattr(scale, "_of_training", of_training)
    rows = {row.name: row for row in scale.speedup(inputs.taught, inputs.teacher, rounds=3)}
    expected = {"scale, teacher": 1.6, "scale, student": 1.6, "scale, larger batches": 1.8}
    assert {name: row.value for name, row in rows.items()} == expected
    assert rows["scale, larger batches"].detail == "18 and 10 items a second" and rows["scale, larger batches"].reached
    assert len(seen) == 15 and seen.count(("student", 2 * Optim().batch, 2)) == 3
