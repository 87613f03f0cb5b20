"""One feature in the place of a model: what each student has to beat, and what no training is needed for.

Candidates in the order of one number: `popular`, the best of the items' numbers (their popularity, mostly), and
`best_feature`, the best of these and of the numbers across request and item. The validation day says which and which
way up. What is kept, served and priced is a linear model of that feature. N candidates.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from prerank.core.nested import flat_numpy
from prerank.evaluation.metrics import Candidates, Validation
from prerank.logs.schema import Feature, load_schema
from prerank.models.options import Arm, Distill
from prerank.models.stats import load_stats
from prerank.samples.files import files_of
from prerank.samples.reader import sequential
from prerank.samples.taught import scored_columns, teacher_column

SIDES = {"popular": ("item",), "best_feature": ("item", "cross")}
SAID = {
    "popular": "the candidates in the order of {}, the best single number of an item",
    "best_feature": "the candidates in the order of {}, the best single number of all",
}


def of_one_feature(base: Arm, samples: Path, k: int) -> dict[str, tuple[str, Arm]]:
    """As `ladder`: what each arm is, in a sentence, and the arm. `best_feature` is left out where it is `popular`, and
    both where there is no number to sort by.

    The features of `base` do not matter, but those of the teacher alone are left out.
    """
    values = found_by_one(samples, base.select_by, k)
    out: dict[str, tuple[str, Arm]] = {}
    plain = {"model": "linear", "widths": (), "hard": "pairwise", "distill": Distill(), "strategies": ("exposed",)}
    plain |= {"heads": (), "shares": (), "learned": ()}
    for name, sides in SIDES.items():
        among = {feature: value for feature, value in values.items() if feature.side in sides}
        if not among:
            continue
        best = max(among, key=among.__getitem__)
        if all(arm.features != (best.name,) for _, arm in out.values()):
            arm = replace(base, name=name, features=(best.name,), **plain)
            out[name] = SAID[name].format(best.name), arm
    return out


def found_by_one(samples: Path, select_by: str, k: int) -> dict[Feature, float]:
    """By feature, in the order of the schema, the metric of the validation day of the better of its two directions."""
    numbers = tuple(
        feature
        for feature in load_schema(samples).features
        if feature.kind == "dense" and feature.size == 1 and not feature.of_request and not feature.teacher_only
    )
    teacher, stats = teacher_column(samples, "val"), load_stats(samples)
    sums, counts = np.zeros((len(numbers), 2)), np.zeros((len(numbers), 2))
    for table in sequential(files_of(samples, "val"), scored_columns(numbers, teacher)):
        measure = Validation(Candidates.of(table), flat_numpy(table[teacher]) if teacher else None, k=k)
        for row, feature in enumerate(numbers):
            value_N = flat_numpy(table[feature.name]).astype(np.float32)
            value_N = np.where(np.isnan(value_N), np.float32(stats[feature.name]["mean"][0]), value_N)
            for way, sign in enumerate((1, -1)):
                each_R = measure(sign * value_N)[select_by]
                sums[row, way] += np.nansum(each_R)
                counts[row, way] += np.count_nonzero(~np.isnan(each_R))
    with np.errstate(invalid="ignore"):
        best = np.nanmax(np.where(counts > 0, sums / counts, -np.inf), axis=1, initial=-np.inf)
    return {feature: float(value) for feature, value in zip(numbers, best, strict=True) if value > -np.inf}
