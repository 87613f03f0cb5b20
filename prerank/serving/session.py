"""Sessions of ONNX Runtime, opened as a server opens them."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import onnx
import onnxruntime


def open_session(graph: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """A session on so many threads, as a server opens it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def score_by(session: onnxruntime.InferenceSession) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Scores of a request's candidates [N] from its inputs by name, by a network whose first output they are."""
    return lambda feed: cast(np.ndarray, session.run(None, feed)[0])


def heads_by(
    session: onnxruntime.InferenceSession, heads: Sequence[str]
) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """The same of each head, [N, H]."""
    return lambda feed: np.stack(cast(list[np.ndarray], session.run([*heads], feed)), axis=1)
