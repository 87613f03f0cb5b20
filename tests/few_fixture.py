"""Made-up logs of few requests with many exposures each, without positions, of which one feature tells clicks apart."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAYS = (36, 12, 13)
"""Requests of the training, the validation and the test day."""
SCHEMA = {
    "fetch": {"F1": {"per_feature_us": 2.0}, "F2": {"per_feature_us": 10.0}},
    "features": [
        {"name": "cheap", "side": "item", "kind": "dense", "source": "F1", "fetch_us": 5},
        {"name": "noise", "side": "item", "kind": "dense", "source": "F1", "fetch_us": 5},
        {"name": "match", "side": "cross", "kind": "dense", "source": "F2", "fetch_us": 40},
        {"name": "dear", "side": "cross", "kind": "dense", "source": "F2", "fetch_us": 220},
    ],
    "hand_picked": ["cheap", "noise", "match"],
}


def write_few(
    folder: Path,
    *,
    shown: int = 60,
    items: int = 90,
    long: Mapping[int, int] | None = None,
    positions: bool = False,
    shuffled: bool = False,
    days: tuple[int, ...] = DAYS,
    seed: int = 0,
) -> None:
    """A request a list of `items`, the candidates the same, of which the first `shown` (`long`: of a request by its
    number) were exposed; what is worth most by all features but the noise is clicked, now and then."""
    rng = np.random.default_rng(seed)
    requests = sum(days)
    at = np.repeat(np.arange(requests), items)
    day = np.repeat(np.arange(len(days)), days)
    values = {feature["name"]: rng.normal(size=len(at)) for feature in SCHEMA["features"]}
    worth = values["cheap"] + 2 * values["match"] + values["dear"] + 0.3 * rng.normal(size=len(at))
    place = np.tile(np.arange(items), requests)
    exposures = np.full(requests, shown)
    for number, n in (long or {}).items():
        exposures[number] = n
    ids = np.array([f"q{number:03}" for number in range(requests)])
    rows = pa.table(
        {
            "request_id": ids[at],
            "item_id": [f"d{x}" for x in place],
            "ts": (np.datetime64("2024-03-01T09:00", "us") + day.astype("timedelta64[D]"))[at],
            **values,
        }
    )
    fine = rows
    if positions:
        order = np.lexsort((-worth, at))
        rank = np.empty(len(at), np.int64)
        rank[order] = place
        fine = rows.append_column("fine_position", pa.array(rank))
    seen = place < exposures[at]
    clicked = rng.random(len(at)) < 1 / (1 + np.exp(4 - 2 * worth))
    impressions = pa.table(
        {
            "request_id": ids[at][seen],
            "item_id": [f"d{x}" for x in place[seen]],
            "shown_position": place[seen].astype(np.int32),
            "clicked": clicked[seen],
        }
    )
    for name, table in (("fine_lists", fine), ("candidates", rows), ("impressions", impressions)):
        (folder / name).mkdir(parents=True)
        table = table.take(rng.permutation(len(table))) if shuffled else table
        pq.write_table(table, folder / name / "part-0.parquet", row_group_size=1000)
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
