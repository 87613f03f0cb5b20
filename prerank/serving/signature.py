"""How a served network is fed and asked: what `signature.json` says, read from the graph itself."""

from collections.abc import Iterable, Iterator
from typing import TypedDict

import numpy as np
import onnx

from prerank.logs.schema import Feature

STRINGS = (
    "prerank.core.hashing.hash_ids(ids) % size: h = SipHash-2-4 of the UTF-8 bytes under the key 0123456789123456 "
    "(ASCII); h ^= h >> 30; h *= 0xBF58476D1CE4E5B9; h ^= h >> 27; h *= 0x94D049BB133111EB; h ^= h >> 31; h % size; "
    "all uint64"
)
HOLDS = {
    "dense": "numbers as the logs have them, the network normalises; missing: NaN (null in JSON) or an infinite one",
    "id": "an integer as the logs have it, a string by `strings`; unknown or missing: -1, as is all outside 0..size-1",
    "ids": "any number of ids a row, or none: an integer as the logs have it, a string by `strings`, an unknown or "
    "missing one as `size`; rows are filled up to one length with -1 (all that is below 0 is passed over)",
}


class Tensor(TypedDict):
    """An input or the output: one array."""

    name: str
    dtype: str
    shape: list[int | str]
    """A free dimension by its name."""
    holds: str
    """What its values mean."""


class _Size(TypedDict, total=False):
    size: int
    """Of an id: the vocabulary."""


class Input(Tensor, _Size):
    """A feature."""

    side: str
    kind: str
    rows: str


class Serve(TypedDict):
    """How a server is started and asked, and what it answers."""

    start: str
    ask: str
    answer: dict[str, dict[str, list[str]]]


class Signature(TypedDict):
    """`signature.json`."""

    inputs: list[Input]
    output: Tensor
    strings: str
    """How a string becomes an id."""
    serve: Serve


def describe(graph: onnx.ModelProto, features: tuple[Feature, ...]) -> Signature:
    """What `signature.json` says: how to make each input, and how to ask a server for scores."""
    by_name = {feature.name: feature for feature in features}
    ((name, dtype, shape),) = tensors_of(graph.graph.output)
    holds = "higher ranks first; only the order within one request means anything"
    return {
        "inputs": [_input(by_name[name], dtype, shape) for name, dtype, shape in tensors_of(graph.graph.input)],
        "output": {"name": name, "dtype": str(dtype), "shape": shape, "holds": holds},
        "strings": STRINGS,
        "serve": {
            "start": "mlflow models serve -m FOLDER_OR_MODEL_URI --env-manager local --port 5001",
            "ask": "curl localhost:5001/invocations -H 'Content-Type: application/json' -d @serving_input_example.json",
            "answer": {"predictions": {"score": ["one number a candidate"]}},
        },
    }


def _input(feature: Feature, dtype: np.dtype, shape: list[int | str]) -> Input:
    of_id: _Size = {"size": feature.size} if feature.dim else {}
    rows = "one row for the request" if feature.of_request else "one row a candidate, in the same order everywhere"
    return {
        "name": feature.name,
        "dtype": str(dtype),
        "shape": shape,
        "side": feature.side,
        "kind": feature.kind,
        **of_id,
        "rows": rows,
        "holds": HOLDS["dense" if feature.kind == "embedding" else feature.kind],
    }


def tensors_of(values: Iterable[onnx.ValueInfoProto]) -> Iterator[tuple[str, np.dtype, list[int | str]]]:
    """Name, type and shape of inputs or outputs; a free dimension by its name."""
    for value in values:
        tensor = value.type.tensor_type
        dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        yield value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), dims
