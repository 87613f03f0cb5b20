"""Tiny made-up logs with every kind of feature, for tests."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = {
    "fetch": {"F1": {"per_feature_us": 1.0}, "F2": {"per_feature_us": 2.0}},
    "features": [
        {"name": "user_age", "side": "user", "kind": "dense", "source": "F1", "fetch_us": 1},
        {"name": "user_vector", "side": "user", "kind": "embedding", "size": 3, "source": "F2", "fetch_us": 20},
        {"name": "user_tags", "side": "user", "kind": "ids", "size": 16, "dim": 2, "source": "F1", "fetch_us": 2},
        {"name": "query_city", "side": "query", "kind": "id", "size": 8, "dim": 2, "source": "F1", "fetch_us": 1},
        {"name": "hour", "side": "context", "kind": "dense", "source": "F1", "fetch_us": 1},
        {"name": "price", "side": "item", "kind": "dense", "source": "F1", "fetch_us": 3},
        {"name": "quality", "side": "item", "kind": "dense", "size": 2, "source": "F1", "fetch_us": 5},
        {"name": "brand", "side": "item", "kind": "id", "size": 12, "dim": 3, "source": "F1", "fetch_us": 1},
        {"name": "item_tags", "side": "item", "kind": "ids", "size": 16, "dim": 2, "source": "F2", "fetch_us": 9},
        {"name": "item_vector", "side": "item", "kind": "embedding", "size": 4, "source": "F2", "fetch_us": 60},
        {"name": "match", "side": "cross", "kind": "dense", "source": "F2", "fetch_us": 90},
        {"name": "secret", "side": "cross", "kind": "dense", "source": "F2", "fetch_us": 900, "teacher_only": True},
    ],
    "hand_picked": ["price", "brand", "query_city"],
}


def write_logs(
    folder: Path,
    *,
    requests: int = 60,
    items_per_list: int = 24,
    files: int = 3,
    shuffled: bool = False,
    positions: bool = True,
    candidates: bool = True,
    days: int = 4,
    seed: int = 0,
) -> None:
    """Logs of `days` days; `shuffled` spreads the rows of a request over all files: the same rows in another order."""
    rng = np.random.default_rng(seed)
    shown = min(6, items_per_list)
    candidates_per_list = 2 * items_per_list
    request = np.arange(requests) * 7 + 1000
    day = np.arange(requests) * days // requests
    ts = (
        np.datetime64("2024-03-01T08:00:00", "us")
        + day * np.timedelta64(86400, "s")
        + rng.integers(0, 36000, requests) * 10**6
    )

    # One matrix of candidates; a column permutation of it is the fine list, its head is what is shown.
    n_catalogue = 4 * candidates_per_list
    item = np.argsort(rng.random((requests, n_catalogue)), axis=1)[:, :candidates_per_list]
    quality = rng.normal(size=(n_catalogue, 2)).astype(np.float32)
    user_vector, item_vector = rng.normal(size=(requests, 3)), rng.normal(size=(n_catalogue, 4))
    match = rng.normal(size=(requests, candidates_per_list))
    utility = quality[item, 0] + match + 0.3 * rng.normal(size=match.shape)
    fine = np.argsort(-utility[:, :items_per_list], axis=1)  # [requests, items_per_list], best first
    clicked = rng.random((requests, shown)) < 1 / (1 + np.exp(2.5 - np.take_along_axis(utility, fine, 1)[:, :shown]))
    tags = [[int(t) for t in np.flatnonzero(rng.random(16) < 0.15)] for _ in range(n_catalogue)]
    user_tags = [[int(t) for t in np.flatnonzero(rng.random(16) < 0.2)] for _ in range(requests)]
    user_age = np.where(rng.random(requests) < 0.05, np.nan, rng.integers(18, 80, requests))

    def rows(columns: np.ndarray) -> dict[str, pa.Array]:
        """The log columns of `item[r, columns[r]]` for every request, flat."""
        r = np.repeat(np.arange(requests), columns.shape[1])
        c = columns.reshape(-1)
        i = item[r, c]
        return {
            "request_id": pa.array(request[r]),
            "item_id": pa.array([f"item-{x}" for x in i]),
            "ts": pa.array(ts[r]),
            "user_age": pa.array(user_age[r]),
            "user_vector": pa.array(user_vector[r].tolist(), pa.list_(pa.float32(), 3)),
            "user_tags": pa.array([user_tags[x] for x in r], pa.list_(pa.int64())),
            "query_city": pa.array([f"city-{x % 5}" for x in r]),
            "hour": pa.array(r % 24),
            "price": pa.array(10.0 + i % 37),
            "quality": pa.array(quality[i].tolist(), pa.list_(pa.float32())),
            "brand": pa.array(i % 13),
            "item_tags": pa.array([tags[x] for x in i], pa.list_(pa.int64())),
            "item_vector": pa.array(item_vector[i].tolist(), pa.list_(pa.float32(), 4)),
            "match": pa.array(match[r, c]),
            "secret": pa.array(utility[r, c]),
        }

    tables = {"fine_lists": rows(fine)}
    if positions:
        tables["fine_lists"]["fine_position"] = pa.array(np.tile(np.arange(items_per_list), requests))
        tables["fine_lists"]["fine_score"] = pa.array(np.take_along_axis(utility, fine, 1).reshape(-1))
    tables["impressions"] = {
        "request_id": pa.array(np.repeat(request, shown)),
        "item_id": pa.array([f"item-{x}" for x in np.take_along_axis(item, fine, 1)[:, :shown].reshape(-1)]),
        "shown_position": pa.array(np.tile(np.arange(shown), requests)),
        "clicked": pa.array(clicked.reshape(-1)),
        "converted": pa.array(clicked.reshape(-1) & (rng.random(requests * shown) < 0.3)),
    }
    if candidates:
        tables["candidates"] = rows(np.tile(np.arange(candidates_per_list), (requests, 1)))

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    for name, columns in tables.items():
        table = pa.table(columns)
        if shuffled:
            table = table.take(pa.array(rng.permutation(table.num_rows)))
        (folder / name).mkdir(exist_ok=True)
        rows_a_request = table.num_rows // requests
        for number, part in enumerate(np.array_split(np.arange(requests), files)):
            piece = table.slice(part[0] * rows_a_request, len(part) * rows_a_request)
            pq.write_table(
                piece, folder / name / f"part-{number}.parquet", row_group_size=max(len(part) // 2, 1) * rows_a_request
            )
