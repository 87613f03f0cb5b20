"""The exported student in fewer bits: what int8 and float16 gain on a CPU, and what they change of its scores."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

from prerank.serving.parity import Feed
from prerank.serving.session import open_session, score_by

SHARE = 0.15
"""Of a request's candidates, that pre-ranking keeps of 1,000."""
WORST = {"int8": 0.1, "float16": 0.01}
"""The largest difference of a score from float32's that is borne, as a share of the largest score."""


def graphs_of(graph: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """int8: the weights of the layers, and what comes in as it comes (ONNX Runtime's dynamic quantisation). float16:
    all but the inputs and the scores."""
    with tempfile.TemporaryDirectory() as folder:
        quantize_dynamic(graph, Path(folder) / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
        int8 = onnx.load(Path(folder) / "int8.onnx")
    half = onnx.ModelProto()
    half.CopyFrom(graph)
    return {"int8": int8, "float16": convert_float_to_float16(half, keep_io_types=True)}


@dataclass(frozen=True)
class Changed:
    """How far scores are from those in float32."""

    worst: float
    """The largest difference, as a share of the largest score."""
    kept: float
    """Of the best `SHARE` of each request's candidates, the share that stays among them."""

    def __str__(self) -> str:
        return (
            f"scores off by {100 * self.worst:.2g}% at most, {100 * self.kept:.1f}% of the best {100 * SHARE:.0f}% kept"
        )


def changed(graph: onnx.ModelProto, other: onnx.ModelProto, feeds: list[Feed]) -> Changed:
    """By the other graph, on the feeds of requests."""
    score, rough = score_by(open_session(graph, 1)), score_by(open_session(other, 1))
    worst, largest, kept = 0.0, 1.0, []
    for feed in feeds:
        exact_N, rough_N = score(feed), rough(feed)
        worst, largest = max(worst, float(np.abs(exact_N - rough_N).max())), max(largest, float(np.abs(exact_N).max()))
        most = max(1, round(SHARE * len(exact_N)))
        best, still = (set(np.argsort(-scores, kind="stable")[:most].tolist()) for scores in (exact_N, rough_N))
        kept.append(len(best & still) / most)
    return Changed(worst / largest, float(np.mean(kept)))
