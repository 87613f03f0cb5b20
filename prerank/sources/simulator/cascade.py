"""The made-up marketplace served by a cascade, logged as the contract of the logs asks.

recall (a race of all items, weighted by place, category and popularity) -> production's crude pre-ranking (a linear
score of cheap features) -> production's fine ranking (the true utility, noisy and fond of what is popular) -> ten are
shown -> clicks by truth times examination. So what is exposed is a tiny and biased part of what pre-ranking receives.

The logs are cut into chunks of consecutive requests; a chunk follows from (seed, day, first request) alone, so the same
logs come out whatever the number of workers. Another kind of CPU changes last digits, and what hangs on them.
Shapes: R requests, C candidates, F fine list, I items.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prerank.core.config import Positive, Seed
from prerank.core.errors import InputError
from prerank.core.storage import whole
from prerank.logs.schema import Schema
from prerank.sources.simulator.features import (
    cheap_cross,
    cross_features,
    item_statistics,
    request_features,
    world_schema,
)
from prerank.sources.simulator.truth import (
    REQUESTS_PER_DAY_LIMIT,
    Requests,
    click_probability,
    conversion_probability,
    distance_km,
    draw_requests,
    examination,
    order_probability,
    true_utility,
)
from prerank.sources.simulator.world import World, build_world, generator, normal

SHOWN = 10
CHUNK = 250
ROW_GROUP_ROWS = 50_000
RACE_CELLS = 5_000_000  # bounds the memory of recall, whatever the number of items
TABLES = ("fine_lists", "impressions", "candidates", "truth")
ORDERED = "ordered"


@dataclass(frozen=True, kw_only=True)
class Simulation:
    requests: Positive = 6_000
    """Requests over all days."""
    candidates: Positive = 1_000
    """Items that pre-ranking receives, per request."""
    fine_list: Positive = 200
    """Items that fine-ranking scores, per request."""
    items: Positive = 20_000
    """Items of the marketplace."""
    users: Positive = 5_000
    """Users of the marketplace."""
    days: Positive = 6
    """Days of logs; the last is the test day, the one before the validation day."""
    eval_requests: Positive = 300
    """Requests of each of the last two days whose whole candidate set and truth are logged (at most all of the day)."""
    seed: Seed = 0
    """The same seed gives the same logs, whatever the number of workers."""
    orders: bool = False
    """A label `ordered` beside the click, which agrees with it in part: people look at what is dear, and order what is
    cheap. Nothing else changes."""

    def check(self) -> None:
        """Raises InputError for sizes that no cascade can have."""
        least = {"fine_list": SHOWN, "candidates": self.fine_list, "items": self.candidates, "users": 1, "days": 3}
        for name, bound in (least | {"eval_requests": 1, "seed": 0}).items():
            if getattr(self, name) < bound:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected at least {bound}")
        if not self.days <= self.requests <= self.days * REQUESTS_PER_DAY_LIMIT:
            raise InputError(
                f"--requests {self.requests}: expected {self.days} to {self.days * REQUESTS_PER_DAY_LIMIT}"
            )

    @property
    def world(self) -> World:
        return build_world(items=self.items, users=self.users, days=self.days, seed=self.seed)

    @property
    def schema(self) -> Schema:
        schema = world_schema(items=self.items, users=self.users)
        return replace(schema, labels=(ORDERED,)) if self.orders else schema


@dataclass(frozen=True)
class Chunk:
    day: int
    first: int
    stop: int
    whole: bool
    """Whether the candidates and the truth are logged too."""

    @property
    def name(self) -> str:
        return f"day{self.day:03d}-{self.first:08d}.parquet"


def chunks(simulation: Simulation) -> Iterator[Chunk]:
    """The requests of all days in runs of at most CHUNK."""
    for day in range(simulation.days):
        n = simulation.requests // simulation.days + (day < simulation.requests % simulation.days)
        whole = min(simulation.eval_requests, n) if day >= simulation.days - 2 else 0
        for start, stop in ((0, whole), (whole, n)):
            for first in range(start, stop, CHUNK):
                yield Chunk(day, first, min(first + CHUNK, stop), first < whole)


def simulate_chunk(simulation: Simulation, chunk: Chunk) -> dict[str, pa.Table]:
    """The tables of one chunk; `candidates` and `truth` only where it is whole."""
    world, schema = simulation.world, simulation.schema
    rng = generator(simulation.seed, 3, chunk.day, chunk.first)
    requests = draw_requests(world, rng, chunk.day, chunk.first, chunk.stop - chunk.first)
    candidate_RC, recall_RC = recall(world, rng, requests, simulation.candidates)
    truth = true_utility(world, rng, requests, candidate_RC)
    kept_RF = prerank_in_production(world, requests, candidate_RC, simulation.fine_list)
    popularity = world.items.popularity[chunk.day][np.take_along_axis(candidate_RC, kept_RF, 1)]
    utility_RF = np.take_along_axis(truth.utility, kept_RF, 1)
    score_RF = utility_RF + 0.3 * popularity + 0.7 * normal(rng, *kept_RF.shape)
    order_RF = np.argsort(-score_RF, 1, kind="stable")
    fine_RF = np.take_along_axis(kept_RF, order_RF, 1)  # local: an index into the C candidates

    tables = {"impressions": _impressions(world, rng, requests, candidate_RC, truth.utility, fine_RF[:, :SHOWN])}
    if simulation.orders:  # by numbers of their own, so that all else stays as it is without
        tables["impressions"] = _with_orders(
            world, generator(simulation.seed, 4, chunk.day, chunk.first), tables["impressions"]
        )
    # Features are drawn once, on the candidates where these are logged, else on the fine list only.
    logged = np.broadcast_to(np.arange(candidate_RC.shape[1]), candidate_RC.shape) if chunk.whole else fine_RF
    logged_item = np.take_along_axis(candidate_RC, logged, 1)
    recall_score = np.take_along_axis(recall_RC, logged, 1)
    per_request = request_features(world, rng, requests)
    per_row = cross_features(world, rng, requests, logged_item, truth.take(logged), recall_score)
    features = _feature_table(world, schema, requests, logged_item, per_request, per_row)
    if chunk.whole:
        tables["candidates"] = features
        probability = pa.array(click_probability(truth.utility).ravel())
        tables["truth"] = features.select(["request_id", "item_id"]).append_column("click_probability", probability)
        rows = fine_RF + np.arange(len(fine_RF))[:, None] * candidate_RC.shape[1]
        features = features.take(pa.array(rows.ravel()))
    position = np.broadcast_to(np.arange(fine_RF.shape[1], dtype=np.int32), fine_RF.shape).ravel()
    fine_score = np.take_along_axis(score_RF, order_RF, 1).astype(np.float32).ravel()
    return tables | {
        "fine_lists": features.add_column(3, "fine_position", pa.array(position)).add_column(
            4, "fine_score", pa.array(fine_score)
        )
    }


def recall(world: World, rng: np.random.Generator, requests: Requests, n: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` items a request, sorted by id, drawn without replacement in proportion to near + related + popular + random.

    Also the log weight each was drawn with. Such a draw is a race: the `n` first of clocks that tick at those rates.
    """
    items = world.items
    demand = np.exp(0.5 * items.popularity[requests.day]) * (items.launch_day <= requests.day)
    reach = max(1, RACE_CELLS // len(items.city))
    chosen, score = [], []
    for start in range(0, len(requests.user), reach):
        part = slice(start, start + reach)
        x_km, y_km = (requests.xy_km[part, axis, None] - items.xy_km[None, :, axis] for axis in (0, 1))
        near = 1 / (1 + (x_km * x_km + y_km * y_km) / 16)
        related = (world.affinity**1.5 + 0.02)[world.queries.category[requests.query[part]]][:, items.category_filed]
        weight = near * related * demand
        clock = rng.standard_exponential(weight.shape, dtype=np.float32) / np.maximum(weight, np.float32(1e-12))
        first = np.sort(np.argpartition(clock, n - 1, axis=1)[:, :n], 1)
        chosen.append(first.astype(np.int32))
        score.append(np.log(np.take_along_axis(weight, first, 1) + 1e-12))
    return np.concatenate(chosen), np.concatenate(score)


def prerank_in_production(world: World, requests: Requests, candidate_RC: np.ndarray, n: int) -> np.ndarray:
    """The `n` candidates [R, n] (indices into C, rising) that a linear score of cheap features keeps.

    Rising, as the fine ranking's noise goes by their place: what a partition keeps stands in an order that differs from
    one kind of CPU to another.
    """
    items = item_statistics(world, requests.day)
    cross = cheap_cross(world, requests, candidate_RC, distance_km(world, requests, candidate_RC))
    by_item = (
        12 * items["item_ctr_7d"] + 0.5 * np.nan_to_num(items["item_rating"], nan=3.9) + 0.1 * items["item_orders_30d"]
    )
    score = by_item[candidate_RC] + 2.5 * cross["category_match"] - 0.6 * cross["distance"]
    return np.sort(np.argsort(-score, 1, kind="stable")[:, :n], 1)


def _impressions(
    world: World,
    rng: np.random.Generator,
    requests: Requests,
    candidate_RC: np.ndarray,
    utility_RC: np.ndarray,
    shown_RS: np.ndarray,
) -> pa.Table:
    item_RS = np.take_along_axis(candidate_RC, shown_RS, 1)
    utility = np.take_along_axis(utility_RC, shown_RS, 1)
    position = np.broadcast_to(np.arange(shown_RS.shape[1], dtype=np.int32), shown_RS.shape)
    clicked = rng.random(shown_RS.shape) < click_probability(utility) * examination(position)
    converted = clicked & (rng.random(shown_RS.shape) < conversion_probability(utility, world.items.quality[item_RS]))
    columns = {
        "item_id": item_RS.astype(np.int64),
        "shown_position": position,
        "clicked": clicked,
        "converted": converted,
    }
    request_id = np.repeat(requests.request_id, shown_RS.shape[1])
    return pa.table({"request_id": request_id} | {name: column.ravel() for name, column in columns.items()})


def _with_orders(world: World, rng: np.random.Generator, impressions: pa.Table) -> pa.Table:
    log_price = world.items.log_price[impressions["item_id"].to_numpy()]
    ordered = impressions["clicked"].to_numpy() & (rng.random(len(log_price)) < order_probability(log_price))
    return impressions.append_column(ORDERED, pa.array(ordered))


def _feature_table(
    world: World,
    schema: Schema,
    requests: Requests,
    item_RN: np.ndarray,
    per_request: dict[str, np.ndarray],
    per_row: dict[str, np.ndarray],
) -> pa.Table:
    """Keys and features, one row an item of `item_RN`, columns in the order of the schema."""
    n, statistics = item_RN.shape[1], item_statistics(world, requests.day)
    columns = {
        "request_id": pa.array(np.repeat(requests.request_id, n)),
        "item_id": pa.array(item_RN.ravel().astype(np.int64)),
        "ts": pa.array(np.repeat(requests.ts, n)),
    }
    for feature in schema.features:
        if feature.of_request:
            value = np.repeat(per_request[feature.name], n, axis=0)
        elif feature.side == "item":
            value = statistics[feature.name][item_RN.ravel()]
        else:
            value = per_row[feature.name].reshape(item_RN.size, *per_row[feature.name].shape[2:])
        columns[feature.name] = _arrow(value, feature.kind)
    return pa.table(columns)


def _arrow(value: np.ndarray, kind: str) -> pa.Array:
    """[rows] or [rows, n]; of `ids`, -1 pads."""
    if kind in ("dense", "embedding"):
        value = value.astype(np.float32)
    if value.ndim == 1:
        return pa.array(value)
    if kind == "ids":
        there = value >= 0
        offsets = np.concatenate([[0], np.cumsum(there.sum(1))]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(value[there]))
    return pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), value.shape[1])


def write_chunk(simulation: Simulation, chunk: Chunk, folder: Path) -> dict[str, int]:
    """Writes the chunk's file of each table, whole requests a row group; a retry replaces it. Returns the counts."""
    tables = simulate_chunk(simulation, chunk)
    per_request = {"fine_lists": simulation.fine_list, "impressions": SHOWN}
    repeated = [feature.name for feature in simulation.schema.features if feature.kind == "id" or feature.of_request]
    for name, table in tables.items():
        rows = per_request.get(name, simulation.candidates)
        with whole(folder / name / chunk.name) as file:
            pq.write_table(
                table,
                file,
                row_group_size=max(1, ROW_GROUP_ROWS // rows) * rows,
                compression="zstd",
                # A list will do as well as True, from which alone a type checker can tell what pyarrow takes.
                use_dictionary=["request_id", "ts", *repeated],  # pyright: ignore[reportArgumentType]
            )
    clicked = tables["impressions"]["clicked"].to_numpy().reshape(-1, SHOWN)
    counts = {name: tables[name].num_rows if name in tables else 0 for name in TABLES}
    converted = tables["impressions"]["converted"].to_numpy()
    return counts | {
        "requests": len(clicked),
        "requests_with_click": int(clicked.any(1).sum()),
        "clicks": int(clicked.sum()),
        "conversions": int(converted.sum()),
    }
