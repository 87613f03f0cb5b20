"""How several objectives become one score: the weighted product of what the heads predict.

A head's score is, up to a constant of the request, the logarithm of the probability that it gives an item (of a softmax
over the request's list). The fused score is their weighted sum, and so ranks as the product of the probabilities to the
power of the weights does, the "weighted multiplication" of Zhao et al. (Recommending what video to watch next, RecSys
2019). Only the weights' proportions count, so they are kept as shares, which add up to 1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prerank.core.config import names
from prerank.core.errors import InputError, nearest
from prerank.logs.schema import CLICK

EVERY = "*"
"""In a fusion all objectives but the click, which share its weight."""


@dataclass(frozen=True)
class Fusion:
    """The heads of a network and their shares in the score; none at all: one head, of the clicks, is the score."""

    heads: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()

    def said(self) -> str:
        """As `--fusion` takes it."""
        return ",".join(f"{head}={share:.4g}" for head, share in zip(self.heads, self.shares, strict=True)) or CLICK

    def of(self, head_scores: Mapping[str, np.ndarray]) -> np.ndarray:
        """float64 [N]: the score of N items by those [N] of the heads, of which there is one at least."""
        score_HN = np.stack([head_scores[head] for head in self.heads], dtype=np.float64)
        return np.tensordot(np.array(self.shares), score_HN, 1)


ONE_HEAD = Fusion()


def parse_fusion(text: str, objectives: Sequence[str], *, where: str = "--fusion") -> Fusion:
    """`click=1,converted=0.5`, of the `objectives` of a schema; `*=0.5` divides a weight among all but the click.

    An objective of weight 0, or that is not named, gets no head. Empty, or of the click alone: the one head that any
    model has. Raises InputError naming what is wrong.

    >>> parse_fusion("click=3,converted=1", ("click", "converted"))
    Fusion(heads=('click', 'converted'), shares=(0.75, 0.25))
    >>> parse_fusion("click=1,converted=0", ("click", "converted"))
    Fusion(heads=(), shares=())
    """
    weights: dict[str, float] = {}
    for part in names(text):
        name, _, number = part.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or not 0 <= weight < math.inf:
            raise InputError(f"{where} {text}: expected objectives with weights of 0 or more, such as click=1,like=0.5")
        others = [objective for objective in objectives if objective != CLICK]
        if name not in objectives and not (name == EVERY and others):
            labels = "" if others else "; schema.json of the samples declares no 'labels' beside the click"
            raise InputError(f"{where} {text}: unknown objective {name!r}{nearest(name, list(objectives))}{labels}")
        for objective in others if name == EVERY else [name]:
            if objective in weights:
                raise InputError(f"{where} {text}: names {objective!r} twice; keep one of them")
            weights[objective] = weight / len(others) if name == EVERY else weight
    if weights and not any(weights.values()):
        raise InputError(f"{where} {text}: all weights are 0, which ranks nothing; give one objective a weight above 0")
    heads = tuple(objective for objective in objectives if weights.get(objective))
    if heads in ((), (CLICK,)):
        return Fusion()
    total = sum(weights[head] for head in heads)
    return Fusion(heads, tuple(weights[head] / total for head in heads))
