"""The arms of a study: what is compared, and the few trainings that each may spend on the validation day.

A rung is tried `TRIES` times at most, with one seed, and the best of these is trained with the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import cast

from prerank.core.errors import InputError
from prerank.logs.schema import Feature, Schema, load_schema
from prerank.models.arch import ModelName
from prerank.models.options import Arm, Optim
from prerank.models.scorers import readable
from prerank.training.ladder import ladder
from prerank.training.preflight import check
from prerank.training.single import of_one_feature

TRIES = 4
MODELS = ("linear", "logistic", "two_tower", "two_tower_gbdt", "mlp", "cold")
"""In the article's order; COLD, which is not of it, last."""
UNEXPOSED = 3.0
"""Unexposed negatives that a logistic regression may learn from, for each exposed item."""


@dataclass(frozen=True)
class Rung:
    """What is compared."""

    name: str
    describes: str
    tries: tuple[Arm, ...]
    article: str = ""
    """What the article says of it: a year of its ladder, or points of recall over its own base."""


YEARS: dict[str, tuple[str, str]] = {
    "linear": ("2016", "fixed weights of a few numbers, tuned on the validation day"),
    "logistic": ("2017", "logistic regression on clicks, with ids and crosses of ids"),
    "two_tower": ("2018", "a tower for the request and one for the item, their dot product"),
    "two_tower_gbdt": ("2019", "the two towers' score and the cross features in boosted trees"),
    "mlp": ("2020", "an end-to-end MLP"),
    "cold": ("COLD", "an MLP whose features squeeze and excitation chose within the budget"),
}


def models_of(said: Sequence[str]) -> tuple[str, ...]:
    """Those named, in the order of `MODELS`; all where none is. Raises InputError for an unknown one."""
    for name in said:
        if name not in MODELS:
            raise InputError(f"--models {name}: expected some of {', '.join(MODELS)}, with commas")
    return tuple(name for name in MODELS if not said or name in said)


def of_models(base: Arm, samples: Path, models: Iterable[str], cold: tuple[str, ...] = ()) -> list[Rung]:
    """The ladder of models; `base` is the MLP with all strategies and the teacher's scores, `cold` COLD's features.

    All but the first two learn what `base` learns from. A rate and a third of it are tried, with: the whole weight of
    the scores and a third (MLPs); the base's features, and all of the item's beside, which a tower turns into one
    vector beforehand (towers); crosses of ids or none, unexposed negatives or none (logistic).
    Raises InputError naming the model that these logs cannot feed.
    """
    schema = load_schema(samples)
    reads = fed(models, base.features, schema)
    return [
        Rung(model, YEARS[model][1], _tries(model, base, reads[model], samples, cold), YEARS[model][0])
        for model in reads
    ]


def fed(models: Iterable[str], named: tuple[str, ...], schema: Schema) -> dict[str, list[tuple[Feature, ...]]]:
    """What each model may read: of the named features those that it can, and a tower all of the item's beside.

    Raises InputError naming the model that these logs cannot feed.
    """
    features = schema.select(named, where="--features")
    of_item = {feature.name for feature in schema.features if feature.side == "item" and not feature.teacher_only}
    wide = tuple(feature for feature in schema.features if feature in features or feature.name in of_item)
    reads: dict[str, list[tuple[Feature, ...]]] = {}
    models = tuple(models)
    for model in models:
        kind: ModelName = "mlp" if model == "cold" else cast(ModelName, model)
        choices = (features, wide) if kind in ("two_tower", "two_tower_gbdt") else (features,)
        found: list[tuple[Feature, ...]] = []
        for choice in choices:
            try:
                found.append(readable(kind, choice, where="--features"))
            except InputError as error:
                if choice is choices[-1] and not found:
                    others = ",".join(name for name in models if name != model)
                    raise InputError(f"--study: {error}; or leave the model out: --models {others}") from error
        reads[model] = list(dict.fromkeys(found))
    return reads


def _tries(
    model: str, base: Arm, reads: list[tuple[Feature, ...]], samples: Path, cold: tuple[str, ...]
) -> tuple[Arm, ...]:
    rates = [replace(base.optim, lr=base.optim.lr / by) for by in (1, 3)]
    match model:
        case "linear":
            arms = [_arm(base, "linear", reads[0], base.optim)]
        case "logistic":
            arms = _logistic(base, reads[0], samples)
        case "two_tower" | "two_tower_gbdt":
            kind: ModelName = "two_tower" if model == "two_tower" else "two_tower_gbdt"
            arms = [_arm(base, kind, features, optim) for features, optim in product(reads, rates)]
        case _:
            scores = [replace(base.distill, score=base.distill.score / by) for by in (1, 3)]
            features = cold if model == "cold" else base.features
            arms = [replace(base, features=features, optim=o, distill=d) for o, d in product(rates, scores)]
    return tuple(dict.fromkeys(replace(arm, name=model) for arm in arms))


def _arm(base: Arm, model: ModelName, features: tuple[Feature, ...], optim: Optim) -> Arm:
    widths = () if model in ("linear", "logistic") else base.widths
    names = tuple(feature.name for feature in features)
    return replace(base, model=model, features=names, widths=widths, optim=optim)


def _logistic(base: Arm, named: tuple[Feature, ...], samples: Path) -> list[Arm]:
    ids = [feature for feature in named if feature.kind == "id"]
    pairs = product((f for f in ids if f.of_request), (f for f in ids if not f.of_request))
    crosses = tuple(f"{a.name}*{b.name}" for a, b in pairs)
    plain = replace(_arm(base, "logistic", named, base.optim), hard="clicks", distill=replace(base.distill, score=0.0))
    arms = [replace(plain, crosses=c, unexposed_ratio=u) for c, u in product(((), crosses), (0.0, UNEXPOSED))]
    return [arm for arm in arms if not arm.unexposed_ratio or _can(arm, samples)]


def _can(arm: Arm, samples: Path) -> bool:
    """Whether the samples hold the negatives."""
    try:
        check([arm], samples)
    except InputError:
        return False
    return True


def of_one(base: Arm, samples: Path, k: int) -> list[Rung]:
    """Candidates in the order of one feature, which needs no tries: what all others have to beat."""
    return [Rung(name, said, (arm,)) for name, (said, arm) in of_one_feature(base, samples, k).items()]


ARTICLE = {"low_rank_negatives": "+5", "rank_pairs": "+2", "bin_pairs": "+3", "score": "+5", "contrast": "+14"}
"""Points of Recall@150 over its base that the article reports, of its own data."""


def of_techniques(base: Arm) -> list[Rung]:
    """What is distilled, as the pipeline compares it, each at the rate and at a third of it."""
    return [
        Rung(name, sentence, _at_rates(arm), ARTICLE.get(name, "")) for name, (sentence, arm) in ladder(base).items()
    ]


def of_search(base: Arm, searched: tuple[tuple[str, ...], tuple[int, ...]]) -> list[Rung]:
    """The base's features and widths, and those that a search found at the same latency."""
    features, widths = searched
    found = replace(base, features=features, widths=widths)
    return [
        Rung("hand_picked", "the features and widths that were named", _at_rates(base)),
        Rung("searched", "features and widths that a search found within its latency", _at_rates(found), "+11"),
    ]


def _at_rates(arm: Arm) -> tuple[Arm, ...]:
    return tuple(replace(arm, optim=replace(arm.optim, lr=arm.optim.lr / by)) for by in (1, 3))
