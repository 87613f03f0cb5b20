"""The loop without Ray: it learns, it stops early, and an interruption changes nothing."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from prerank.core.errors import InputError
from prerank.evaluation.metrics import LABELS
from prerank.logs.schema import load_schema
from prerank.models import checkpoint
from prerank.models.checkpoint import State
from prerank.models.distill import Distiller
from prerank.models.options import Arm, Distill, Optim
from prerank.models.ranker import Ranker
from prerank.samples.batches import columns
from prerank.samples.draw import STRATEGIES
from prerank.samples.files import sample_files
from prerank.samples.reader import Reader
from prerank.training import loop
from prerank.training.average import AveragedAdamW, weights_of

ARM = Arm(
    "student",
    ("price", "quality", "brand", "match", "user_tags"),
    (16, 8),
    strategies=("exposed", "rank_pairs"),
    distill=Distill(score=0.5, contrast=0.5, warmup_epochs=0.5, projection=8),
    optim=Optim(batch=16, epochs=3, lr=5e-3),
)


class Killed(Exception):
    """In place of a SIGKILL."""


def run(taught, folder, arm=ARM, kill_after=None, validate=None, every=2):
    """Trains as prerank.training.group does, with checkpoints in `folder`; raises Killed after so many saves."""
    features = load_schema(taught).select(arm.features, where="test")
    torch.manual_seed(arm.seed)
    ranker = Ranker(features, arm.widths, json.loads((taught / "stats.json").read_text()))
    distiller = Distiller(ranker, arm, 8 if arm.distill.contrast else None)
    optimizer = loop.make_optimizer(distiller, arm)
    state, best = State(), checkpoint.weights(ranker)
    if (folder / "a.latest.safetensors").exists():
        state, best = checkpoint.load_state(folder, "a", distiller, optimizer)
    files = tuple(path for path, _ in sample_files(taught, "train"))
    reader = Reader(files, columns(arm, "teacher_score"), arm.optim.batch, seed=arm.seed)
    if validate is None:
        tables = [pq.read_table(path) for path, _ in sample_files(taught, "val")]
        validate = loop.validator(tables, features, k=10, teacher_score="teacher_score", device=torch.device("cpu"))
    saves = 0

    def save(state, distiller, optimizer, best):
        nonlocal saves
        checkpoint.save_state(folder, "a", state, distiller, optimizer, best)
        saves += 1
        if saves == kill_after:
            raise Killed

    lesson = loop.Lesson(arm, features, reader, validate, teacher_score="teacher_score", checkpoint_steps=every)
    best = loop.train(lesson, distiller, optimizer, state=state, best=best, save=save)
    return state, best


@pytest.mark.slow
def test_it_learns(taught, tmp_path):
    state, _best = run(taught, tmp_path, replace(ARM, optim=replace(ARM.optim, epochs=6)))
    first, last = state.history[0], state.history[-1]
    assert all(last[name] < first[name] for name in ("train/loss", "train/hard", "train/contrast"))
    assert last["val/recall_at_10"] > first["val/recall_at_10"] > 0
    assert state.best == max(epoch["val/recall_at_10"] for epoch in state.history)


@pytest.mark.slow
@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("kill_after", [1, 3, 5])
def test_interrupted_and_resumed_equals_uninterrupted(taught, tmp_path, kill_after, average):
    arm = replace(ARM, optim=replace(ARM.optim, average=average))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    state, best = run(taught, whole, arm)
    with pytest.raises(Killed):
        run(taught, parts, arm, kill_after=kill_after)
    resumed, resumed_best = run(taught, parts, arm)
    assert resumed.history == state.history and resumed.best_epoch == state.best_epoch
    assert all(torch.equal(best[name], resumed_best[name]) for name in best)


@pytest.mark.slow
def test_early_stopping_keeps_the_best(taught, tmp_path):
    recalls = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    weights = []

    def validate(shown):
        weights.append(checkpoint.copied(shown.weights))
        return {"recall_at_10": next(recalls)}

    arm = replace(ARM, optim=Optim(batch=16, epochs=9, patience=2))
    state, best = run(taught, tmp_path, arm, validate=validate)
    assert state.epoch == 4 and state.best_epoch == 1
    assert all(torch.equal(best[name], weights[1][name]) for name in best)


def test_means_of_weights_are_those_of_a_loop():
    """By a plain AdamW beside it, whose steps it must not change."""
    weights = [torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2)]
    plain = torch.optim.AdamW(weights[:1], lr=0.1, weight_decay=0.01, fused=True)
    averaged = AveragedAdamW(weights[1:], lr=0.1, weight_decay=0.01, average=0.4)
    mean = None
    for step in range(1, 9):
        for weight, optimizer in zip(weights, (plain, averaged), strict=True):
            weight.grad = 2 * weight.detach() - step
            optimizer.step()
        stays = min(0.4, (1 + step) / (10 + step))
        now = weights[0].detach().clone()
        mean = now if mean is None else stays * mean + (1 - stays) * now
    assert torch.equal(weights[0], weights[1])
    model = torch.nn.Module()
    model.w = weights[1]
    assert torch.allclose(weights_of(model, averaged)["w"], mean)
    without = AveragedAdamW(weights[1:], lr=0.1, weight_decay=0.01, average=0.0)
    weights[1].grad = weights[1].detach().clone()
    without.step()
    assert torch.equal(weights_of(model, without)["w"], weights[1]) and "mean" not in without.state[weights[1]]


def test_a_loss_that_is_not_finite_stops(taught, tmp_path):
    with pytest.raises(FloatingPointError, match=r"student: the loss of epoch 0 is not finite; lower optim.lr"):
        run(taught, tmp_path, replace(ARM, distill=Distill(score=1e39)))


def test_samples_without_a_pair_for_the_arm_are_an_error(taught, tmp_path, monkeypatch):
    none = np.empty(0, np.int64)
    monkeypatch.setitem(STRATEGIES, "exposed", lambda lists, config, bins: (none, none, none))
    arm = replace(ARM, strategies=("exposed",), distill=Distill())
    with pytest.raises(InputError, match="nothing to learn for strategies exposed"):
        run(taught, tmp_path, arm)


def test_validation_against_the_metrics_of_the_whole(taught):
    """Two workers' shares: the sums are those of all requests at once."""
    features = load_schema(taught).select(ARM.features, where="test")
    ranker = Ranker(features, (8,), json.loads((taught / "stats.json").read_text()))
    distiller = Distiller(ranker, Arm("a", ARM.features, (8,)))
    [(path, _)] = sample_files(taught, "val")
    table = pq.read_table(path)
    whole, cut = (
        loop.validator(tables, features, k=10, teacher_score="teacher_score", device=torch.device("cpu"))(distiller)
        for tables in ([table], [table.slice(0, 7), table.slice(7)])
    )
    assert whole == pytest.approx(cut, rel=1e-6)


def test_requests_without_a_choice_do_not_decide(taught, tmp_path):
    """Of at most k candidates every student keeps all: their recall of 1 would ship the student of epoch 0."""
    price = load_schema(taught).select(("price",), where="test")
    distiller = Distiller(
        Ranker(price, (8,), json.loads((taught / "stats.json").read_text())), Arm("a", ("price",), (8,))
    )
    [(path, _)] = sample_files(taught, "val")
    table, score = pq.read_table(path), "teacher_score"
    short = pa.table({name: pc.list_slice(table[name], 0, 10) for name in ("item_id", score, "price", *LABELS)})
    short_alone, long_alone, both = (
        loop.validator(tables, price, k=10, teacher_score=score, device=torch.device("cpu"))(distiller)
        for tables in ([short], [table], [short, table])
    )
    assert both["recall_at_10"] == long_alone["recall_at_10"] < 1 and set(short_alone) == {"hit_rate_at_10", "auc"}
    with pytest.raises(InputError, match=r"has the recall that decides .* more than k candidates.* lower --k"):
        run(taught, tmp_path, validate=lambda distiller: short_alone)


def test_without_a_request_that_decides_nothing_is_trained_in_silence(taught, tmp_path):
    """A validation day without a request, or without a click, for an arm that is chosen by clicks."""
    with pytest.raises(InputError, match="student: no request of the validation day has the auc that decides"):
        run(taught, tmp_path, replace(ARM, select_by="auc"), validate=lambda distiller: {"recall_at_10": 0.5})
