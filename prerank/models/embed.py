"""From the features of requests and items to one input vector each.

Shapes: R requests of a batch, I items over all of them, D inputs. A feature of a request has R rows, one of an item I.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prerank.logs.schema import Feature
from prerank.models.batch import Bags, Inputs
from prerank.models.stats import Stats

FAR = 8.0
"""Normalised inputs are cut at so many standard deviations, so that one corrupt log row cannot throw a gradient."""
NUMBERS = ("/numbers of requests", "/numbers of items")
"""Under these keys inputs may have all numbers of a side normalised already; no feature begins with a slash."""

_EMPTY = nn.ModuleDict()


def module_name(feature: str) -> str:
    """Of a feature's table among torch's modules, and with it in checkpoints.

    The feature's own name but where torch refuses that: it has a dot, or is an attribute of the module that holds it.
    Then it begins with a slash, as no feature does, and has no dot.
    """
    if "." in feature or hasattr(_EMPTY, feature):
        return "/" + feature.replace("%", "%25").replace(".", "%2E")
    return feature


class Embed(nn.Module):
    """Normalises numbers by the training split (missing values become its mean), looks ids up, averages several ids.

    Ids are 0..size-1; row `size` of a table is for the unknown. `columns[name]` is the feature's slice of the D
    inputs: requests' features first, then items'; `feature_D` is the index of the feature that each input belongs to.
    """

    feature_D: Tensor

    def __init__(self, features: tuple[Feature, ...], stats: Stats):
        super().__init__()
        self.tables = nn.ModuleDict()
        self.columns: dict[str, slice] = {}
        self.widths = [0, 0]  # inputs of a request, inputs of an item
        self.dense: list[list[str]] = [[], []]
        self.looked_up: list[list[Feature]] = [[], []]
        for of_item in (0, 1):
            here = [feature for feature in features if feature.of_request != bool(of_item)]
            dense = [feature for feature in here if not feature.dim]
            self.dense[of_item] = [feature.name for feature in dense]
            self.looked_up[of_item] = [feature for feature in here if feature.dim]
            for key in ("mean", "std"):
                values = [value for feature in dense for value in stats[feature.name][key]]
                self.register_buffer(f"{key}_{of_item}", torch.tensor(values, dtype=torch.float32))
            for feature in dense + self.looked_up[of_item]:
                start = sum(self.widths)
                self.columns[feature.name] = slice(start, start + feature.width)
                self.widths[of_item] += feature.width
        feature_D = torch.zeros(sum(self.widths), dtype=torch.long)
        for index, feature in enumerate(features):
            feature_D[self.columns[feature.name]] = index
        self.register_buffer("feature_D", feature_D, persistent=False)
        for feature in features:
            if feature.dim:
                table = nn.Embedding(feature.size + 1, feature.dim)
                nn.init.normal_(table.weight, std=0.05)
                self.tables[module_name(feature.name)] = table

    def table(self, name: str) -> nn.Embedding:
        """The rows of an id's embeddings [size + 1, dim]."""
        return cast(nn.Embedding, self.tables[module_name(name)])

    def forward(self, inputs: Inputs) -> tuple[Tensor | None, Tensor]:
        """Inputs of the requests [R, D_request] (None where there are none) and of the items [I, D_item]."""
        request, item = self.side(inputs, 0), self.side(inputs, 1)
        if item is None:
            raise ValueError(
                "a ranker needs a feature of the side item or cross: nothing tells one candidate from another"
            )
        return request, item

    def gated(self, x_R: Tensor | None, x_I: Tensor, gate_M: Tensor) -> tuple[Tensor | None, Tensor]:
        """The inputs with all of a feature's multiplied by its gate; M features, in the order of the constructor."""
        gate_D, n = gate_M[self.feature_D], self.widths[0]
        return None if x_R is None else x_R * gate_D[:n], x_I * gate_D[n:]

    def numbers(self, inputs: Inputs, of_item: int) -> Tensor | None:
        """The numbers of the requests (0) or of the items (1), normalised; None where there are none."""
        if not self.dense[of_item]:
            return None
        raw = torch.cat([cast(Tensor, inputs[name]) for name in self.dense[of_item]], dim=1)  # ids alone are Bags
        mean, std = (getattr(self, f"{key}_{of_item}").to(raw.device) for key in ("mean", "std"))
        normal = (raw - mean) / std
        return torch.nan_to_num(normal, nan=0.0).clamp(-FAR, FAR)

    def packed(self, inputs: Inputs) -> dict[str, Tensor | Bags]:
        """The same with the numbers of a side as one tensor under the keys `NUMBERS`; `forward` takes either."""
        numbers = {key: self.numbers(inputs, of_item) for of_item, key in enumerate(NUMBERS)}
        apart = {name for names in self.dense for name in names}
        out = {name: x for name, x in inputs.items() if name not in apart}
        return out | {key: x for key, x in numbers.items() if x is not None}

    def side(self, inputs: Inputs, of_item: int) -> Tensor | None:
        """Inputs of the requests (0) or of the items (1); None where there are none."""
        numbers = inputs[NUMBERS[of_item]] if NUMBERS[of_item] in inputs else self.numbers(inputs, of_item)
        parts = [] if numbers is None else [cast(Tensor, numbers)]
        for feature in self.looked_up[of_item]:
            table, ids = self.table(feature.name), inputs[feature.name]
            if isinstance(ids, Bags):
                bags = F.embedding_bag(ids.values, table.weight, ids.offsets, mode="mean", sparse=table.sparse)
                parts.append(bags)
            else:
                parts.append(table(ids))
        return torch.cat(parts, dim=1) if parts else None
