"""Boosted trees of LightGBM as tensors: what is learned there is kept, scored and served like any other model.

Shapes: N rows, F inputs, T trees, J inner nodes of the largest tree, L = J + 1 leaves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from prerank.logs.schema import Feature
from prerank.models.batch import Inputs
from prerank.models.embed import Embed
from prerank.models.ranker import Scorer
from prerank.models.stats import Stats
from prerank.models.towers import TwoTower


class Trees(nn.Module):
    """The sum of T trees of numeric splits x <= threshold; inputs are finite, so that no split asks for the missing."""

    feature_TJ: Tensor
    threshold_TJ: Tensor
    """float32, rounded down: x <= t is the same for each float32 x."""
    child_TJ2: Tensor
    """To the left (x <= threshold) and to the right: an inner node, or ~leaf."""
    leaf_TL: Tensor
    """float64, as LightGBM sums them."""

    NAMES = ("feature_TJ", "threshold_TJ", "child_TJ2", "leaf_TL")

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("feature_TJ", torch.zeros(0, 1, dtype=torch.int64))
        self.register_buffer("threshold_TJ", torch.zeros(0, 1))
        self.register_buffer("child_TJ2", torch.full((0, 1, 2), -1, dtype=torch.int64))
        self.register_buffer("leaf_TL", torch.zeros(0, 2, dtype=torch.float64))

    def forward(self, x_NF: Tensor) -> Tensor:
        """float32 [N]"""
        score_N = torch.zeros(len(x_NF), dtype=torch.float64)
        for feature_J, threshold_J, child_J2, leaf_L in self._each():
            node_N = torch.zeros(len(x_NF), dtype=torch.int64)
            inside_N = torch.arange(len(x_NF))
            while len(inside_N):
                at = node_N[inside_N]
                right = x_NF[inside_N, feature_J[at]] > threshold_J[at]
                node_N[inside_N] = child_J2[at, right.long()]
                inside_N = inside_N[node_N[inside_N] >= 0]
            score_N += leaf_L[~node_N]
        return score_N.float()

    def _each(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        return zip(self.feature_TJ, self.threshold_TJ, self.child_TJ2, self.leaf_TL, strict=True)

    def arrays(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Of each tree its part of the four."""
        for feature_J, threshold_J, child_J2, leaf_L in self._each():
            yield feature_J.numpy(), threshold_J.numpy(), child_J2.numpy(), leaf_L.numpy()

    def take(self, dump: Mapping[str, Any]) -> None:
        """The trees of `lightgbm.Booster.dump_model()`.

        Raises ValueError for a split that is not x <= threshold.
        """
        trees = [_arrays(tree["tree_structure"]) for tree in dump["tree_info"]]
        most = max((len(tree[0]) for tree in trees), default=1)
        padded = [
            (
                np.pad(feature_J, (0, most - len(feature_J))),
                np.pad(threshold_J, (0, most - len(feature_J))),
                np.pad(child_J2, ((0, most - len(feature_J)), (0, 0)), constant_values=-1),
                np.pad(leaf_L, (0, most + 1 - len(leaf_L))),
            )
            for feature_J, threshold_J, child_J2, leaf_L in trees
        ]
        for name, parts in zip(self.NAMES, zip(*padded, strict=True), strict=True):
            setattr(self, name, torch.from_numpy(np.stack(parts)))

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        """There are as many trees as were saved."""
        for name in self.NAMES:
            if f"{prefix}{name}" in state_dict:
                setattr(self, name, torch.empty_like(state_dict[f"{prefix}{name}"]))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _arrays(root: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, thresholds and children of the inner nodes, and the leaves; of a lone leaf a node that leads to it."""
    feature: list[int] = []
    threshold: list[float] = []
    child: list[list[int]] = []
    leaf: list[float] = []

    def walk(node: Mapping[str, Any]) -> int:
        if "split_feature" not in node:
            leaf.append(node["leaf_value"])
            return ~(len(leaf) - 1)
        if node["decision_type"] != "<=":
            raise ValueError(f"a split {node['decision_type']!r}: expected numbers, and no categories")
        here = len(feature)
        feature.append(node["split_feature"])
        threshold.append(node["threshold"])
        child.append([0, 0])
        child[here] = [walk(node["left_child"]), walk(node["right_child"])]
        return here

    if walk(root) < 0:
        feature, threshold, child = [0], [0.0], [[-1, -1]]
    return np.array(feature), _down(np.array(threshold)), np.array(child), np.array(leaf)


def _down(threshold: np.ndarray) -> np.ndarray:
    """float32, the largest that is not above."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


class TowerTrees(Scorer):
    """Trees over the score of two towers and the cross features, which no tower can read (the pre-ranking of 2019)."""

    trees: Trees

    def __init__(self, features: tuple[Feature, ...], widths: tuple[int, ...], stats: Stats):
        super().__init__()
        self.towers = TwoTower(tuple(f for f in features if f.side != "cross"), widths, stats)
        self.embed = Embed(tuple(f for f in features if f.side == "cross"), stats)
        self.trees = Trees()
        self.repr_width = 1 + self.embed.widths[1]

    def forward(self, inputs: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        x_IF = self.inputs(inputs, request_I)
        return self.trees(x_IF), x_IF

    def inputs(self, inputs: Inputs, request_I: Tensor) -> Tensor:
        """float32 [I, F] of the trees: the towers' score, then the cross features, normalised."""
        score_I, cross_ID = self.towers(inputs, request_I)[0], self.embed.side(inputs, 1)
        parts = [score_I[:, None]] if cross_ID is None else [score_I[:, None], cross_ID]
        return torch.cat(parts, dim=1)


class Boosted(Scorer):
    """Trees over all features: numbers normalised, of an id how its value was clicked in training (a teacher)."""

    trees: Trees

    def __init__(self, features: tuple[Feature, ...], stats: Stats):
        super().__init__()
        self.features = tuple(replace(feature, dim=1) if feature.dim else feature for feature in features)
        self.embed = Embed(self.features, stats)
        self.trees = Trees()
        self.repr_width = sum(self.embed.widths)

    def forward(self, inputs: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        x_IF = self.inputs(inputs, request_I)
        return self.trees(x_IF), x_IF

    def inputs(self, inputs: Inputs, request_I: Tensor) -> Tensor:
        """float32 [I, F] of the trees: a request's, then an item's."""
        x_R, x_I = self.embed(inputs)
        return x_I if x_R is None else torch.cat([x_R[request_I], x_I], dim=1)


def embeddings(scorer: Boosted) -> dict[str, nn.Embedding]:
    """The tables of its ids, by module name."""
    return cast(dict[str, nn.Embedding], dict(scorer.embed.tables.items()))
