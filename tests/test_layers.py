"""Imports go downwards only: edge (Ray, MLflow) -> torch -> plain."""

import ast
from pathlib import Path

import prerank

EDGE = {
    "compare",
    "compare_figures",
    "compare_page",
    "data",
    "evaluate",
    "export",
    "figures",
    "fit",
    "grid",
    "live",
    "onnx_graph",
    "pieces",
    "profiler",
    "progress",
    "report",
    "rival_figures",
    "runs",
    "search",
    "search_figures",
    "search_section",
    "serving",
    "store",
    "sweep",
    "swept_figures",
    "teach",
    "tracking",
    "trial",
}
TORCH = {
    "autofas",
    "batches",
    "checkpoint",
    "derive",
    "distill",
    "embed",
    "latency",
    "loop",
    "losses",
    "parity",
    "ranker",
    "rivals",
    "search_loop",
    "supernet",
    "training",
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_reaches_up():
    folder = Path(prerank.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")}
    assert modules >= EDGE | TORCH
    for path in folder.glob("*.py"):
        layer = "edge" if path.stem in EDGE else "torch" if path.stem in TORCH else "plain"
        banned = {"plain": {"ray", "mlflow", "torch"}, "torch": {"ray", "mlflow"}, "edge": set()}[layer]
        banned_here = {"plain": EDGE | TORCH, "torch": EDGE, "edge": set()}[layer]
        for name in imports(path):
            top, _, rest = name.partition(".")
            assert top not in banned, f"{path.name} imports {name}"
            assert top not in ("workflows", "tune_spaces"), f"{path.name} imports {name}"
            assert not (top == "prerank" and rest.partition(".")[0] in banned_here), f"{path.name} imports {name}"
