"""Boosted trees by LightGBM's lambdarank, a request a group: over two towers' score and cross features, or a teacher's.

It runs in the worker that trains all else. Ray Train's LightGBMTrainer shares the rows among its workers, each of which
bins what it has: other workers, other trees. Here the same trees come of any number of workers.
Shapes: N items of the training samples, F inputs of the trees.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from prerank.core.errors import InputError
from prerank.core.memory import memory
from prerank.core.nested import flat_numpy
from prerank.evaluation.metrics import Candidates, Validation
from prerank.logs.schema import Feature
from prerank.models.batch import Bags, Batch
from prerank.models.options import Arm
from prerank.models.trees import Boosted, TowerTrees
from prerank.samples.anew import Redraw, pool_of, positions_of
from prerank.samples.batches import scoring_batch, training_batch
from prerank.samples.files import items_of

MOST_TREES = 400
LOOK_EVERY = 20
"""Trees from one look at the validation day to the next."""
LEAF = 50
"""Rows of a leaf, at least; a hundredth of all where that is less."""
PATIENCE = 3
"""Looks without a better metric, after which no more trees are grown."""
LONGEST = 10_000
"""Rows of a group, which LightGBM allows."""
GRADES = 5
"""Of the teacher's order, at most: the best rank bin has the highest."""
PARAMS = {
    "objective": "lambdarank",
    "learning_rate": 0.1,
    "num_leaves": 31,
    "label_gain": list(range(GRADES + 1)),  # its own are of 31 grades, and double with each
    "verbosity": -1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
}


@dataclass(frozen=True)
class Rows:
    """What the trees learn from."""

    x_NF: np.ndarray
    grade_N: np.ndarray
    group: np.ndarray
    """Rows of each request."""


@dataclass(frozen=True)
class Day:
    """The validation day, as the trees see it."""

    parts: list[tuple[np.ndarray, Validation]]


def check_memory(samples: Path, features: tuple[Feature, ...], arm: Arm) -> None:
    """Raises InputError where the rows of the samples do not fit the memory, as LightGBM reads them all at once."""
    read = [feature for feature in features if arm.model == "gbdt" or feature.side == "cross"]
    inputs = sum(1 if feature.dim else feature.size for feature in read) + (arm.model != "gbdt")
    rows = int(items_of(samples, "train").sum())
    needed, free = 6 * rows * inputs, memory().available  # float32, a byte for the bin, one to spare
    if needed > free:
        raise InputError(
            f"{samples}: {rows:,} rows of {inputs} numbers take {needed / 2**30:,.1f} GiB for the trees of {arm.name}, "
            f"and {free / 2**30:,.1f} are free; build samples of fewer days, or with lower draw.rank_items and "
            "draw.uniform_items, or train another --model"
        )


def rows_of(
    scorer: TowerTrees | Boosted,
    arm: Arm,
    features: tuple[Feature, ...],
    tables: Iterable[pa.Table],
    teacher_score: str | None,
    redraw: Redraw,
) -> Rows:
    """The items of the training samples, request by request, with their inputs and grades.

    A student's grades are the rank bins of the teacher's order, of which one edge is at K; without a teacher, and for
    one itself, the clicks are the grades, among the exposed and the unexposed items that `arm` asks for.
    """
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for table in tables:
        if teacher_score and arm.by_strategy:
            batch, grade_I = scoring_batch(table, features), _grades(table, arm, teacher_score, redraw)
        else:
            batch = training_batch(table, arm, features, 0)
            assert batch.target_I is not None
            grade_I = batch.target_I.numpy().astype(np.int32)
        group_R = np.bincount(batch.request_I.numpy(), minlength=batch.requests)
        parts.append((_inputs(scorer, batch), grade_I, group_R[group_R > 0]))
    x, grade, group = (np.concatenate(side) for side in zip(*parts, strict=True))
    if group.max(initial=0) > LONGEST:
        raise InputError(
            f"{arm.name}: a training request has {group.max():,} items, and LightGBM ranks at most {LONGEST:,}; build "
            "samples with lower draw.rank_items and draw.uniform_items"
        )
    if not grade.any():
        raise InputError(f"{arm.name}: no training request has a click or a teacher's order to learn from")
    return Rows(x, grade, group)


def _grades(table: pa.Table, arm: Arm, teacher_score: str, redraw: Redraw) -> np.ndarray:
    place_I = positions_of(table, teacher_score if arm.positions == "teacher" else None)
    bin_I = redraw.bins(place_I, pool_of(table, place_I, arm.seed, 0).length)
    return np.maximum(GRADES - bin_I, 0).astype(np.int32)


@torch.inference_mode()
def _inputs(scorer: TowerTrees | Boosted, batch: Batch) -> np.ndarray:
    return scorer.inputs(batch.features, batch.request_I).numpy()


def day_of(
    scorer: TowerTrees | Boosted,
    features: tuple[Feature, ...],
    tables: Iterable[pa.Table],
    teacher_score: str | None,
    k: int,
) -> Day:
    parts: list[tuple[np.ndarray, Validation]] = []
    for table in tables:
        teacher_N = flat_numpy(table[teacher_score]) if teacher_score else None
        measure = Validation(Candidates.of(table), teacher_N, k=k)
        parts.append((_inputs(scorer, scoring_batch(table, features)), measure))
    return Day(parts)


def grow(
    scorer: TowerTrees | Boosted,
    arm: Arm,
    rows: Rows,
    day: Day,
    k: int,
    tell: Callable[[int, float], object] = lambda trees, best: None,
) -> tuple[list[dict[str, float]], int]:
    """Grows trees until the validation has not been better for `PATIENCE` looks, and gives the scorer the fewest that
    are surely no worse: whose loss to the best look is within a standard error of that difference, over the requests
    (the 1-SE rule of Breiman et al., 1984, paired), as each tree has its price where it is served.

    Returns the metrics of each look and which was chosen. Raises InputError where no request of the validation day
    defines the metric that decides.
    """
    import lightgbm  # late: it imports scikit-learn, which takes as long as half of torch

    params = {**PARAMS, "seed": arm.seed, "lambdarank_truncation_level": int(rows.group.max())}
    params |= {"min_data_in_leaf": min(LEAF, max(1, len(rows.grade_N) // 100))}
    params |= {"bagging_fraction": 0.8, "bagging_freq": 1, "feature_fraction": 0.9}
    data = lightgbm.Dataset(rows.x_NF, rows.grade_N, group=rows.group, params=params, free_raw_data=True)
    booster = lightgbm.Booster(params, data)
    scores = [np.zeros(len(x_NF)) for x_NF, _ in day.parts]
    history: list[dict[str, float]] = []
    chosen_by: list[np.ndarray] = []
    best, at, ended = -np.inf, -1, False
    while not ended and len(history) * LOOK_EVERY < MOST_TREES and len(history) - 1 - at < PATIENCE:
        begun = booster.current_iteration()
        ended = any(booster.update() for _ in range(LOOK_EVERY))  # it says whether no split is left
        if ended and booster.current_iteration() - begun <= (not begun):
            break  # the last look was at all trees, or the only tree is a leaf
        for (x_NF, _), score_N in zip(day.parts, scores, strict=True):
            score_N += np.asarray(booster.predict(x_NF, start_iteration=begun, num_iteration=LOOK_EVERY))
        columns = _joined([measure(score_N) for (_, measure), score_N in zip(day.parts, scores, strict=True)])
        found = {name: float(np.nanmean(each_R)) for name, each_R in columns.items() if not np.isnan(each_R).all()}
        if arm.select_by not in found:
            raise InputError(
                f"{arm.name}: no request of the validation day has the {arm.select_by} that says how many trees are "
                "enough; build samples with more validation days or requests (split.val_days, val_requests)"
            )
        if found[arm.select_by] > best:
            best, at = found[arm.select_by], len(history)
        chosen_by.append(columns[arm.select_by])
        history.append({name if name == "auc" else f"{name}_at_{k}": value for name, value in found.items()})
        tell((at + 1) * LOOK_EVERY, best)
    if not history:
        raise InputError(
            f"{arm.name}: no split of its {rows.x_NF.shape[1]} numbers tells {len(rows.grade_N):,} rows apart; name "
            "other --features, bring more requests, or train another --model"
        )
    at = _fewest(chosen_by, at)
    scorer.trees.take(booster.dump_model(num_iteration=(at + 1) * LOOK_EVERY))
    return history, at


def _joined(columns: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}


def _fewest(looks: Sequence[np.ndarray], best: int) -> int:
    """The first look [R] whose loss to the best is within a standard error of the difference."""
    for index, value_R in enumerate(looks[:best]):
        lost_R = (looks[best] - value_R)[~np.isnan(value_R)]
        if lost_R.mean() <= lost_R.std() / np.sqrt(len(lost_R)):
            return index
    return best


CLICKS = 20.0
"""Of an id: so many items of the mean rate are put beside those that were seen."""


def learn_ids(scorer: Boosted, features: tuple[Feature, ...], tables: Iterable[pa.Table]) -> None:
    """Gives each value of an id the logit of how often it was clicked where it was exposed in training.

    An id that a request has several of, or that is unknown, is averaged or taken as it was seen.
    """
    of_ids = tuple(feature for feature in features if feature.dim)
    seen = {feature.name: np.zeros((2, feature.size + 1)) for feature in of_ids}
    for table in tables:
        batch = scoring_batch(table, of_ids)
        exposed_I, clicked_I = (flat_numpy(table[name]).astype(bool) for name in ("exposed", "clicked"))
        request_I = batch.request_I.numpy()
        for feature in of_ids:
            rows = request_I if feature.of_request else np.arange(len(request_I))
            values, offsets = _lists(batch.features[feature.name])
            lengths_I = np.diff(offsets)[rows]
            starts_I = np.repeat(offsets[:-1][rows] - np.cumsum(lengths_I) + lengths_I, lengths_I)
            ids = values[starts_I + np.arange(lengths_I.sum())]
            for row, mask_I in enumerate((exposed_I, exposed_I & clicked_I)):
                np.add.at(seen[feature.name][row], ids[np.repeat(mask_I, lengths_I)], 1)
    for feature in of_ids:
        exposed, clicked = seen[feature.name]
        mean = max(clicked.sum(), 1.0) / max(exposed.sum(), 2.0)
        rate = (clicked + CLICKS * mean) / (exposed + CLICKS)
        with torch.no_grad():
            logit = torch.logit(torch.from_numpy(rate), eps=1e-6).float()
            scorer.embed.table(feature.name).weight.copy_(logit[:, None])


def _lists(values: object) -> tuple[np.ndarray, np.ndarray]:
    """Ids, and where those of each row begin and end."""
    if isinstance(values, Bags):
        ids = values.values.numpy()
        return ids, np.append(values.offsets.numpy(), len(ids))
    assert isinstance(values, torch.Tensor)
    return values.numpy(), np.arange(len(values) + 1)
