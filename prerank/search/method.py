"""What a method of the search is: a network that learns, beside its weights, which features and widths are worth it.

`AutoFAS` and the rivals are methods; the loop and the worker group know nothing else of them. Shapes: I items of a
batch, M features to choose from, S slots of hidden layers, C candidate widths of a slot.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol, Required, TypedDict

from torch import Tensor, nn

from prerank.logs.schema import Schema
from prerank.models.batch import Batch, Inputs
from prerank.models.stats import Stats
from prerank.search.spec import Spec

Learns = Literal["weights", "architecture"]
"""Whose turn it is."""


class Facts(TypedDict, total=False):
    """Where an architecture stands, as JSON holds it; a method that learns less of it says less."""

    gates: dict[str, float]
    """Of each feature the probability that it is kept."""
    widths: list[list[float]]
    """Probabilities [slot][candidate]."""
    fetch_us: float
    """Expected, as `inference_us` and their sum, `latency_us`."""
    inference_us: float
    latency_us: float
    gate_entropy: float
    """Nats, the mean of the gates; 0 is decided."""
    width_entropy: float


class SearchEpoch(Facts, total=False):
    """An epoch of the history: beside the facts stand its losses `train/...` and its metrics `val/...`."""

    epoch: Required[int]


class Method(Protocol):
    """An `nn.Module`, the one that is handed to DDP.

    A turn of the weights calls `forward` and steps the optimizer. A turn of the architecture, on held-out batches, does
    the same with the parameters of `architecture` and then calls `moved`. After each epoch come `close`, `facts` and a
    validation by `student`; at the end `values` and `log_p`, from which `derive` takes the best that fits the budget.
    """

    def __init__(self, spec: Spec, schema: Schema, stats: Stats, teacher_width: int | None = None) -> None:
        """`teacher_width`: of the teacher's representation, where the samples have one to contrast with."""
        ...

    def architecture(self) -> list[nn.Parameter]:
        """What takes turns with the weights: first what learns at `search.gate_lr`, then at `width_lr`; or nothing."""
        ...

    def forward(self, batch: Batch, step: int, warmup: float, learns: Learns) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a turn and its parts; draws hang on `step` alone, so that every worker has the same.

        `warmup` in 0..1 scales the distillation's λ.
        """
        ...

    def student(self, features: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        """score_I and the last hidden layer of the network as it stands, for validation."""
        ...

    def moved(self, before: list[Tensor]) -> None:
        """The optimizer has just moved the architecture away from `before`."""
        ...

    def close(self, done: float) -> None:
        """An epoch is over, and of the search after its warm-up the share `done` in 0..1."""
        ...

    def facts(self) -> Facts: ...

    def values(self, batches: Iterable[Batch]) -> Tensor:
        """What keeping each feature is worth to `derive` [M], on batches that the weights did not learn from."""
        ...

    def log_p(self) -> list[list[float]]:
        """How likely each candidate width is [S][C], -inf where `derive` may not choose it; the candidates are those of
        `Spec.candidates`."""
        ...

    # Of nn.Module:

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...

    def eval(self) -> object: ...
