"""What the place at which an item was shown does to its clicks, told apart from what the item is worth.

A user looks at the first places more often than at the last, and clicks only what was looked at: P(click) =
P(looked at | place) · P(click | item). In logarithms that is a sum, so a loss that compares the items of a request
learns one bias a place beside the scores, and a score is free of it where items of different worth were shown at the
same place (a position feature that is left out when scoring: PAL, Guo et al., RecSys 2019). What the ranker that chose
the places knew and the features do not say stays in the bias.

I items, R requests of a batch.
"""

import numpy as np
import torch
from torch import Tensor, nn

from prerank.models.losses import Segments, means

EACH = 16
"""Places that have a bias of their own; those beyond share one with as many as lie between two powers of 2^(1/2)."""
FASTER = 30.0
"""A step of Adam moves every number by its rate at most, and a teacher has some hundred steps: these are few, need to
come to 1 or 2, and each gets a gradient from every request. The gradient is left as it is, so that it takes no more of
the clip than others."""
BUCKETS = EACH + 2 * (31 - 4)


def bucket(place_I: np.ndarray) -> np.ndarray:
    """int64 [I], of places 0, 1, ...; -1 stays.

    >>> bucket(np.array([-1, 0, 15, 16, 22, 23, 32, 2**31 - 1]))
    array([-1,  0, 15, 16, 16, 17, 18, 69])
    """
    beyond = np.floor(2 * np.log2(np.maximum(place_I, EACH) / EACH)).astype(np.int64)
    return np.where(place_I < EACH, place_I, np.minimum(EACH + beyond, BUCKETS - 1)).astype(np.int64)


class PlaceBias(nn.Module):
    """One number a bucket of places. Of a request's shown items they add up to 0: what was shown stands against what
    was not as it did without them."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(BUCKETS))

    def forward(self, score_I: Tensor, shown_I: Tensor, segment_I: Segments) -> Tensor:
        """The scores that clicks are explained by; `shown_I` as `bucket` has it, -1 where nobody knows."""
        known = torch.nonzero(shown_I >= 0)[:, 0]
        bias = self.bias + (FASTER - 1) * self.bias.detach()
        bias_K, segment_K = bias[shown_I[known]], Segments(segment_I.of_X[known], segment_I.count)
        return score_I.index_add(0, known, bias_K - means(bias_K, segment_K)[segment_K.of_X])
