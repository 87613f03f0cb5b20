"""A small search with planted features: useful and useless, cheap and dear."""

import numpy as np
import pyarrow as pa

from prerank.latency.table import Table
from prerank.logs.schema import Feature, Schema
from prerank.models.options import Arm, Distill, Optim
from prerank.search.options import Search

FETCH = {"F1": {"per_feature_us": 5.0}, "F2": {"per_feature_us": 10.0}}
FEATURES = (
    Feature("user", "user", "dense", "F1", 2.0, size=2),
    Feature("useful_cheap", "item", "dense", "F1", 5.0),
    Feature("noise_cheap", "item", "dense", "F1", 5.0),
    Feature("useful_dear", "cross", "dense", "F2", 300.0),
    Feature("useless_dear", "cross", "dense", "F2", 300.0),
    Feature("fair", "cross", "dense", "F2", 120.0),
)
SCHEMA = Schema(FEATURES, FETCH)
STATS = {f.name: {"mean": [0.0] * f.size, "std": [1.0] * f.size} for f in FEATURES}
WIDTHS = "16,8,4,0"
TABLE = Table(
    runtime="onnxruntime",
    candidates=1000,
    threads=1,
    overhead_us=10.0,
    inputs_us={f.name: 4.0 for f in FEATURES},
    ins=(1, 4, 8, 16),
    outs=(1, 4, 8, 16),
    layer_us=tuple(tuple(4.0 + 0.2 * i * o for o in (1, 4, 8, 16)) for i in (1, 4, 8, 16)),
    fingerprint="made up",
)
SEARCH = Search(widths=WIDTHS, layers=2, epochs=8, warmup_epochs=2, every=1)
ARM = Arm(
    "planted",
    tuple(f.name for f in FEATURES),
    (16, 8),
    strategies=("exposed",),
    distill=Distill(score=1.0),
    optim=Optim(lr=5e-3, batch=16),
)
ITEMS, REQUESTS, STEPS = 20, 16, 25


def table_of(seed):
    """Requests whose teacher's score is useful_cheap + useful_dear + a little of `fair`; the best is clicked."""
    rng = np.random.default_rng(seed)
    n = REQUESTS * ITEMS
    values = {f.name: rng.normal(size=n).astype(np.float32) for f in FEATURES[1:]}
    score = values["useful_cheap"] + 1.2 * values["useful_dear"] + 0.4 * values["fair"]
    clicked = (score.reshape(REQUESTS, ITEMS) == score.reshape(REQUESTS, ITEMS).max(1)[:, None]).ravel()
    offsets = pa.array(np.arange(0, n + 1, ITEMS, dtype=np.int32))

    def nested(x):
        return pa.ListArray.from_arrays(offsets, pa.array(x))

    return pa.table(
        {
            "user": pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=2 * REQUESTS).astype(np.float32)), 2),
            **{name: nested(x) for name, x in values.items()},
            "clicked": nested(clicked),
            "exposed": nested(np.ones(n, dtype=bool)),
            "teacher_score": nested(score),
            "request_id": pa.array(np.arange(REQUESTS)),
        }
    )


class Made:
    """In place of a Reader: batches that are made up anew."""

    def __init__(self, seed, steps=STEPS):
        self.seed, self.steps = seed, steps

    def epoch(self, epoch, start=0):
        for step in range(start, self.steps):
            yield table_of((self.seed, epoch, step))
