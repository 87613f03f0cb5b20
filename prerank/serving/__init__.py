"""The finished student as an ONNX graph, held against torch, timed, described and registered in MLflow."""
