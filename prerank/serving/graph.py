"""A ranker as an ONNX graph for the candidates of one request, and the pieces of it that are timed.

Written by hand with `onnx.helper` rather than exported: torch.onnx.export takes more than a second a graph where the
profiler needs hundreds, and one writer makes both the network that is served and the pieces that are timed.

Shapes: N candidates of one request, D inputs, H width of the first layer. Item-side numbers are worked on as [D, N]:
ONNX Runtime joins and normalises few long rows several times faster than many short ones.
"""

import itertools
import json
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from torch import Tensor

from prerank.core.errors import InputError
from prerank.logs.encoding import PADDING, UNKNOWN
from prerank.logs.schema import Feature
from prerank.models.embed import FAR, Embed
from prerank.models.logistic import FACTORS, LOW, Cross, Logistic
from prerank.models.ranker import Ranker
from prerank.serving.nodes import CANDIDATES, SCORE, Graph, clipped, ints, splitmix
from prerank.serving.packed import IDS, NUMBERS, pack_name, single_first

BLANK = "/blank"
"""The one input of pieces that read no feature."""
HOW_IDS = "integers as they are, and where `hash` is true of any size; strings by prerank.core.hashing.hash_ids % size"


def ranker_graph(ranker: Ranker, features: tuple[Feature, ...], *, packed: bool = False) -> onnx.ModelProto:
    """`score` float32 [N] of the candidates of one request: Ranker.forward to 1e-5.

    One input a feature that the ranker reads, under its name; `features` may hold more. Every input is a matrix with
    one row for the request (sides user, query, context) or N rows (item, cross):

    - dense, embedding: float32 [rows, size]; NaN and infinite values are missing, and those declared `missing`;
    - id: int64 [rows, 1]; a value outside 0..size-1 is the unknown, and one declared `missing`;
    - ids: int64 [rows, length]; a value below 0 is padding, one of size or more the unknown, and one declared `missing`
      (below 0 or not); a row may have none;
    - id and ids that are hashed here (`hash`): any int64; PADDING is no id, UNKNOWN an unknown one.

    `packed`: the same values as `prerank.serving.packed.pack` puts them together, one matrix of numbers and one of ids
    a side; lists of ids keep their names.

    Of a ranker of several heads each is an output [N] of its own beside the score, under the objective's name.

    The metadata hold `features` (name, side, kind, size, ... of each input, JSON) and `ids`, how ids are encoded.
    Raises InputError for a feature whose name the output has taken, as a schema of earlier versions may have one.
    """
    read, crosses = read_by(ranker.embed, features), ()
    if isinstance(ranker, Logistic):
        read, crosses = ranker.plain, ranker.crosses
    graph = Graph()
    first, *rest = (_layer(layer.weight, layer.bias) for layer in ranker.linears)
    weight, bias = first
    row = bias
    order, x_RD = inputs(graph, ranker.embed, read, 0, crosses, packed)
    if x_RD:
        row = graph.add("Gemm", x_RD, weight[order], bias)
    order, x_ND = inputs(graph, ranker.embed, read, 1, crosses, packed)
    if x_ND is None:
        raise ValueError("a ranker needs a feature of the side item or cross: nothing tells one candidate from another")
    h = graph.add("Gemm", x_ND, weight[order], row)
    for weight, bias in rest:
        h = graph.add("Gemm", graph.add("Relu", h), weight, bias)
    graph.score(h, ranker.fusion)
    return graph.model(about(read))


def read_by(embed: Embed, features: Iterable[Feature]) -> tuple[Feature, ...]:
    """Those of the features that are inputs of the network; raises InputError for one of the output's name."""
    read = tuple(feature for feature in features if feature.name in embed.columns)
    if any(feature.name == SCORE for feature in read):
        raise InputError(f"feature {SCORE!r}: the name of the served network's output; rename the feature")
    return read


def about(features: Iterable[Feature]) -> dict[str, str]:
    """The metadata of a graph that reads the features."""
    known = ("name", "side", "kind", "size", "missing", "hash")
    said = [{key: value for key, value in f.to_json().items() if key in known} for f in features]
    return {"features": json.dumps(said), "ids": HOW_IDS}


def layer_graph(width_in: int, width_out: int, *, seed: int = 0) -> onnx.ModelProto:
    """One layer with random weights, and the head behind it: BLANK float32 [N, in] -> Gemm, bias, ReLU -> `score` [N].

    Where `width_out` is 1 it is the head alone.
    """
    rng = np.random.default_rng(seed)
    graph = Graph()
    h = graph.input(BLANK, TensorProto.FLOAT, [CANDIDATES, width_in])
    widths = [width_in, 1] if width_out == 1 else [width_in, width_out, 1]
    for in_, out in itertools.pairwise(widths):
        weight = rng.normal(size=(in_, out)).astype(np.float32) / np.sqrt(in_, dtype=np.float32)
        h = graph.add("Gemm", h, weight, rng.normal(size=out).astype(np.float32))
        h = graph.add("Relu", h) if out > 1 else h
    graph.score(h)
    return graph.model({})


def inputs_graph(ranker: Ranker, features: Iterable[Feature], *, packed: bool = False) -> onnx.ModelProto:
    """The input paths of those of the features that the ranker reads, as `ranker_graph` has them, and a head on them:
    the score is the first output of the ranker's first layer.

    Without a feature of an item BLANK float32 [N, 1] is one.
    """
    graph = Graph()
    features = [feature for feature in features if feature.name in ranker.embed.columns]
    first = ranker.linears[0]
    weight, row = _layer(first.weight[:1], first.bias[:1])
    order, x_RD = inputs(graph, ranker.embed, features, 0, packed=packed)
    if x_RD:
        row = graph.add("Gemm", x_RD, weight[order], row)
    order, x_ND = inputs(graph, ranker.embed, features, 1, packed=packed)
    if x_ND is None:
        order, x_ND = np.zeros(1, np.int64), graph.input(BLANK, TensorProto.FLOAT, [CANDIDATES, 1])
    graph.score(graph.add("Gemm", x_ND, weight[order], row))
    return graph.model({})


def empty_graph() -> onnx.ModelProto:
    """What any run costs: BLANK float32 [N, 1] in, `score` [N] out, nothing between."""
    graph = Graph()
    graph.score(graph.input(BLANK, TensorProto.FLOAT, [CANDIDATES, 1]))
    return graph.model({})


def inputs(
    graph: Graph,
    embed: Embed,
    features: Iterable[Feature],
    of_item: int,
    crosses: Sequence[Cross] = (),
    packed: bool = False,
) -> tuple[np.ndarray, str | None]:
    """The joined inputs of the request (0) or of the items (1), [rows, D], None where there are none; and `embed`'s
    column of each of the D.

    The crosses of a request and an item are the item's: the request's side is put in first.
    """
    of_request = not of_item
    features = [feature for feature in features if feature.of_request == of_request]
    if not features:
        return np.zeros(0, np.int64), None
    rows = 1 if of_request else CANDIDATES
    dense = single_first(features)  # single numbers are joined without transposing
    bags = [feature for feature in features if feature.kind == "ids"]
    ids = [feature for feature in features if feature.kind == "id"]
    columns, crossed = embed.columns, [cross.feature for cross in crosses if cross.of_request == of_request]
    of_side = (*dense, *bags, *ids, *crossed)
    order = np.concatenate([np.arange(columns[f.name].start, columns[f.name].stop) for f in of_side])

    parts = []
    if dense:
        size = sum(feature.size for feature in dense)
        if packed:
            shape: list[int | str] = [1, size] if of_request else [size, CANDIDATES]
            raw = graph.input(pack_name(of_request, NUMBERS), TensorProto.FLOAT, shape)
        else:
            raw = _join_dense(graph, dense, rows)
        at = order[:size] - (0 if of_request else embed.widths[0])
        mean, std = (
            array(getattr(embed, f"{key}_{of_item}"))[at].reshape((1, -1) if of_request else (-1, 1))
            for key in ("mean", "std")
        )
        declared = [values if of_request else values.T for values in _declared(dense)]
        x = _normalise(graph, raw, mean, std, declared)
        parts.append(x if of_request else graph.add("Transpose", x, perm=[1, 0]))
    for feature in bags:
        parts.append(_mean_of_ids(graph, feature, array(embed.table(feature.name).weight), rows))
    all_ids = graph.input(pack_name(of_request, IDS), TensorProto.INT64, [len(ids), rows]) if packed and ids else ""
    # Of many rows Gather is quicker, which takes a vector; of one, GatherND, which needs no reshaping.
    flat = packed or not of_request
    look_up = "Gather" if flat else "GatherND"
    for place, feature in enumerate(ids):
        if packed:
            value = graph.add("Gather", all_ids, np.array(place), axis=0)
        else:
            value = graph.input(feature.name, TensorProto.INT64, [rows, 1])
            value = graph.add("Reshape", value, ints(-1)) if flat else value
        graph.known[feature.name] = _known(graph, feature, value, flat=flat)
        parts.append(graph.add(look_up, array(embed.table(feature.name).weight), graph.known[feature.name]))
    for cross in crosses:
        if cross.of_request == of_request:
            parts.append(graph.add(look_up, array(embed.table(cross.feature.name).weight), _crossed(graph, cross)))
    return order, _join(graph, parts, axis=1)


def _join(graph: Graph, parts: list[str], *, axis: int) -> str:
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=axis)


def _join_dense(graph: Graph, dense: list[Feature], rows: int | str) -> str:
    """Raw values [1, D] of a request, [D, N] of items; single numbers before vectors."""
    values = [graph.input(feature.name, TensorProto.FLOAT, [rows, feature.size]) for feature in dense]
    if rows == 1:
        return _join(graph, values, axis=1)
    singles = sum(feature.size == 1 for feature in dense)
    # The reshaping changes nothing but that ONNX Runtime leaves the transposing where it is: its optimizer would go on
    # with [N, D], where each row of few numbers is a loop of its own.
    parts = [
        graph.add("Reshape", graph.add("Transpose", value, perm=[1, 0]), ints(f.size, -1))
        for value, f in zip(values[singles:], dense[singles:], strict=True)
    ]
    if singles:
        # [N, 1] one after another are already the rows of [singles, N].
        parts.insert(0, graph.add("Reshape", _join(graph, values[:singles], axis=0), ints(singles, -1)))
    return _join(graph, parts, axis=0)


def _normalise(graph: Graph, raw: str, mean: np.ndarray, std: np.ndarray, declared: list[np.ndarray]) -> str:
    normal = graph.add("Mul", graph.add("Sub", raw, mean), (1 / std.astype(np.float64)).astype(np.float32))
    near = graph.add("Clip", normal, np.float32(-FAR), np.float32(FAR))
    # x - x is 0 for a number, NaN for NaN and for an infinite value; a huge number is not missing, but far.
    missing = graph.add("IsNaN", graph.add("Sub", raw, raw))
    for values in declared:
        missing = graph.add("Or", missing, graph.add("Equal", raw, values))
    return graph.add("Where", missing, np.float32(0), near)


def _declared(dense: list[Feature]) -> list[np.ndarray]:
    """The first `missing` value of each of the D inputs, float32 [1, D], the second, ...; NaN where there is none."""
    most = max(len(feature.missing) for feature in dense)
    values = [np.array([*feature.missing, *[np.nan] * most], np.float32)[:most] for feature in dense]
    return list(np.repeat(values, [feature.size for feature in dense], axis=0).T[:, np.newaxis]) if most else []


def _known(graph: Graph, feature: Feature, value: str, *, flat: bool = False) -> str:
    """Rows of the table for ids of any shape: `size` for the unknown; -1, the last row of all, for what is no id.

    `flat`: the ids are a vector already.
    """
    size = np.array(feature.size)
    of_lists = feature.kind == "ids"
    declared = [(v + 2**63) % 2**64 - 2**63 for v in feature.missing if isinstance(v, int)]
    if not feature.hash:
        # Of others the bounds make the unknown, but those below 0 in lists would be no ids.
        declared = [v for v in declared if v < feature.size and (v >= 0 or of_lists)]
    if not feature.hash and not declared:
        return clipped(graph, value, feature.size)
    # A column is broadcast element by element, ten times as slowly as a vector.
    ids = value if flat else graph.add("Reshape", value, ints(-1))
    if feature.hash:
        known = splitmix(graph, ids, feature.size)
        declared += [UNKNOWN, *([] if of_lists else [PADDING])]
    else:
        known = clipped(graph, ids, feature.size)
    for missing in declared:
        known = graph.add("Where", graph.add("Equal", ids, np.array(missing)), size, known)
    if feature.hash and of_lists:
        known = graph.add("Where", graph.add("Equal", ids, np.array(PADDING)), np.array(-1), known)
    return known if flat else graph.add("Reshape", known, graph.add("Shape", value), allowzero=1)


def _crossed(graph: Graph, cross: Cross) -> str:
    """`Cross.of` of its two ids, which are inputs of the graph by now: [1, 1] of a request, [N] of items."""

    def row(feature: Feature) -> str:
        known = graph.known[feature.name]
        if feature.of_request and not cross.of_request:
            known = graph.add("Reshape", known, ints(-1))
        return graph.add("Where", graph.add("Less", known, np.array(0)), np.array(feature.size), known)

    a, b = row(cross.a), row(cross.b)
    if cross.exact:
        return graph.add("Add", graph.add("Mul", a, np.array(cross.b.size + 1)), b)
    spread = [
        graph.add("BitwiseAnd", graph.add("Mul", x, np.array(factor)), np.array(LOW))
        for x, factor in zip((a, b), FACTORS, strict=True)
    ]
    low = graph.add("Mul", graph.add("BitwiseXor", *spread), np.array(FACTORS[0]))
    return graph.add("Mod", graph.add("Div", low, np.array(1 << 12)), np.array(cross.rows))


def _mean_of_ids(graph: Graph, feature: Feature, table: np.ndarray, rows: int | str) -> str:
    """[rows, dim]; 0 for a row without ids."""
    # A last row of zeros for padding (its index is -1), and a last column that counts the ids.
    table = np.pad(table, ((0, 1), (0, 1)))
    table[:-1, -1] = 1
    value = graph.input(feature.name, TensorProto.INT64, [rows, f"length of {feature.name}"])
    known = _known(graph, feature, value)
    if rows == 1:
        total = graph.add("ReduceSum", graph.add("Gather", table, known), ints(1), keepdims=0)
    else:
        known = graph.add("Transpose", known, perm=[1, 0])
        each = graph.add("Flatten", graph.add("Gather", table, known), axis=1)  # [length, N * (dim + 1)]
        # A product with ones sums several times faster than ReduceSum does.
        length = graph.add("Shape", known, start=0, end=1)
        ones = graph.add("ConstantOfShape", length, value=numpy_helper.from_array(np.ones(1, np.float32)))
        total = graph.add("Reshape", graph.add("MatMul", ones, each), ints(-1, feature.dim + 1))
    total, count = graph.split("Split", total, ints(feature.dim, 1), outputs=2, axis=1)
    return graph.add("Div", total, graph.add("Max", count, np.float32(1)))


def _layer(weight: Tensor, bias: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """[in, out] and [out]."""
    return array(weight).T, array(bias)


def array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
