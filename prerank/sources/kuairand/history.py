"""What is known on the eve of a day of KuaiRand, and what recall brings from it.

Shapes: U users, V videos, K tags of a video, E events. Users and videos are the row numbers of their tables.
Everything here comes from events of earlier days: `advance(day)` is the only way in, and it takes events before `day`.
"""

from dataclasses import dataclass

import numpy as np

WINDOW = 50
"""Co-visitation looks at a user's last 50 watched videos."""
RECENT = 10
_SHRINK = 10.0
_USERS_AT_ONCE = 4


@dataclass(frozen=True)
class Events:
    """Exposures sorted by (user, day, time), one a (user, video)."""

    user: np.ndarray  # int64 [E]
    video: np.ndarray  # int64 [E]
    day: np.ndarray  # int64 [E], days since the first request day; negative: history
    clicked: np.ndarray  # float32 [E], NaN where the log does not say
    long_view: np.ndarray  # bool [E]


@dataclass(frozen=True)
class Past:
    """The history of U users, dense over all V videos."""

    watched: np.ndarray  # bool [U, V]
    tag_views: np.ndarray  # float32 [U, V], how often the user watched a tag of the video, mean over its tags
    tag_longs: np.ndarray  # float32 [U, V], and viewed it long
    author_views: np.ndarray  # float32 [U, V], the same of its author
    author_longs: np.ndarray  # float32 [U, V]
    covisit: np.ndarray  # float32 [U, V], similarity by watched-together, summed over the last 50 watched
    covisit_recent: np.ndarray  # float32 [U, V], over the last 10 watched
    colong: np.ndarray  # float32 [U, V], by viewed-long-together, over those of the last 50 that were viewed long
    colong_best: np.ndarray  # float32 [U, V], the same, of the most similar one alone


class History:
    """Counts of users and videos, and two V x V matrices of co-visitation (460 MB for the 7,583 videos of Pure)."""

    def __init__(
        self, events: Events, *, users: int, tags_VK: np.ndarray, author_V: np.ndarray, duration_V: np.ndarray
    ):
        """Tags and authors are numbers from 0; `tags_VK` is filled up with its maximum, which is no tag.

        `duration_V`: log of milliseconds, no NaN.
        """
        self.events, self.tags_VK, self.author_V, self.duration_V = events, tags_VK, author_V, duration_V
        self.no_tag = int(tags_VK.max())
        videos = len(author_V)
        self.start = np.searchsorted(events.user, np.arange(users))
        self.user_views, self.user_longs = np.zeros(users, np.int64), np.zeros(users, np.int64)
        self.user_long_durations = np.zeros(users)
        self.views, self.longs, self.clicks, self.judged = (np.zeros(videos, np.int64) for _ in range(4))
        self.trend = np.zeros(videos)
        """A video's share of a day's views, 1 = an average video, halved with every day that passes."""
        self.together = np.zeros((videos, videos), np.float32)
        self.long_together = np.zeros((videos, videos), np.float32)
        self._before = np.iinfo(np.int64).min

    def advance(self, day: int) -> None:
        """Takes in all events before `day`."""
        days = np.unique(self.events.day)
        for past in days[(days >= self._before) & (days < day)]:
            self._absorb(np.flatnonzero(self.events.day == past))
        self._before = day

    @property
    def long_rate(self) -> float:
        """Long views of all videos over their exposures so far."""
        return float(self.longs.sum() / max(1, self.views.sum()))

    @property
    def click_rate(self) -> float:
        """The same of clicks, where the log says; NaN as long as it does not."""
        return float(self.clicks.sum() / self.judged.sum()) if self.judged.any() else float("nan")

    def _absorb(self, new: np.ndarray) -> None:
        events, videos = self.events, len(self.views)
        user, video, long_view, clicked = (
            column[new] for column in (events.user, events.video, events.long_view, events.clicked)
        )
        judged = ~np.isnan(clicked)
        self.user_views += np.bincount(user, minlength=len(self.user_views))
        self.user_longs += np.bincount(user[long_view], minlength=len(self.user_longs))
        self.user_long_durations += np.bincount(
            user[long_view], weights=self.duration_V[video[long_view]], minlength=len(self.user_longs)
        )
        views = np.bincount(video, minlength=videos)
        self.views += views
        self.longs += np.bincount(video[long_view], minlength=videos)
        self.judged += np.bincount(video[judged], minlength=videos)
        self.clicks += np.bincount(video[judged & (clicked > 0)], minlength=videos)
        self.trend = (self.trend + views * (videos / len(new))) / 2
        for lag in range(1, WINDOW + 1):
            later = new[new >= lag]
            later = later[events.user[later] == events.user[later - lag]]
            both_long = later[events.long_view[later] & events.long_view[later - lag]]
            for counts, at in ((self.together, later), (self.long_together, both_long)):
                a, b = events.video[at], events.video[at - lag]
                np.add.at(counts.reshape(-1), np.concatenate([a * videos + b, b * videos + a]), np.float32(1))

    def of(self, users: np.ndarray) -> Past:
        """The history of `users` [U]."""
        U, V = len(users), len(self.author_V)
        views = self.user_views[users]
        owner, at = _ragged(views, self.start[users])
        video, long_view = self.events.video[at], self.events.long_view[at]
        from_end = np.repeat(np.cumsum(views), views) - np.arange(len(at))  # 1 = the last one watched
        watched = np.zeros((U, V), bool)
        watched[owner, video] = True
        author_views, author_longs = (
            _count(owner[keep], self.author_V[video[keep]], (U, int(self.author_V.max()) + 1))[:, self.author_V]
            for keep in (slice(None), long_view)
        )
        event, slot = np.nonzero(self.tags_VK[video] < self.no_tag)
        tag_views, tag_longs = (
            self._by_tag(owner[event[keep]], self.tags_VK[video[event[keep]], slot[keep]], U)
            for keep in (slice(None), long_view[event])
        )
        by_views, by_longs = (1 / np.sqrt(counts + _SHRINK).astype(np.float32) for counts in (self.views, self.longs))
        covisit, covisit_recent, colong, colong_best = (np.zeros((U, V), np.float32) for _ in range(4))
        last = np.flatnonzero(from_end <= WINDOW)
        for at in np.split(last, np.searchsorted(owner[last], np.arange(_USERS_AT_ONCE, U, _USERS_AT_ONCE))):
            if at.size:  # sums over runs of lines, not a matrix product: bit for bit the same on every machine
                runs, first = np.unique(2 * owner[at] + (from_end[at] <= RECENT), return_index=True)
                sums = np.add.reduceat(self.together[video[at]] * by_views[video[at], None], first, axis=0)
                recent = runs % 2 == 1
                covisit_recent[runs[recent] // 2] = sums[recent]
                covisit[runs[~recent] // 2] = sums[~recent]
            at = at[long_view[at]]
            if at.size:
                some, first = np.unique(owner[at], return_index=True)
                lines = self.long_together[video[at]] * by_longs[video[at], None]
                colong[some] = np.add.reduceat(lines, first, axis=0)
                colong_best[some] = np.maximum.reduceat(lines, first, axis=0)
        covisit += covisit_recent
        return Past(
            watched, tag_views, tag_longs, author_views, author_longs,
            covisit * by_views, covisit_recent * by_views, colong * by_longs, colong_best * by_longs,
        )  # fmt: skip

    def _by_tag(self, row: np.ndarray, tag: np.ndarray, rows: int) -> np.ndarray:
        """float32 [rows, V]: counts of (row, tag), mean over the tags of each video."""
        counts = _count(row, tag, (rows, self.no_tag + 1))
        total = sum(counts[:, tag] for tag in self.tags_VK.T)
        return total / np.maximum(1, (self.tags_VK < self.no_tag).sum(axis=1)).astype(np.float32)

    def last_videos(self, users: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """`(lengths [U], videos [sum])`: up to `n` last watched videos of each user, the oldest first."""
        lengths = np.minimum(self.user_views[users], n)
        _, at = _ragged(lengths, self.start[users] + self.user_views[users] - lengths)
        return lengths, self.events.video[at]


def recall(
    history: History, past: Past, exposed_UV: np.ndarray, key_UV: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """`(recalled, candidates)`, both bool [U, V]: what the channels bring, and with the exposures among them.

    Four channels, each over the videos not yet watched: watched together with the user's last 50 (40% of `size`),
    popular of late (25%), the user's tags and authors (15%), and the rest at random by `key_UV`, uniform in [0, 1).
    Exposures were recalled by the production system, so they are candidates; they take the place of random ones.
    `size` 0: all videos.
    """
    open_UV = ~past.watched
    if size == 0 or size >= open_UV.shape[1]:
        return open_UV, open_UV | exposed_UV
    affinity = past.tag_longs + past.author_longs
    channels = (
        (0.40, past.covisit + past.colong),
        (0.25, np.broadcast_to(history.trend.astype(np.float32), open_UV.shape)),
        (0.15, affinity * np.log1p(history.longs).astype(np.float32)),
    )
    chosen = np.zeros_like(open_UV)
    for share, score in channels:
        chosen |= best(np.where(open_UV & ~chosen & (score > 0), score, np.float32(-np.inf)), int(share * size))
    priority = np.where(open_UV, key_UV + chosen, -np.inf).astype(np.float32)
    return best(priority, size), best(priority + np.float32(2) * exposed_UV, size)


def best(score_UV: np.ndarray, n: int) -> np.ndarray:
    """bool [U, V]: the `n` highest of each row, ties to the first ones; what is -inf is never among them."""
    V = score_UV.shape[1]
    if n >= V:
        return score_UV > -np.inf
    least = np.partition(score_UV, V - n - 1, axis=1)[:, V - n - 1, None]  # the highest score that is not among them
    above, equal = score_UV > least, score_UV == least
    return (above | equal & (np.cumsum(equal, axis=1) <= n - above.sum(axis=1, keepdims=True))) & (score_UV > -np.inf)


def _count(row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    flat = np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1])
    return flat.reshape(shape).astype(np.float32)


def _ragged(lengths: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(owner, index)` of segments laid end to end: segment i is starts[i], starts[i] + 1, ... lengths[i] long."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return owner, starts[owner] + within
