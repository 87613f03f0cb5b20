"""The mean of the weights over the last steps, which stands where a falling learning rate would lead (Polyak).

t steps, n rows of a table that a batch looked up, D of its width.
"""

import math
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, nn

BETAS, EPS = (0.9, 0.999), 1e-8
"""Of AdamW, its defaults."""


class AveragedAdamW(torch.optim.AdamW):
    """AdamW that keeps beside the moments of each parameter its exponential mean, so that checkpoints hold it too.

    Of the mean after step t the share min(`average`, (1 + t) / (10 + t)) stays: it soon forgets where it began; with an
    `average` of 0 no mean is kept. Of parameters with gradients of rows, only those rows are moved; the mean of the
    others, whose weights stand still, is brought to today's when their row comes by, or by `weights_of`.
    """

    def __init__(self, parameters: list[nn.Parameter], *, lr: float, weight_decay: float, average: float):
        super().__init__(parameters, lr=lr, betas=BETAS, eps=EPS, weight_decay=weight_decay, fused=True)
        self.average = average

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        of_rows = self._taken()
        loss = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter in of_rows:
                    self._step_rows(parameter, of_rows[parameter], group["lr"], group["weight_decay"])
        if self.average:
            self._average([p for group in self.param_groups for p in group["params"] if p not in of_rows])
        return loss

    def _taken(self) -> dict[Tensor, Tensor]:
        """The gradients of rows, by parameter, which has none then."""
        out: dict[Tensor, Tensor] = {}
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.grad is not None and parameter.grad.is_sparse:
                out[parameter], parameter.grad = parameter.grad.coalesce(), None
        return out

    def _average(self, parameters: list[Tensor]) -> None:
        """The shares of all at once: of each alone they are six operations on a single number."""
        moved = [(parameter, self.state[parameter]) for parameter in parameters if self.state[parameter]]
        meant = [(parameter, state) for parameter, state in moved if "mean" in state]
        if meant:
            done_S = torch.stack([state["step"] for _, state in meant])
            gone_S = 1 - torch.clamp((1 + done_S) / (10 + done_S), max=self.average)
            for (parameter, state), gone in zip(meant, gone_S.unbind(), strict=True):
                state["mean"].lerp_(parameter, gone)
        for parameter, state in moved:
            if "mean" not in state:
                state["mean"] = parameter.detach().clone()

    def _step_rows(self, table: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        """The step of AdamW (Loshchilov and Hutter, 2019) on the rows of the gradient alone."""
        state: dict[str, Any] = self.state[table]
        if not state:
            state |= {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(table)}
            state["exp_avg_sq"] = torch.zeros_like(table)
            if self.average:
                state |= {"mean": table.detach().clone(), "meant": torch.ones(len(table), dtype=table.dtype)}
        state["step"] += 1
        step, row_n, gradient_nD = float(state["step"]), gradient.indices()[0], gradient.values()
        first_nD = _rows(state["exp_avg"], row_n).lerp_(gradient_nD, 1 - BETAS[0])
        second_nD = _rows(state["exp_avg_sq"], row_n).mul_(BETAS[1])
        second_nD.addcmul_(gradient_nD, gradient_nD, value=1 - BETAS[1])
        size_nD = (second_nD.sqrt() / math.sqrt(1 - BETAS[1] ** step)).add_(EPS)
        before_nD = _rows(table, row_n)
        after_nD = before_nD * (1 - lr * weight_decay) - lr / (1 - BETAS[0] ** step) * first_nD / size_nD
        table.index_copy_(0, row_n, after_nD)
        state["exp_avg"].index_copy_(0, row_n, first_nD)
        state["exp_avg_sq"].index_copy_(0, row_n, second_nD)
        if self.average:
            left_n = self._left(_rows(state["meant"], row_n), step - 1) if step > 1 else torch.ones(len(row_n))
            mean_nD = before_nD + (_rows(state["mean"], row_n) - before_nD) * left_n[:, None]
            share = self._share(step) if step > 1 else 0.0  # the mean begins as the weights after the first step
            state["mean"].index_copy_(0, row_n, after_nD + (mean_nD - after_nD) * share)
            state["meant"].index_fill_(0, row_n, step)

    def _share(self, step: float) -> float:
        return min(self.average, (1 + step) / (10 + step))

    def _left(self, since: Tensor, step: float) -> Tensor:
        """The product of the shares of the steps after `since`, up to `step`."""
        full = math.floor((10 * self.average - 1) / (1 - self.average)) if self.average < 1 else math.inf

        def logarithm(t: Tensor) -> Tensor:
            """Of the product of the shares of the first t steps: (t + 1)! 10! / (t + 10)! until they are `average`."""
            early = torch.clamp(t.double(), max=full)
            return torch.lgamma(early + 2) - torch.lgamma(early + 11) + math.log(self.average) * (t.double() - early)

        return torch.exp(logarithm(torch.tensor(step)) - logarithm(since)).to(since.dtype)

    def mean_of(self, parameter: Tensor) -> Tensor | None:
        """The mean as it is after the latest step; None where none is kept."""
        state = self.state.get(parameter, {})
        if "meant" not in state:
            return state.get("mean")
        left_n = self._left(state["meant"], float(state["step"]))
        return torch.lerp(parameter.detach(), state["mean"], left_n[:, None])


def _rows(table: Tensor, row_n: Tensor) -> Tensor:
    """A copy of them; by `table[row_n]` it takes twice as long, in which the memory is waited for item by item."""
    return table.index_select(0, row_n)


def weights_of(model: nn.Module, optimizer: AveragedAdamW) -> dict[str, Tensor]:
    """The model's weights by name: their means where the optimizer keeps any, and themselves."""
    weights = dict(model.state_dict())
    for name, parameter in model.named_parameters():
        mean = optimizer.mean_of(parameter)
        weights[name] = weights[name] if mean is None else mean
    return weights
