"""The training of any arm: a network's by its gradients, and what no gradient teaches, by a search or by LightGBM."""

from dataclasses import replace
from typing import cast

from torch import Tensor

from prerank.logs.schema import load_schema
from prerank.models import checkpoint
from prerank.models.checkpoint import State
from prerank.models.options import Arm
from prerank.models.ranker import Ranker
from prerank.models.scorers import scorer_of
from prerank.models.stats import load_stats
from prerank.models.trees import Boosted, TowerTrees
from prerank.samples.batches import columns
from prerank.samples.files import files_of
from prerank.samples.reader import sequential
from prerank.samples.taught import scored_columns, teacher_column
from prerank.training import boosted, linear
from prerank.training.worker import Job, Worker, redraw_of, train_arm

OTHERWISE = ("linear", "two_tower_gbdt", "gbdt")
"""Models that no gradient teaches."""


def train_any(arm: Arm, job: Job, worker: Worker) -> None:
    """Trains the arm, or goes on with it; at the end the worker's folder holds its best weights and its history."""
    if worker.finished(arm.name):
        return
    if arm.model in OTHERWISE:
        _train(arm, job, worker)
    else:
        train_arm(arm, job, worker)


def _train(arm: Arm, job: Job, worker: Worker) -> None:
    """A search of weights, or trees, over towers that are trained first.

    The first worker does it all.
    """
    samples, towers = job.samples, ""
    if arm.model == "two_tower_gbdt":
        features = load_schema(samples).select(arm.features, where=arm.name)
        read = tuple(feature.name for feature in features if feature.side != "cross")
        towers = f"{arm.name} towers"
        train_arm(replace(arm, name=towers, model="two_tower", features=read), job, worker)
    state = State()
    if worker.rank == 0:
        state, best = _found(arm, job, worker, towers)
        checkpoint.save_best(worker.done, arm.name, state, best)
    worker.keep(arm.name, state, False)
    worker.keep(arm.name, state, True)


def _found(arm: Arm, job: Job, worker: Worker, towers: str) -> tuple[State, dict[str, Tensor]]:
    samples, k, score_column = job.samples, job.k, teacher_column(job.samples)
    features, stats = load_schema(samples).select(arm.features, where=arm.name), load_stats(samples)
    scorer, score = scorer_of(arm.arch, features, stats).eval(), teacher_column(samples, "val")
    day = [*sequential(files_of(samples, "val"), scored_columns(features, score))]

    def tell(done: int, best: float) -> None:
        most = linear.LOOKS * len(features) if arm.model == "linear" else boosted.MOST_TREES
        worker.tell(arm.name, min(done, most), most, lambda: f"best {arm.select_by} {best:.4f}")

    if isinstance(scorer, Ranker):
        history, at = [linear.tune(scorer, arm, features, day, score, k, tell)], 0
    else:
        assert isinstance(scorer, TowerTrees | Boosted)
        names = (*columns(arm, None), "item_id", "position", *([score_column] if score_column else []))
        names = tuple(dict.fromkeys(names))
        if isinstance(scorer, TowerTrees):
            scorer.towers.load_state_dict(checkpoint.load_best(worker.done, towers)[1])
        else:
            boosted.learn_ids(scorer, features, sequential(files_of(samples, "train"), names))
        tables = sequential(files_of(samples, "train"), names)
        rows = boosted.rows_of(scorer, arm, features, tables, score_column, redraw_of(samples, k))
        history, at = boosted.grow(scorer, arm, rows, boosted.day_of(scorer, features, day, score, k), k, tell)
    epochs: list[checkpoint.Epoch] = [
        {"epoch": number, **{f"val/{name}": value for name, value in values.items()}}
        for number, values in enumerate(history)
    ]
    best = cast(float, epochs[at][f"val/{arm.select_by}" + ("" if arm.select_by == "auc" else f"_at_{k}")])
    worker.tell(arm.name, 1, 1, lambda: f"best {arm.select_by} {best:.4f}", now=True)
    state = State(epoch=at + 1, best=best, best_epoch=at, history=epochs[: at + 1])
    return state, checkpoint.weights(scorer)
