"""Two towers (the pre-ranking of 2018): one of the request, one of the item, and the dot product of what they say.

Shapes: R requests, I items over all of them, D the width of both vectors.
"""

import itertools

import torch
from torch import Tensor, nn

from prerank.logs.schema import Feature
from prerank.models.batch import Inputs
from prerank.models.embed import Embed
from prerank.models.ranker import Scorer
from prerank.models.stats import Stats


class TwoTower(Scorer):
    """score = <u, v>: u of the features of user, query and context, v of the item's, of the same widths each.

    What an item says is the same for all requests, so that it is reckoned once and fetched as one feature. A cross
    feature is of neither tower.
    """

    def __init__(self, features: tuple[Feature, ...], widths: tuple[int, ...], stats: Stats):
        super().__init__()
        assert all(feature.side != "cross" for feature in features)
        widths = tuple(width for width in widths if width)
        self.embed = Embed(features, stats)
        self.request = _layers(self.embed.widths[0], widths)
        self.item = _layers(self.embed.widths[1], widths)
        self.repr_width = widths[-1]

    def forward(self, inputs: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        """score_I, and u·v element by element, of which it is the sum."""
        x_R, x_I = self.embed(inputs)
        assert x_R is not None
        product_ID = tower(self.request, x_R)[request_I] * tower(self.item, x_I)
        return product_ID.sum(1), product_ID


def _layers(width_in: int, widths: tuple[int, ...]) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise((width_in, *widths)))


def tower(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """[rows, D]: hidden layers with ReLU, the last one without."""
    for index, layer in enumerate(layers):
        x = layer(torch.relu(x) if index else x)
    return x
