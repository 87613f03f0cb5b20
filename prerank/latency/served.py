"""What finished models cost to serve: the fetch of their features by the formula, their inference as measured here."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from prerank.latency.formula import fetch_us
from prerank.models.checkpoint import load_model
from prerank.serving.export import runs_of
from prerank.serving.graph import ranker_graph
from prerank.serving.session import open_session
from prerank.serving.timing import stat, timed


def serving_costs(
    models: dict[str, tuple[Path, str]], *, candidates: int, threads: int = 1, repeats: int = 200
) -> dict[str, dict[str, Any]]:
    """By name, from folders and kinds: features, widths, and the microseconds of one request of so many candidates.

    `fetch_us` by the formula with the hard maximum; `inference_us` is the median of ONNX Runtime and
    `inference_p99_us` its 99th percentile, all models timed in turns; `latency_us` is fetch and median together.
    """
    out, runs = {}, []
    for name, (folder, kind) in models.items():
        model = load_model(folder, kind=kind)
        features = model.schema.select(model.arch.features, where=str(folder))
        stats = json.loads((folder / "stats.json").read_text())
        session, rng = open_session(ranker_graph(model.ranker, features), threads), np.random.default_rng(0)
        runs.append(runs_of(session, features, stats, candidates, rng))
        out[name] = {"features": list(model.arch.features), "widths": list(model.arch.widths)}
        out[name]["fetch_us"] = fetch_us(features, model.schema.fetch)
    for row, times in zip(out.values(), timed(runs, repeats), strict=True):
        measured = stat(times)
        row |= {"inference_us": measured["p50"], "inference_p99_us": measured["p99"]}
        row["latency_us"] = row["fetch_us"] + row["inference_us"]
    return out
