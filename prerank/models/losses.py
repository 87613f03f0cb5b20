"""The losses, each `loss(student, target, segment, **options) -> scalar`: what the student says, what that is held
against, and which request each of the elements is of.

Shapes: R requests of a batch, I items over all of them, P pairs, G groups of pairs, D a representation's width, N the
longest request, B labels.
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
    """Sum over the segments of each segment's mean; of rows [X, D], by column."""
    count_X = torch.bincount(segment_X.of_X, minlength=segment_X.count)[segment_X.of_X]
    return (value_X / count_X.reshape(-1, *[1] * (value_X.dim() - 1))).sum(0)


def pairwise(
    student_I: Tensor, target_P: tuple[Tensor, Tensor], segment_P: Segments, *, weight_P: Tensor | None = None
) -> Tensor:
    """-log σ(s_hi - s_lo), mean over the pairs of a segment, then over the segments (RankNet, Burges et al. 2005).

    `target_P` are the indices of the items that shall be above, and of those that shall be below. A segment is a
    (request, strategy), so that a strategy of many pairs does not drown one of few. The mean is weighted by `weight_P`
    (LambdaRank, by `prerank.models.hard.swaps`); a segment whose weights are all 0 has no term.

    >>> higher, lower = torch.tensor([0]), torch.tensor([1])
    >>> pairwise(torch.tensor([1.0, 0.0]), (higher, lower), Segments(torch.tensor([0]), 1))  # log(1 + 1/e)
    tensor(0.3133)
    """
    hi_P, lo_P = target_P
    loss_P = F.softplus(student_I[lo_P] - student_I[hi_P])
    if weight_P is None:
        return mean_by(loss_P, segment_P) / segment_P.count
    total_G = torch.zeros(segment_P.count, device=weight_P.device).index_add(0, segment_P.of_X, weight_P)
    return (loss_P * weight_P / total_G.clamp(min=1e-12)[segment_P.of_X]).sum() / segment_P.count


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
    return score_mse(difference_I, means(difference_I, segment_I)[segment_I.of_X], segment_I)


def uncorrelated(student_I: Tensor, target_I: Tensor, segment_I: Segments) -> Tensor:
    """1 - Pearson's correlation over a request's items, mean over requests (DIST, Huang et al., NeurIPS 2022).

    Blind to shift and scale of both, so a score in whatever unit the logs have it leaves the student's scale to its
    hard loss. A request whose target is the same for all items has no gradient.

    >>> one = Segments(torch.tensor([0, 0, 0]), 1)
    >>> uncorrelated(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, 0.3, 0.2]), one)  # r = 1/2
    tensor(0.5000)
    """
    centred_I = student_I.float() - means(student_I, segment_I)[segment_I.of_X]
    variance = means(centred_I**2, segment_I) + 1e-6  # not clamped at 0, where a root has no gradient
    scaled_I = centred_I * variance.rsqrt()[segment_I.of_X]
    return 1 - mean_by(scaled_I * standardised(target_I, segment_I), segment_I) / segment_I.count


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
    of_label: float = 1.0,
    ordered: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """Contrast between the representations of student (anchor i) and teacher (j) over the items of one request:

        - mean_i Σ_j w_ij log [ exp(<h_S(i), h_T(j)>/τ) / Σ_{k∈N(i,j)} exp(<h_S(i), h_T(k)>/τ) ]

    w_ij is α/|P(i)| for the j of P(i), the items of i's label such as the rank bins of the article, and 1-α more for i
    itself (CIT, CRD); α is `of_label`, and 0 without labels. N(i, j) are the items of the request. `ordered`, of labels
    0, 1, 2, ... whose neighbours are alike: P(i) are all items, and N(i, j) of them those whose label is at least as
    far from i's as j's is (Rank-N-Contrast, Zha et al., NeurIPS 2023, eq. 1). The target's rows have length 1, and
    those of the student where cosines are asked for. Memory is R·N², whatever the size of the logs.

    >>> apart = torch.eye(2)
    >>> info_nce(apart, apart, Segments(torch.tensor([0, 0]), 1))  # log(1 + 1/e) of each item
    tensor(0.3133)
    """
    grid = Grid(segment_I)
    logit_RNN = grid.products(student_ID, target_ID) / temperature
    logit_RNN = logit_RNN.masked_fill(~grid.here_RN[:, None, :], torch.finfo(torch.float32).min)
    log_total_I = grid.flat(logit_RNN.logsumexp(2))

    def log_p(target_ID: Tensor) -> Tensor:
        return (student_ID.float() * target_ID.float()).sum(1) / temperature - log_total_I

    loss_I = torch.zeros_like(log_total_I)
    if label_I is None or of_label < 1:
        loss_I = loss_I - (1.0 if label_I is None else 1 - of_label) * log_p(target_ID)
    if label_I is not None and of_label and ordered:
        loss_I = loss_I + of_label * _ordered(logit_RNN, label_I, grid)
    elif label_I is not None and of_label:
        group_I = segment_I.of_X * (label_I.max() + 1) + label_I
        groups = Segments(group_I, int(group_I.max()) + 1 if len(group_I) else 0)
        loss_I = loss_I - of_label * log_p(means(target_ID, groups)[group_I])
    return mean_by(loss_I, segment_I) / segment_I.count


def relations(student_ID: Tensor, target_ID: Tensor, segment_I: Segments) -> Tensor:
    """Mean squared difference of the cosines between a request's items, the student's and the teacher's: relations
    without a projection, so that the widths may differ (FTD, Kang et al., KDD 2021, within the request).

    The rows of both inputs have length 1. Memory is R·N².

    >>> same, apart = torch.ones(2, 1), torch.eye(2)
    >>> relations(same, apart, Segments(torch.tensor([0, 0]), 1))  # two of the four cosines are 1 and should be 0
    tensor(0.5000)
    """
    grid = Grid(segment_I)
    apart_RNN = (grid.products(student_ID, student_ID) - grid.products(target_ID, target_ID)) ** 2
    return mean_by(grid.flat(apart_RNN.sum(2) / grid.count_R[:, None]), segment_I) / segment_I.count


class Grid:
    """The items of each request against each other, padded to the longest of N; what is padded is 0."""

    def __init__(self, segment_I: Segments):
        self.request_I, self.requests = segment_I.of_X, segment_I.count
        self.place_I, self.width = place_in_request(self.request_I, self.requests)
        self.here_RN = self.padded(torch.ones_like(self.request_I, dtype=torch.bool))
        self.count_R = self.here_RN.sum(1).clamp(min=1)

    def padded(self, value_I: Tensor) -> Tensor:
        """[R, N, ...]"""
        padded = value_I.new_zeros(self.requests, self.width, *value_I.shape[1:])
        return padded.index_put((self.request_I, self.place_I), value_I)

    def flat(self, value_RN: Tensor) -> Tensor:
        """[I, ...]"""
        return value_RN[self.request_I, self.place_I]

    def products(self, a_ID: Tensor, b_ID: Tensor) -> Tensor:
        """float32 [R, N, N]: of each row of a with each of b."""
        return (self.padded(a_ID) @ self.padded(b_ID).transpose(1, 2)).float()


def _ordered(logit_RNN: Tensor, label_I: Tensor, grid: Grid) -> Tensor:
    """Rank-N-Contrast's loss of each item [I]; sums by label, so that no triple of items is looked at."""
    labels = int(label_I.max()) + 1
    of_label_RNB = F.one_hot(grid.padded(label_I), labels) * grid.here_RN[:, :, None]
    top_RN1 = logit_RNN.detach().amax(2, keepdim=True)
    by_label_RNB = (logit_RNN - top_RN1).exp() @ of_label_RNB.float()
    label_B = torch.arange(labels, device=label_I.device)
    apart_BB = (label_B[:, None] - label_B).abs()
    far_BBB = (apart_BB[:, None, :] >= apart_BB[:, :, None]).float()  # [of the anchor, of the positive, of another]
    total_IB = (far_BBB[label_I] @ grid.flat(by_label_RNB)[..., None]).squeeze(2)
    log_total_IB = total_IB.clamp(min=torch.finfo(torch.float32).tiny).log() + grid.flat(top_RN1)
    share_RB = of_label_RNB.sum(1) / grid.count_R[:, None]
    mean_RN = torch.where(grid.here_RN[:, None, :], logit_RNN, 0.0).sum(2) / grid.count_R[:, None]
    return (share_RB[grid.request_I] * log_total_IB).sum(1) - grid.flat(mean_RN)


def means(value_X: Tensor, segment_X: Segments) -> Tensor:
    """float32 [segments, ...]: the mean of each segment's elements, 0 of one without."""
    sums = torch.zeros(segment_X.count, *value_X.shape[1:], device=value_X.device)
    count = torch.bincount(segment_X.of_X, minlength=segment_X.count).clamp(min=1)
    return sums.index_add(0, segment_X.of_X, value_X.float()) / count.reshape(-1, *[1] * (value_X.dim() - 1))


def standardised(score_I: Tensor, segment_I: Segments) -> Tensor:
    """float32: each request's scores less their mean, over their deviation (0 where all are one)."""
    centred_I = score_I.float() - means(score_I, segment_I)[segment_I.of_X]
    return centred_I / means(centred_I**2, segment_I).sqrt().clamp(min=1e-6)[segment_I.of_X]


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
