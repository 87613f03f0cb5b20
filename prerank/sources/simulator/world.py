"""A made-up marketplace of local search: its cities, items, users and queries, and how they drift from day to day.

Everything follows from the seed, so any process can rebuild the same world.
Shapes: I items, U users, Q queries, L latent dimensions, T days.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

CITIES, GROUPS, CATEGORIES, BRANDS, TAGS, TERMS, QUERIES, AGE_GROUPS = 8, 4, 16, 400, 80, 600, 2_000, 7
LATENT = 8
SLOT_HOURS = (6, 11, 16)  # where night, morning and noon end
SLOTS = len(SLOT_HOURS) + 1
CITY_SPACING_KM = 500.0


@dataclass(frozen=True, eq=False)
class Items:
    city: np.ndarray
    xy_km: np.ndarray  # [I, 2]
    category: np.ndarray
    category_filed: np.ndarray
    """What the catalogue says: a few per cent are filed under a wrong category."""
    brand: np.ndarray
    tags: np.ndarray  # [I, 4], -1 pads
    taste: np.ndarray  # [I, L]
    meaning: np.ndarray  # [I, L]
    quality: np.ndarray
    log_price: np.ndarray
    hours: np.ndarray  # [I, SLOTS], how well the item suits the hour
    launch_day: np.ndarray
    popularity: np.ndarray  # [T, I], standardised on the first day, then a random walk
    trend: np.ndarray  # [T, I], what today's demand adds to the utility


@dataclass(frozen=True, eq=False)
class Users:
    city: np.ndarray
    xy_km: np.ndarray  # [U, 2]
    taste: np.ndarray  # [U, L]
    log_budget: np.ndarray
    price_sensitivity: np.ndarray
    mainstream: np.ndarray  # above 0 likes what is popular, below 0 what is rare
    age_group: np.ndarray
    activity: np.ndarray
    activity_cdf: np.ndarray


@dataclass(frozen=True, eq=False)
class Queries:
    category: np.ndarray
    meaning: np.ndarray  # [Q, L]
    breadth: np.ndarray  # 0 asks for one category, 1 for its whole group
    nearby: np.ndarray  # 1 where the words ask for something near
    luxury: np.ndarray  # log price that the words add to the budget
    terms: np.ndarray  # [Q, 4], -1 pads
    hour_cdf: np.ndarray  # [24 * Q], the distribution of hour h fills (h, h + 1]


@dataclass(frozen=True, eq=False)
class World:
    seed: int
    items: Items
    users: Users
    queries: Queries
    affinity: np.ndarray  # [CATEGORIES, CATEGORIES], 1 on the diagonal
    category_taste: np.ndarray  # [CATEGORIES, L]
    distance_weight: np.ndarray  # [CATEGORIES]
    drift: np.ndarray  # [T, 4], factors on match, taste, price and distance
    rain: np.ndarray  # [T, CITIES]


def generator(seed: int, *key: int) -> np.random.Generator:
    """Randomness keyed by what is drawn, never by the order or the place of the work."""
    return np.random.default_rng([seed, *key])


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


@lru_cache(maxsize=2)
def build_world(*, items: int, users: int, days: int, seed: int) -> World:
    """The world of a seed; kept, since every task of a process needs the same one."""
    rng = generator(seed, 0)
    group = np.arange(CATEGORIES) % GROUPS
    related = rng.uniform(0.2, 0.6, (CATEGORIES, CATEGORIES)) * (group[:, None] == group)
    affinity = np.maximum(related, rng.uniform(0, 0.1, related.shape))
    np.fill_diagonal(affinity, 1.0)
    categories = _shares(CATEGORIES, 2)
    meaning, category_taste = normal(rng, 2, CATEGORIES, LATENT)
    hotspots = normal(rng, CITIES, 5, 2) * 6
    hotspots[..., 0] += CITY_SPACING_KM * np.arange(CITIES)[:, None]
    hour_weights = np.clip(normal(rng, CATEGORIES, SLOTS), -1.5, 1.0)
    steps = np.concatenate([np.zeros((1, 4)), rng.normal(0, 0.06, (days - 1, 4))])
    return World(
        seed=seed,
        items=_items(rng, items, days, hotspots, categories, meaning, category_taste, hour_weights),
        users=_users(rng, users, hotspots),
        queries=_queries(rng, categories, meaning, hour_weights),
        affinity=affinity.astype(np.float32),
        category_taste=category_taste,
        distance_weight=rng.uniform(0.1, 1.4, CATEGORIES).astype(np.float32),
        drift=np.exp(np.cumsum(steps, 0)).astype(np.float32),
        rain=(rng.random((days, CITIES)) < 0.3).astype(np.float32),
    )


def _shares(n: int, flat: float) -> np.ndarray:
    weights = 1 / (np.arange(n) + flat)
    return weights / weights.sum()


def _places(rng: np.random.Generator, n: int, hotspots: np.ndarray, spread_km: float) -> tuple[np.ndarray, np.ndarray]:
    city = rng.choice(CITIES, n, p=_shares(CITIES, 4)).astype(np.int32)
    return city, hotspots[city, rng.integers(0, hotspots.shape[1], n)] + spread_km * normal(rng, n, 2)


def _padded(values: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(np.arange(values.shape[1]) < count[:, None], values, -1).astype(np.int32)


def _items(
    rng: np.random.Generator,
    n: int,
    days: int,
    hotspots: np.ndarray,
    categories: np.ndarray,
    meaning: np.ndarray,
    category_taste: np.ndarray,
    hour_weights: np.ndarray,
) -> Items:
    city, xy_km = _places(rng, n, hotspots, 1.8)
    category = rng.choice(CATEGORIES, n, p=categories).astype(np.int32)
    misfiled = rng.random(n) < 0.04
    brand = rng.integers(0, BRANDS, n, dtype=np.int32)
    quality = 0.6 * normal(rng, BRANDS)[brand] + 0.8 * normal(rng, n)
    walk = 0.25 * normal(rng, days, n)
    walk[0] = 0.5 * normal(rng, n) + 0.3 * quality + 0.7 * normal(rng, n)
    trend = np.cumsum(0.3 * normal(rng, days, n), 0)
    return Items(
        city=city,
        xy_km=xy_km,
        category=category,
        category_filed=np.where(misfiled, rng.integers(0, CATEGORIES, n), category).astype(np.int32),
        brand=brand,
        tags=_padded((category[:, None] * 5 + rng.integers(0, 8, (n, 4))) % TAGS, rng.integers(1, 5, n)),
        taste=0.5 * category_taste[category] + 0.87 * normal(rng, n, LATENT),
        meaning=0.7 * meaning[category] + 0.7 * normal(rng, n, LATENT),
        quality=quality,
        log_price=3.5 + 0.6 * normal(rng, CATEGORIES)[category] + 0.2 * quality + 0.5 * normal(rng, n),
        hours=np.minimum(hour_weights[category] + 0.6 * normal(rng, n, SLOTS), 1.0),
        launch_day=np.where(rng.random(n) < 0.04, rng.integers(0, days, n), 0),
        popularity=np.cumsum(walk + 0.4 * np.diff(trend, axis=0, prepend=trend[:1]), 0),
        trend=trend,
    )


def _users(rng: np.random.Generator, n: int, hotspots: np.ndarray) -> Users:
    city, xy_km = _places(rng, n, hotspots, 2.5)
    age_group = rng.integers(0, AGE_GROUPS, n, dtype=np.int32)
    activity = rng.gamma(1.2, 1.0, n) + 0.05
    return Users(
        city=city,
        xy_km=xy_km,
        taste=0.5 * normal(rng, AGE_GROUPS, LATENT)[age_group] + 0.87 * normal(rng, n, LATENT),
        log_budget=3.6 + 0.12 * (age_group - 3).astype(np.float32) + 0.45 * normal(rng, n),
        price_sensitivity=rng.gamma(3.0, 0.33, n).astype(np.float32),
        mainstream=0.15 * (3 - age_group).astype(np.float32) + 0.6 * normal(rng, n),
        age_group=age_group,
        activity=activity.astype(np.float32),
        activity_cdf=np.cumsum(activity) / activity.sum(),
    )


def _queries(
    rng: np.random.Generator, categories: np.ndarray, meaning: np.ndarray, hour_weights: np.ndarray
) -> Queries:
    category = rng.choice(CATEGORIES, QUERIES, p=categories).astype(np.int32)
    suits = np.exp(hour_weights[category][:, np.digitize(np.arange(24), SLOT_HOURS)].T)  # [24, Q]
    weights = suits / (rng.permutation(QUERIES) + 20)
    cdf = np.cumsum(weights, 1) / weights.sum(1, keepdims=True)
    return Queries(
        category=category,
        meaning=0.8 * meaning[category] + 0.6 * normal(rng, QUERIES, LATENT),
        breadth=rng.beta(0.8, 1.6, QUERIES).astype(np.float32),
        nearby=(rng.random(QUERIES) < 0.25).astype(np.float32),
        luxury=np.where(rng.random(QUERIES) < 0.2, rng.choice([-0.7, 0.8], QUERIES), 0.0).astype(np.float32),
        terms=_padded(
            (category[:, None] * 30 + rng.integers(0, 60, (QUERIES, 4))) % TERMS, rng.integers(1, 5, QUERIES)
        ),
        hour_cdf=(cdf + np.arange(24)[:, None]).ravel(),
    )
