"""Sessions of ONNX Runtime, opened as a server opens them."""

import onnx
import onnxruntime


def open_session(graph: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """A session on so many threads, as a server opens it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
