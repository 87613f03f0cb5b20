"""Large id tables on a CPU: a step reads and writes the rows that its batch looked up, and no others.

The moments, the weight decay and the mean of the other rows stand still until their ids come by (as in torch's
SparseAdam); with dense gradients a step on a table of two million rows takes a hundred times as long as the network's.
On a GPU that is a small part of a step, and NCCL sums no sparse gradients; there tables are dense.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

LARGE = 100_000
"""Rows, from which a table is one."""


def mark_large(model: nn.Module, device: torch.device) -> None:
    """From now on, large tables have gradients of rows; before DDP is told of the model, which looks for them."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.sparse = device.type == "cpu" and module.num_embeddings >= LARGE


def clip_grad_norm(parameters: Iterable[nn.Parameter], most: float) -> None:
    """As torch's, which knows no gradients of rows; each row of these is there once afterwards."""
    parameters = [p for p in parameters if p.grad is not None]
    rows = [p for p in parameters if p.grad is not None and p.grad.is_sparse]
    if not rows:
        nn.utils.clip_grad_norm_(parameters, most)
        return
    values: list[Tensor] = []
    for p in parameters:
        assert p.grad is not None
        if p.grad.is_sparse:
            p.grad = p.grad.coalesce()
        values.append(p.grad.values() if p.grad.is_sparse else p.grad)
    share = torch.clamp(most / (nn.utils.get_total_norm(values) + 1e-6), max=1.0)
    for value in values:
        value.mul_(share)
