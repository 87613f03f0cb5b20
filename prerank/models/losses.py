"""The losses, each `loss(student, target, segment, **options) -> scalar`: what the student says, what that is held
against, and which request each of the elements is of.

Shapes: R requests of a batch, I items over all of them, P pairs, D a representation's width, N the longest request.
Each is a mean over the segments of the batch, those without a term counting as 0, so that equal shares of a batch on
several workers average to the loss of the whole.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Segments:
    """Which part of the batch each element is of: the request of an item, or the (request, strategy) of a pair."""

    of_X: Tensor
    """int64, 0..count-1."""
    count: int
    """Of parts, those without an element included."""


def mean_by(value_X: Tensor, segment_X: Segments) -> Tensor:
    """Sum over the segments of each segment's mean."""
    count = torch.bincount(segment_X.of_X, minlength=segment_X.count)
    return (value_X / count[segment_X.of_X]).sum()


def pairwise(student_I: Tensor, target_P: tuple[Tensor, Tensor], segment_P: Segments) -> Tensor:
    """-log σ(s_hi - s_lo), mean over the pairs of a segment, then over the segments (RankNet, Burges et al. 2005).

    `target_P` are the indices of the items that shall be above, and of those that shall be below. A segment is a
    (request, strategy), so that a strategy of many pairs does not drown one of few.

    >>> higher, lower = torch.tensor([0]), torch.tensor([1])
    >>> pairwise(torch.tensor([1.0, 0.0]), (higher, lower), Segments(torch.tensor([0]), 1))  # log(1 + 1/e)
    tensor(0.3133)
    """
    hi_P, lo_P = target_P
    return mean_by(F.softplus(student_I[lo_P] - student_I[hi_P]), segment_P) / segment_P.count


def listwise(student_I: Tensor, target_I: Tensor, segment_I: Segments) -> Tensor:
    """-log softmax over a request's items, mean over its target items, then over requests (sampled softmax).

    >>> clicked = torch.tensor([True, False])
    >>> listwise(torch.tensor([0.0, 0.0]), clicked, Segments(torch.tensor([0, 0]), 1))  # log 2
    tensor(0.6931)
    """
    log_p_I = log_softmax(student_I, segment_I)
    return mean_by(-log_p_I[target_I], Segments(segment_I.of_X[target_I], segment_I.count)) / segment_I.count


def score_mse(student_I: Tensor, target_I: Tensor, segment_I: Segments) -> Tensor:
    """Mean over a request's items of (s_teacher - s_student)², then over requests.

    >>> score_mse(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0]), Segments(torch.tensor([0, 0]), 1))
    tensor(0.5000)
    """
    return mean_by((student_I - target_I) ** 2, segment_I) / segment_I.count


def centred_mse(student_I: Tensor, target_I: Tensor, segment_I: Segments) -> Tensor:
    """`score_mse` of the scores less their mean over the request, which pairwise and listwise losses leave open.

    >>> one = Segments(torch.tensor([0, 0]), 1)
    >>> centred_mse(torch.tensor([1.0, 3.0]), torch.tensor([11.0, 13.0]), one)
    tensor(0.)
    >>> centred_mse(torch.tensor([1.0, 3.0]), torch.tensor([11.0, 15.0]), one)  # 1, 3 less 2; 11, 15 less 13
    tensor(1.)
    """
    difference_I = student_I - target_I
    request_I, requests = segment_I.of_X, segment_I.count
    count_R = torch.bincount(request_I, minlength=requests).clamp(min=1)
    mean_R = torch.zeros(requests, device=request_I.device).index_add(0, request_I, difference_I) / count_R
    return score_mse(difference_I, mean_R[request_I], segment_I)


def softmax_mse(student_I: Tensor, target_I: Tensor, segment_I: Segments) -> Tensor:
    """‖r - p‖² of the softmaxes over a request's items, mean over requests (AutoFAS, Loss2).

    >>> one, log_3 = Segments(torch.tensor([0, 0]), 1), 1.0986123
    >>> softmax_mse(torch.tensor([0.0, 0.0]), torch.tensor([log_3, 0.0]), one)  # 1/2, 1/2 against 3/4, 1/4
    tensor(0.1250)
    """
    r_I, p_I = (log_softmax(score, segment_I).exp() for score in (target_I, student_I))
    return ((r_I - p_I) ** 2).sum() / segment_I.count


def kl(student_I: Tensor, target_I: Tensor, segment_I: Segments, *, temperature: float = 1.0) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)) within a request, mean over requests (Hinton et al.).

    >>> one, log_3 = Segments(torch.tensor([0, 0]), 1), 1.0986123
    >>> kl(torch.tensor([0.0, 0.0]), torch.tensor([log_3, 0.0]), one)  # 3/4 log(3/2) + 1/4 log(1/2)
    tensor(0.1308)
    """
    log_r_I, log_p_I = (log_softmax(score / temperature, segment_I) for score in (target_I, student_I))
    return temperature**2 * (log_r_I.exp() * (log_r_I - log_p_I)).sum() / segment_I.count


def info_nce(
    student_ID: Tensor,
    target_ID: Tensor,
    segment_I: Segments,
    *,
    label_I: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Contrast between the representations of student (anchor i) and teacher (j) over the items of one request:

        - mean_i 1/|P(i)| Σ_{j∈P(i)} log [ exp(<h_S(i), h_T(j)>/τ) / Σ_k exp(<h_S(i), h_T(k)>/τ) ]

    `label_I` says what P(i) is: the items of the same label, such as the rank bins of the article; without labels the
    item itself (CIT, CRD). The rows of both inputs have length 1. Memory is R·N², whatever the size of the logs.

    >>> apart = torch.eye(2)
    >>> info_nce(apart, apart, Segments(torch.tensor([0, 0]), 1))  # log(1 + 1/e) of each item
    tensor(0.3133)
    """
    request_I, requests = segment_I.of_X, segment_I.count
    if label_I is None:
        label_I = torch.arange(len(request_I), device=request_I.device)
    place_I, width = place_in_request(request_I, requests)
    here_RN = place_I.new_zeros(requests, width, dtype=torch.bool)
    here_RN[request_I, place_I] = True
    student_RND = _pad(student_ID, request_I, place_I, requests, width)
    teacher_RND = _pad(target_ID, request_I, place_I, requests, width)
    label_RN = _pad(label_I, request_I, place_I, requests, width)
    logit_RNN = (student_RND @ teacher_RND.transpose(1, 2)).float() / temperature
    log_p_RNN = logit_RNN.masked_fill(~here_RN[:, None, :], torch.finfo(torch.float32).min).log_softmax(dim=2)
    positive_RNN = (label_RN[:, :, None] == label_RN[:, None, :]) & here_RN[:, None, :] & here_RN[:, :, None]
    total_RN = torch.where(positive_RNN, log_p_RNN, 0.0).sum(dim=2) / positive_RNN.sum(dim=2).clamp(min=1)
    return -(total_RN.sum(dim=1) / here_RN.sum(dim=1).clamp(min=1)).sum() / requests


def log_softmax(score_I: Tensor, segment_I: Segments) -> Tensor:
    """log softmax of each request's scores, without padding."""
    score_I, request_I, requests = score_I.float(), segment_I.of_X, segment_I.count
    top_R = torch.full((requests,), -torch.inf, device=score_I.device).scatter_reduce(
        0, request_I, score_I.detach(), reduce="amax"
    )
    shifted_I = score_I - top_R[request_I]
    total_R = torch.zeros(requests, device=score_I.device).index_add(0, request_I, shifted_I.exp())
    return shifted_I - total_R.log()[request_I]


def place_in_request(request_I: Tensor, requests: int) -> tuple[Tensor, int]:
    """Each item's index within its request (items of a request are contiguous), and the longest request's length."""
    count_R = torch.bincount(request_I, minlength=requests)
    start_R = count_R.cumsum(0) - count_R
    place_I = torch.arange(len(request_I), device=request_I.device) - start_R[request_I]
    return place_I, int(count_R.max())


def _pad(value_I: Tensor, request_I: Tensor, place_I: Tensor, requests: int, width: int) -> Tensor:
    padded = value_I.new_zeros(requests, width, *value_I.shape[1:])
    return padded.index_put((request_I, place_I), value_I)
