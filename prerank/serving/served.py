"""Any model as it is served: its graphs, what a server feeds them with for a request, and what is fetched for that.

Shapes: N candidates of one request, D the width of a tower's vector, T trees.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto
from torch import nn

from prerank.core.errors import InputError
from prerank.logs.schema import Feature, Schema
from prerank.models.ranker import Ranker, Scorer
from prerank.models.stats import Stats
from prerank.models.towers import TwoTower
from prerank.models.trees import Boosted, TowerTrees, Trees
from prerank.serving.graph import about, array, inputs, ranker_graph, read_by
from prerank.serving.nodes import CANDIDATES, Attribute, Graph, ints

VECTOR = "/item_vector"
"""What an item's tower said of it, an input [N, D] where it is fetched; no feature can take this name."""
TREES = "/inputs_of_trees"
"""What trees read, [N, F], a second output where it is asked for."""
Features = tuple[Feature, ...]


@dataclass(frozen=True)
class Served:
    """What answers a request."""

    graph: onnx.ModelProto
    features: Features
    """Its inputs, by name."""
    stats: Stats
    """Of those of numbers."""


def graph_of(scorer: Scorer, features: Features, *, trees: bool = False, packed: bool = False) -> onnx.ModelProto:
    """`score` float32 [N] from one input a feature, as `ranker_graph` has them: the scorer's forward for one request.

    trees: with TREES as a second output, which those of a model with trees are. packed: as `ranker_graph` says, of an
    MLP alone; raises InputError of another.
    """
    if packed and type(scorer) is not Ranker:
        raise InputError("--packed: inputs are packed for a student of --model mlp alone; leave it out")
    if isinstance(scorer, Ranker):
        return ranker_graph(scorer, features, packed=packed)
    graph = Graph()
    if isinstance(scorer, TwoTower):
        read = read_by(scorer.embed, features)
        graph.score(_product(graph, scorer, read, _tower(graph, scorer, read, 1)))
    elif isinstance(scorer, TowerTrees):
        crosses, others = read_by(scorer.embed, features), read_by(scorer.towers.embed, features)
        read = (*others, *crosses)
        _tower_trees(graph, scorer, read, _tower(graph, scorer.towers, others, 1), trees)
    else:
        assert isinstance(scorer, Boosted)
        read = scorer.features
        _boosted(graph, scorer, trees)
    return graph.model(about(read))


def as_served(scorer: Scorer, features: Features, schema: Schema, stats: Stats, *, packed: bool = False) -> Served:
    """As a server runs it: of two towers the request's alone, and the product with the vectors of the items."""
    if not isinstance(scorer, TwoTower | TowerTrees):
        return Served(graph_of(scorer, features, packed=packed), features, stats)
    towers = scorer if isinstance(scorer, TwoTower) else scorer.towers
    vector = vector_of(towers, features, schema)
    read = tuple(f for f in features if f.of_request or (f.side == "cross" and isinstance(scorer, TowerTrees)))
    graph = Graph()
    value = graph.input(VECTOR, TensorProto.FLOAT, [CANDIDATES, towers.repr_width])
    if isinstance(scorer, TwoTower):
        graph.score(_product(graph, scorer, read, value))
    else:
        _tower_trees(graph, scorer, read, value, trees=False)
    of_vector = {"mean": [0.0] * vector.size, "std": [1.0] * vector.size, "missing": 0.0}
    return Served(graph.model(about(read)), (*read, vector), {**stats, VECTOR: of_vector})  # pyright: ignore


def vector_of(towers: TwoTower, features: Features, schema: Schema) -> Feature:
    """The items' vectors as the one feature that a server fetches in the place of all of the item's.

    No log says what that takes: it is reckoned as the dearest of the features of the item that the tower reads, or as
    the schema's dearest embedding of an item, where that is dearer.
    """
    read = [feature for feature in features if feature.side == "item"]
    like = [feature for feature in schema.features if feature.side == "item" and feature.kind == "embedding"]
    dearest = max((*read, *like), key=lambda feature: feature.fetch_us)
    return Feature(VECTOR, "item", "embedding", dearest.source, dearest.fetch_us, size=towers.repr_width)


def tower_graph(towers: TwoTower, features: Features, of_item: int) -> onnx.ModelProto:
    """`vector` float32 [rows, D] of the request (0) or of each of the items (1)."""
    graph, read = Graph(), read_by(towers.embed, features)
    vector = _tower(graph, towers, read, of_item)
    graph.output("vector", vector, [CANDIDATES if of_item else 1, towers.repr_width])
    return graph.model(about(f for f in read if f.of_request != bool(of_item)))


def _tower(graph: Graph, towers: TwoTower, read: Features, of_item: int) -> str:
    order, h = inputs(graph, towers.embed, read, of_item)
    assert h is not None
    order = order - (towers.embed.widths[0] if of_item else 0)
    layers: nn.ModuleList = towers.item if of_item else towers.request
    for index, layer in enumerate(layers):
        assert isinstance(layer, nn.Linear)
        weight = array(layer.weight).T
        h = graph.add(
            "Gemm", graph.add("Relu", h) if index else h, weight if index else weight[order], array(layer.bias)
        )
    return h


def _product(graph: Graph, towers: TwoTower, read: Features, vector_ND: str) -> str:
    """[N, 1]"""
    u_1D = _tower(graph, towers, read, 0)
    return graph.add("MatMul", vector_ND, graph.add("Transpose", u_1D, perm=[1, 0]))


def _tower_trees(graph: Graph, scorer: TowerTrees, read: Features, vector_ND: str, trees: bool) -> None:
    product = _product(graph, scorer.towers, tuple(f for f in read if f.side != "cross"), vector_ND)
    order, cross_ND = inputs(graph, scorer.embed, read_by(scorer.embed, read), 1)
    x = graph.add("Concat", product, cross_ND, axis=1) if cross_ND else product
    _finish(graph, scorer.trees, x, np.concatenate([[0], 1 + order]), trees)


def _boosted(graph: Graph, scorer: Boosted, trees: bool) -> None:
    order_R, x_RD = inputs(graph, scorer.embed, scorer.features, 0)
    order_I, x_ND = inputs(graph, scorer.embed, scorer.features, 1)
    assert x_ND is not None
    x = x_ND
    if x_RD:
        rows = graph.add("Concat", graph.add("Shape", x_ND, start=0, end=1), ints(len(order_R)), axis=0)
        x = graph.add("Concat", graph.add("Expand", x_RD, rows), x_ND, axis=1)
    _finish(graph, scorer.trees, x, np.concatenate([order_R, order_I]), trees)


def _finish(graph: Graph, trees: Trees, x_NF: str, order: np.ndarray, output: bool) -> None:
    """`order`: the trees' number of each of the F inputs, which the graph may have joined in another order."""
    if output:
        at = np.argsort(order)
        graph.output(TREES, graph.add("Gather", x_NF, at, axis=1), [CANDIDATES, len(order)])
        x_NF = TREES
        order = np.arange(len(order))
    graph.score(graph.trees(x_NF, ensemble(trees, np.argsort(order))))


def ensemble(trees: Trees, place_F: np.ndarray) -> dict[str, Attribute]:
    """Attributes of ONNX's TreeEnsembleRegressor; `place_F`: where an input of the trees stands among its columns.

    A tree's inner nodes have the numbers that they have there, and its leaves those after them.
    """
    treeids, nodeids, featureids, values, modes, true, false = [], [], [], [], [], [], []
    leaf_treeids, leaf_nodeids, weights = [], [], []
    for tree, (feature_J, threshold_J, child_J2, leaf_L) in enumerate(trees.arrays()):
        inner = _reached(child_J2)
        number = np.where(child_J2 < 0, len(child_J2) + ~child_J2, child_J2)
        for node in inner:
            treeids.append(tree)
            nodeids.append(node)
            featureids.append(int(place_F[feature_J[node]]))
            values.append(float(threshold_J[node]))
            modes.append("BRANCH_LEQ")
            true.append(int(number[node, 0]))
            false.append(int(number[node, 1]))
        leaves = sorted({int(~child) for child in child_J2[inner].ravel() if child < 0}) if inner else [0]
        for leaf in leaves:
            treeids.append(tree)
            nodeids.append(len(child_J2) + leaf if inner else 0)
            featureids.append(0)
            values.append(0.0)
            modes.append("LEAF")
            true.append(0)
            false.append(0)
            leaf_treeids.append(tree)
            leaf_nodeids.append(nodeids[-1])
            weights.append(float(leaf_L[leaf]))
    return {
        "nodes_treeids": treeids,
        "nodes_nodeids": nodeids,
        "nodes_featureids": featureids,
        "nodes_values": values,
        "nodes_modes": modes,
        "nodes_truenodeids": true,
        "nodes_falsenodeids": false,
        "target_treeids": leaf_treeids,
        "target_nodeids": leaf_nodeids,
        "target_ids": [0] * len(weights),
        "target_weights": weights,
    }


def _reached(child_J2: np.ndarray) -> list[int]:
    """The inner nodes of a tree, from its root; none of a lone leaf, whose one node leads there by both ways."""
    if child_J2[0, 0] == child_J2[0, 1]:
        return []
    found = [0]
    for node in found:
        found += [int(child) for child in child_J2[node] if child >= 0]
    return found
