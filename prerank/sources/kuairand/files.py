"""KuaiRand-Pure (Gao et al., CIKM 2022) read from its official CSV files and de-duplicated.

A user's repeats of a video on one day are one exposure: clicked, or viewed long, if it ever was; shown when first
shown. A video that the user watched on an earlier day is no candidate any more, so a re-exposure of it is dropped. Both
are counted. The first log is history: what happened before the second log's first day, even where it has no dates.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl

from prerank.core.errors import InputError
from prerank.sources.kuairand.features import STATISTICS, USER_IDS, VIDEO_IDS, statistics_frame
from prerank.sources.kuairand.history import Events, History

ATTRIBUTION = (
    "KuaiRand-Pure: Chongming Gao, Shijun Li, Yuan Zhang, Jiawei Chen, Biao Li, Wenqiang Lei, Peng Jiang, Xiangnan He: "
    '"KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos", CIKM 2022, '
    "https://kuairand.com. Licensed under CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/, as is what is "
    "made of it here: de-duplicated, sampled, joined; candidates and features computed."
)
HISTORY = "log_standard_4_08_to_4_21_pure.csv"
LOG = "log_standard_4_22_to_5_08_pure.csv"
USERS = "user_features_pure.csv"
VIDEOS = "video_features_basic_pure.csv"
VIDEO_STATISTICS = "video_features_statistic_pure.csv"
FILES = (HISTORY, LOG, USERS, VIDEOS, VIDEO_STATISTICS)

USER_LIMIT = 100_000_000
"""User ids are below it: a request's id is `day * USER_LIMIT + user_id`."""
_DOWNLOAD = "download KuaiRand-Pure from https://kuairand.com and name its data folder with --source"
Types = dict[str, type[pl.DataType]]
_EVENT_TYPES: Types = dict.fromkeys(("user_id", "video_id", "date", "time_ms", "is_click", "long_view"), pl.Int64)
_USER_TYPES: Types = {
    "user_id": pl.Int64,
    **dict.fromkeys(USER_IDS, pl.String),
    **dict.fromkeys(("is_video_author", "follow_user_num", "fans_user_num", "register_days"), pl.Float64),
}
_VIDEO_TYPES: Types = {
    "video_id": pl.Int64,
    **dict.fromkeys((*VIDEO_IDS, "upload_dt", "tag"), pl.String),
    **dict.fromkeys(("video_duration", "server_width", "server_height"), pl.Float64),
}
_UNDATED = -1_000  # before every day that has a date
_BEIJING_MS = 8 * 3_600_000


@dataclass(frozen=True)
class KuaiRand:
    users: pl.DataFrame
    """Sorted by `user_id`; elsewhere a user is a row number of this table. Ids are numbered from 0, null: unknown."""
    videos: pl.DataFrame
    """Sorted by `video_id`, likewise; `tags` are lists of numbers, `duration` is log(1 + ms)."""
    statistics: pl.DataFrame | None
    """A row a video, a column a statistic; None where they were left out."""
    exposures: pl.DataFrame
    """user, video, day (from 0; negative: history), time_ms, clicked (null: unknown), long_view; by user, day, time."""
    first_day: date
    counts: dict[str, int]

    @property
    def vocabulary(self) -> dict[str, int]:
        """The number of values of every id feature."""
        tables = ((self.users, USER_IDS), (self.videos, VIDEO_IDS))
        seen = {name: most(table[name]) + 1 for table, names in tables for name in names}
        tags = most(self.videos["tags"].list.max()) + 1
        sizes = {"user_id": self.users.height, "video_id": self.videos.height, "user_last_watched": self.videos.height}
        return seen | sizes | {"tags": tags, "weekday": 7, "hour": 24}

    def history(self) -> History:
        """An empty history over these tables; `advance` fills it."""
        columns = self.exposures.select(
            "user", "video", "day", pl.col("clicked").cast(pl.Float32).fill_null(np.nan), pl.col("long_view") > 0
        )
        no_tag = self.vocabulary["tags"]
        most_tags = max(1, most(self.videos["tags"].list.len()))
        tags_VK = np.full((self.videos.height, most_tags + 1), no_tag)
        tagged = self.videos.select(pl.int_range(pl.len()).alias("video"), "tags").explode("tags").drop_nulls()
        tags_VK[tagged["video"], tagged.select(pl.int_range(pl.len()).over("video")).to_series()] = tagged["tags"]
        return History(
            Events(*(column.to_numpy() for column in columns)),
            users=self.users.height,
            tags_VK=tags_VK,
            author_V=self.videos["author_id"].to_numpy().astype(np.int64),
            duration_V=self.videos["duration"].fill_null(strategy="mean").fill_null(0.0).to_numpy(),
        )


def most(numbers: pl.Series) -> int:
    """The greatest of whole numbers, 0 where there is none; to a type checker Polars may give anything."""
    return cast("int | None", numbers.max()) or 0


def fingerprints(source: Path, *, statistics: bool) -> dict[str, str]:
    """A hash of the content of each file that is read; raises InputError naming the one that is missing."""
    out = {}
    for name in FILES:
        if statistics or name != VIDEO_STATISTICS:
            with open(_there(Path(source) / name), "rb") as file:
                out[name] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return out


def read_kuairand(source: Path, *, statistics: bool) -> KuaiRand:
    """Raises InputError naming the file, and the column or the row, at fault."""
    users = _numbered(_read_facts(source, USERS, _USER_TYPES), USER_IDS)
    videos = _tags(_numbered(_read_facts(source, VIDEOS, _VIDEO_TYPES), VIDEO_IDS))
    videos = videos.with_columns(
        pl.col("upload_dt").str.to_date("%Y-%m-%d", strict=False), pl.col("video_duration").log1p().alias("duration")
    )
    facts = None
    if statistics:
        counted: Types = dict.fromkeys(dict.fromkeys(c for pair in STATISTICS.values() for c in pair if c), pl.Float64)
        facts = _read_facts(source, VIDEO_STATISTICS, {"video_id": pl.Int64, **counted})
        facts = videos.select("video_id").join(facts, on="video_id", how="left", maintain_order="left")
        facts = statistics_frame(facts)
    log = _read(source, LOG, _EVENT_TYPES, keys=tuple(_EVENT_TYPES))
    known = ("user_id", "video_id", "time_ms", "long_view")
    history = _read(source, HISTORY, _EVENT_TYPES, keys=known)
    first_day = _dates(pl.DataFrame({"date": [log["date"].min()]}), source / LOG)[0]
    both = pl.concat([_days(history, first_day, source / HISTORY), _days(log, first_day, source / LOG)])
    exposures, counts = _deduplicate(both, users, videos)
    return KuaiRand(users, videos, facts, exposures, first_day, counts)


def _read(source: Path, file: str, types: Types, *, keys: Sequence[str]) -> pl.DataFrame:
    """The named columns of a CSV file; `keys` may not be empty in any row."""
    path = _there(Path(source) / file)
    try:
        missing = [name for name in types if name not in pl.read_csv(path, n_rows=0).columns]
        if missing:
            raise InputError(f"{path}: no column {', '.join(map(repr, missing))}; {_DOWNLOAD}")
        table = pl.read_csv(path, columns=list(types), schema_overrides=types).select(types.keys())
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}; {_DOWNLOAD}") from error
    if table.is_empty():
        raise InputError(f"{path}: has no rows; {_DOWNLOAD}")
    for name in keys:
        if table[name].null_count():
            raise InputError(f"{path}: {name} is empty in row {table[name].is_null().arg_true()[0] + 1} of the data")
    return table


def _read_facts(source: Path, file: str, types: Types) -> pl.DataFrame:
    """A table of one row a user or a video, sorted by its id, the first column."""
    key = next(iter(types))
    table = _read(source, file, types, keys=(key, *(name for name in types if name == "author_id"))).sort(key)
    if table[key].n_unique() < table.height:
        raise InputError(f"{source / file}: {key} {table.filter(table[key].is_duplicated())[0, key]} has several rows")
    if table[0, key] < 0 or (key == "user_id" and table[-1, key] >= USER_LIMIT):
        raise InputError(f"{source / file}: {key} must be 0 or more, and a user_id below {USER_LIMIT:_}")
    return table


def _there(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: missing; {_DOWNLOAD}")
    return path


def _numbered(table: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The values of each column numbered from 0 in sorted order; null stays null."""
    return table.with_columns(pl.col(name).rank("dense").cast(pl.Int32) - 1 for name in names)


def _tags(videos: pl.DataFrame) -> pl.DataFrame:
    """`tag`, a text of numbers with commas, as lists `tags` of values numbered from 0; no tag: an empty list."""
    lists = videos["tag"].str.split(",").list.eval(pl.element().str.strip_chars())
    values = lists.explode().drop_nulls().unique().sort()
    number = pl.element().replace_strict(values, np.arange(len(values)), return_dtype=pl.Int32)
    return videos.with_columns(lists.list.eval(number).fill_null([]).alias("tags"))


def _dates(table: pl.DataFrame, path: Path) -> pl.Series:
    try:
        return table["date"].cast(pl.String).str.to_date("%Y%m%d")
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: date must be written like 20220425: {str(error).splitlines()[0]}") from error


def _days(events: pl.DataFrame, first_day: date, path: Path) -> pl.DataFrame:
    day = (_dates(events, path) - first_day).dt.total_days().fill_null(_UNDATED)
    return events.drop("date").with_columns(day.alias("day"))


def _deduplicate(
    events: pl.DataFrame, users: pl.DataFrame, videos: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, int]]:
    def numbers(table: pl.DataFrame, key: str, name: str) -> pl.LazyFrame:
        return table.lazy().select(key, pl.int_range(pl.len()).alias(name))

    known = events.lazy().join(numbers(users, "user_id", "user"), on="user_id")
    known = known.join(numbers(videos, "video_id", "video"), on="video_id").collect()
    days = ("user", "video", "day")
    each_day = known.group_by(days).agg(
        pl.col("time_ms").min(), pl.col("is_click").max().alias("clicked"), pl.col("long_view").max()
    )
    each_day = each_day.sort("user", "day", "time_ms", "video")
    once = each_day.unique(["user", "video"], keep="first", maintain_order=True)

    def of_log(table: pl.DataFrame) -> int:
        return table.filter(pl.col("day") >= 0).height

    counts = {
        "rows_of_unknown_user_or_video": events.height - known.height,
        "duplicates_dropped": of_log(known) - of_log(each_day),
        "reexposures_dropped": of_log(each_day) - of_log(once),
        "exposures": of_log(once),
        "history_repeats_dropped": known.height - of_log(known) - once.height + of_log(once),
        "history_exposures": once.height - of_log(once),
    }
    return once, counts


def request_times(exposures: pl.DataFrame, first_day: date) -> tuple[pl.DataFrame, int]:
    """`(requests, moved)`: a row a (user, day); `ts` is its first exposure in Beijing time. By day, then user.

    The release's `date` runs up to an hour ahead of `time_ms`, so an exposure late in the evening has the next day's.
    It is `date` that makes the day; a `ts` before its midnight is moved there. `moved` counts these requests.
    """
    requests = (
        exposures.filter(pl.col("day") >= 0)
        .group_by("user", "day")
        .agg(pl.col("time_ms").min(), pl.len().alias("exposures"), pl.col("clicked").sum().alias("clicks"))
        .sort("day", "user")
    )
    midnight = pl.lit(first_day).cast(pl.Datetime("ms")) + pl.duration(days="day")
    requests = requests.with_columns(
        pl.from_epoch(pl.col("time_ms") + _BEIJING_MS, time_unit="ms").alias("at"), midnight.alias("midnight")
    )
    ts = pl.col("at").clip(pl.col("midnight"), pl.col("midnight") + pl.duration(days=1) - pl.duration(milliseconds=1))
    requests = requests.with_columns(ts.alias("ts"))
    moved = requests.filter(pl.col("ts") != pl.col("at")).height
    return requests.select("user", "day", "ts", "exposures", "clicks"), moved
