"""The driver of an evaluation by simulation: it sums up what the parts of logs of any size say, none of which is read.

    python -m prerank.benchmarks.driver REQUESTS

The parts say what `evaluate.score` does of requests of 2,000 candidates and nine models; all are copies of one.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow as pa

from prerank.core.nested import nest
from prerank.evaluation import evaluate
from prerank.evaluation.metrics import LABELS, Candidates, Comparison
from prerank.evaluation.plan import Plan
from prerank.evaluation.summed import summed
from prerank.logs.folder import Logs
from prerank.samples.build import number_of

MODELS = (*(f"student {n}" for n in range(8)), "teacher")
CANDIDATES, K, PART = 2_000, 150, 100
"""Of a request; items kept; requests of a part."""


def simulate(requests: int) -> int:
    """Requests that are evaluated of so many."""
    folder = cast("Logs", SimpleNamespace(folder=Path("logs")))
    models = {name: (Path(name), name) for name in MODELS}
    plan = Plan(folder, "candidates", models, np.datetime64("2024-01-01", "us"), K, None, ())
    return len(summed(plan, [*_parts(requests)]).per_request)


def _parts(requests: int) -> Iterator[pa.Table]:
    number_R = number_of(pa.array(np.arange(requests)), 0)
    drawn_R = np.argsort(number_R)[: evaluate.MOST_REQUESTS]
    pooled_share = min(1.0, evaluate.POOLED / (len(drawn_R) * CANDIDATES))
    part = _part(round(PART * pooled_share))
    for start in range(0, len(drawn_R), PART):
        ids = drawn_R[start : start + PART]
        yield part.take(pa.array(np.arange(len(ids)))).set_column(0, "request_id", pa.array(ids))


def _part(pooled: int) -> pa.Table:
    """As `evaluate.score` says it: each model's metrics by request, and of the first ones labels and scores."""
    rng = np.random.default_rng(0)
    ends, pooled_ends = CANDIDATES * np.arange(PART + 1), CANDIDATES * np.minimum(np.arange(PART + 1), pooled)
    score = rng.normal(size=(len(MODELS), PART * CANDIDATES)).astype(np.float32)
    label = {
        name: rng.random(PART * CANDIDATES) < share for name, share in zip(LABELS, (0.1, 0.01, 0.001), strict=True)
    }
    compare = Comparison(Candidates(ends, *label.values()), score[-1], k=K)
    out = {"request_id": pa.nulls(PART, pa.int64())}
    out |= {name: nest(values[: pooled_ends[-1]], pooled_ends) for name, values in label.items()}
    for name, score_N in zip(MODELS, score, strict=True):
        out[f"{name}.score"] = nest(score_N[: pooled_ends[-1]], pooled_ends)
        out |= {f"{name}.{metric}": pa.array(values) for metric, values in compare(score_N).items()}
    counts = {"dropped": {}, "noted": {}, "tied_top": 0, "one_score": dict.fromkeys(MODELS, 0), "several": PART}
    out["counts"] = pa.array([json.dumps(counts)] + [None] * (PART - 1), pa.string())
    return pa.table(out)


if __name__ == "__main__":
    print(f"{simulate(int(sys.argv[1])):,} requests evaluated", file=sys.stderr)
