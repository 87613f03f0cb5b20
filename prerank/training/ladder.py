"""The arms that the pipeline compares: each technique of the article over the same base, those together that add to
each other, and these without each, or with what was left out: what is a technique worth on top of the others?

The contrast is left out of `all`: on the validation days of KuaiRand and of the simulated logs it took 0.4 and 0.7
points of recall from the strategies and scores together (prerank/training/README.md).
"""

from dataclasses import replace

from prerank.models.options import Arm, Distill

_LOW = ("exposed", "low_rank_negatives")


def ladder(base: Arm) -> dict[str, tuple[str, Arm]]:
    """What each arm is, in a sentence, and the arm; `base.distill` is what they distil.

    Those that are compared with `all` begin with `no_` or `and_`.
    """
    score, contrast = only_scores(base.distill), _only_contrast(base.distill)
    nothing = only_scores(contrast)
    exposed = replace(base, strategies=("exposed",), distill=nothing)
    rungs = {
        "base": ("clicked above exposed and passed over, as the logs have it", exposed),
        "low_rank_negatives": ("base, and the tail of the fine list as negatives", replace(exposed, strategies=_LOW)),
        "rank_pairs": (
            "base, and random pairs in the order of the fine list",
            replace(exposed, strategies=("exposed", "rank_pairs")),
        ),
        "bin_pairs": (
            "base, and pairs across the fine list's rank bins",
            replace(exposed, strategies=("exposed", "bin_pairs")),
        ),
        "score": ("base, and the teacher's scores", replace(exposed, distill=score)),
        "contrast": (
            "base, and the teacher's representations, contrasted by rank bin",
            replace(exposed, distill=contrast),
        ),
        "all": (
            "all three strategies, and scores",
            replace(base, strategies=(*_LOW, "rank_pairs", "bin_pairs"), distill=score),
        ),
    }
    rungs |= _but_one(rungs["all"][1])
    if base.distill.reads_representation:
        whole = replace(rungs["all"][1], distill=base.distill)
        rungs["and_contrast"] = ("all, and the teacher's representations", whole)
    return {name: (sentence, replace(arm, name=name)) for name, (sentence, arm) in rungs.items()}


def _but_one(whole: Arm) -> dict[str, tuple[str, Arm]]:
    """`whole` without one of its strategies or its scores."""
    out: dict[str, tuple[str, Arm]] = {}
    for name in whole.strategies[1:]:
        rest = tuple(other for other in whole.strategies if other != name)
        out[f"no_{name}"] = (f"all, without {name}", replace(whole, strategies=rest))
    if whole.distill.active:
        out["no_score"] = ("all, without the teacher's scores", replace(whole, distill=_only_contrast(whole.distill)))
    return out


def _only_contrast(distill: Distill) -> Distill:
    return replace(distill, score=0.0, kl=0.0)


def only_scores(distill: Distill) -> Distill:
    """Without representations."""
    return replace(distill, contrast=0.0, relations=0.0)
