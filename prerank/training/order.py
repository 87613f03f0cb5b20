"""Whose order of the fine lists is learned from, where it is not the one that recall is measured against."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prerank.core.nested import flat_numpy, offsets_of, segment_of
from prerank.models.options import Arm
from prerank.samples.anew import reads_places
from prerank.samples.files import files_of
from prerank.samples.reader import sequential
from prerank.samples.taught import teacher_column


def said_of_order(what: str, arms: Sequence[Arm], samples: Path) -> list[str]:
    """A line where arms follow the logged order and the teacher contradicts it; none where there is one order."""
    mixed = [arm.name for arm in arms if arm.positions == "logged" and reads_places(arm)]
    if not mixed or teacher_column(samples) != "teacher_score":
        return []
    share = contradicted(samples)
    if not share:
        return []
    who = ", ".join(mixed)
    return [
        f"note: {what}: {who}: two teachers: --positions logged follows the logs' order of the fine lists, and recall "
        f"is measured against the trained teacher, which contradicts {share:.0%} of its pairs; leave it out"
    ]


def contradicted(samples: Path) -> float:
    """The share of pairs of items of a pool that the teacher orders otherwise than the logs, in one row group."""
    table = next(sequential(files_of(samples, "train"), ("position", "teacher_score")))
    request_I = segment_of(offsets_of(table["position"]))
    place_I, score_I = flat_numpy(table["position"]), flat_numpy(table["teacher_score"])
    against = pairs = 0
    for r in range(min(64, len(table))):
        place, score = place_I[request_I == r], score_I[request_I == r]
        above = place[:, None] < place
        pairs += int(above.sum())
        against += int((above & (score[:, None] < score)).sum())
    return float(np.divide(against, max(1, pairs)))
