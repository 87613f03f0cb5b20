"""What the made-up marketplace logs at serving time: features that see the truth late, noisily, in part, or not at all.

Costs are stated, not measured: F1 came along with the matching stage (a few microseconds each), F2 is fetched from an
in-memory store, from tens of microseconds for an item statistic to a thousand for a real-time cross.
Shapes: R requests, N items of a request, I items, L latent dimensions.
"""

from functools import lru_cache

import numpy as np

from prerank.logs.schema import Feature, Schema
from prerank.sources.simulator.truth import DAY_MS, FIRST_DAY, Requests, Truth
from prerank.sources.simulator.world import (
    AGE_GROUPS,
    BRANDS,
    CATEGORIES,
    CITIES,
    LATENT,
    QUERIES,
    SLOTS,
    TAGS,
    TERMS,
    World,
    generator,
    normal,
)

MISSING = 0.01
FETCH = {"F1": {"per_feature_us": 12.0}, "F2": {"per_feature_us": 30.0}}

# Chosen by hand before any search was run, and not touched since.
HAND_PICKED = (
    *("user_activity", "user_budget", "query_category", "city", "hour_of_day"),
    *("item_category", "item_rating", "item_price", "item_ctr_7d", "item_orders_30d"),
    *("distance", "category_match", "text_relevance"),
)


def world_schema(*, items: int, users: int) -> Schema:
    """The features of a world with that many items and users (their vocabularies)."""
    dense, vector, ids, many, embedding = "dense", "dense", "id", "ids", "embedding"
    rows = [  # name, side, kind, source, microseconds, size, dim, teacher_only
        ("user", "user", ids, "F1", 2, users, 16),
        ("user_age_group", "user", ids, "F1", 2, AGE_GROUPS, 4),
        ("user_activity", "user", dense, "F1", 2),
        ("user_budget", "user", dense, "F2", 40),
        ("user_price_sensitivity", "user", dense, "F2", 60),
        ("user_mainstream", "user", dense, "F2", 55),
        ("user_emb", "user", embedding, "F2", 180, LATENT),
        ("user_recent_categories", "user", many, "F2", 120, CATEGORIES, 6),
        ("session_emb", "user", embedding, "F2", 700, LATENT),
        ("query", "query", ids, "F1", 2, QUERIES, 16),
        ("query_category", "query", ids, "F1", 2, CATEGORIES, 8),
        ("query_terms", "query", many, "F1", 4, TERMS, 8),
        ("query_length", "query", dense, "F1", 1),
        ("query_nearby", "query", dense, "F1", 2),
        ("query_breadth", "query", dense, "F2", 50),
        ("query_luxury", "query", dense, "F2", 70),
        ("query_emb", "query", embedding, "F2", 150, LATENT),
        ("city", "context", ids, "F1", 1, CITIES, 4),
        ("hour_of_day", "context", vector, "F1", 1, 2),
        ("hour_slot", "context", ids, "F1", 1, 24, 4),
        ("weekday", "context", ids, "F1", 1, 7, 3),
        ("weather", "context", vector, "F1", 6, 3),
        ("item", "item", ids, "F1", 2, items, 16),
        ("item_category", "item", ids, "F1", 2, CATEGORIES, 8),
        ("item_brand", "item", ids, "F1", 3, BRANDS, 8),
        ("item_tags", "item", many, "F1", 6, TAGS, 8),
        ("item_rating", "item", dense, "F1", 3),
        ("item_price", "item", dense, "F1", 3),
        ("item_price_rank", "item", dense, "F1", 5),
        ("item_ctr_7d", "item", dense, "F1", 5),
        ("item_ctr_1d", "item", dense, "F1", 5),
        ("item_orders_30d", "item", dense, "F1", 4),
        ("item_reviews", "item", dense, "F1", 4),
        ("item_sales_value", "item", dense, "F1", 5),
        ("item_age_days", "item", dense, "F1", 2),
        ("item_photos", "item", dense, "F1", 2),
        ("item_hour_profile", "item", vector, "F1", 10, SLOTS),
        ("item_shelf", "item", ids, "F1", 2, 100, 4),
        ("item_trend", "item", dense, "F2", 90),
        ("item_refund_rate", "item", dense, "F2", 80),
        ("item_cvr_7d", "item", dense, "F2", 85),
        ("item_emb", "item", embedding, "F2", 160, 2 * LATENT),
        ("distance", "cross", dense, "F1", 6),
        ("same_district", "cross", dense, "F1", 3),
        ("category_match", "cross", dense, "F1", 6),
        ("recall_score", "cross", dense, "F1", 1),
        ("slot_noise", "cross", dense, "F1", 1),
        ("text_relevance", "cross", dense, "F2", 220),
        ("price_gap", "cross", dense, "F2", 110),
        ("user_category_affinity", "cross", dense, "F2", 200),
        ("user_item_visits", "cross", dense, "F2", 300),
        ("wait_minutes", "cross", dense, "F2", 350),
        ("query_item_ctr", "cross", dense, "F2", 380),
        ("travel_minutes", "cross", dense, "F2", 400),
        ("user_item_taste", "cross", dense, "F2", 450),
        ("semantic_relevance", "cross", dense, "F2", 520),
        ("neighbour_noise", "cross", dense, "F2", 240),
        ("session_item_match", "cross", dense, "F2", 900),
        ("stage_statistics", "cross", vector, "F2", 960, 4, 0, True),
        ("sequence_attention", "cross", embedding, "F2", 1000, LATENT, 0, True),
    ]
    features = (Feature(name, side, kind, source, float(us), *rest) for name, side, kind, source, us, *rest in rows)
    return Schema(tuple(features), FETCH, HAND_PICKED)


@lru_cache(maxsize=16)
def item_statistics(world: World, day: int) -> dict[str, np.ndarray]:
    """Per item [I, ...], as last night's batch job wrote them: one value for all requests of the day."""
    rng, items = generator(world.seed, 1, day), world.items
    n, popularity, quality = len(items.city), items.popularity[day - 1 if day else 0], items.quality
    new = items.launch_day == day
    # Statistics of rarely seen items are noisier.
    doubt = np.exp(-0.35 * popularity).clip(0.3, 2.5) * np.where(new, 2, 1).astype(np.float32)
    appeal = 0.6 * quality + 0.3 * items.trend[day - 1 if day else 0] + 0.15 * popularity
    orders = 4 + 1.2 * popularity + 0.2 * normal(rng, n) - 3 * new
    in_city = np.bincount(items.city, minlength=CITIES)
    price_rank = np.argsort(np.lexsort((items.log_price, items.city))) - (in_city.cumsum() - in_city)[items.city]
    return {
        "item": np.arange(n, dtype=np.int32),
        "item_category": items.category_filed,
        "item_brand": items.brand,
        "item_tags": items.tags,
        "item_rating": _with_missing(rng, np.round(3.9 + 0.45 * quality + 0.2 * doubt * normal(rng, n), 1).clip(1, 5)),
        "item_price": items.log_price + 0.05 * normal(rng, n),
        "item_price_rank": price_rank / in_city[items.city],
        "item_ctr_7d": 1 / (1 + np.exp(2.8 - 0.5 * appeal - 0.2 * doubt * normal(rng, n))),
        "item_ctr_1d": _with_missing(rng, 1 / (1 + np.exp(2.8 - 0.5 * appeal - 0.6 * doubt * normal(rng, n)))),
        "item_orders_30d": orders,
        "item_reviews": orders - 1 + 0.5 * normal(rng, n),
        "item_sales_value": orders + items.log_price + 0.3 * normal(rng, n),
        "item_age_days": day - items.launch_day + np.where(items.launch_day > 0, 0, rng.integers(30, 2000, n)),
        "item_photos": rng.poisson(6, n),
        "item_hour_profile": items.hours + 0.35 * normal(rng, n, SLOTS),
        "item_shelf": rng.integers(0, 100, n, dtype=np.int32),
        "item_trend": _with_missing(rng, items.trend[day] + 0.15 * normal(rng, n)),
        "item_refund_rate": np.exp(-3 - 0.3 * quality + 0.5 * normal(rng, n)),
        "item_cvr_7d": 1 / (1 + np.exp(1.5 - 0.4 * quality - 0.25 * doubt * normal(rng, n))),
        "item_emb": np.hstack([items.taste, items.meaning]) + 0.35 * normal(rng, n, 2 * LATENT),
    }


def request_features(world: World, rng: np.random.Generator, requests: Requests) -> dict[str, np.ndarray]:
    """[R, ...]"""
    users, queries = world.users, world.queries
    n, user, query, hour = len(requests.user), requests.user, requests.query, requests.hour
    taste = users.taste[user]
    angle = (2 * np.pi / 24 * hour).astype(np.float32)
    recent = np.argsort(-(taste @ world.category_taste.T / 2 + 1.2 * normal(rng, n, CATEGORIES)), 1)[:, :5]
    return {
        "user": user,
        "user_age_group": users.age_group[user],
        "user_activity": np.log(users.activity[user]) + 0.1 * normal(rng, n),
        "user_budget": _with_missing(rng, users.log_budget[user] + 0.15 * normal(rng, n)),
        "user_price_sensitivity": users.price_sensitivity[user] * np.exp(0.3 * normal(rng, n)),
        "user_mainstream": users.mainstream[user] + 0.3 * normal(rng, n),
        "user_emb": taste + 0.4 * normal(rng, n, LATENT),
        "user_recent_categories": np.where(np.arange(5) < rng.integers(0, 6, (n, 1)), recent, -1).astype(np.int32),
        "session_emb": requests.session + 0.5 * normal(rng, n, LATENT),
        "query": query,
        "query_category": queries.category[query],
        "query_terms": queries.terms[query],
        "query_length": (queries.terms[query] >= 0).sum(1) * 3 + rng.integers(0, 4, n),
        "query_nearby": queries.nearby[query],
        "query_breadth": queries.breadth[query] + 0.1 * normal(rng, n),
        "query_luxury": queries.luxury[query] + 0.15 * normal(rng, n),
        "query_emb": queries.meaning[query] + 0.3 * normal(rng, n, LATENT),
        "city": requests.city,
        "hour_of_day": np.stack([np.sin(angle), np.cos(angle)], 1),
        "hour_slot": hour,
        "weekday": ((requests.ts - FIRST_DAY).astype(np.int64) // DAY_MS % 7).astype(np.int32),
        "weather": np.stack([requests.rain, 15 + 5 * normal(rng, n), normal(rng, n) ** 2], 1),
    }


def cheap_cross(
    world: World, requests: Requests, item_RN: np.ndarray, distance_km: np.ndarray
) -> dict[str, np.ndarray]:
    """The crosses that the matching stage passes on [R, N]: production's own pre-ranking is made of them."""
    filed = world.items.category_filed[item_RN]
    return {
        "distance": np.log1p(distance_km),
        "category_match": world.affinity[world.queries.category[requests.query][:, None], filed],
    }


def cross_features(
    world: World,
    rng: np.random.Generator,
    requests: Requests,
    item_RN: np.ndarray,
    truth: Truth,
    recall_score: np.ndarray,
) -> dict[str, np.ndarray]:
    """[R, N, ...]"""
    items, shape = world.items, item_RN.shape
    quality, taste = items.quality[item_RN], truth.taste
    liked = world.users.taste[requests.user][:, None] + 0.7 * requests.session[:, None]
    own_RC = world.users.taste[requests.user] @ world.category_taste.T / np.float32(LATENT**0.5)
    visits = rng.poisson(np.exp(np.minimum(-2.5 + 0.8 * taste + 0.2 * quality - 0.1 * truth.distance_km, 2)))

    def noisy(value: np.ndarray, deviation: float) -> np.ndarray:
        return value + np.float32(deviation) * normal(rng, *shape)

    return cheap_cross(world, requests, item_RN, truth.distance_km) | {
        "same_district": truth.distance_km < 3,
        "recall_score": recall_score,
        "slot_noise": normal(rng, *shape),
        "text_relevance": _with_missing(rng, noisy(truth.match, 0.25)),
        "price_gap": _with_missing(rng, noisy(truth.price_gap, 0.2)),
        "user_category_affinity": noisy(np.take_along_axis(own_RC, items.category_filed[item_RN], 1), 0.4),
        "user_item_visits": np.log1p(visits),
        "wait_minutes": noisy(truth.wait_minutes, 3.0),
        "query_item_ctr": _with_missing(rng, noisy(2 * truth.match + 0.4 * quality, 0.6)),
        "travel_minutes": truth.travel_minutes * np.exp(0.1 * normal(rng, *shape)),
        "user_item_taste": noisy(taste, 1.0),
        "semantic_relevance": noisy(truth.match, 0.08),
        "neighbour_noise": normal(rng, *shape),
        "session_item_match": noisy(truth.session_taste, 0.5),
        "stage_statistics": np.stack(
            [noisy(taste, 0.8), noisy(truth.session_taste, 0.8), noisy(quality, 0.5), noisy(truth.hour_fit, 1.0)], 2
        ),
        "sequence_attention": items.taste[item_RN] * liked + 0.8 * normal(rng, *shape, LATENT),
    }


def _with_missing(rng: np.random.Generator, value: np.ndarray) -> np.ndarray:
    return np.where(rng.random(value.shape, dtype=np.float32) < MISSING, np.float32(np.nan), value)
