"""Logistic regression on numbers, hashed ids and crosses of ids (the pre-ranking of 2017).

Shapes: R requests, I items over all of them.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from prerank.core.errors import InputError
from prerank.logs.schema import Feature
from prerank.models.batch import Inputs
from prerank.models.ranker import Ranker
from prerank.models.stats import Stats

ROWS = 1 << 18
"""Weights of a cross, at most: what has more pairs of values is hashed (Weinberger et al., ICML 2009)."""
LOW = (1 << 30) - 1
"""What a product of a hash keeps: 30 bits, so that no product of two overflows 63."""
FACTORS = (0x9E3779B1, 0x85EBCA77)
"""Odd 32-bit numbers of xxHash, by which the two ids are spread."""


class Cross:
    """Two ids as one: the row of a weight for each pair of their values, or for what hashes to it."""

    def __init__(self, name: str, features: Iterable[Feature]):
        """`name` is `a*b`; raises InputError for what is no pair of single ids of the features."""
        known = {feature.name: feature for feature in features if feature.kind == "id"}
        self.name, (a, star, b) = name, name.partition("*")
        if not star or a not in known or b not in known or a == b:
            raise InputError(
                f"--crosses {name}: expected two of the features of kind id, as a*b; there are: "
                f"{', '.join(known) or 'none'}"
            )
        self.a, self.b = known[a], known[b]
        self.exact = (self.a.size + 1) * (self.b.size + 1) <= ROWS
        self.rows = (self.a.size + 1) * (self.b.size + 1) if self.exact else ROWS

    @property
    def of_request(self) -> bool:
        return self.a.of_request and self.b.of_request

    @property
    def feature(self) -> Feature:
        """As an id of its own, which no logs have."""
        side = "query" if self.of_request else "cross"
        return Feature(f"/{self.name}", side, "id", "", 0.0, size=self.rows, dim=1)

    def of(self, a: Tensor, b: Tensor) -> Tensor:
        """The row of each pair, int64."""
        if self.exact:
            return a * (self.b.size + 1) + b
        low = ((a * FACTORS[0] & LOW) ^ (b * FACTORS[1] & LOW)) * FACTORS[0]
        return (low >> 12) % self.rows


class Logistic(Ranker):
    """A weight for each number, each value of an id and each cross of two; their sum is the logit of a click."""

    def __init__(self, features: tuple[Feature, ...], crosses: tuple[str, ...], stats: Stats):
        plain = tuple(replace(feature, dim=1) if feature.dim else feature for feature in features)
        made = [Cross(name, plain) for name in crosses]
        super().__init__((*plain, *(cross.feature for cross in made)), (), stats)
        self.crosses, self.plain = made, plain
        with torch.no_grad():
            for table in self.embed.tables.values():
                cast(torch.nn.Embedding, table).weight.zero_()
            head = self.linears[0]
            head.weight.zero_()
            head.bias.zero_()
            for feature in (*plain, *(cross.feature for cross in made)):
                if feature.dim:  # an id's weight is in its table
                    head.weight[0, self.embed.columns[feature.name]] = 1.0

    def forward(self, inputs: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward({**inputs, **self.crossed(inputs, request_I)}, request_I)

    def crossed(self, inputs: Inputs, request_I: Tensor) -> dict[str, Tensor]:
        """The crosses as inputs of their own."""
        out: dict[str, Tensor] = {}
        for cross in self.crosses:
            a, b = (cast(Tensor, inputs[feature.name]) for feature in (cross.a, cross.b))
            if not cross.of_request:
                a, b = (x[request_I] if f.of_request else x for x, f in ((a, cross.a), (b, cross.b)))
            out[f"/{cross.name}"] = cross.of(a, b)
        return out
