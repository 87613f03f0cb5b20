"""What finished models cost to serve: the fetch of their features by the formula, their inference as measured here."""

from pathlib import Path
from typing import TypedDict

import numpy as np

from prerank.latency.formula import fetch_us
from prerank.models.checkpoint import load_model
from prerank.models.stats import load_stats
from prerank.serving.export import runs_of
from prerank.serving.served import as_served
from prerank.serving.session import open_session
from prerank.serving.timing import stat, timed


class Cost(TypedDict):
    """What a model is, and the microseconds of one request."""

    features: list[str]
    widths: list[int]
    fetch_us: float
    """By the formula, with the hard maximum."""
    inference_us: float
    """Of ONNX Runtime, as `latency.json` has it: the `p5`."""
    inference_p99_us: float
    latency_us: float
    """Fetch and inference."""


def serving_costs(
    models: dict[str, tuple[Path, str]], *, candidates: int, threads: int = 1, repeats: int = 200
) -> dict[str, Cost]:
    """By name, from folders and kinds, of requests of so many candidates; all models are timed in turns."""
    loaded, runs = {}, []
    for name, (folder, kind) in models.items():
        model = load_model(folder, kind=kind)
        features = model.schema.select(model.arch.features, where=str(folder))
        served = as_served(model.ranker, features, model.schema, load_stats(folder))
        session, rng = open_session(served.graph, threads), np.random.default_rng(0)
        runs.append(runs_of(session, served.features, served.stats, candidates, rng))
        loaded[name] = model.arch, fetch_us(served.features, model.schema.fetch)
    costs: dict[str, Cost] = {}
    for (name, (arch, fetch)), times in zip(loaded.items(), timed(runs, repeats), strict=True):
        measured = stat(times)
        costs[name] = {
            "features": list(arch.features),
            "widths": list(arch.widths),
            "fetch_us": fetch,
            "inference_us": measured["p5"],
            "inference_p99_us": measured["p99"],
            "latency_us": fetch + measured["p5"],
        }
    return costs
