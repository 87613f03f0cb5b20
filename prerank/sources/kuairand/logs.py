"""KuaiRand as the logs of a cascade, written day by day.

A request is (user, day). `clicked` is `is_click`; `converted` is `long_view` of a click (a few long views have none).

KuaiRand logs what was shown, not what was ranked. The candidates are made by recall channels fitted on earlier days,
and always hold the exposures, which the production system did recall (`kuairand_history.recall`; the manifest counts
the clicked videos that the channels bring by themselves). A fine list is the exposures and a uniform draw of other
candidates, without positions and scores: the teacher makes those.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from prerank.core.config import Positive, Seed, names
from prerank.core.errors import InputError
from prerank.core.hashing import keyed_uniform, mix
from prerank.logs.schema import Schema
from prerank.sources.kuairand.features import cross_frame, item_frame, kuairand_schema, request_frame, rows_of
from prerank.sources.kuairand.files import ATTRIBUTION, USER_LIMIT, KuaiRand, most, request_times
from prerank.sources.kuairand.history import History, best, recall

EVAL_DAYS = 2
"""The last day is the test day, the one before it the validation day."""
_ROWS_A_GROUP = 250_000


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What to write; samples depend on `seed` and ids alone."""

    candidates: Positive = 2000
    """Candidates of a request; 0: all videos that the user has not watched."""
    fine_list: Positive = 200
    """Items of a fine list; more only where more were exposed."""
    requests_per_day: Positive = 1000
    """Requests sampled from each day; 0: all."""
    eval_requests: Positive = 300
    """Of each of the last two days, so many sampled requests with a click are logged with all their candidates;
    0: none, and no table of candidates."""
    teacher_only: str = ""
    """Features that the teacher alone reads, with commas, such as cross_colong,cross_covisit: what students cannot
    imitate."""
    seed: Seed = 0


class KuaiRandFacts(TypedDict):
    """What the manifest says of the logs."""

    requests: dict[str, int]
    """By date."""
    counts: dict[str, int]
    attribution: str


def _kept_from_students(schema: Schema, chosen: tuple[str, ...]) -> Schema:
    """Raises InputError for what is no feature, or is hand-picked for students."""
    others = {feature.name for feature in schema.features} - set(schema.hand_picked)
    if set(chosen) - others:
        raise InputError(
            f"--teacher-only {','.join(chosen)}: {', '.join(sorted(set(chosen) - others))}: expected features that are "
            f"not hand-picked, of {', '.join(sorted(others))}"
        )
    marked = tuple(replace(f, teacher_only=f.teacher_only or f.name in chosen) for f in schema.features)
    return replace(schema, features=marked)


def write_logs(
    data: KuaiRand, folder: Path, sizes: Sizes, on_day: Callable[[str, int], None] = lambda day, requests: None
) -> KuaiRandFacts:
    """Writes the tables and schema.json into `folder`; returns counts for the manifest. `on_day`: (date, requests)."""
    for name, value in asdict(sizes).items():
        if name in ("candidates", "fine_list", "requests_per_day", "eval_requests") and value < 0:
            raise InputError(f"--{name.replace('_', '-')} {value}: expected 0 or more")
    requests, moved = request_times(data.exposures, data.first_day)
    days = requests["day"].unique().sort().to_list()
    if len(days) <= EVAL_DAYS:
        raise InputError(f"the second log has {len(days)} days; expected {EVAL_DAYS + 1}: training, validation, test")
    most_shown = most(requests["exposures"])
    if 0 < sizes.candidates < most_shown:
        raise InputError(
            f"--candidates {sizes.candidates}: a request has {most_shown} exposures; name more, or 0 for all"
        )
    schema = _kept_from_students(
        kuairand_schema(data.vocabulary, statistics=data.statistics is not None), names(sizes.teacher_only)
    )
    schema.save(folder)
    (folder / "ATTRIBUTION.md").write_text(f"# Attribution\n\n{ATTRIBUTION}\n")
    at_once = max(1, _ROWS_A_GROUP // max(sizes.candidates or data.videos.height, sizes.fine_list))
    history = data.history()
    rows = dict.fromkeys(("fine_lists_rows", "impressions_rows", "candidates_rows"), 0)
    counts = Counter({"clocks_moved_to_the_day": moved, **rows})
    per_day: dict[str, int] = {}
    for day in days:
        history.advance(day)
        date = data.first_day + timedelta(days=day)
        items = item_frame(data.videos, data.statistics, history, date)
        today = _sample(requests.filter(pl.col("day") == day), data, sizes, evaluated=day in days[-EVAL_DAYS:])
        exposures = _exposures_of(today, data)
        with _Tables(folder, f"{date}.parquet", counts) as tables:
            tables.append("impressions", exposures.drop("row", "video"))
            for chunk in today.iter_slices(at_once):
                shown = exposures.join(chunk.select("request_id"), on="request_id", how="semi")
                shown = shown.with_columns(pl.col("row") - chunk[0, "row"])
                for name, rows in _lists(chunk, shown, items, data, history, schema, sizes, counts):
                    tables.append(name, rows)
        counts["requests_with_candidates"] += int(today["evaluated"].sum())
        counts["requests_without_history"] += int((history.user_views[today["user"]] == 0).sum())
        per_day[str(date)] = today.height
        on_day(str(date), today.height)
    return {"requests": per_day, "counts": data.counts | dict(counts), "attribution": ATTRIBUTION}


def _sample(requests: pl.DataFrame, data: KuaiRand, sizes: Sizes, *, evaluated: bool) -> pl.DataFrame:
    """A day's requests to write, by request_id, with `row` (0, 1, ...) and `evaluated`: write all its candidates."""
    ids = requests["day"].to_numpy() * USER_LIMIT + data.users["user_id"].to_numpy()[requests["user"].to_numpy()]
    order, chance = (keyed_uniform(sizes.seed, salt, _key(ids)) for salt in ("request", "evaluated request"))
    requests = requests.with_columns(request_id=ids, order=order, chance=chance)
    requests = requests.sort("order").head(sizes.requests_per_day or requests.height).sort("request_id")
    wanted = requests.filter(pl.col("clicks") > 0).sort("chance").head(sizes.eval_requests if evaluated else 0)
    return requests.select(
        pl.int_range(pl.len()).alias("row"), "request_id", "user", "day", "ts",
        pl.col("request_id").is_in(wanted["request_id"].implode()).alias("evaluated"),
    )  # fmt: skip


def _exposures_of(requests: pl.DataFrame, data: KuaiRand) -> pl.DataFrame:
    """The table `impressions`, with `row` (of `requests`) and `video` (of `data.videos`) beside it."""
    shown = data.exposures.join(requests, on=["user", "day"]).sort("request_id", "time_ms", "video")
    return shown.select(
        "request_id",
        data.videos["video_id"][shown["video"]].alias("item_id"),
        (pl.int_range(pl.len()).over("request_id")).cast(pl.Int32).alias("shown_position"),
        (pl.col("clicked") > 0).alias("clicked"),
        ((pl.col("clicked") > 0) & (pl.col("long_view") > 0)).alias("converted"),
        "row",
        "video",
    )


def _lists(
    requests: pl.DataFrame,
    shown: pl.DataFrame,
    items: pl.DataFrame,
    data: KuaiRand,
    history: History,
    schema: Schema,
    sizes: Sizes,
    counts: Counter[str],
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Names of tables and their rows: the fine lists of some requests, and the candidates of those to be evaluated."""
    user = requests["user"].to_numpy()
    past = history.of(user)
    exposed_UV, clicked_UV = (np.zeros((len(user), data.videos.height), bool) for _ in range(2))
    exposed_UV[shown["row"], shown["video"]] = True
    clicked_UV[shown["row"], shown["video"]] = shown["clicked"]
    keys = _key(requests["request_id"].to_numpy())[:, None], _key(data.videos["video_id"].to_numpy())
    chance_UV, order_UV = (
        keyed_uniform(sizes.seed, salt, *keys).astype(np.float32) for salt in ("recall", "fine list")
    )
    recalled_UV, candidates_UV = recall(history, past, exposed_UV, chance_UV, sizes.candidates)
    counts["clicks"] += int(clicked_UV.sum())
    counts["clicks_recalled_without_the_exposures"] += int((clicked_UV & recalled_UV).sum())
    drawn_UV = np.where(candidates_UV, order_UV + exposed_UV, np.float32(-np.inf))
    evaluated_UV = candidates_UV & requests["evaluated"].to_numpy()[:, None]
    of_request = request_frame(data.users, history, user, requests["ts"])
    for name, wanted_UV in (("fine_lists", best(drawn_UV, sizes.fine_list) | exposed_UV), ("candidates", evaluated_UV)):
        row, video = np.nonzero(wanted_UV)
        crosses = cross_frame(past, history, user, row, video)
        features = rows_of(schema, of_request[row], items[video], crosses)
        ids = requests[row].select("request_id", data.videos["video_id"][video].alias("item_id"), "ts")
        yield name, ids.hstack(features)


def _key(ids: np.ndarray) -> np.ndarray:
    return mix(ids.astype(np.uint64))


class _Tables:
    """The Parquet files of a day, a row group of whole requests at a time; a table without rows has no file."""

    def __init__(self, folder: Path, name: str, counts: Counter[str]):
        self.folder, self.name, self.counts = folder, name, counts
        self.writers: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> "_Tables":
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self.writers.values():
            writer.close()

    def append(self, table: str, rows: pl.DataFrame) -> None:
        if rows.is_empty():
            return
        arrow = rows.to_arrow()
        if table not in self.writers:
            (self.folder / table).mkdir(exist_ok=True)
            self.writers[table] = pq.ParquetWriter(self.folder / table / self.name, arrow.schema, compression="zstd")
        self.writers[table].write_table(arrow, row_group_size=len(arrow))
        self.counts[f"{table}_rows"] += len(arrow)
