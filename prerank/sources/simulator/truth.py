"""What happens in the made-up marketplace: who asks for what, where and when, and what then makes them click.

The utility of an item in a request is not linear: query match opens the door for taste and quality, a price should fit
the budget, distance hurts more in the rain and at noon, some like what is popular and some what is rare, opening hours
meet the hour of the request.
Shapes: R requests of a day, C candidates of a request, L latent dimensions.
"""

from dataclasses import dataclass

import numpy as np

from prerank.sources.simulator.world import CITIES, CITY_SPACING_KM, LATENT, QUERIES, SLOT_HOURS, World, normal

FIRST_DAY = np.datetime64("2024-03-04", "ms")  # a Monday
DAY_MS = 86_400_000
REQUESTS_PER_DAY_LIMIT = 10_000_000
"""request_id = day * this + the request's number within the day."""


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
        return np.digitize(self.hour, SLOT_HOURS)


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


def order_probability(log_price: np.ndarray) -> np.ndarray:
    """Of an item that was clicked: one of the middle price (3.5) every other time, one of half of it nearly always."""
    return sigmoid(-5 * (log_price - 3.5))


def examination(position: np.ndarray) -> np.ndarray:
    """The share of users who look at a shown position."""
    return (1.0 + position) ** -0.6
