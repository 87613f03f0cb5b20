"""KuaiRand: made-up files of the release's shape against plain loops; the real files where they are at hand."""

import csv
import json
import os
from collections import Counter
from datetime import date, datetime, timedelta
from math import log1p, sqrt
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from prerank.core.errors import InputError
from prerank.logs.folder import open_logs
from prerank.logs.schema import load_schema
from prerank.sources.kuairand.features import STATISTICS, USER_IDS, VIDEO_IDS
from prerank.sources.kuairand.files import HISTORY, LOG, USERS, VIDEO_STATISTICS, VIDEOS, read_kuairand
from prerank.sources.kuairand.history import best
from prerank.sources.kuairand.logs import Sizes, write_logs
from workflows.import_kuairand import ImportKuaiRand, main

pytestmark = pytest.mark.slow  # writes whole logs

FIRST = date(2022, 4, 25)
REAL = Path(os.environ.get("KUAIRAND_DIR", Path(__file__).parents[3] / "shared/data/kuairand-pure"))
SIZES = Sizes(candidates=20, fine_list=12, requests_per_day=0, eval_requests=4)


def event(user, video, day, second=0, click=0, long=0):
    midday = datetime(2022, 4, 25, 4) + timedelta(days=day, seconds=second)  # 12:00 in Beijing
    ms = int((midday - datetime(1970, 1, 1)).total_seconds() * 1000)
    return [user, video, f"{FIRST + timedelta(days=day):%Y%m%d}", ms, click, long]


def random_events(seed=0, users=14, videos=40, days=5):
    rng = np.random.default_rng(seed)
    return [
        event(int(u), int(v), day, second, int(rng.random() < 0.5), int(rng.random() < 0.4))
        for day in range(days)
        for second, (u, v) in enumerate(zip(rng.integers(0, users, 40), rng.integers(0, videos, 40), strict=True))
    ]


def random_history(seed=1, users=14, videos=40):
    rng = np.random.default_rng(seed)
    return [
        [u, int(v), "", n, "", int(rng.random() < 0.4)]
        for u in range(1, users)
        for n, v in enumerate(rng.integers(0, videos, 8))
    ]


def write_release(folder, events, history, users=14, videos=40):
    """CSV files of the columns that are read, and one more. Video v: author v // 2, tag v % 5 and, if odd, 7."""
    rng = np.random.default_rng(5)
    folder.mkdir(exist_ok=True)

    def write(name, header, rows):
        with open(folder / name, "w", newline="") as file:
            csv.writer(file).writerows([[*header, "unread"], *([*row, "x"] for row in rows)])

    columns = ["user_id", "video_id", "date", "time_ms", "is_click", "long_view"]
    write(LOG, columns, events)
    write(HISTORY, columns, history)
    numbers = ["is_video_author", "follow_user_num", "fans_user_num", "register_days"]
    write(
        USERS,
        ["user_id", *USER_IDS, *numbers],
        [[u, "active", *[u % 3] * 5, 1, 10, 20, 30] for u in reversed(range(users))],
    )
    write(
        VIDEOS,
        ["video_id", *VIDEO_IDS, "upload_dt", "video_duration", "server_width", "server_height", "tag"],
        [
            [v, v // 2, "Web", "" if v == 3 else 9.0, "2022-04-10", "" if v == 4 else 1000.0 * v, 720, 1280, tag]
            for v in range(videos)
            for tag in ["" if v == 5 else f"{v % 5},7" if v % 2 else f"{v % 5}"]
        ],
    )
    counts = sorted({c for pair in STATISTICS.values() for c in pair if c})
    write(
        VIDEO_STATISTICS, ["video_id", *counts], [[v, *rng.random(len(counts)).round(4) * 100] for v in range(videos)]
    )
    return folder


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("kuairand"), random_events(), random_history())


def logs_of(source, folder, sizes=SIZES, statistics=True):
    folder.mkdir()
    extra = write_logs(read_kuairand(source, statistics=statistics), folder, sizes)
    return extra, {name: pl.read_parquet(folder / name) for name in ("fine_lists", "impressions", "candidates")}


@pytest.fixture(scope="module")
def logs(release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kuairand_logs") / "logs"
    return folder, *logs_of(release, folder)


def test_repeats_and_reexposures(tmp_path):
    events = [
        event(1, 10, 0, 5, click=0, long=1),  # a long view without a click is not converted
        event(1, 11, 0, 3, click=0),
        event(1, 11, 0, 9, click=1, long=1),  # the repeat makes it clicked; it was shown first, at second 3
        event(2, 12, 1, 0, click=1),
        event(1, 10, 2, 0, click=1),  # watched two days before
        event(1, 13, 2, 4, click=1, long=1),
        event(2, 20, 2, 1, click=1),  # watched in the history
        event(3, 14, 3, 1, click=1),
    ]
    history = [[2, 20, "", 1, "", 1], [2, 20, "", 2, "", 0], [1, 99, "", 1, "", 0]]
    extra, tables = logs_of(write_release(tmp_path / "in", events, history), tmp_path / "out")
    assert tables["impressions"].rows() == [
        (1, 11, 0, True, True),
        (1, 10, 1, False, False),
        (100_000_002, 12, 0, True, False),
        (200_000_001, 13, 0, True, True),
        (300_000_003, 14, 0, True, False),
    ]
    counts = extra["counts"]
    assert {key: counts[key] for key in list(counts)[:6]} == {
        "rows_of_unknown_user_or_video": 1,
        "duplicates_dropped": 1,
        "reexposures_dropped": 2,
        "exposures": 5,
        "history_repeats_dropped": 1,
        "history_exposures": 1,
    }
    assert counts["requests_without_history"] == 2  # user 1 on day 0, user 3 on day 3
    assert set(tables["candidates"]["request_id"]) == {200_000_001, 300_000_003}


def brute_force(events, history, day):
    """What is known before `day`: the videos of each user in order with their long views, once each."""
    seen = {}
    dated = [(e[0], -1, e[3], e[1], e[5]) for e in history]
    dated += [(e[0], (datetime.strptime(e[2], "%Y%m%d").date() - FIRST).days, e[3], e[1], e[5]) for e in events]
    for user, on, _, video, long in sorted(dated):
        if on < day:
            known = seen.setdefault(user, {})
            if video not in known or known[video][0] == on:
                known[video] = (on, max(long, known.get(video, (on, 0))[1]))
    return {user: [(video, long) for video, (_, long) in known.items()] for user, known in seen.items()}


@pytest.mark.parametrize("day", [0, 1, 4])
def test_features_by_plain_loops(logs, day):
    _, _, tables = logs
    past = brute_force(random_events(), random_history(), day)
    views, longs, together, long_together = Counter(), Counter(), Counter(), Counter()
    for videos in past.values():
        for i, (a, a_long) in enumerate(videos):
            views[a] += 1
            longs[a] += a_long
            for b, b_long in videos[:i]:
                together[a, b] += 1
                together[b, a] += 1
                if a_long and b_long:
                    long_together[a, b] += 1
                    long_together[b, a] += 1

    def tags(v):
        return set() if v == 5 else {v % 5, 7} if v % 2 else {v % 5}

    rows = tables["fine_lists"].filter(pl.col("request_id") // 100_000_000 == day)
    assert rows.height >= 100
    for row in rows.iter_rows(named=True):
        user, v = row["request_id"] % 100_000_000, row["item_id"]
        mine = past.get(user, [])
        assert v not in [w for w, _ in mine]
        on_tags = [sum(t in tags(w) for w, _ in mine) for t in tags(v)]
        colong = [long_together[v, w] / sqrt((longs[v] + 10) * (longs[w] + 10)) for w, long in mine if long]
        covisit = [together[v, w] / sqrt((views[v] + 10) * (views[w] + 10)) for w, _ in mine]
        expected = {
            "user_id": user,
            "user_views": log1p(len(mine)),
            "user_last_watched": [w for w, _ in mine][-20:],
            "item_views": log1p(views[v]),
            "item_long_rate": (longs[v] + 20 * longs.total() / views.total()) / (views[v] + 20),
            "cross_tag_views": log1p(sum(on_tags) / max(1, len(on_tags))),
            "cross_author_longs": log1p(sum(long for w, long in mine if w // 2 == v // 2)),
            "cross_covisit": log1p(sum(covisit)),
            "cross_covisit_recent": log1p(sum(covisit[-10:])),
            "cross_colong": log1p(sum(colong)),
            "cross_colong_best": log1p(max(colong, default=0)),
            "age_days": 15 + day,
            "weekday": day,  # 2022-04-25 was a Monday
            "hour": 12,
        }
        got = {name: row[name] for name in expected}
        assert got.pop("user_last_watched") == expected.pop("user_last_watched")
        assert got == pytest.approx(expected, rel=1e-5)


def test_a_later_event_changes_no_feature(logs, tmp_path):
    _, _, before = logs
    changed = random_events()
    for row in changed:
        if row[2] >= "20220428":  # day 3: labels of its exposures change, and more of what was shown later that day
            row[4], row[5] = 1 - row[4], 1 - row[5]
        if row[2] >= "20220429":
            row[1] = (row[1] + 1) % 40
    _, after = logs_of(write_release(tmp_path / "in", changed, random_history()), tmp_path / "out")

    def of_day(tables, day):
        return tables["fine_lists"].filter(pl.col("request_id") // 100_000_000 == day)

    for day in range(4):
        assert of_day(before, day).equals(of_day(after, day)), day
    assert not of_day(before, 4).equals(of_day(after, 4))


def test_candidates_and_fine_lists(logs):
    _, extra, tables = logs
    lists, shown, candidates = (tables[name] for name in ("fine_lists", "impressions", "candidates"))
    assert "fine_position" not in lists.columns and "fine_score" not in lists.columns
    keys = ["request_id", "item_id"]
    assert not lists.select(keys).is_duplicated().any()
    assert shown.join(lists, on=keys, how="anti").is_empty()
    assert (lists.group_by("request_id").len()["len"] == 12).all()
    assert (candidates.group_by("request_id").len()["len"] == 20).all()
    clicked = shown.filter("clicked")["request_id"].unique()
    per_day = (
        candidates["request_id"]
        .unique()
        .to_frame()
        .group_by(pl.col("request_id") // 100_000_000)
        .len()
        .sort("request_id")
    )
    assert per_day.rows() == [(3, 4), (4, 4)]
    assert set(candidates["request_id"]) <= set(clicked)
    evaluated = lists.join(candidates.select("request_id").unique(), on="request_id", how="semi")
    assert evaluated.sort(keys).equals(candidates.join(evaluated, on=keys, how="semi").sort(keys))
    assert extra["counts"]["clicks"] == shown["clicked"].sum()


def test_all_unwatched_videos_are_candidates(release, tmp_path):
    extra, tables = logs_of(
        release, tmp_path / "out", Sizes(candidates=0, fine_list=5, requests_per_day=3, eval_requests=2)
    )
    past = brute_force(random_events(), random_history(), 4)
    of_test_day = tables["candidates"].filter(pl.col("request_id") >= 400_000_000)
    for (request,), rows in of_test_day.group_by("request_id"):
        assert sorted(rows["item_id"]) == sorted(set(range(40)) - {w for w, _ in past[request % 100_000_000]})
    assert extra["requests"] == {str(FIRST + timedelta(days=day)): 3 for day in range(5)}


def test_files_hold_whole_requests_in_order(release, tmp_path, monkeypatch):
    monkeypatch.setattr("prerank.sources.kuairand.logs._ROWS_A_GROUP", 45)
    logs_of(release, tmp_path / "out")
    for table in ("fine_lists", "candidates"):
        last = -1
        for file in sorted((tmp_path / "out" / table).iterdir()):
            parquet = pq.ParquetFile(file)
            assert parquet.num_row_groups > 1
            for group in range(parquet.num_row_groups):
                ids = parquet.read_row_group(group, columns=["request_id"])["request_id"].to_numpy()
                assert len(ids) <= 45 and (np.diff(ids) >= 0).all() and ids[0] > last
                last = ids[-1]


def test_chunks_change_nothing(logs, release, tmp_path, monkeypatch):
    monkeypatch.setattr("prerank.sources.kuairand.logs._ROWS_A_GROUP", 45)
    _, tables = logs_of(release, tmp_path / "out")
    for name, table in logs[2].items():
        assert table.equals(tables[name])


def test_schema(logs, release, tmp_path):
    folder, _, tables = logs
    schema = load_schema(folder)
    assert len(schema.features) >= 35 and 8 <= len(schema.hand_picked) <= 14
    assert {feature.kind for feature in schema.features} == {"dense", "id", "ids"}
    for feature in schema.features:
        values = tables["candidates"][feature.name]
        if feature.kind == "dense":
            assert values.dtype == pl.Float32 and not values.is_infinite().any()
        else:
            values = (values.explode() if feature.kind == "ids" else values).drop_nulls()
            assert values.is_between(0, feature.size - 1).all(), feature.name
    logs_of(release, tmp_path / "out", statistics=False)
    bare = load_schema(tmp_path / "out")
    assert set(schema.names) - set(bare.names) == set(STATISTICS)
    assert schema.hand_picked == bare.hand_picked, "students are the same with and without them"
    picked = [schema.by_name[name] for name in bare.hand_picked]
    assert not set(bare.hand_picked) & set(STATISTICS)
    assert sum(feature.fetch_us for feature in picked) < sum(feature.fetch_us for feature in bare.features) / 8


def test_a_late_evening_belongs_to_the_day_of_its_date(tmp_path):
    events = [event(1, v, day, 60, click=1) for day, v in enumerate((10, 11, 12))]
    events[1][3] -= 13 * 3_600_000  # 23:01 of the day before
    extra, tables = logs_of(write_release(tmp_path / "in", events, random_history()), tmp_path / "out")
    assert tables["fine_lists"]["ts"].unique().sort().to_list() == [
        datetime(2022, 4, 25, 12, 1),
        datetime(2022, 4, 26),
        datetime(2022, 4, 27, 12, 1),
    ]
    assert extra["counts"]["clocks_moved_to_the_day"] == 1


def test_the_workflow_publishes_once(release, tmp_path, capsys):
    config = ImportKuaiRand(source=release, out=tmp_path / "L", candidates=20, fine_list=12, eval_requests=4)
    main(config)
    manifest = json.loads((tmp_path / "L" / "manifest.json").read_text())
    assert manifest["kind"] == "logs" and "CC BY-SA 4.0" in manifest["attribution"]
    assert "Gao" in (tmp_path / "L" / "ATTRIBUTION.md").read_text()
    main(config)
    assert capsys.readouterr().out.endswith("already done\n")
    assert not set(load_schema(tmp_path / "L").names) & set(STATISTICS), "they look ahead"


def test_what_only_the_teacher_reads_is_marked_and_changes_no_row(release, tmp_path):
    chosen = ("cross_colong", "cross_covisit")
    for name, said in (("all", ""), ("marked", ",".join(chosen))):
        main(ImportKuaiRand(source=release, out=tmp_path / name, candidates=20, fine_list=12, teacher_only=said))
    assert "teacher_only" not in json.loads((tmp_path / "all" / "manifest.json").read_text())["config"]
    marked = {f.name for f in load_schema(tmp_path / "marked").features if f.teacher_only}
    assert marked == set(chosen) and not any(f.teacher_only for f in load_schema(tmp_path / "all").features)
    for path in (tmp_path / "all").glob("*/*.parquet"):
        assert path.read_bytes() == (tmp_path / "marked" / path.relative_to(tmp_path / "all")).read_bytes()
    for name in ("age_days", "none"):  # hand-picked, and not there
        with pytest.raises(InputError, match=f"--teacher-only {name}: {name}: expected features that are not hand"):
            main(ImportKuaiRand(source=release, out=tmp_path / "bad", candidates=20, teacher_only=name))


def test_without_requests_to_evaluate(release, tmp_path, capsys):
    extra = main(ImportKuaiRand(source=release, out=tmp_path / "L", candidates=20, fine_list=12, eval_requests=0))
    assert extra["counts"]["candidates_rows"] == 0 and "0 of candidates" in capsys.readouterr().out
    assert not open_logs(tmp_path / "L").has_candidates


@pytest.mark.parametrize("name", [LOG, HISTORY, USERS, VIDEOS, VIDEO_STATISTICS])
def test_what_is_missing_is_named(release, tmp_path, name):
    source = write_release(tmp_path / "in", random_events(), random_history())
    key = "user_id" if name == USERS else "video_id"
    (source / name).write_text((source / name).read_text().replace(key, "other", 1))
    with pytest.raises(InputError, match=rf"{name}: no column '{key}'.*kuairand\.com"):
        read_kuairand(source, statistics=True)
    (source / name).write_text("")
    with pytest.raises(InputError, match=name):
        read_kuairand(source, statistics=True)
    (source / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: missing.*kuairand\.com"):
        main(ImportKuaiRand(source=source, out=tmp_path / "L", statistics=True))
    assert not (tmp_path / "L").exists()


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [(2, "2022-04-25", "date"), (2, "20221325", "date"), (4, "", "is_click is empty in row 8"), (0, "u7", "u7")],
)
def test_a_bad_row_is_named(tmp_path, column, value, says):
    events = random_events()
    events[7][column] = value
    with pytest.raises(InputError, match=f"{LOG}.*{says}"):
        read_kuairand(write_release(tmp_path / "in", events, random_history()), statistics=True)


def test_bad_sizes(release, tmp_path):
    data = read_kuairand(release, statistics=False)
    with pytest.raises(InputError, match="--candidates 2: a request has"):
        write_logs(data, tmp_path, Sizes(candidates=2))
    with pytest.raises(InputError, match="--eval-requests -1"):
        write_logs(data, tmp_path, Sizes(eval_requests=-1))
    two_days = read_kuairand(write_release(tmp_path / "in", random_events(days=2), random_history()), statistics=False)
    with pytest.raises(InputError, match="2 days; expected 3"):
        write_logs(two_days, tmp_path, SIZES)


def test_best_takes_the_first_of_equals():
    rng = np.random.default_rng(0)
    for n in (0, 1, 3, 7, 9):
        scores = rng.integers(0, 4, (50, 8)).astype(np.float32)
        scores[scores == 0] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        expected = np.zeros(scores.shape, bool)
        np.put_along_axis(expected, order, True, axis=1)
        assert (best(scores, n) == (expected & (scores > -np.inf))).all()


@pytest.mark.skipif(not (REAL / LOG).is_file(), reason="KuaiRand-Pure is not here: set KUAIRAND_DIR")
def test_the_real_files(tmp_path):
    extra, tables = logs_of(REAL, tmp_path / "out", Sizes(requests_per_day=40, eval_requests=10))
    counts = extra["counts"]
    log = pl.read_csv(REAL / LOG, columns=["user_id", "video_id", "date"])
    assert counts["duplicates_dropped"] == log.height - log.unique().height
    assert counts["exposures"] + counts["reexposures_dropped"] == log.unique().height
    assert counts["candidates_rows"] == 2 * 10 * 2000
    assert counts["clicks_recalled_without_the_exposures"] > 0.7 * counts["clicks"]  # at random: 2000 of 7,583 are 0.26
    assert (tables["impressions"]["clicked"].mean() > 0.3) and tables["candidates"]["user_id"].null_count() == 0
