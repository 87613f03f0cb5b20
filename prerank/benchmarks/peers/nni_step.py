"""NNI's ProxylessNAS over the paper's widths: each layer a choice of linear ones, of which one path is drawn a step.

A layer's choices must give one shape, so narrower ones are padded with zeros to the widest; width 0 is the identity,
in the first layer a padded copy of the inputs. Its backward pass evaluates all other paths for the gradient of the
choice, in steps of the weights too.
"""

import logging
from collections.abc import Callable
from functools import partial

import torch
from nni.mutable import frozen_context  # pyright: ignore[reportMissingImports]: installed by hand
from nni.nas.oneshot.pytorch.supermodule.proxyless import (  # pyright: ignore[reportMissingImports]
    ProxylessMixedLayer,
)
from torch import Tensor, nn
from torch.nn import functional as F

from prerank.logs.schema import Feature
from prerank.models.batch import Batch, Inputs
from prerank.models.distill import Distiller
from prerank.models.embed import Embed
from prerank.models.options import Arm
from prerank.models.ranker import Scorer
from prerank.models.stats import Stats
from prerank.training import loop


class Padded(nn.Module):
    """A layer of its width, in the columns of the widest."""

    def __init__(self, inputs: int, width: int, widest: int) -> None:
        super().__init__()
        self.layer, self.beside = nn.Linear(inputs, width) if width else nn.Identity(), widest - (width or inputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return F.pad(F.relu(x) if isinstance(self.layer, nn.Linear) else x, (0, self.beside))


class Proxyless(Scorer):
    def __init__(self, features: tuple[Feature, ...], widths: tuple[int, ...], layers: int, stats: Stats) -> None:
        super().__init__()
        self.embed, self.repr_width = Embed(features, stats), max(widths)
        inputs = [sum(self.embed.widths), *[self.repr_width] * (layers - 1)]
        logging.getLogger("nni.nas.nn.pytorch.base").setLevel(logging.ERROR)  # that no experiment of its own is made
        with frozen_context({f"slot{slot}": str(widths[0]) for slot in range(layers)}):
            self.slots = nn.ModuleList(
                ProxylessMixedLayer(
                    {str(width): Padded(n, width, self.repr_width) for width in widths},
                    nn.Parameter(1e-3 * torch.randn(len(widths))),
                    nn.Softmax(-1),
                    f"slot{slot}",
                )
                for slot, n in enumerate(inputs)
            )
        self.head = nn.Linear(self.repr_width, 1)

    def forward(self, inputs: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        x_R, x_I = self.embed(inputs)
        h = x_I if x_R is None else torch.cat([x_R[request_I], x_I], 1)
        for slot in self.slots:
            h = slot(h)
        return self.head(h).squeeze(1), h

    def choices(self) -> list[nn.Parameter]:
        return [slot._arch_alpha for slot in self.slots]  # pyright: ignore


def turns_of(
    features: tuple[Feature, ...], widths: tuple[int, ...], layers: int, arm: Arm, stats: Stats
) -> dict[str, Callable[[Batch, int], object]]:
    """A step of the weights and one of the choices, on the loss that ours learns from."""
    model = Distiller(Proxyless(features, widths, layers, stats), arm)
    choices = model.student.choices()
    chosen = {id(choice) for choice in choices}
    weights = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    optimizers = {
        "weights": loop.AveragedAdamW(weights, lr=arm.optim.lr, weight_decay=0.0, average=0.0),
        "architecture": torch.optim.Adam(choices, lr=1e-3),
    }

    def turn(learns: str, batch: Batch, step: int) -> None:
        for slot in model.student.slots:
            slot.resample({})  # pyright: ignore
        loss, _ = model(batch)
        model.zero_grad(set_to_none=True)
        loss.backward()
        if learns == "weights":
            nn.utils.clip_grad_norm_(weights, arm.optim.clip)
        optimizers[learns].step()

    return {learns: partial(turn, learns) for learns in optimizers}
