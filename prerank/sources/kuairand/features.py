"""The features of KuaiRand's requests: what they are, what they are assumed to cost, and their values.

KuaiRand logs no costs. **Sources, `fetch_us` and the cost of one more feature are assumptions**, in the order of
magnitude of a service that scores 2,000 candidates: F1 (passed on by the matching stage) holds what is known of the
user and the basic facts of a video, 2 to 15 us; F2 (an in-memory store) holds counts kept by streaming jobs, 30 to 80
us, and crosses computed from the user's history for each candidate, 150 to 900 us.

The statistics `stat_*` are averages over the whole month of the release: **they look ahead of any split by time**. They
are left out unless asked for (`--statistics`), and are never hand-picked: students read the same features either way.
The facts of a user are a snapshot whose day the release does not tell. All else that a request of day d has comes from
events before day d and from the request itself: its weekday, and the hour of its first exposure.
"""

from datetime import date

import numpy as np
import polars as pl
import pyarrow as pa

from prerank.logs.schema import Feature, Kind, Schema, Side
from prerank.sources.kuairand.history import History, Past

FETCH = {"F1": {"per_feature_us": 4.0}, "F2": {"per_feature_us": 12.0}}
LAST_WATCHED = 20
_PRIOR = 20.0  # exposures at the overall rate that a smoothed rate starts with

USER_IDS = ("user_active_degree", "onehot_feat1", "onehot_feat2", "onehot_feat3", "onehot_feat7", "onehot_feat8")
VIDEO_IDS = ("author_id", "upload_type", "music_type")

# name: (count, what it is divided by); columns of the release.
STATISTICS: dict[str, tuple[str, str | None]] = {
    "stat_shows": ("show_cnt", None),
    "stat_viewers": ("play_user_num", None),
    "stat_play_rate": ("play_cnt", "show_cnt"),
    "stat_complete_rate": ("complete_play_cnt", "play_cnt"),
    "stat_valid_rate": ("valid_play_cnt", "play_cnt"),
    "stat_long_rate": ("long_time_play_cnt", "play_cnt"),
    "stat_short_rate": ("short_time_play_cnt", "play_cnt"),
    "stat_progress": ("play_progress", None),
    "stat_play_time": ("play_duration", "play_cnt"),
    "stat_comment_time": ("comment_stay_duration", "play_cnt"),
    "stat_like_rate": ("like_cnt", "play_cnt"),
    "stat_comment_rate": ("comment_cnt", "play_cnt"),
    "stat_follow_rate": ("follow_cnt", "play_cnt"),
    "stat_share_rate": ("share_cnt", "play_cnt"),
    "stat_collect_rate": ("collect_cnt", "play_cnt"),
    "stat_dislike_rate": ("reduce_similar_cnt", "play_cnt"),
}

# side, name, kind, source, fetch_us; ids get their vocabulary from the tables and their width below.
_FEATURES: tuple[tuple[Side, str, Kind, str, int], ...] = (
    ("user", "user_id", "id", "F1", 2),
    *(("user", name, "id", "F1", 3) for name in USER_IDS),
    ("user", "user_is_author", "dense", "F1", 3),
    ("user", "user_follows", "dense", "F1", 4),
    ("user", "user_fans", "dense", "F1", 4),
    ("user", "user_register_days", "dense", "F1", 4),
    ("user", "user_views", "dense", "F2", 40),
    ("user", "user_long_rate", "dense", "F2", 40),
    ("user", "user_last_watched", "ids", "F2", 80),
    ("context", "weekday", "id", "F1", 2),
    ("context", "hour", "id", "F1", 2),
    ("item", "video_id", "id", "F1", 2),
    *(("item", name, "id", "F1", 8) for name in VIDEO_IDS),
    ("item", "tags", "ids", "F1", 12),
    ("item", "duration", "dense", "F1", 6),
    ("item", "aspect", "dense", "F1", 6),
    ("item", "age_days", "dense", "F1", 6),
    ("item", "item_views", "dense", "F1", 15),
    ("item", "item_trend", "dense", "F2", 50),
    ("item", "item_long_rate", "dense", "F1", 15),
    ("item", "item_click_rate", "dense", "F2", 50),
    *(("item", name, "dense", "F2", 30 + 3 * i) for i, name in enumerate(STATISTICS)),
    ("cross", "cross_tag_views", "dense", "F2", 160),
    ("cross", "cross_tag_longs", "dense", "F2", 180),
    ("cross", "cross_tag_long_rate", "dense", "F2", 200),
    ("cross", "cross_author_views", "dense", "F2", 150),
    ("cross", "cross_author_longs", "dense", "F2", 170),
    ("cross", "cross_duration_gap", "dense", "F2", 150),
    ("cross", "cross_covisit", "dense", "F2", 600),
    ("cross", "cross_covisit_recent", "dense", "F2", 350),
    ("cross", "cross_colong", "dense", "F2", 750),
    ("cross", "cross_colong_best", "dense", "F2", 900),
)
_DIMS = {
    **dict.fromkeys(("user_id", "video_id", "author_id", "user_last_watched"), 16),
    **dict.fromkeys(("onehot_feat3", "onehot_feat8", "tags"), 8),
}
_DIM = 4
_HAND_PICKED = (
    *("user_active_degree", "user_register_days", "hour"),
    *("duration", "age_days", "upload_type", "tags", "item_views", "item_long_rate"),
    *("item_trend", "item_click_rate", "cross_tag_long_rate"),
)


def kuairand_schema(vocabulary: dict[str, int], *, statistics: bool) -> Schema:
    """`vocabulary`: number of values of each id, from the feature files of the release."""
    features = tuple(
        Feature(name, side, kind, source, float(cost), size=vocabulary[name], dim=_DIMS.get(name, _DIM))
        if kind in ("id", "ids")
        else Feature(name, side, kind, source, float(cost))
        for side, name, kind, source, cost in _FEATURES
        if statistics or name not in STATISTICS
    )
    return Schema(features, FETCH, _HAND_PICKED)


def statistics_frame(raw: pl.DataFrame) -> pl.DataFrame:
    """One row a video, a column a statistic: logs of counts, and of rates per thousand."""
    values = (
        pl.col(top) if not bottom else 1000 * pl.col(top) / (pl.col(bottom) + 1) for top, bottom in STATISTICS.values()
    )
    return raw.select(value.log1p().alias(name) for name, value in zip(STATISTICS, values, strict=True))


def item_frame(videos: pl.DataFrame, statistics: pl.DataFrame | None, history: History, day: date) -> pl.DataFrame:
    """One row a video, with its counts as of the eve of `day`."""
    frame = videos.select(
        pl.int_range(pl.len()).alias("video_id"),
        *VIDEO_IDS,
        "tags",
        "duration",
        (pl.col("server_width") / pl.col("server_height")).alias("aspect"),
        (pl.lit(day) - pl.col("upload_dt")).dt.total_days().alias("age_days"),
        pl.Series("item_views", np.log1p(history.views)),
        pl.Series("item_trend", np.log1p(history.trend)),
        pl.Series("item_long_rate", _rate(history.longs, history.views, history.long_rate)),
        pl.Series("item_click_rate", _rate(history.clicks, history.judged, history.click_rate)),
    )
    return frame if statistics is None else frame.hstack(statistics)


def request_frame(users: pl.DataFrame, history: History, user: np.ndarray, ts: pl.Series) -> pl.DataFrame:
    """One row a request of `user` [R], rows of `users`, at `ts` [R]."""
    views, longs = history.user_views[user], history.user_longs[user]
    lengths, videos = history.last_videos(user, LAST_WATCHED)
    return users[user].select(
        pl.Series("user_id", user),
        *USER_IDS,
        pl.col("is_video_author").alias("user_is_author"),
        pl.col("follow_user_num").log1p().alias("user_follows"),
        pl.col("fans_user_num").log1p().alias("user_fans"),
        pl.col("register_days").log1p().alias("user_register_days"),
        pl.Series("user_views", np.log1p(views)),
        pl.Series("user_long_rate", _rate(longs, views, history.long_rate)),
        _lists("user_last_watched", lengths, videos),
        pl.Series("weekday", ts.dt.weekday() - 1),
        pl.Series("hour", ts.dt.hour()),
    )


def cross_frame(past: Past, history: History, user: np.ndarray, request: np.ndarray, video: np.ndarray) -> pl.DataFrame:
    """One row a (request, video) [N]: `request` is a row of `past` and of `user` [U]."""
    tag_views, tag_longs = past.tag_views[request, video], past.tag_longs[request, video]
    longs = history.user_longs[user]
    usual = np.where(longs > 0, history.user_long_durations[user] / np.maximum(1, longs), np.nan)
    return pl.DataFrame(
        {
            "cross_tag_views": np.log1p(tag_views),
            "cross_tag_longs": np.log1p(tag_longs),
            "cross_tag_long_rate": _rate(tag_longs, tag_views, history.long_rate),
            "cross_author_views": np.log1p(past.author_views[request, video]),
            "cross_author_longs": np.log1p(past.author_longs[request, video]),
            "cross_duration_gap": np.abs(history.duration_V[video] - usual[request]),
            "cross_covisit": np.log1p(past.covisit[request, video]),
            "cross_covisit_recent": np.log1p(past.covisit_recent[request, video]),
            "cross_colong": np.log1p(past.colong[request, video]),
            "cross_colong_best": np.log1p(past.colong_best[request, video]),
        }
    )


def rows_of(schema: Schema, requests: pl.DataFrame, items: pl.DataFrame, crosses: pl.DataFrame) -> pl.DataFrame:
    """The three parts side by side in the order and the types of the schema."""
    types = {"dense": pl.Float32, "id": pl.Int32, "ids": pl.List(pl.Int32)}
    frame = pl.concat([requests, items, crosses], how="horizontal")
    return frame.select(pl.col(feature.name).cast(types[feature.kind]) for feature in schema.features)


def _rate(hits: np.ndarray, tries: np.ndarray, base: float) -> np.ndarray:
    return (hits + _PRIOR * base) / (tries + _PRIOR)


def _lists(name: str, lengths: np.ndarray, values: np.ndarray) -> pl.Series:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return pl.Series(name, pa.LargeListArray.from_arrays(offsets, values.astype(np.int32)))
