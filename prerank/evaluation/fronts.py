"""Students of several objectives beside each other: which of them no other one beats in all.

N students, H objectives; what a student keeps of an objective is a share, of which more is better.
"""

from collections.abc import Mapping
from typing import Literal, TypedDict, cast

import numpy as np

from prerank.core.errors import InputError
from prerank.evaluation.summed import Evaluation, Facts
from prerank.logs.schema import CLICK
from prerank.models.fusion import Fusion

By = Literal["hit_rate", "recall"]
Kept = list[float | None]
"""A mean over requests, or a paired difference, and its 95% interval."""


class Point(TypedDict):
    """A student on the test days."""

    name: str
    folder: str
    fusion: dict[str, float]
    """Of each objective that it learned, the share."""
    alone: str | None
    """The objective, where it learned one."""
    hit_rate: dict[str, Kept]
    """By objective, the share of its items in the student's first K."""
    recall: dict[str, Kept]
    """By objective, the share of the first K of the teacher's head; none where the teacher has no heads."""
    gain: dict[str, dict[str, Kept]]
    """Over each student of one objective, by that objective: the differences in each objective."""
    on_front: bool
    beaten_by: list[str]
    """The students of one objective that are no worse in any objective, and better in one, by their means."""


class Front(TypedDict):
    """`front.json`."""

    k: int
    by: By
    objectives: list[str]
    points: list[Point]
    """In order of the first objective, least first."""
    teacher: dict[str, Kept]
    """By objective, the hit-rate of the teacher's own head; none where it has no heads."""
    logs: Facts


def dominates(values_NH: np.ndarray) -> np.ndarray:
    """bool [N, N]: whether a row is no worse than another one in any objective, and better in one.

    >>> dominates(np.array([[2, 1], [1, 1], [1, 2]])).astype(int)
    array([[0, 1, 0],
           [0, 0, 0],
           [0, 1, 0]])
    """
    one, other = values_NH[:, None], values_NH[None]
    return np.asarray((one >= other).all(2) & (one > other).any(2))


def front_of(
    found: Evaluation, students: Mapping[str, tuple[str, Fusion]], objectives: tuple[str, ...], by: By
) -> Front:
    """Of an evaluation of the students, by name: folder and fusion.

    Raises InputError where an objective is not in the test, or no teacher's head is there to be recalled.
    """
    k = found.facts["k"]
    points = [_point(found, name, folder, fusion, objectives) for name, (folder, fusion) in students.items()]
    for objective in objectives:
        kept = [point[by].get(objective) for point in points]
        if any(one is None or one[0] is None for one in kept):
            why = "no request of the test days has it" if by == "hit_rate" else "the teacher has no head of it"
            raise InputError(f"objective {objective!r}: {why}; bring more days, or compare by another --by")
    values_NH = np.array([[point[by][objective][0] for objective in objectives] for point in points], float)
    beats_NN = dominates(values_NH)
    for place, point in enumerate(points):
        point["on_front"] = not beats_NN[:, place].any()
        point["beaten_by"] = [
            o["name"] for o, beats in zip(points, beats_NN[:, place], strict=True) if o["alone"] and beats
        ]
        for single in points:
            if single["alone"] and single is not point:
                columns = {objective: f"{objective}/{by}" for objective in objectives}
                gains = {o: found.against(point["name"], single["name"], column) for o, column in columns.items()}
                point["gain"][single["alone"]] = gains
    order = np.lexsort((-values_NH[:, -1], values_NH[:, 0]))
    ordered = [points[place] for place in order]
    teacher = _kept(found, "teacher", "own_hit_rate", objectives)
    return {
        "k": k,
        "by": by,
        "objectives": list(objectives),
        "points": ordered,
        "teacher": teacher,
        "logs": found.facts,
    }


def _kept(found: Evaluation, name: str, metric: str, objectives: tuple[str, ...]) -> dict[str, Kept]:
    row = found.rows[name]
    keys = {objective: f"{metric}_{objective}_at_{found.facts['k']}" for objective in objectives}
    there = {objective: key for objective, key in keys.items() if key in row}
    intervals = {o: cast(Kept, row[f"{key}_ci"] or [None, None]) for o, key in there.items()}
    return {o: [cast(float | None, row[key]), *intervals[o]] for o, key in there.items()}


def _point(found: Evaluation, name: str, folder: str, fusion: Fusion, objectives: tuple[str, ...]) -> Point:
    heads = dict(zip(fusion.heads, fusion.shares, strict=True)) or {CLICK: 1.0}
    return {
        "name": name,
        "folder": folder,
        "fusion": heads,
        "alone": next(iter(heads)) if len(heads) == 1 else None,
        "hit_rate": _kept(found, name, "hit_rate", objectives),
        "recall": _kept(found, name, "recall", objectives),
        "gain": {},
        "on_front": False,
        "beaten_by": [],
    }
