"""The hard losses of the lists that a strategy's pairs are of, with the signature of `prerank.models.losses`.

Shapes: I items of all lists, G lists (each of a request and strategy), P pairs, R requests of a batch, N the longest.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from prerank.models.losses import Grid, Segments, mean_by, place_in_request


def pointwise(student_I: Tensor, target_I: Tensor, segment_I: Segments) -> Tensor:
    """Cross-entropy of σ(s) against 0 or 1, mean over the items of a segment, then over the segments.

    >>> pointwise(torch.tensor([0.0, 0.0]), torch.tensor([True, False]), Segments(torch.tensor([0, 0]), 1))  # log 2
    tensor(0.6931)
    """
    loss_I = F.binary_cross_entropy_with_logits(student_I, target_I.to(student_I.dtype), reduction="none")
    return mean_by(loss_I, segment_I) / segment_I.count


def top_k(student_I: Tensor, target_I: Tensor, segment_I: Segments, *, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of σ((s - θ) / τ) against "is one of the K", mean over the items of a segment, then over these.

    θ lies midway between the K-th and the next score of the student, and has its gradient; K is how many of the
    segment's items `target_I` marks (DFTopK, arXiv 2510.11472). A segment of which it marks all or none has no term.

    >>> one = Segments(torch.tensor([0, 0]), 1)
    >>> top_k(torch.tensor([2.0, 0.0]), torch.tensor([True, False]), one)  # θ = 1: -log σ(1) of both
    tensor(0.3133)
    """
    of_I, segments = segment_I.of_X, segment_I.count
    count_G = torch.bincount(of_I, minlength=segments)
    k_G = torch.bincount(of_I[target_I], minlength=segments)
    ordered_I = student_I[_descending(student_I, of_I)]
    last_G = (count_G.cumsum(0) - count_G + k_G - 1).clamp(min=0)
    tells_G = (k_G > 0) & (k_G < count_G)
    if not len(ordered_I):
        return student_I.sum()
    next_G = (last_G + 1).clamp(max=len(ordered_I) - 1)
    threshold_G = (ordered_I[last_G.clamp(max=len(ordered_I) - 1)] + ordered_I[next_G]) / 2
    told_I = tells_G[of_I]
    logit_I = (student_I - threshold_G[of_I]) / temperature
    return pointwise(logit_I[told_I], target_I[told_I], Segments(of_I[told_I], segments))


def list_likelihood(student_I: Tensor, target_I: Tensor, segment_I: Segments) -> Tensor:
    """-log likelihood of the order of a segment's items under Plackett and Luce, mean over the items above its last
    ones, then over the segments (ListMLE, Xia et al., ICML 2008).

    `target_I` are places, 0 = best: each item is chosen among those whose place is not better than its own, those of
    its own place included (Breslow's ties). So of two places, clicked and not, it is `listwise` of the clicked ones.

    >>> one = Segments(torch.tensor([0, 0, 0]), 1)
    >>> list_likelihood(torch.zeros(3), torch.tensor([1, 0, 2]), one)  # (log 3 + log 2) / 2
    tensor(0.8959)
    """
    of_I, segments = segment_I.of_X, segment_I.count
    if not len(student_I):
        return student_I.sum()
    order_I = _descending(-target_I, of_I)
    segment_I, place_I, score_I = Segments(of_I[order_I], segments), target_I[order_I], student_I[order_I].float()
    grid = Grid(segment_I)
    here_RN = grid.here_RN
    score_RN = grid.padded(score_I).masked_fill(~here_RN, torch.finfo(torch.float32).min)
    rest_RN = score_RN.flip(1).logcumsumexp(1).flip(1)
    place_RN = torch.where(here_RN, grid.padded(place_I), -1)
    first_RN = torch.searchsorted(
        torch.where(here_RN, place_RN, torch.iinfo(place_RN.dtype).max).contiguous(), place_RN.contiguous()
    )
    log_total_I = grid.flat(rest_RN.gather(1, first_RN))
    above_I = place_I < place_RN.amax(1)[segment_I.of_X]
    return mean_by((log_total_I - score_I)[above_I], Segments(segment_I.of_X[above_I], segments)) / segments


def swaps(student_I: Tensor, target_P: tuple[Tensor, Tensor], segment_I: Segments, *, gain_P: Tensor) -> Tensor:
    """[P]: what DCG would lose if a pair changed places, without gradient: |Δgain · Δ(1 / log2(2 + rank))|, by the
    student's own ranks among the items of a request (LambdaRank, Burges et al. 2006; COPR's weights)."""
    with torch.no_grad():
        order_I = _descending(student_I, segment_I.of_X)
        place_I, _ = place_in_request(segment_I.of_X[order_I], segment_I.count)
        discount_I = torch.empty_like(student_I, dtype=torch.float32)
        discount_I[order_I] = 1 / torch.log2(place_I + 2.0)
        hi_P, lo_P = target_P
        return (gain_P * (discount_I[hi_P] - discount_I[lo_P])).abs()


def _descending(value_I: Tensor, segment_I: Tensor) -> Tensor:
    """Indices by segment, and within it from the highest value; ties as they stand."""
    order_I = torch.argsort(value_I.detach(), descending=True, stable=True)
    return order_I[torch.argsort(segment_I[order_I], stable=True)]
