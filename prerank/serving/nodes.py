"""How graphs of ONNX are put together: nodes, inputs and constants, and the one function that ONNX lacks."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prerank.models.fusion import ONE_HEAD, Fusion

OPSET, IR_VERSION = 21, 10
ML, ML_OPSET = "ai.onnx.ml", 3
"""Where ONNX has its trees."""
CANDIDATES = "candidates"
SCORE = "score"
Value = str | np.ndarray | np.generic
"""What a node takes: a tensor by its name, or a constant."""
Attribute = int | str | list[int] | list[float] | list[str] | TensorProto


class Graph:
    """Nodes, inputs and constants of a graph under way; tensors go by their names, arrays become constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.known: dict[str, str] = {}
        """By feature the row of its table."""

    def input(self, name: str, type_: int, shape: list[int | str]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, type_, shape))
        return name

    def add(self, op: str, *inputs: Value, **attributes: Attribute) -> str:
        """The name of the node's one output."""
        return self.split(op, *inputs, outputs=1, **attributes)[0]

    def split(self, op: str, *inputs: Value, outputs: int, **attributes: Attribute) -> list[str]:
        """The names of the node's outputs."""
        here = f"/{len(self.nodes)}/{op}"  # a slash: no feature can take this name
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        made = [f"{here}/{index}" for index in range(outputs)]
        node = helper.make_node(op, names, made, name=here)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self.nodes.append(node)
        return made

    def trees(self, x_NF: str, ensemble: Mapping[str, Attribute]) -> str:
        """[N, 1]: the sum of the trees that the attributes of ONNX's TreeEnsembleRegressor say."""
        made = self.add("TreeEnsembleRegressor", x_NF, **ensemble, n_targets=1)
        self.nodes[-1].domain = ML
        return made

    def constant(self, value: np.ndarray | np.generic) -> str:
        name = f"/constant/{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def score(self, x_NH: str, fusion: Fusion = ONE_HEAD) -> None:
        """The score from the one head, or fused from several, which are outputs then too."""
        if not fusion.heads:
            self.output(SCORE, self.add("Squeeze", x_NH, ints(1)), [CANDIDATES])
            return
        self.output(SCORE, self.add("MatMul", x_NH, np.array(fusion.shares, np.float32)), [CANDIDATES])
        for place, head in enumerate(fusion.heads):
            self.output(head, self.add("Gather", x_NH, np.array(place), axis=1), [CANDIDATES])

    def output(self, name: str, tensor: str, shape: list[int | str]) -> None:
        """Gives a tensor that was just made its name outside."""
        self.nodes[-1].output[list(self.nodes[-1].output).index(tensor)] = name
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def model(self, metadata: dict[str, str]) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "ranker", self.inputs, self.outputs, list(self.constants.values()))
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain for node in self.nodes):
            opsets.append(helper.make_opsetid(ML, ML_OPSET))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="prerank")
        helper.set_model_props(model, metadata)
        return model


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def clipped(graph: Graph, x: str, high: int) -> str:
    """int64, of any shape, cut to -1..high.

    By doubles, which cut what is beyond 2^53 rightly though they do not hold it: the Clip that ONNX Runtime has for
    int64 leaves ids from 2^31 to 2^32 as they are (microsoft/onnxruntime#32475), and a table has no such row.
    """
    number = graph.add("Cast", x, to=TensorProto.DOUBLE)
    return graph.add("Cast", graph.add("Clip", number, np.array(-1.0), np.array(float(high))), to=TensorProto.INT64)


def splitmix(graph: Graph, x_N: str, size: int) -> str:
    """int64 [N]: `prerank.core.hashing.mix` of int64 [N], by its 64 bits, mod `size`.

    ONNX Runtime adds and multiplies signed integers alone, which overflow to the same bits, and shifts unsigned ones.
    """

    def signed(x: str) -> str:
        return graph.add("Cast", x, to=TensorProto.INT64)

    def shifted(x: str, by: int) -> str:
        x = graph.add("Cast", x, to=TensorProto.UINT64)
        return graph.add("BitwiseXor", x, graph.add("BitShift", x, np.array(by, np.uint64), direction="RIGHT"))

    x = graph.add("Add", x_N, _bits(0x9E3779B97F4A7C15))
    x = graph.add("Mul", signed(shifted(x, 30)), _bits(0xBF58476D1CE4E5B9))
    x = graph.add("Mul", signed(shifted(x, 27)), _bits(0x94D049BB133111EB))
    return signed(graph.add("Mod", shifted(x, 31), np.array(size, np.uint64)))


def _bits(value: int) -> np.ndarray:
    return np.array(value, np.uint64).view(np.int64)
