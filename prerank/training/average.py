"""The mean of the weights over the last steps, which stands where a falling learning rate would lead (Polyak)."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, nn


class AveragedAdamW(torch.optim.AdamW):
    """AdamW that keeps beside the moments of each parameter its exponential mean, so that checkpoints hold it too.

    Of the mean after step t the share min(`average`, (1 + t) / (10 + t)) stays: it soon forgets where it began.
    """

    def __init__(self, parameters: list[nn.Parameter], *, lr: float, weight_decay: float, average: float):
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=True)
        self.average = average

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                state: dict[str, Any] = self.state[parameter]
                if "mean" in state:
                    done = state["step"]
                    state["mean"].lerp_(parameter, 1 - torch.clamp((1 + done) / (10 + done), max=self.average))
                elif state:
                    state["mean"] = parameter.detach().clone()
        return loss


def weights_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The model's weights by name: their means where the optimizer keeps any, and themselves."""
    weights = dict(model.state_dict())
    for name, parameter in model.named_parameters():
        weights[name] = optimizer.state.get(parameter, {}).get("mean", weights[name])
    return weights
