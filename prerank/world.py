"""A made-up marketplace of local search whose truth is known: who asks for what and where, and what makes them click.

The utility of an item in a request is not linear: query match opens the door for taste and quality, a price should fit
the budget, distance hurts more in the rain and at noon, some like what is popular and some what is rare, opening hours
meet the hour of the request. Popularity and some coefficients drift from day to day. Everything follows from the seed,
so any process can rebuild the same world.

Shapes: R requests, C candidates of a request, I items, U users, Q queries, L latent dimensions, T days.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

CITIES, GROUPS, CATEGORIES, BRANDS, TAGS, TERMS, QUERIES, AGE_GROUPS = 8, 4, 16, 400, 80, 600, 2_000, 7
LATENT = 8
SLOTS = 4  # night 0-6, morning 6-11, noon 11-16, evening 16-24
CITY_SPACING_KM = 500.0
FIRST_DAY = np.datetime64("2024-03-04", "ms")  # a Monday
DAY_MS = 86_400_000
REQUESTS_PER_DAY_LIMIT = 10_000_000


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


@dataclass(frozen=True, eq=False)
class Requests:
    """Consecutive requests of one day; every array has R rows."""

    day: int
    request_id: np.ndarray
    ts: np.ndarray  # datetime64[ms]
    hour: np.ndarray
    user: np.ndarray
    query: np.ndarray
    city: np.ndarray
    xy_km: np.ndarray
    rain: np.ndarray
    session: np.ndarray  # [R, L], what the user is after right now

    @property
    def slot(self) -> np.ndarray:
        return np.digitize(self.hour, (6, 11, 16))


@dataclass(frozen=True, eq=False)
class Truth:
    """What drives the clicks on `item_RC`, part by part; features see noisy versions of the parts."""

    distance_km: np.ndarray
    travel_minutes: np.ndarray
    wait_minutes: np.ndarray
    match: np.ndarray
    taste: np.ndarray
    session_taste: np.ndarray
    price_gap: np.ndarray
    hour_fit: np.ndarray
    utility: np.ndarray

    def take(self, index_RN: np.ndarray) -> "Truth":
        return Truth(*(np.take_along_axis(getattr(self, name), index_RN, 1) for name in self.__dataclass_fields__))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


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


def _items(rng, n, days, hotspots, categories, meaning, category_taste, hour_weights) -> Items:
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
        log_price=(3.5 + 0.9 * normal(rng, CATEGORIES)[category] * 0.7 + 0.2 * quality + 0.5 * normal(rng, n)),
        hours=np.minimum(hour_weights[category] + 0.6 * normal(rng, n, SLOTS), 1.0),
        launch_day=np.where(rng.random(n) < 0.04, rng.integers(0, days, n), 0),
        popularity=np.cumsum(walk + 0.4 * np.diff(trend, axis=0, prepend=trend[:1]), 0),
        trend=trend,
    )


def _users(rng, n, hotspots) -> Users:
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


def _queries(rng, categories, meaning, hour_weights) -> Queries:
    category = rng.choice(CATEGORIES, QUERIES, p=categories).astype(np.int32)
    suits = np.exp(hour_weights[category][:, np.digitize(np.arange(24), (6, 11, 16))].T)  # [24, Q]
    weights = suits / (rng.permutation(QUERIES) + 20)
    cdf = np.cumsum(weights, 1) / weights.sum(1, keepdims=True)
    return Queries(
        category=category,
        meaning=0.8 * meaning[category] + 0.6 * normal(rng, QUERIES, LATENT),
        breadth=rng.beta(0.8, 1.6, QUERIES).astype(np.float32),
        nearby=(rng.random(QUERIES) < 0.25).astype(np.float32),
        luxury=np.where(rng.random(QUERIES) < 0.2, rng.choice([-0.7, 0.8], QUERIES), 0.0).astype(np.float32),
        terms=_padded((category[:, None] * 30 + rng.integers(0, 60, (QUERIES, 4))) % TERMS, rng.integers(1, 5, QUERIES)),
        hour_cdf=(cdf + np.arange(24)[:, None]).ravel(),
    )


def draw_requests(world: World, rng: np.random.Generator, day: int, first: int, n: int) -> Requests:
    """Requests `first` to `first + n` of a day: active users more often, lunch and dinner, some away from home."""
    users = world.users
    user = np.minimum(np.searchsorted(users.activity_cdf, rng.random(n)), len(users.city) - 1)
    peak = rng.choice(3, n, p=[0.4, 0.35, 0.25])
    hours = np.where(peak == 2, rng.uniform(0, 24, n), np.where(peak == 0, 12.0, 18.5) + rng.normal(0, 1.3, n)) % 24
    hour = hours.astype(np.int32)
    cdf = world.queries.hour_cdf
    query = np.minimum(np.searchsorted(cdf, hour + rng.random(n)), (hour + 1) * QUERIES - 1) - hour * QUERIES
    travels = rng.random(n) < 0.08
    city = np.where(travels, rng.integers(0, CITIES, n), users.city[user]).astype(np.int32)
    xy_km = users.xy_km[user] + 2 * normal(rng, n, 2)
    xy_km[:, 0] += np.float32(CITY_SPACING_KM) * (city - users.city[user])
    return Requests(
        day=day,
        request_id=day * REQUESTS_PER_DAY_LIMIT + first + np.arange(n, dtype=np.int64),
        ts=FIRST_DAY + (day * DAY_MS + hours * 3_600_000).astype("timedelta64[ms]"),
        hour=hour,
        user=user.astype(np.int32),
        query=query.astype(np.int32),
        city=city,
        xy_km=xy_km,
        rain=world.rain[day, city],
        session=normal(rng, n, LATENT),
    )


def distance_km(world: World, requests: Requests, item_RC: np.ndarray) -> np.ndarray:
    here = requests.xy_km[:, None]
    return np.hypot(*np.moveaxis(world.items.xy_km[item_RC] - here, -1, 0))


def true_utility(world: World, rng: np.random.Generator, requests: Requests, item_RC: np.ndarray) -> Truth:
    """Every part of the utility of each candidate [R, C]; `rng` draws roads, queues and whims."""
    items, users, queries = world.items, world.users, world.queries
    user, query, shape = requests.user, requests.query, item_RC.shape
    category_RC = items.category[item_RC]
    slot_R = requests.slot
    peak_R1 = np.isin(requests.hour, (11, 12, 13, 18, 19)).astype(np.float32)[:, None]
    rain_R1 = requests.rain[:, None]
    match_by, taste_by, price_by, distance_by = world.drift[requests.day]

    affinity = world.affinity[queries.category[query][:, None], category_RC]
    breadth = queries.breadth[query][:, None]
    meant = np.einsum("rcl,rl->rc", items.meaning[item_RC], queries.meaning[query]) / np.float32(LATENT**0.5)
    asked = affinity + breadth * np.where((affinity > 0.15) & (affinity < 1), 0.4, 0.0).astype(np.float32)
    match = sigmoid(4.5 * asked - 3.2 + 0.9 * meant)

    liked = items.taste[item_RC]
    taste = np.einsum("rcl,rl->rc", liked, users.taste[user]) / np.float32(LATENT**0.5)
    session_taste = np.einsum("rcl,rl->rc", liked, requests.session) / np.float32(LATENT**0.5)

    distance = distance_km(world, requests, item_RC)
    travel = 4 + 3.2 * distance * np.exp(0.25 * normal(rng, *shape)) * (1 + 0.4 * peak_R1 + 0.3 * rain_R1)
    close = 1 + 0.5 * rain_R1 + 0.4 * peak_R1 + 0.8 * queries.nearby[query][:, None]
    far = np.log1p(travel / 12) * world.distance_weight[category_RC] * close
    popularity = items.popularity[requests.day][item_RC]
    wait = np.maximum(0, 8 * peak_R1 * (popularity + normal(rng, *shape)))
    gap = items.log_price[item_RC] - users.log_budget[user][:, None] - queries.luxury[query][:, None]
    amiss = gap * gap * np.where(gap > 0, 2.4, 1.2).astype(np.float32)
    hour_fit = items.hours[item_RC, slot_R[:, None]]
    appeal = taste_by * (0.9 * taste + 0.6 * session_taste) + 0.6 * items.quality[item_RC]
    appeal += 0.8 * users.mainstream[user][:, None] * popularity
    utility = (
        -4.4
        + 2.6 * match_by * match
        + (0.15 + 0.85 * match) * appeal
        - price_by * np.minimum(users.price_sensitivity[user][:, None] * amiss, 4)
        - distance_by * 1.1 * far
        + 1.2 * np.where(hour_fit < 0, 1.5 * hour_fit, hour_fit)
        + 0.5 * items.trend[requests.day][item_RC]
        - 0.04 * wait
        + 0.3 * normal(rng, *shape)
    )
    return Truth(distance, travel, wait, match, taste, session_taste, gap, hour_fit, utility.astype(np.float32))


def click_probability(utility: np.ndarray) -> np.ndarray:
    """Of an item that is looked at."""
    return sigmoid(utility)


def conversion_probability(utility: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Of an item that was clicked."""
    return sigmoid(-0.9 + 0.5 * quality + 0.3 * utility)


def examination(position: np.ndarray) -> np.ndarray:
    """The share of users who look at a shown position."""
    return (1.0 + position) ** -0.6
