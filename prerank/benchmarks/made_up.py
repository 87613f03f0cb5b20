"""Made-up taught samples in memory: what the training loop reads, where there are no logs. By numpy and Arrow alone.

R requests of N items each, D the width of the teacher's representation.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prerank.core.nested import nest
from prerank.logs.schema import Feature
from prerank.logs.statistics import Stat
from prerank.samples.draw import UNIFORM

DENSE, VECTOR, IDS, DIM, WIDTH = 30, 16, 20_000, 8, 64
FEATURES = (
    *(Feature(f"f{i}", "item", "dense", "F1", 1.0) for i in range(DENSE)),
    Feature("of_user", "user", "embedding", "F1", 1.0, size=VECTOR),
    Feature("of_item", "item", "embedding", "F1", 1.0, size=VECTOR),
    Feature("item", "item", "id", "F1", 1.0, size=IDS, dim=DIM),
    Feature("tags", "item", "ids", "F1", 1.0, size=500, dim=DIM),
)
STATS = {f.name: Stat(mean=[0.0] * f.size, std=[1.0] * f.size, missing=0.0) for f in FEATURES if not f.dim}


def write_samples(path: Path, requests: int, items: int, *, seed: int = 0, row_group: int = 256) -> None:
    """A file of requests whose items the teacher scores by their numbers, of which ten are shown, the first clicked."""
    rng, total = np.random.default_rng(seed), requests * items
    ends = np.arange(0, total + 1, items)
    weights = rng.normal(size=DENSE)
    dense = rng.normal(size=(total, DENSE)).astype(np.float32)
    score = (dense @ weights + rng.normal(size=total)).astype(np.float32)
    place = np.argsort(np.argsort(-score.reshape(requests, items), axis=1), axis=1).reshape(-1)
    hidden = np.tanh(dense @ rng.normal(size=(DENSE, WIDTH))).astype(np.float16)
    tags = rng.integers(0, 500, 3 * total)
    columns = {f"f{i}": nest(dense[:, i], ends) for i in range(DENSE)}
    columns |= {
        "request_id": pa.array(np.arange(requests)),
        "item_id": nest(rng.integers(0, 1 << 40, total), ends),
        "position": nest(place.astype(np.int32), ends),
        "exposed": nest(place < 10, ends),
        "clicked": nest(place == 0, ends),
        "drawn": nest(np.where(place < 10, 1, UNIFORM).astype(np.uint8), ends),
        "of_user": _vectors(rng.standard_normal((requests, VECTOR), np.float32)),
        "of_item": nest(_vectors(rng.standard_normal((total, VECTOR), np.float32)), ends),
        "item": nest(rng.integers(0, IDS, total).astype(np.int32), ends),
        "tags": nest(nest(tags.astype(np.int32), np.arange(0, 3 * total + 1, 3)), ends),
        "teacher_score": nest(score, ends),
        "teacher_repr": nest(_vectors(hidden), ends),
    }
    pq.write_table(pa.table(columns), path, row_group_size=row_group)


def _vectors(rows: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
