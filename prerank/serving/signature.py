"""How a served network is fed and asked: what `signature.json` says, read from the graph itself."""

from collections.abc import Iterable, Iterator
from typing import NotRequired, TypedDict

import numpy as np
import onnx

from prerank.logs.encoding import PADDING, UNKNOWN
from prerank.logs.schema import Feature
from prerank.serving.nodes import CANDIDATES
from prerank.serving.packed import packs_of

STRINGS = (
    "prerank.core.hashing.hash_ids(ids) % size: h = SipHash-2-4 of the UTF-8 bytes under the key 0123456789123456 "
    "(ASCII); h ^= h >> 30; h *= 0xBF58476D1CE4E5B9; h ^= h >> 27; h *= 0x94D049BB133111EB; h ^= h >> 31; h % size; "
    "all uint64"
)
HOLDS = {
    "dense": "numbers as the logs have them, the network normalises; missing: NaN (null in JSON) or an infinite one",
    "id": "an integer as the logs have it, a string by `strings`; unknown or missing: -1, as is all outside 0..size-1",
    "ids": "any number of ids a row, or none: an integer as the logs have it, a string by `strings`, an unknown or "
    "missing one as `size`; rows are filled up to one length with `padding` (all that is below 0 is passed over)",
}
HASHED = {
    "id": "an integer as the logs have it, by its 64 bits, which the network hashes; unknown or missing: `unknown`",
    "ids": "any number of ids a row, or none: integers as the logs have them, by their 64 bits, which the network "
    "hashes, an unknown or missing one as `unknown`; rows are filled up to one length with `padding`",
}
DECLARED = "; so are those of `missing`, as the logs have them"
DECLARED_TEXT = "; those of `missing` are unknown, and not hashed"


class Tensor(TypedDict):
    """An input or the output: one array."""

    name: str
    dtype: str
    shape: list[int | str]
    """A free dimension by its name."""
    holds: str
    """What its values mean."""


class _OfFeature(TypedDict, total=False):
    size: int
    """Of an id: the vocabulary."""
    hash: bool
    """Whether the network hashes integer ids itself."""
    unknown: int
    """Of ids: what stands for an unknown or missing one."""
    padding: int
    """Of lists of ids: what fills the rows up to one length."""
    missing: list[float | int | str]
    """What stands for a missing value in the logs."""


class Input(Tensor, _OfFeature):
    """A feature."""

    side: str
    kind: str
    rows: str


class Packed(Tensor):
    """Several features."""

    features: list[Input]
    """In the order of what the tensor holds, each as it would be fed by itself."""
    rows: str


class Serve(TypedDict):
    """How a server is started and asked, and what it answers."""

    start: str
    ask: str
    answer: dict[str, dict[str, list[str]]]


class Signature(TypedDict):
    """`signature.json`."""

    inputs: list[Input | Packed]
    output: Tensor
    heads: NotRequired[list[Tensor]]
    """Of a network of several, the outputs beside the score that is fused of them."""
    strings: str
    """How a string becomes an id."""
    serve: Serve


def describe(graph: onnx.ModelProto, features: tuple[Feature, ...]) -> Signature:
    """What `signature.json` says: how to make each input, and how to ask a server for scores."""
    by_name, packs = {feature.name: feature for feature in features}, packs_of(features)
    (name, dtype, shape), *heads = tensors_of(graph.graph.output)
    holds = "higher ranks first; only the order within one request means anything"
    answer = {"score": ["one number a candidate"]}
    out: Signature = {
        "inputs": [
            _input(by_name[name], dtype, shape) if name in by_name else _packed(packs[name], name, dtype, shape)
            for name, dtype, shape in tensors_of(graph.graph.input)
        ],
        "output": {"name": name, "dtype": str(dtype), "shape": shape, "holds": holds},
        "strings": STRINGS,
        "serve": {
            "start": "mlflow models serve -m FOLDER_OR_MODEL_URI --env-manager local --port 5001",
            "ask": "curl localhost:5001/invocations -H 'Content-Type: application/json' -d @serving_input_example.json",
            "answer": {"predictions": answer},
        },
    }
    if heads:
        of_heads = "what the score is fused of: of this objective alone, higher ranks first within one request"
        out["heads"] = [{"name": n, "dtype": str(t), "shape": s, "holds": of_heads} for n, t, s in heads]
        answer |= {n: ["one number a candidate"] for n, _, _ in heads}
    return out


def padding(feature: Feature) -> int:
    """What fills rows of ids up to one length; all integers below 0 do where none of them is an id or a missing one."""
    below = any(isinstance(value, int) and value < 0 for value in feature.missing)
    return PADDING if feature.hash or below else -1


def unknown(feature: Feature) -> int:
    """What stands for an id that is unknown or missing."""
    return UNKNOWN if feature.hash else feature.size if feature.kind == "ids" else -1


def _input(feature: Feature, dtype: np.dtype, shape: list[int | str]) -> Input:
    kind = "dense" if feature.kind == "embedding" else feature.kind
    holds = HASHED[kind] if feature.hash else HOLDS[kind]
    extra: _OfFeature = {}
    if feature.dim:
        extra |= {"size": feature.size, "unknown": unknown(feature)}
    if feature.kind == "ids":
        extra["padding"] = padding(feature)
    if feature.hash:
        extra["hash"] = True
    if feature.missing:
        extra["missing"] = list(feature.missing)
        holds += DECLARED_TEXT if isinstance(feature.missing[0], str) else DECLARED
    rows = "one row for the request" if feature.of_request else "one row a candidate, in the same order everywhere"
    return {
        "name": feature.name,
        "dtype": str(dtype),
        "shape": shape,
        "side": feature.side,
        "kind": feature.kind,
        **extra,
        "rows": rows,
        "holds": holds,
    }


def _packed(held: list[Feature], name: str, dtype: np.dtype, shape: list[int | str]) -> Packed:
    of_request, numbers = held[0].of_request, not held[0].dim
    alone = [_input(f, dtype, [1 if of_request else CANDIDATES, f.size if numbers else 1]) for f in held]
    along = "a row a candidate, in the same order everywhere, and then transposed" if not of_request else "one request"
    return {
        "name": name,
        "dtype": str(dtype),
        "shape": shape,
        "holds": f"the {'numbers' if numbers else 'ids'} of `features`, one after the other",
        "rows": along if numbers or not of_request else "a row an id",
        "features": alone,
    }


def tensors_of(values: Iterable[onnx.ValueInfoProto]) -> Iterator[tuple[str, np.dtype, list[int | str]]]:
    """Name, type and shape of inputs or outputs; a free dimension by its name."""
    for value in values:
        tensor = value.type.tensor_type
        dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        yield value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), dims
