"""What models read: the items of several requests laid end to end, as tensors.

Shapes: R requests of a batch, I items over all of them, P pairs, L items listed by strategy, D the width of the
teacher's representation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bags:
    """A multi-valued id: the values of all rows, and where each row's begin."""

    values: Tensor
    offsets: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> "Bags":
        return Bags(
            self.values.to(device, non_blocking=non_blocking), self.offsets.to(device, non_blocking=non_blocking)
        )


Inputs = Mapping[str, Tensor | Bags]
"""By feature: dense and embedding float [rows, size] with NaN where missing, id int64 [rows], ids Bags."""


@dataclass(frozen=True)
class Batch:
    """Items of a request are contiguous; indices count over the batch."""

    features: dict[str, Tensor | Bags]
    request_I: Tensor
    requests: int
    exposed_I: Tensor | None = None
    target_I: Tensor | None = None
    """Clicked."""
    shown_I: Tensor | None = None
    """Where the item was shown, as `bucket` has it; -1 where it was not, or nobody knows."""
    bin_I: Tensor | None = None
    contrasted_I: Tensor | None = None
    """Whether the losses of representations look at the item; None: they look at all."""
    teacher_I: Tensor | None = None
    teacher_ID: Tensor | None = None
    """Of those that `contrasted_I` marks."""
    hi_P: Tensor | None = None
    lo_P: Tensor | None = None
    group_P: Tensor | None = None
    """(request, strategy) of each pair, 0..groups-1."""
    groups: int = 0
    gain_P: Tensor | None = None
    """How much better the better one is, 0..1."""
    listed_L: Tensor | None = None
    """The items of the pairs of each (request, strategy), each once: items of the batch."""
    group_L: Tensor | None = None
    """(request, strategy)"""
    place_L: Tensor | None = None
    """0 = best, within the group; of clicks, 0 where clicked and 1 where not."""
    top_L: Tensor | None = None
    """Clicked; of places, among the first K, to the scale of the group."""
    heads: "tuple[Batch, ...]" = ()
    """Of a network of several heads, what each learns from of the same items; these have no features of their own."""

    def to(self, device: torch.device) -> "Batch":
        """Moves every tensor; asynchronously from pinned memory."""
        alone = [f.name for f in fields(self) if f.name not in ("features", "heads")]
        moved: dict[str, Any] = {name: _move(getattr(self, name), device) for name in alone}
        features = {name: _move(x, device) for name, x in self.features.items()}
        return replace(self, features=features, heads=tuple(head.to(device) for head in self.heads), **moved)


def _move(x: object, device: torch.device) -> object:
    if isinstance(x, Tensor) and device.type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device) if isinstance(x, Tensor | Bags) else x
