"""Ray Train: any number of workers, failures and restarts learn the same."""

import errno
import json
import os
import signal
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import pyarrow.parquet as pq
import pytest
import torch
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file
from samples_fixture import build
from training_fixture import ALL, BASE, ONE, assert_same

from prerank.core.cluster.private import drop_torn
from prerank.core.errors import InputError
from prerank.models.checkpoint import load_model
from prerank.models.options import Distill, Optim
from prerank.samples.draw import DrawConfig
from prerank.samples.files import check_k, sample_files
from prerank.tracking.runs import Run, run
from prerank.training import finished, group
from prerank.training.apart import side_by_side
from prerank.training.finished import key_of
from prerank.training.group import fit, names_of, train_models
from prerank.training.options import Compute
from prerank.training.preflight import check


@pytest.mark.ray
def test_two_workers_learn_what_one_does(undisturbed, taught, tmp_path):
    """The stated tolerance of the losses is 1e-4, from the order in which the halves of a batch are summed.

    Of the weights it is a few steps of Adam (lr 1e-3), which scales up what rounding leaves of a gradient near 0.
    """
    two = fit([BASE, ALL], taught, tmp_path, compute=Compute(workers=2, cpus=0.5), k=10, runs={})
    assert_same(two, undisturbed, 1e-4, 5e-3)


@pytest.mark.ray
@pytest.mark.faults
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_changes_nothing(undisturbed, taught, tmp_path, workers):
    """SIGKILL where the second arm would log its second epoch: it goes on from the checkpoint of two steps before."""

    class Kills:
        def __init__(self, marker):
            self.marker = marker

        def metrics(self, values, step):
            if step == 1 and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    marker = tmp_path / "killed"
    often = replace(ONE, workers=workers, checkpoint_steps=2)
    trained = fit([BASE, ALL], taught, tmp_path / "work", compute=often, k=10, runs={"all": Kills(marker)})
    assert marker.exists()
    assert_same(trained, undisturbed, *((0, 0) if workers == 1 else (1e-4, 5e-3)))


@dataclass
class Published:
    """Two models, side by side, of which the second found the disk full, and what the same call made of that."""

    folder: Path
    parent: Run
    trained_anew: list[list[bool]] = field(default_factory=list)
    manifests: dict = field(default_factory=dict)

    def train(self, taught, arms=(BASE, ALL), **options):
        folders = {self.folder / arm.name: arm for arm in arms}
        return train_models(folders, taught, kind="student", work=self.folder / "work", compute=ONE, k=10, **options)

    def children(self):
        of_parent = f"tags.`mlflow.parentRunId` = '{self.parent.run_id}'"
        return MlflowClient(self.parent.uri).search_runs([self.parent.experiment_id], of_parent)


@pytest.fixture(scope="module")
def published(ray_cluster, taught, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    publish, launch = finished.publish_model, group.launch

    def full(out, *args, **kwargs):
        if out.name == "all":
            raise OSError(errno.ENOSPC, "No space left on device")
        publish(out, *args, **kwargs)

    def noted(worker, jobs, *, work, **kwargs):
        found.trained_anew.append([not (work / name).exists() for name in jobs])
        return launch(worker, jobs, work=work, **kwargs)

    with (
        run("parent", out=folder / "out", state=folder / "parent.json", params={}) as parent,
        mock.patch.object(group, "launch", noted),
        mock.patch.object(group, "room_for", lambda compute: 2),
    ):
        found = Published(folder, parent)
        with mock.patch.object(finished, "publish_model", full), pytest.raises(OSError, match="No space"):
            found.train(taught, parent=parent)
        assert (folder / "base").exists() and not (folder / "all").exists()
        found.manifests = found.train(taught, parent=parent)
    return found


@pytest.mark.ray
def test_a_disk_that_fills_between_two_models_costs_no_training_and_no_run(published):
    assert published.trained_anew == [[True, True], [False]] and not (published.folder / "work").exists()
    ended = {child.info.run_name: child.info.status for child in published.children()}
    assert len(published.children()) == 2 and ended == {"base": "FINISHED", "all": "FINISHED"}


@pytest.mark.ray
def test_groups_side_by_side_learn_what_one_does(published, undisturbed):
    for arm in (BASE, ALL):
        weights, expected = load_file(published.folder / arm.name / "model.safetensors"), undisturbed[arm.name].best
        assert weights.keys() == expected.keys() and all(torch.equal(weights[key], expected[key]) for key in weights)


def test_arms_are_dealt_as_their_checkpoints_say(tmp_path):
    """The room may be another when the same command goes on, and a model of before was trained in one group."""
    assert names_of("ray_train-a", tmp_path, 1) == ["ray_train-a"]
    two = ["ray_train-a-0of2", "ray_train-a-1of2"]
    assert names_of("ray_train-a", tmp_path, 2) == two
    for name in ("ray_train-b", "ray_train-c-3of4"):
        (tmp_path / name).mkdir()
    assert names_of("ray_train-b", tmp_path, 2) == ["ray_train-b"]
    assert names_of("ray_train-c", tmp_path, 2) == [f"ray_train-c-{index}of4" for index in range(4)]


def test_what_goes_side_by_side_meets_and_fails_at_once():
    meet, never = threading.Barrier(2, timeout=10), threading.Event()
    both = {"b": lambda: meet.wait() < 2 and "second", "a": lambda: meet.wait() < 2 and "first"}
    assert list(side_by_side(both).items()) == [("b", "second"), ("a", "first")]
    with pytest.raises(ZeroDivisionError):
        side_by_side({"waits": never.wait, "fails": lambda: 1 / 0})
    never.set()


@pytest.mark.ray
def test_models_are_published_once_and_logged(published, taught):
    for arm in (BASE, ALL):
        model = load_model(published.folder / arm.name, kind="student")
        assert model.arch.features == arm.features and model.manifest == published.manifests[arm.name]
        assert len(published.manifests[arm.name]["history"]) == 3
    for child in published.children():
        logged = MlflowClient(published.parent.uri).get_metric_history(child.info.run_id, "val/recall_at_10")
        expected = [epoch["val/recall_at_10"] for epoch in published.manifests[child.info.run_name]["history"]]
        assert [point.value for point in logged] == expected and [point.step for point in logged] == [0, 1, 2]
        assert json.loads(child.data.params["optim.batch"]) == 16
    assert published.train(taught) == published.manifests  # already there: nothing is trained
    with pytest.raises(InputError, match="config seed was 0, now 1"):
        published.train(taught, [replace(BASE, seed=1)])


def test_what_an_arm_lacks_is_named(samples, taught):
    check([BASE, ALL], taught)
    with pytest.raises(InputError, match=r"no teacher_repr for --distill.contrast; run workflows.teach"):
        check([ALL], samples)
    with pytest.raises(InputError, match="unknown feature 'pricy'; did you mean 'price'"):
        check([replace(BASE, features=("pricy",))], taught)
    with pytest.raises(InputError, match="nothing tells one candidate from another"):
        check([replace(BASE, features=("query_city",))], taught)
    with pytest.raises(InputError, match="needs best_pairs"):
        check([replace(BASE, strategies=("best_pairs",))], taught)


def test_lists_that_leave_no_choice_are_named(taught):
    [most] = {len(row) for path, _ in sample_files(taught, "val") for row in pq.read_table(path)["item_id"].to_pylist()}
    check_k(taught, most - 1)
    with pytest.raises(InputError, match=rf"have {most} candidates at most, .* at --k {most}; lower --k"):
        check_k(taught, most)


def test_checkpoints_of_another_configuration_are_not_gone_on_from(samples, taught):
    key = key_of([BASE, ALL], taught, 10, 8)
    assert key == key_of([BASE, ALL], taught, 10, 8)
    changed = replace(ALL, optim=replace(ALL.optim, lr=0.5))
    others = [
        ([BASE, changed], taught, 10, 8),
        ([BASE], taught, 10, 8),
        ([BASE, ALL], taught, 20, 8),
        ([BASE, ALL], samples, 10, 8),
        ([BASE, ALL], taught, 10, 4),
    ]
    assert key not in {key_of(*other) for other in others}


def test_a_torn_list_of_checkpoints_is_begun_anew(tmp_path):
    run = tmp_path / "run"
    drop_torn(run)
    run.mkdir()
    (run / "checkpoint_manager_snapshot.json").write_text('{"a": 1}')
    drop_torn(run)
    assert run.exists()
    (run / "checkpoint_manager_snapshot.json").write_text('{"a":')
    drop_torn(run)
    assert not run.exists()


def test_checkpoints_that_may_not_be_read_are_left_alone(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise InputError("s3://bucket/x: ACCESS_DENIED")

    (tmp_path / "checkpoint_manager_snapshot.json").write_text("{}")
    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(InputError, match="ACCESS_DENIED"):
        drop_torn(tmp_path)
    assert tmp_path.exists()


def test_more_unexposed_negatives_than_were_drawn_are_refused(samples, logs, tmp_path):
    teacher = replace(BASE, hard="listwise", unexposed_ratio=3.0)
    check([teacher], samples)
    check([replace(teacher, unexposed_ratio=6.0)], samples)  # of 18 unexposed items all were drawn: there are no more
    fewer = build(logs, tmp_path / "fewer", draw=DrawConfig(uniform_items=5, uniform_ratio=2.0))
    check([replace(teacher, unexposed_ratio=2.0)], fewer)
    with pytest.raises(InputError, match=r"holds 12 unexposed items .* unexposed_ratio of 3 asks for 18; lower it"):
        check([teacher], fewer)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"optim": Optim(patience=0)}, "base: optim.patience must be above 0"),
        ({"optim": Optim(lr=float("nan"))}, "optim.lr must be above 0, got nan"),
        ({"distill": Distill(temperature=0.0)}, "distill.temperature must be above 0"),
        ({"distill": Distill(score=-1.0)}, "distill.score must be 0 or more"),
        ({"distill": Distill(score=2.0, form="convex")}, "at most 1 in the convex form"),
        ({"features": ()}, "needs a feature"),
        ({"widths": (8, -1)}, "widths of 0 or more"),
    ],
)
def test_options_that_make_no_sense_are_named(change, complaint):
    with pytest.raises(InputError, match=complaint):
        replace(BASE, **change).check()
