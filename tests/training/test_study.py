"""A study's trainings: few tries by the validation day, the best of them with every seed, and on where it stopped."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from training_fixture import BASE

from prerank.core.errors import InputError
from prerank.models.checkpoint import model_manifest
from prerank.models.options import Distill, Optim
from prerank.tracking.runs import run
from prerank.training import finished, study
from prerank.training.options import Compute
from prerank.training.rungs import TRIES, models_of, of_models, of_search, of_techniques
from prerank.training.worker import Job

pytestmark = pytest.mark.slow  # whole studies

MLP = replace(
    BASE,
    name="all",
    features=("price", "quality", "brand", "match", "query_city", "user_age"),
    distill=Distill(score=1.0),
    optim=Optim(lr=3e-3, batch=16, epoch_steps=1, epochs=2),
)
ALL = ("linear", "logistic", "two_tower", "two_tower_gbdt", "mlp", "cold")


def test_each_model_has_few_tries_that_differ(taught):
    rungs = of_models(MLP, taught, ALL, ("match", "user_age"))
    assert [rung.name for rung in rungs] == list(ALL)
    assert {rung.name: len(rung.tries) for rung in rungs} == dict.fromkeys(ALL, TRIES) | {"linear": 1}
    by_name = {rung.name: rung.tries for rung in rungs}
    assert all(len(set(tries)) == len(tries) for tries in by_name.values())
    assert {(arm.optim.lr, arm.distill.score) for arm in by_name["mlp"]} == {
        (lr, score) for lr in (3e-3, 1e-3) for score in (1.0, 1 / 3)
    }
    assert {arm.features for arm in by_name["cold"]} == {("match", "user_age")}
    assert {(arm.crosses, arm.unexposed_ratio) for arm in by_name["logistic"]} == {
        (crosses, ratio) for crosses in ((), ("query_city*brand",)) for ratio in (0.0, 3.0)
    }
    narrow = ("user_age", "query_city", "price", "quality", "brand")
    wide = (*narrow, "item_tags", "item_vector")
    assert {arm.features for arm in by_name["two_tower"]} == {narrow, wide}
    assert {arm.features for arm in by_name["two_tower_gbdt"]} == {(*narrow, "match"), (*wide, "match")}
    assert by_name["linear"][0].features == ("price", "quality", "match")


def test_a_model_that_the_logs_cannot_feed_is_a_line(taught):
    base = replace(MLP, features=("price", "match"))  # no request
    with pytest.raises(InputError, match=r"--study: .*user, query or context.*; or leave the model out: --models mlp"):
        of_models(base, taught, ("two_tower", "mlp"))
    with pytest.raises(InputError, match="--models trees: expected some of linear, logistic"):
        models_of(("trees",))
    assert models_of(()) == ALL and models_of(("mlp", "linear")) == ("linear", "mlp")


def test_techniques_and_search_are_rungs_too():
    names = [rung.name for rung in of_techniques(replace(MLP, distill=Distill(score=1.0, contrast=1.0)))]
    assert names[:2] == ["base", "low_rank_negatives"] and "contrast" in names
    hand_picked, searched = of_search(MLP, (("match",), (4,)))
    assert hand_picked.tries[0] == MLP and searched.tries[1].features == ("match",) and searched.tries[1].widths == (4,)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    with run("study", out=folder, state=folder / "run.json", params={}) as opened:
        yield opened


def test_the_best_try_gets_every_seed_and_nothing_is_trained_twice(taught, tmp_path, parent, monkeypatch):
    rungs = of_models(MLP, taught, ("logistic", "mlp"))
    job = Job(taught, Compute(), 10)
    trained = []
    train_any = finished.train_any

    def counted(arm, *others):
        if len(trained) == 5:
            raise KeyboardInterrupt  # stopped in the midst
        trained.append(arm.name)
        train_any(arm, *others)

    monkeypatch.setattr(study, "room_here", lambda compute: 1)  # also where another test has started a cluster
    monkeypatch.setattr(finished, "train_any", counted)
    with pytest.raises(KeyboardInterrupt):
        study.studied(rungs, job, tmp_path, seeds=2, parent=parent)
    monkeypatch.setattr(finished, "train_any", lambda arm, *others: trained.append(arm.name) or train_any(arm, *others))
    done = study.studied(rungs, job, tmp_path, seeds=2, parent=parent)
    assert len(trained) == len(set(trained)) == 2 * (TRIES + 1)
    for one in done:
        values = [model_manifest(tmp_path / "tries" / f"{one.rung.name}-{i}", kind="student") for i in range(TRIES)]
        recalls = [manifest["best"]["val/recall_at_10"] for manifest in values]
        assert one.values == recalls and one.at == recalls.index(max(recalls))
        assert one.folders[0] == tmp_path / "tries" / f"{one.rung.name}-{one.at}"
        other = model_manifest(one.folders[1], kind="student")["config"]
        assert other["seed"] == 1 and other["optim.lr"] == one.best.optim.lr
    again = study.studied(rungs, job, tmp_path, seeds=2, parent=parent)
    assert again == done and len(trained) == 2 * (TRIES + 1)


@pytest.mark.ray
def test_side_by_side_it_learns_the_same(ray_cluster, taught, tmp_path, parent, monkeypatch):
    rungs, job, found = of_models(MLP, taught, ("logistic", "mlp")), Job(taught, Compute(), 10), {}
    for room in (1, 2):
        monkeypatch.setattr(study, "room_here", lambda compute, room=room: room)
        found[room] = study.studied(rungs, job, tmp_path / str(room), seeds=2, parent=parent)
    for one, two in zip(found[1], found[2], strict=True):
        assert (one.rung, one.values, one.at, one.rising) == (two.rung, two.values, two.at, two.rising)
        for here, there in zip(one.folders, two.folders, strict=True):
            assert (here / "model.safetensors").read_bytes() == (there / "model.safetensors").read_bytes()
    broken = replace(rungs[0], tries=(replace(MLP, features=("none",)),))
    with pytest.raises(InputError, match="none"):
        study.studied([rungs[1], broken], job, tmp_path / "broken", seeds=2, parent=parent)
    assert not list((tmp_path / "broken").glob("seeds/*")), "the others are stopped"


def test_tries_are_told_by_what_differs():
    a, b = replace(MLP, seed=0), replace(MLP, optim=replace(MLP.optim, lr=1e-3))
    assert study.differs(b, [a, b]) == {"optim.lr": 1e-3}
    assert study.differs(a, [a]) == {}


def test_the_bar_says_how_long_it_takes(monkeypatch):
    clock = iter([0.0, 60.0, 120.0, 120.0, 120.0])
    monkeypatch.setattr(study, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    bar = study._Bar(4.0)
    bar.begin("there", 1.0, done=True)  # nothing is known of the pace
    bar.end("there")
    bar.begin("one", 1.0, done=False)
    bar.told("one", 1, 2, "")  # half a training in a minute, of two and a half that are left
    note = bar.progress.tasks[0].fields["note"]
    assert note == "one, about 5 min left"
