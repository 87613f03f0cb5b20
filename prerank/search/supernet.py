"""The over-parameterised student: every feature behind a gate, every layer a mixture of all widths (AutoFAS).

Shapes: R requests, I items over all of them, M features, S slots (layers), C candidate widths, H hidden columns of a
slot, D inputs.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prerank.logs.schema import Feature
from prerank.models.batch import Inputs
from prerank.models.embed import Embed
from prerank.models.ranker import Scorer
from prerank.models.stats import Stats

Form = Literal["independent", "shared"]


@dataclass(frozen=True)
class Draw:
    """What one pass through the supernet uses of it."""

    gate_M: Tensor
    mix_SC: Tensor
    """Weight of each candidate width in each slot: one-hot for a single network."""
    live_SC: Tensor | None = None
    """Bool: the candidates to compute; None for all. A live one may have weight 0 and still pass a gradient."""


class Supernet(Scorer):
    """MixOp in both forms, with one code path: a slot has H columns, and `columns_CH` says which a candidate owns.

    independent: each candidate has columns of its own, so the matrix of a slot holds a block for every transition
    j -> k: O_k = relu(Σ_j p_j W_jk O_j + b_k), one product over the concatenated, scaled inputs (the paper).
    shared: the first w columns of one widest layer belong to the candidate of width w, as in slimmable networks.

    Width 0 is the identity. It carries what came in: the outputs of earlier slots stay in their columns, and the inputs
    of the network, which no column holds, are kept beside them with the weight `carried`. With a one-hot draw the score
    is that of the `Ranker` of the same features and widths, exactly but for the order of sums. So is its
    representation, in the columns of its width, unless every layer is skipped: the `Ranker`'s is then its inputs, while
    the columns here are all 0, of which a contrastive loss learns nothing.
    """

    columns_CH: Tensor
    """1 where the candidate owns the column."""
    identity_C: Tensor
    """1 for the candidate of width 0."""

    def __init__(self, features: tuple[Feature, ...], widths: tuple[int, ...], slots: int, stats: Stats, form: Form):
        super().__init__()
        self.features, self.widths, self.slots, self.form = features, widths, slots, form
        self.embed = Embed(features, stats)
        inputs, hidden = sum(self.embed.widths), sum(widths) if form == "independent" else max(widths)
        columns_CH = torch.zeros(len(widths), hidden)
        for index, width in enumerate(widths):
            start = sum(widths[:index]) if form == "independent" else 0
            columns_CH[index, start : start + width] = 1
        self.register_buffer("columns_CH", columns_CH, persistent=False)
        zero = [float(width == 0) for width in widths]
        self.register_buffer("identity_C", torch.tensor(zero), persistent=False)
        # Columns of a weight: the D inputs of the network first, then (from the second slot on) the H of the last slot.
        self.slot_weights = nn.ParameterList(
            nn.Parameter(torch.empty(hidden, inputs + (hidden if slot else 0))) for slot in range(slots)
        )
        self.slot_biases = nn.ParameterList(nn.Parameter(torch.zeros(hidden)) for _ in range(slots))
        self.head = nn.Linear(inputs + hidden, 1)
        self.repr_width = hidden
        for weight in (*self.slot_weights, self.head.weight):
            self._initialise(weight)

    @torch.no_grad()
    def _initialise(self, weight: Tensor) -> None:
        """Each transition as the `nn.Linear` that it stands for: uniform in ±1/sqrt(inputs of the transition)."""
        inputs = sum(self.embed.widths)
        weight.uniform_(-1.0, 1.0)
        weight[:, :inputs] /= math.sqrt(inputs)
        if self.form == "shared":
            weight[:, inputs:] /= math.sqrt(max(self.widths))
        else:
            fan_in_H = torch.cat([torch.full((width,), float(width)) for width in self.widths])
            weight[:, inputs:] /= fan_in_H.sqrt()[: weight.shape[1] - inputs]

    def forward(self, inputs: Inputs, request_I: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns score_I and the columns of the last slot, repr_IH."""
        x_R, x_I = self.embed(inputs)
        x_R, x_I = self.embed.gated(x_R, x_I, draw.gate_M)
        # carried: the product of the identities so far, by which the inputs reach the next slot; None stands for 1.
        # h_IH: the columns so far, each already times its weight in the mixture: the p_j O_j of the paper.
        # alive: the columns that can be other than 0, where that is not all of them.
        carried, h_IH, alive = None, None, None
        for slot in range(self.slots):
            mix_C = draw.mix_SC[slot]
            live = None
            if draw.live_SC is not None:
                live = (draw.live_SC[slot].to(self.columns_CH) @ self.columns_CH).nonzero().squeeze(1)
            weight, bias = self.slot_weights[slot], self.slot_biases[slot]
            if live is not None:
                # Rows that no live candidate owns are not multiplied: with two paths of the paper's six that is most.
                weight, bias = weight[live], bias[live]
            out = self._linear(weight, bias, x_R, x_I, request_I, carried, h_IH, alive).relu_()
            # In the shared form a column belongs to every candidate that is at least as wide: their weights add up.
            column_H = mix_C @ self.columns_CH
            skipped = mix_C @ self.identity_C
            if live is None:
                out = out * column_H
            else:
                out = x_I.new_zeros(len(x_I), len(column_H), dtype=out.dtype).index_copy(1, live, out * column_H[live])
            # The identity: what came in stays in the columns that it came in, beside what was made of it.
            h_IH = out if h_IH is None else torch.addcmul(out, skipped, h_IH)
            if live is not None:
                alive = live if alive is None else torch.cat([alive, live]).unique()
            carried = skipped if carried is None else carried * skipped
        assert h_IH is not None  # Search.check: one slot at least
        score_I1 = self._linear(self.head.weight, self.head.bias, x_R, x_I, request_I, carried, h_IH, alive)
        return score_I1.squeeze(1), h_IH

    def _linear(
        self,
        weight: Tensor,
        bias: Tensor,
        x_R: Tensor | None,
        x_I: Tensor,
        request_I: Tensor,
        carried: Tensor | None,
        h_IH: Tensor | None,
        alive: Tensor | None,
    ) -> Tensor:
        """weight · (carried · x, h) + bias; requests' inputs are multiplied once for all of their items.

        Inputs and columns are multiplied apart: together their number is no multiple of 16, which costs the gradient of
        a wide slot half as much again.
        """
        n, inputs = self.embed.widths[0], sum(self.embed.widths)
        if carried is not None:
            x_R, x_I = None if x_R is None else carried * x_R, carried * x_I
        of_request, of_item, of_h = weight.split([n, inputs - n, weight.shape[1] - inputs], dim=1)
        if x_R is None:
            out = F.linear(x_I, of_item, bias)
        else:
            out = _added(F.linear(x_R, of_request, bias)[request_I], x_I, of_item)
        if h_IH is None:
            return out
        if alive is not None:
            h_IH, of_h = h_IH[:, alive], of_h[:, alive]
        return _added(out, h_IH, of_h)


def _added(out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """out + x · weightᵀ in place, which spares a pass over [I, H]. Autocast leaves it alone: the types are met here."""
    return out.addmm_(x.to(out.dtype), weight.t().to(out.dtype))


def bernoulli(theta_M: Tensor, p_M: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One draw a feature, g ~ Bernoulli(p), as (gate_M, share_M): the gate, and the part of ∂L/∂g that θ receives.

    Straight-through takes ∂L/∂g at the drawn g, so it sees the slope at g = 1 with probability θ: but there the trained
    weights have made it 0, and a useful feature looks the more idle the likelier it is. ReinMax (Liu et al., NeurIPS
    2023; here for one bit) weighs the slope at the drawn g by share = 1 / (2 P(g)): in expectation the mean of the
    slopes at 0 and 1, which is L(1) - L(0) up to third order, whatever p they are drawn by.
    """
    on_M = torch.rand(theta_M.shape, generator=generator).to(theta_M.device) < p_M
    share_M = 0.5 / torch.where(on_M, p_M, 1 - p_M)
    return on_M.to(theta_M) + share_M * (theta_M - theta_M.detach()), share_M


def one_path(logit_SC: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One candidate a slot by softmax(α), for the weights' steps of ProxylessNAS: (mix_SC, live_SC)."""
    index_S1 = torch.multinomial(logit_SC.detach().cpu().softmax(1), 1, generator=generator).to(logit_SC.device)
    live_SC = torch.zeros_like(logit_SC, dtype=torch.bool).scatter(1, index_S1, True)
    return live_SC.to(logit_SC), live_SC


def two_path(logit_SC: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """ProxylessNAS's binarised gates: (mix_SC, live_SC), two live candidates a slot, one of them with weight 1.

    Two candidates are drawn by softmax(α) without replacement, one of them is active by the softmax over the two, and
    the gradient is that of this softmax: ∂L/∂α_i = Σ_j ∂L/∂g_j p_j (δ_ij - p_i) over the two.
    """
    pair_S2 = torch.multinomial(logit_SC.detach().cpu().softmax(1), 2, generator=generator).to(logit_SC.device)
    p_S2 = logit_SC.gather(1, pair_S2).softmax(1)
    active_S1 = torch.multinomial(p_S2.detach().cpu(), 1, generator=generator).to(logit_SC.device)
    hard_S2 = torch.zeros_like(p_S2).scatter(1, active_S1, 1.0)
    mix_SC = torch.zeros_like(logit_SC).scatter(1, pair_S2, hard_S2 + (p_S2 - p_S2.detach()))
    return mix_SC, torch.zeros_like(logit_SC, dtype=torch.bool).scatter(1, pair_S2, True)


@torch.no_grad()
def rescale(after_SC: Tensor, before_SC: Tensor, live_SC: Tensor) -> None:
    """Shifts the two updated logits of each slot by one constant, in place: the probabilities of the others stay."""
    out = torch.full_like(after_SC, -torch.inf)
    old, new = (torch.where(live_SC, logit, out).logsumexp(1, keepdim=True) for logit in (before_SC, after_SC))
    after_SC += torch.where(live_SC, old - new, torch.zeros_like(after_SC))
