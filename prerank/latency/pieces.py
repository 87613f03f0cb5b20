"""What is timed: the input paths, the layers and whole networks of a ranker, on ONNX Runtime and on torch.

Shapes: N candidates of one request, D inputs of an item.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from torch.nn import functional

from prerank.latency.file import Runtime
from prerank.logs.schema import Feature
from prerank.models.batch import Bags, Inputs
from prerank.models.ranker import Ranker
from prerank.models.stats import Stats
from prerank.serving.graph import BLANK, empty_graph, inputs_graph, layer_graph, ranker_graph
from prerank.serving.session import open_session
from prerank.serving.timing import FRESH, Run

ROWS = 100_000
"""Tables of ids are measured with at most so many rows: far beyond the caches, and hundreds of graphs fit in memory."""


@dataclass(frozen=True)
class Setting:
    runtime: Runtime
    candidates: int
    threads: int

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.runtime}, {self.candidates} candidates, {threads}"


def random_inputs(
    features: Iterable[Feature], candidates: int, *, list_length: int, seed: int
) -> dict[str, np.ndarray]:
    """What `ranker_graph` takes, by feature: normal numbers, uniform ids (of any size where they are hashed),
    `list_length` ids a row."""
    rng = np.random.default_rng(seed)
    out = {}
    for feature in features:
        rows = 1 if feature.of_request else candidates
        if feature.kind in ("id", "ids"):
            low, high = (-(2**62), 2**62) if feature.hash else (0, feature.size)
            out[feature.name] = rng.integers(low, high, (rows, 1 if feature.kind == "id" else list_length))
        else:
            out[feature.name] = rng.standard_normal((rows, feature.size), np.float32)
    return out


class Pieces:
    """What both runtimes are told: the features, their statistics, and FRESH sets of inputs of one request."""

    def __init__(self, setting: Setting, features: Sequence[Feature], stats: Stats, list_length: int) -> None:
        self.setting, self.stats = setting, stats
        self.features = tuple(replace(f, size=min(f.size, ROWS)) if f.dim else f for f in features)
        self.by_name = {feature.name: feature for feature in self.features}
        self.inputs = [
            random_inputs(self.features, setting.candidates, list_length=list_length, seed=seed)
            for seed in range(FRESH)
        ]

    def ranker(self, names: Iterable[str], widths: tuple[int, ...]) -> Ranker:
        return Ranker(tuple(self.by_name[name] for name in names), widths, self.stats).eval()

    def blank(self, width: int) -> list[np.ndarray]:
        rng = np.random.default_rng(width)
        return [rng.standard_normal((self.setting.candidates, width), np.float32) for _ in range(FRESH)]


class OnnxPieces(Pieces):
    """Sessions of ONNX Runtime as a server holds them, fed with arrays."""

    def __init__(self, setting: Setting, features: Sequence[Feature], stats: Stats, list_length: int) -> None:
        super().__init__(setting, features, stats, list_length)
        self.all = self.ranker(self.by_name, ())

    def overhead(self) -> Run:
        return self._run(empty_graph(), (), 1)

    def layer(self, width_in: int, width_out: int) -> Run:
        session, x = open_session(layer_graph(width_in, width_out), self.setting.threads), self.blank(width_in)[0]
        return lambda k: session.run(None, {BLANK: x})

    def paths(self, names: Sequence[str]) -> Run:
        blank = 0 if any(not self.by_name[name].of_request for name in names) else 1
        return self._run(inputs_graph(self.all, [self.by_name[name] for name in names]), names, blank)

    def network(self, names: Sequence[str], widths: tuple[int, ...]) -> Run:
        return self._run(ranker_graph(self.ranker(names, widths), self.features), names)

    def _run(self, model: onnx.ModelProto, names: Sequence[str], blank: int = 0) -> Run:
        session = open_session(model, self.setting.threads)
        feeds = [{name: inputs[name] for name in names} for inputs in self.inputs]
        if blank:
            feeds = [feed | {BLANK: x} for feed, x in zip(feeds, self.blank(blank), strict=True)]
        return lambda k: session.run(None, feeds[k % FRESH])


class TorchPieces(Pieces):
    """The modules of a ranker in inference mode, fed with tensors."""

    def __init__(self, setting: Setting, features: Sequence[Feature], stats: Stats, list_length: int) -> None:
        super().__init__(setting, features, stats, list_length)
        torch.set_num_threads(setting.threads)
        self.tensors = [{name: _tensor(x, self.by_name[name]) for name, x in inputs.items()} for inputs in self.inputs]

    def overhead(self) -> Run:
        x = [torch.from_numpy(x) for x in self.blank(1)]
        return torch.inference_mode()(lambda k: x[k % FRESH].squeeze(1))

    def layer(self, width_in: int, width_out: int) -> Run:
        made, head = torch.nn.Linear(width_in, width_out), torch.nn.Linear(width_out, 1)
        x = torch.from_numpy(self.blank(width_in)[0])
        if width_out == 1:
            return torch.inference_mode()(lambda k: functional.linear(x, made.weight, made.bias).squeeze(1))

        @torch.inference_mode()
        def run(k: int) -> torch.Tensor:
            h = torch.relu(functional.linear(x, made.weight, made.bias))
            return functional.linear(h, head.weight, head.bias).squeeze(1)

        return run

    def paths(self, names: Sequence[str]) -> Run:
        if not names:
            return self.layer(1, 1)
        ranker, tensors = self.ranker(names, ()), self.tensors
        weight, n = ranker.linears[0].weight, ranker.embed.widths[0]
        weight_R, weight_I, bias = weight[:, :n].contiguous(), weight[:, n:].contiguous(), ranker.linears[0].bias
        blank = torch.from_numpy(self.blank(1)[0])

        @torch.inference_mode()
        def run(k: int) -> torch.Tensor:
            x_R = ranker.embed.side(tensors[k % FRESH], 0)  # a side at a time, as one may have no features here
            x_ND = ranker.embed.side(tensors[k % FRESH], 1)
            row = bias if x_R is None else functional.linear(x_R, weight_R, bias)[0]
            of_items = (blank, blank.new_ones(1, 1)) if x_ND is None else (x_ND, weight_I)
            return functional.linear(*of_items, row).squeeze(1)

        return run

    def network(self, names: Sequence[str], widths: tuple[int, ...]) -> Run:
        serve, tensors = one_request(self.ranker(names, widths)), self.tensors
        return torch.inference_mode()(lambda k: serve(tensors[k % FRESH]))


def one_request(ranker: Ranker) -> Callable[[Inputs], torch.Tensor]:
    """Scores [N] as Ranker.forward gives them for one request, whose part of the first layer is a bias to all."""
    (first, *rest), n = ranker.linears, ranker.embed.widths[0]
    weight_R, weight_I = first.weight[:, :n].contiguous(), first.weight[:, n:].contiguous()

    def serve(inputs: Inputs) -> torch.Tensor:
        x_R, x_ND = ranker.embed(inputs)
        bias = first.bias if x_R is None else functional.linear(x_R, weight_R, first.bias)[0]
        h = functional.linear(x_ND, weight_I, bias)
        for layer in rest:
            h = functional.linear(torch.relu(h), layer.weight, layer.bias)
        return h.squeeze(1)

    return serve


def _tensor(x: np.ndarray, feature: Feature) -> torch.Tensor | Bags:
    """As the encoding of samples makes it: torch's networks are given ids that are hashed already."""
    x = x % feature.size if feature.hash else x
    if feature.kind == "ids":
        return Bags(torch.from_numpy(x.reshape(-1)), torch.arange(len(x)) * x.shape[1])
    return torch.from_numpy(x[:, 0] if feature.kind == "id" else x)


PIECES: dict[Runtime, type[OnnxPieces | TorchPieces]] = {"onnxruntime": OnnxPieces, "torch": TorchPieces}
