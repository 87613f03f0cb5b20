"""The arms that the pipeline compares: each technique of the article over the same base, all of them together, and all
of them but one: what a technique is worth on top of the others."""

from dataclasses import replace

from prerank.models.options import Arm, Distill

_LOW = ("exposed", "low_rank_negatives")


def ladder(base: Arm) -> dict[str, tuple[str, Arm]]:
    """What each arm is, in a sentence, and the arm; `base.distill` is what `score`, `contrast` and `all` distil."""
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
            "all three strategies, scores and representations",
            replace(base, strategies=(*_LOW, "rank_pairs", "bin_pairs")),
        ),
    }
    rungs |= _but_one(rungs["all"][1])
    return {name: (sentence, replace(arm, name=name)) for name, (sentence, arm) in rungs.items()}


def _but_one(whole: Arm) -> dict[str, tuple[str, Arm]]:
    """`whole` without one of its strategies, its scores or its contrast, where they have a weight."""
    distill, out = whole.distill, {}
    for name in whole.strategies[1:]:
        rest = tuple(other for other in whole.strategies if other != name)
        out[f"no_{name}"] = (f"all, without {name}", replace(whole, strategies=rest))
    if distill.score or distill.kl:
        out["no_score"] = ("all, without the teacher's scores", replace(whole, distill=_only_contrast(distill)))
    if distill.reads_representation:
        out["no_contrast"] = ("all, without representations", replace(whole, distill=only_scores(distill)))
    return out


def _only_contrast(distill: Distill) -> Distill:
    return replace(distill, score=0.0, kl=0.0)


def only_scores(distill: Distill) -> Distill:
    """Without representations."""
    return replace(distill, contrast=0.0, relations=0.0)
