"""The one model: teacher, student and searched network differ only in features and widths.

Shapes: R requests, I items over all of them, D the width of the last hidden layer.
"""

import itertools
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prerank.logs.schema import Feature
from prerank.models.batch import Inputs
from prerank.models.embed import Embed
from prerank.models.fusion import ONE_HEAD, Fusion
from prerank.models.stats import Stats


class Scorer(nn.Module):
    """What can be trained as a student: `forward` gives score_I and repr_ID of the width `repr_width`."""

    embed: Embed
    repr_width: int


class Ranker(Scorer):
    """embed -> hidden layers with ReLU -> score, or several heads, whose fusion is the score (`models.fusion`).

    The first layer multiplies a request's inputs once and adds the result to each of its items' (as COLD serves it):
    the same function as on the concatenation, at a fraction of the work.
    """

    def __init__(self, features: tuple[Feature, ...], widths: tuple[int, ...], stats: Stats, fusion: Fusion = ONE_HEAD):
        super().__init__()
        self.embed = Embed(features, stats)
        self.fusion = fusion
        sizes = [sum(self.embed.widths), *(width for width in widths if width), max(1, len(fusion.heads))]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))
        self.repr_width = sizes[-2]

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers, as what they are."""
        return cast(list[nn.Linear], list(self.layers))

    def forward(self, inputs: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        """`request_I` is the row of each item's request. Returns score_I and repr_ID, the last hidden layer."""
        x_R, x_I = self.embed(inputs)
        return self.trunk(x_R, x_I, request_I)

    def trunk(self, x_R: Tensor | None, x_I: Tensor, request_I: Tensor) -> tuple[Tensor, Tensor]:
        """The same from the embedded inputs of requests [R, D_request] and of items [I, D_item]."""
        head_IH, h = self._heads(x_R, x_I, request_I)
        return self.fused(head_IH), h

    def heads(self, inputs: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        """The score of each head, [I, H], and repr_ID."""
        x_R, x_I = self.embed(inputs)
        return self._heads(x_R, x_I, request_I)

    def fused(self, head_IH: Tensor) -> Tensor:
        """score_I of `heads`."""
        if not self.fusion.heads:
            return head_IH.squeeze(1)
        return head_IH @ torch.tensor(self.fusion.shares, dtype=head_IH.dtype, device=head_IH.device)

    def _heads(self, x_R: Tensor | None, x_I: Tensor, request_I: Tensor) -> tuple[Tensor, Tensor]:
        first, *rest = self.linears
        if not rest:
            h = x_I if x_R is None else torch.cat([x_R[request_I], x_I], dim=1)
            return first(h), h
        n = self.embed.widths[0]
        h = F.linear(x_I, first.weight[:, n:], first.bias)
        if x_R is not None:
            h = h + F.linear(x_R, first.weight[:, :n])[request_I]
        h = torch.relu(h)
        for layer in rest[:-1]:
            h = torch.relu(layer(h))
        return rest[-1](h), h
