"""The models that pre-ranking has been, each built from its architecture: one contract, whatever is inside.

A scorer reads `Inputs` and says score_I and repr_ID; its weights are safetensors, its architecture is `arch.json`, and
`prerank.serving.served` has its graph. What each can read of the features is here too.
"""

from prerank.core.errors import InputError
from prerank.logs.schema import Feature
from prerank.models.arch import Arch, ModelName
from prerank.models.logistic import Logistic
from prerank.models.ranker import Ranker, Scorer
from prerank.models.stats import Stats
from prerank.models.towers import TwoTower
from prerank.models.trees import Boosted, TowerTrees


def scorer_of(arch: Arch, features: tuple[Feature, ...], stats: Stats) -> Scorer:
    """The untrained model; `features` are those of the architecture, in the schema's order."""
    match arch.model:
        case "mlp" | "linear":
            return Ranker(features, arch.widths, stats, arch.fusion)
        case "logistic":
            return Logistic(features, arch.crosses, stats)
        case "two_tower":
            return TwoTower(features, arch.widths, stats)
        case "two_tower_gbdt":
            return TowerTrees(features, arch.widths, stats)
        case "gbdt":
            return Boosted(features, stats)


def readable(model: ModelName, features: tuple[Feature, ...], *, where: str) -> tuple[Feature, ...]:
    """Those of the features that the model can read; raises InputError where they are too few to be one.

    A tower reads no cross feature, trees no cross of ids, and a linear combination of fixed weights no id.
    """
    match model:
        case "linear":
            kept = tuple(feature for feature in features if not feature.dim and not feature.of_request)
        case "two_tower":
            kept = tuple(feature for feature in features if feature.side != "cross")
        case "two_tower_gbdt":
            kept = tuple(feature for feature in features if feature.side != "cross" or not feature.dim)
        case _:
            return features
    sides = {"request" if feature.of_request else feature.side for feature in kept}
    if model == "linear" and not kept:
        raise InputError(f"{where}: --model linear needs a number of an item or cross side; name some by --features")
    if model != "linear":
        missing = {"request": "user, query or context", "item": "item"} | (
            {"cross": "cross, of numbers"} if model == "two_tower_gbdt" else {}
        )
        for side, said in missing.items():
            if side not in sides:
                raise InputError(
                    f"{where}: --model {model} needs a feature of the side {said}; name some by --features, or declare "
                    "them in schema.json"
                )
    return kept
