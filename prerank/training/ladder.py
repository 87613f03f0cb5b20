"""The arms that the pipeline compares: each technique of the article over the same base, and all of them together."""

from dataclasses import replace

from prerank.models.options import Arm

_LOW = ("exposed", "low_rank_negatives")


def ladder(base: Arm) -> dict[str, tuple[str, Arm]]:
    """What each arm is, in a sentence, and the arm; `base.distill` is what `score`, `contrast` and `all` distil."""
    nothing = replace(base.distill, score=0.0, kl=0.0, contrast=0.0)
    score, contrast = replace(base.distill, contrast=0.0), replace(base.distill, score=0.0, kl=0.0)
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
    return {name: (sentence, replace(arm, name=name)) for name, (sentence, arm) in rungs.items()}
