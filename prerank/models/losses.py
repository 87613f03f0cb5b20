"""The losses: tensors in, a scalar out.

Shapes: R requests of a batch, I items over all of them, P pairs, D a representation's width, N the longest request.
Each is a mean over the requests of the batch, those without a term counting as 0, so that equal shares of a batch
on several workers average to the loss of the whole.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def mean_by(value_X: Tensor, group_X: Tensor, groups: int) -> Tensor:
    """Sum over the groups of each group's mean."""
    count = torch.bincount(group_X, minlength=groups)
    return (value_X / count[group_X]).sum()


def pairwise(score_I: Tensor, hi_P: Tensor, lo_P: Tensor, group_P: Tensor, groups: int) -> Tensor:
    """-log σ(s_hi - s_lo), mean over the pairs of a group, then over the groups (RankNet, Burges et al. 2005).

    A group is a (request, strategy), so that a strategy of many pairs does not drown one of few.
    """
    return mean_by(F.softplus(score_I[lo_P] - score_I[hi_P]), group_P, groups) / groups


def listwise(score_I: Tensor, target_I: Tensor, request_I: Tensor, requests: int) -> Tensor:
    """-log softmax over a request's items, mean over its target items, then over requests (sampled softmax)."""
    log_p_I = log_softmax(score_I, request_I, requests)
    return mean_by(-log_p_I[target_I], request_I[target_I], requests) / requests


def score_mse(student_I: Tensor, teacher_I: Tensor, request_I: Tensor, requests: int) -> Tensor:
    """Mean over a request's items of (s_teacher - s_student)², then over requests."""
    return mean_by((student_I - teacher_I) ** 2, request_I, requests) / requests


def centred_mse(student_I: Tensor, teacher_I: Tensor, request_I: Tensor, requests: int) -> Tensor:
    """`score_mse` of the scores less their mean over the request, which pairwise and listwise losses leave open."""
    difference_I = student_I - teacher_I
    count_R = torch.bincount(request_I, minlength=requests).clamp(min=1)
    mean_R = torch.zeros(requests, device=request_I.device).index_add(0, request_I, difference_I) / count_R
    return score_mse(difference_I, mean_R[request_I], request_I, requests)


def softmax_mse(student_I: Tensor, teacher_I: Tensor, request_I: Tensor, requests: int) -> Tensor:
    """‖r - p‖² of the softmaxes over a request's items, mean over requests (AutoFAS, Loss2)."""
    r_I, p_I = (log_softmax(score, request_I, requests).exp() for score in (teacher_I, student_I))
    return ((r_I - p_I) ** 2).sum() / requests


def kl(student_I: Tensor, teacher_I: Tensor, request_I: Tensor, requests: int, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)) within a request, mean over requests (Hinton et al.)."""
    log_r_I, log_p_I = (log_softmax(score / temperature, request_I, requests) for score in (teacher_I, student_I))
    return temperature**2 * (log_r_I.exp() * (log_r_I - log_p_I)).sum() / requests


def info_nce(
    student_ID: Tensor, teacher_ID: Tensor, label_I: Tensor, request_I: Tensor, requests: int, temperature: float
) -> Tensor:
    """Contrast between the representations of student (anchor i) and teacher (j) over the items of one request:

        - mean_i 1/|P(i)| Σ_{j∈P(i)} log [ exp(<h_S(i), h_T(j)>/τ) / Σ_k exp(<h_S(i), h_T(k)>/τ) ]

    `label_I` says what P(i) is: items of the same label (rank bins: the article; a label an item: CIT, CRD). The rows
    of both inputs have length 1. Memory is R·N², whatever the size of the logs.
    """
    place_I, width = place_in_request(request_I, requests)
    here_RN = place_I.new_zeros(requests, width, dtype=torch.bool)
    here_RN[request_I, place_I] = True
    student_RND = _pad(student_ID, request_I, place_I, requests, width)
    teacher_RND = _pad(teacher_ID, request_I, place_I, requests, width)
    label_RN = _pad(label_I, request_I, place_I, requests, width)
    logit_RNN = (student_RND @ teacher_RND.transpose(1, 2)).float() / temperature
    log_p_RNN = logit_RNN.masked_fill(~here_RN[:, None, :], torch.finfo(torch.float32).min).log_softmax(dim=2)
    positive_RNN = (label_RN[:, :, None] == label_RN[:, None, :]) & here_RN[:, None, :] & here_RN[:, :, None]
    total_RN = torch.where(positive_RNN, log_p_RNN, 0.0).sum(dim=2) / positive_RNN.sum(dim=2).clamp(min=1)
    return -(total_RN.sum(dim=1) / here_RN.sum(dim=1).clamp(min=1)).sum() / requests


def log_softmax(score_I: Tensor, request_I: Tensor, requests: int) -> Tensor:
    """log softmax of each request's scores, without padding."""
    score_I = score_I.float()
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
