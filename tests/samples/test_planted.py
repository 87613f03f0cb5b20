"""Logs with every fault planted at once: all that a build counts, reckoned again from the files row by row.

Polars reads the files; the rest is loops over dictionaries that follow the README's rules, with no code of the product.
Draws take all items of a list, and the sample all rows, so that no hash decides what is counted.
"""

import contextlib
import copy
import io
import json
import math
import re
import statistics
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from logs_fixture import SCHEMA, write_logs
from samples_fixture import build, rows_of

from prerank.samples.draw import DrawConfig

pytestmark = pytest.mark.slow  # builds from logs in which everything is planted

ALL = 10_000
DRAW = DrawConfig(
    tail_negatives=ALL, rank_items=ALL, bin_items=ALL, uniform_items=ALL, uniform_ratio=0.0, max_pairs=10**6
)
DAY = timedelta(days=1)
DECLARED = {
    "user_age": {"missing": [-1]},
    "quality": {"missing": [-7, 0.5]},
    "brand": {"missing": [3]},
    "query_city": {"missing": ["city-4", ""]},
    "item_tags": {"hash": True, "missing": [2]},
}


def features():
    return [feature | DECLARED.get(feature["name"], {}) for feature in SCHEMA["features"]]


def planted(folder):
    """Logs of 160 requests on 4 days with a few of every fault; tables as lists of rows."""
    write_logs(folder, requests=160, items_per_list=16, files=3, days=4)
    raw = copy.deepcopy(SCHEMA)
    raw["features"] = features()
    (folder / "schema.json").write_text(json.dumps(raw))
    rng = np.random.default_rng(5)
    tables = {}
    for name in ("fine_lists", "candidates", "impressions"):
        frame = pl.concat([pl.read_parquet(path) for path in sorted((folder / name).glob("*.parquet"))])
        tables[name] = frame.to_dicts()
        for path in (folder / name).glob("*.parquet"):
            path.unlink()
        rows = tables[name]
        if name == "impressions":
            spoil_impressions(rows, rng)
        else:
            spoil_values(rows, rng)
            spoil_lists(rows, rng) if name == "fine_lists" else spoil_candidates(rows, rng)
        rng.shuffle(rows)
        for part in range(3):
            pl.DataFrame(rows[part::3], schema=frame.schema).write_parquet(folder / name / f"{part}.parquet")
    return tables


def some(rows, rng, share):
    return [row for row in rows if rng.random() < share]


def spoil_values(rows, rng):
    """Values that are missing, unknown, absurd, or stand for a missing one; features of the request that vary."""
    for name in ("price", "match", "secret"):
        for row in some(rows, rng, 0.03):
            row[name] = [None, math.nan, math.inf, -math.inf][rng.integers(4)] if name != "price" else None
    rows[11]["match"], rows[40]["match"], rows[3]["item_vector"] = 1e30, -3e38, [1e20, *rows[3]["item_vector"][1:]]
    for row in some(rows, rng, 0.04):
        row["secret"] = -999.0
    for row in some(rows, rng, 0.1):
        row["quality"] = [[-7.0, 1.0], [0.5, -7.0], [None, 0.25], None][rng.integers(4)]
    for row in some(rows, rng, 0.1):
        row["brand"] = [None, -1, -(2**40), 2**33, 12, 13, 3][rng.integers(7)]
    for row in rows:
        row["item_tags"] = [int(tag) * 0x1234567890ABCDE % 2**63 - 2**62 for tag in row["item_tags"]]
    for row in some(rows, rng, 0.1):
        row["item_tags"] = [[2, 5], [-(2**63)], [-(2**63) + 1, 7], [None, 2], None][rng.integers(5)]
    of_request = defaultdict(list)
    for row in rows:
        of_request[row["request_id"]].append(row)
    for request, mine in of_request.items():
        if request % 5 == 0:
            for row in mine:
                row["user_age"] = [None, math.nan][rng.integers(2)] if request % 2 else -1.0  # the same to a network
        if request % 11 == 0:
            mine[3]["hour"] += 1
        if request % 13 == 0:
            mine[0]["user_tags"] = [(tag + 1) % 16 for tag in mine[0]["user_tags"]]
        if request % 17 == 0:
            for row in mine[::2]:
                row["query_city"] = "another"
        if request % 19 == 0:
            mine[5]["user_vector"] = [0.0, 0.0, 1.0]


def spoil_lists(rows, rng):
    """Faults of whole lists in a few requests each."""
    of_request = defaultdict(list)
    for row in rows:
        of_request[row["request_id"]].append(row)
    requests = [of_request[key] for key in sorted(of_request)]
    for mine in requests[1::20]:  # the same id on the next day
        for row in mine[::2]:
            row["ts"] += timedelta(hours=6)
    for mine in requests[2::20]:  # from 1
        for row in mine:
            row["fine_position"] += 1
    for mine in requests[3::20]:  # with gaps
        for row in mine:
            row["fine_position"] = row["fine_position"] * 3 + (row["fine_position"] > 4)
    for mine in requests[4::20]:
        mine[2]["fine_position"] = mine[3]["fine_position"]
    for mine in requests[5::20]:
        mine[2]["fine_position"] = [None, -1][rng.integers(2)]
    for mine in requests[6::15]:  # upside down
        for row in mine:
            row["fine_score"] = -row["fine_score"]
    for mine in requests[7::20]:
        mine[1]["fine_score"], mine[4]["fine_score"], mine[5]["fine_score"] = None, math.nan, 1e300
    for mine in requests[11::40]:
        for row in mine:
            row["fine_score"] = 0.25
    for mine in requests[8::20]:
        mine[1]["item_id"] = None
        mine[6]["ts"] = None
    for mine in requests[9::20]:  # logged twice, and once more in another place
        rows += [dict(mine[0]), dict(mine[0], fine_score=-50.0), dict(mine[3], fine_position=len(mine))]
    for mine in requests[10::40]:
        for row in mine[1:]:
            row["request_id"] = None
    for mine in requests[12::40]:
        for row in mine:
            row["ts"] = row["ts"] - timedelta(minutes=int(rng.integers(60)))


def spoil_candidates(rows, rng):
    of_request = defaultdict(list)
    for row in rows:
        of_request[row["request_id"]].append(row)
    requests = [of_request[key] for key in sorted(of_request)]
    for mine in requests[1::10]:
        rows += [dict(mine[0]), dict(mine[0])]
        mine[4]["item_id"] = None
    for mine in requests[2::10]:
        for row in mine[::2]:
            row["ts"] += timedelta(hours=7)
    for mine in requests[3::10]:
        mine[0]["item_id"] = "elsewhere"


def spoil_impressions(rows, rng):
    for row in some(rows, rng, 0.03):
        row["clicked"] = None
    for row in some(rows, rng, 0.03):
        row["converted"] = None
    for row in rows[3::40]:
        row |= {"item_id": "nowhere", "clicked": True}
    for row in some(rows, rng, 0.02):
        row["item_id"] = None
    for row in some(rows, rng, 0.02):
        row["request_id"] = [None, 9_999][rng.integers(2)]
    rows += [dict(row) for row in some(rows, rng, 0.02)]
    for row in rows[5::30]:
        row["converted"] = True
    unseen = sorted({row["request_id"] for row in rows if row["request_id"]})[13::30]
    rows[:] = [row for row in rows if row["request_id"] not in unseen]


class Count(dict):
    """By reason, `{"rows", "requests"}` of what is added; reasons without a row are left out."""

    def add(self, reason, requests, rows=None):
        requests = list(requests)
        if rows or (rows is None and requests):
            known = {request for request in requests if request is not None}
            self[reason] = {"rows": len(requests) if rows is None else rows, "requests": len(known)}


def bad(x):
    return x is None or not math.isfinite(x) or abs(x) > np.finfo(np.float32).max


def by_request(rows):
    out = defaultdict(list)
    for row in rows:
        if row["request_id"] is not None:
            out[row["request_id"]].append(row)
    return dict(sorted(out.items()))


def lists_of(rows, positions):
    """The kept rows of each request, best first, and what was dropped and noted on the way."""
    found = defaultdict(list)
    found["null_key"] = [None for row in rows if row["request_id"] is None]
    gaps, kept = [], {}
    for request, mine in by_request(rows).items():
        times = [row["ts"] for row in mine if row["ts"]]
        if times and max(times) - min(times) >= timedelta(hours=6):
            found["request_spans_hours"] += [request] * len(mine)
            continue

        def place(row):
            return -1 if not positions or row["fine_position"] is None else row["fine_position"]

        def preferred(row):
            worth = -math.inf if bad(row.get("fine_score")) else row["fine_score"]
            return place(row), row["item_id"] is None or row["ts"] is None, -worth

        first, copies = {}, []
        for row in sorted(mine, key=preferred):
            if (row["item_id"], place(row)) in first:
                copies.append(row)
            else:
                first[row["item_id"], place(row)] = row
        once, with_gaps = list(first.values()), False
        if positions:
            places = [place(row) for row in once]
            if min(places) < 0 or len(set(places)) < len(places):
                found["positions_not_a_permutation"] += [request] * len(once)
                found["null_key"] += [request for row in copies if row["item_id"] is None or row["ts"] is None]
                found["duplicate_item"] += [request for row in copies if row["item_id"] and row["ts"]]
                continue
            with_gaps = set(places) != set(range(len(places)))
        found["null_key"] += [request for row in mine if row["item_id"] is None or row["ts"] is None]
        found["duplicate_item"] += [request for row in copies if row["item_id"] and row["ts"]]
        best = {}
        for row in sorted((row for row in once if row["item_id"] and row["ts"]), key=place):
            if row["item_id"] in best:
                found["duplicate_item"].append(request)
            else:
                best[row["item_id"]] = row
        if len(best) == 1:
            found["single_item"].append(request)
            continue
        gaps += [request] * len(best) * with_gaps
        if best:
            kept[request] = list(best.values())
    dropped, noted = Count(), Count()
    for reason, requests in found.items():
        dropped.add(reason, requests)
    noted.add("positions_with_gaps", gaps)
    return kept, dropped, noted


def label(kept, impressions, known, dropped, noted, *, sampled):
    """Sets `exposed`, `clicked` and `converted` of the kept rows, and counts."""
    usable = [row for row in impressions if row["request_id"] is not None and row["item_id"] is not None]
    dropped.add("impression_null_key", [None] * (len(impressions) - len(usable)))
    dropped.add("impression_null_click", [row["request_id"] for row in usable if row["clicked"] is None])
    usable = [row for row in usable if row["clicked"] is not None]
    if not sampled:
        dropped.add("impression_without_list", [row["request_id"] for row in usable if row["request_id"] not in known])
    places = {(request, row["item_id"]): row for request, mine in kept.items() for row in mine}
    for row in places.values():
        row |= {"exposed": False, "shown": 0, "clicked": False, "converted": False}
    lost, outside, unsaid, again = [], set(), [], 0
    for row in (row for row in usable if row["request_id"] in kept):
        key = row["request_id"], row["item_id"]
        if key not in places:
            lost.append(row["request_id"])
            outside |= {key} if row["clicked"] else set()
            continue
        again += places[key]["exposed"]
        places[key]["exposed"] = True
        places[key]["clicked"] |= row["clicked"]
        places[key]["converted"] |= bool(row["converted"])
        unsaid += [row["request_id"]] * (row["converted"] is None)
    dropped.add("impression_not_in_list", lost)
    noted.add("duplicate_impression", [None] * again)
    noted.add("converted_null", unsaid)
    if sampled:
        noted.add("clicks_outside_candidates", [request for request, _ in outside])
    quiet = [request for request, mine in kept.items() if not any(row["clicked"] for row in mine)]
    noted.add("without_click", quiet, sum(len(kept[request]) for request in quiet))
    if not sampled:
        unseen = [request for request, mine in kept.items() if not any(row["exposed"] for row in mine)]
        noted.add("without_impression", unseen, sum(len(kept[request]) for request in unseen))
    alone = [request for (request, _), row in places.items() if row["converted"] and not row["clicked"]]
    noted.add("converted_without_click", alone)


def value_of(feature, x):
    """What a network is told of one number or id: itself, or why it is told nothing."""
    if feature["kind"] in ("id", "ids"):
        if x is not None and x in feature.get("missing", ()):
            return "declared_missing"
        if x is None or (feature.get("hash") and x in (-(2**63), -(2**63) + 1)):
            return "unknown_id"
        known = isinstance(x, str) or feature.get("hash") or 0 <= x < feature["size"]
        return x if known else "unknown_id"
    if bad(x):
        return "not_finite"
    return "declared_missing" if np.float32(x) in np.float32(feature.get("missing", [])) else float(np.float32(x))


def values_of(feature, logged):
    if feature["kind"] == "ids":
        return [value_of(feature, x) for x in logged or []]
    size = feature.get("size", 1)
    if feature["kind"] == "embedding" or (feature["kind"] == "dense" and size > 1):
        return [value_of(feature, x) for x in (logged or [None] * size)]
    return [value_of(feature, logged)]


def of_features(kept):
    """`features`, `elements` and `requests` of the lists, and all values by feature, each vector a list."""
    found = {name: Counter() for name in ("not_finite", "unknown_id", "declared_missing", "varies_within_request")}
    elements, values = Counter(), defaultdict(list)
    for feature in features():
        name = feature["name"]
        for mine in kept.values():
            read = [values_of(feature, row[name]) for row in mine]
            if feature["side"] in ("user", "query", "context"):
                found["varies_within_request"][name] += any(one != read[0] for one in read)
                read = read[:1]
            for one in read:
                values[name].append(one)
                elements[name] += len(one)
                for x in one:
                    if isinstance(x, str) and x in found:
                        found[x][name] += 1
    counts = {fault: {name: n for name, n in of.items() if n} for fault, of in found.items()}
    return {"features": counts, "elements": dict(elements), "requests": len(kept)}, values


def spread_of(numbers):
    """Median, and how far from it most lie, as `prerank.logs.outliers` has it."""
    numbers = sorted(numbers)
    last = len(numbers) - 1
    median = numbers[last // 2]
    apart = sorted(abs(x - median) for x in numbers if x != median)
    tails = numbers[math.floor(0.99 * last)] - median, median - numbers[math.ceil(0.01 * last)]
    return median, max(*tails, apart[math.floor(0.9 * (len(apart) - 1))])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    tables = planted(folder / "logs")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        build(folder / "logs", folder / "samples", draw=DRAW, max_dropped=0.6, val_requests=1000, blocks=1)
    manifest = json.loads((folder / "samples/manifest.json").read_text())
    return tables, manifest, folder / "samples", said.getvalue()


@pytest.fixture(scope="module")
def reckoned(made):
    """Kept lists of the days of the training and of the validation, and the counts of the two tables."""
    tables, manifest, _, _ = made
    val_from, test_from = (datetime.fromisoformat(manifest["split"][name]) for name in ("val_from", "test_from"))
    rows, shown = copy.deepcopy(tables["fine_lists"]), tables["impressions"]
    kept, dropped, noted = lists_of(rows, positions=True)
    label(kept, shown, by_request(rows), dropped, noted, sampled=False)
    against = []
    for request, mine in kept.items():
        half = len(mine) // 2
        pairs = [(a["fine_score"], b["fine_score"]) for a, b in zip(mine, mine[half:], strict=False)]
        rises = sum((a > b) - (a < b) for a, b in pairs if not bad(a) and not bad(b))
        against += [request] * len(mine) * (rises < 0)
    noted.add("fine_score_against_position", against)
    noted.add("fine_score_not_finite", [r for r, mine in kept.items() for row in mine if bad(row["fine_score"])])
    alike = [r for r, mine in kept.items() if len({np.float32(row["fine_score"]) for row in mine}) == 1]
    noted.add("fine_score_one_value", alike, sum(len(kept[request]) for request in alike))
    start = {request: min(row["ts"] for row in mine) for request, mine in kept.items()}
    days = {
        "validation_day": [request for request, ts in start.items() if val_from <= ts < test_from],
        "test_day": [request for request, ts in start.items() if ts >= test_from],
    }
    for name, requests in days.items():
        noted.add(name, requests, sum(len(kept[request]) for request in requests))
    train = {request: mine for request, mine in kept.items() if start[request] < val_from}
    read = {"rows": len(rows), "requests": len(by_request(rows)), "impressions": len(shown)}
    fine = {"read": read, "dropped": dropped, "noted": noted}

    rows = copy.deepcopy(tables["candidates"])
    first = {request: min(row["ts"] for row in mine) for request, mine in by_request(rows).items()}
    rows = [row for row in rows if val_from <= first[row["request_id"]] < test_from]
    requests = by_request(rows)
    shown = [row for row in shown if row["request_id"] in requests]
    val, dropped, noted = lists_of(rows, positions=False)
    label(val, shown, requests, dropped, noted, sampled=True)
    read = {"rows": len(rows), "requests": len(requests), "impressions": len(shown)}
    return train, val, fine, {"read": read, "dropped": dropped, "noted": noted}


def test_what_is_dropped_and_noted(made, reckoned):
    counts = made[1]["counts"]
    train, _, fine, candidates = reckoned
    short = [r for r, mine in train.items() if any(row["clicked"] for row in mine)]
    unexposed = {r: sum(not row["exposed"] for row in train[r]) for r in short}
    fine["noted"].add("fewer_unexposed_than_asked", short, sum(ALL - n for n in unexposed.values()))
    assert {name: counts[name] for name in ("read", "dropped", "noted")} == fine
    assert counts["candidates"] == candidates
    planted_faults = {
        *("request_spans_hours", "positions_not_a_permutation", "null_key", "duplicate_item", "single_item"),
        *("impression_null_key", "impression_null_click", "impression_without_list", "impression_not_in_list"),
    }
    assert set(fine["dropped"]) == planted_faults, "each of them is there"
    assert {"positions_with_gaps", "fine_score_against_position", "fine_score_not_finite"} < set(fine["noted"])
    assert {"duplicate_impression", "converted_null", "without_click"} < set(fine["noted"])
    assert {"without_impression", "converted_without_click", "fine_score_one_value"} < set(fine["noted"])
    assert {"duplicate_item", "null_key", "request_spans_hours"} < set(candidates["dropped"])
    assert "clicks_outside_candidates" in candidates["noted"]


def test_what_is_built(made, reckoned):
    counts, train = made[1]["counts"], reckoned[0]
    pairs = {name: [] for name in ("exposed", "low_rank_negatives", "rank_pairs", "bin_pairs")}
    for request, mine in train.items():
        n = len(mine)
        clicked = sum(row["clicked"] for row in mine)
        passed = sum(row["exposed"] and not row["clicked"] for row in mine)
        tail = sum(not row["exposed"] and place >= n / 2 for place, row in enumerate(mine))
        bins = Counter(place * DRAW.bins // n for place in range(n))
        pairs["exposed"] += [request] * clicked * passed
        pairs["low_rank_negatives"] += [request] * clicked * tail
        pairs["rank_pairs"] += [request] * math.comb(n, 2)
        pairs["bin_pairs"] += [request] * sum(a * b for a, b in combinations(bins.values(), 2))
    assert counts["built"] == {"requests": len(train), "rows": sum(map(len, train.values()))}
    assert counts["pairs"] == {name: len(requests) for name, requests in pairs.items()}
    assert counts["requests_with_pairs"] == {name: len(set(requests)) for name, requests in pairs.items()}
    assert counts["requests_with_click"] == sum(any(row["clicked"] for row in mine) for mine in train.values())
    for split, lists in (("train", train), ("val", reckoned[1])):
        built = {row["request_id"]: row for row in rows_of(made[2], split)}
        assert set(built) == set(lists)
        for request, mine in lists.items():
            assert set(built[request]["item_id"]) == {row["item_id"] for row in mine}
            by_item = {row["item_id"]: (place, row) for place, row in enumerate(mine)}
            for name in ("exposed", "clicked", "converted"):
                of_item = dict(zip(built[request]["item_id"], built[request][name], strict=True))
                assert of_item == {item: row[name] for item, (_, row) in by_item.items()}
            if split == "train":
                of_item = dict(zip(built[request]["item_id"], built[request]["position"], strict=True))
                assert of_item == {item: place for item, (place, _) in by_item.items()}


def test_what_is_found_in_the_features(made, reckoned):
    counts, (train, val, _, _) = made[1]["counts"], reckoned
    expected, values = of_features(train)
    far = Counter()
    for feature in features():
        vectors = values[feature["name"]] if feature["kind"] in ("dense", "embedding") else []
        for column in zip(*vectors, strict=True):
            numbers = [x for x in column if not isinstance(x, str)]
            median, spread = spread_of(numbers)
            beyond = [x for x in numbers if abs(x - median) > 20 * spread]
            if beyond and statistics.pstdev(numbers) > spread:
                far[feature["name"]] += len(beyond)
    assert far == {"match": 2, "item_vector": 1}
    assert counts["features"] == expected["features"] | {"far": far}
    assert counts["elements"] == expected["elements"]
    assert counts["validation"] == of_features(val)[0]
    for fault in ("not_finite", "unknown_id", "declared_missing", "varies_within_request"):
        assert len(expected["features"][fault]) >= 2 and counts["validation"]["features"][fault], fault
    assert set(expected["features"]["varies_within_request"]) == {"hour", "user_tags", "query_city", "user_vector"}


def test_the_statistics_are_of_what_is_not_absurd(made, reckoned):
    found = json.loads((made[2] / "stats.json").read_text())
    values = of_features(reckoned[0])[1]
    for feature in features():
        name = feature["name"]
        if feature["kind"] not in ("dense", "embedding") or name in ("hour", "user_vector"):  # of the first item there
            continue
        columns = list(zip(*values[name], strict=True))
        lost = sum(isinstance(x, str) for column in columns for x in column)
        assert found[name]["missing"] == pytest.approx(lost / sum(map(len, columns)), abs=1e-6)
        for element, column in enumerate(columns):
            numbers = [x for x in column if not isinstance(x, str)]
            median, spread = spread_of(numbers)
            if statistics.pstdev(numbers) > spread:
                numbers = [x for x in numbers if abs(x - median) <= 20 * spread]
            mean, std = statistics.fmean(numbers), statistics.pstdev(numbers)
            assert found[name]["mean"][element] == pytest.approx(mean, rel=1e-5, abs=1e-5 * std), name
            assert found[name]["std"][element] == pytest.approx(std, rel=1e-5), name
    assert found["match"]["std"][0] < 10 and found["item_vector"]["std"][0] < 10


def test_a_likely_stand_in_is_named(made, reckoned):
    numbers = [x for (x,) in of_features(reckoned[0])[1]["secret"]]
    share = round(numbers.count(-999.0) / len(numbers), 4)
    assert made[1]["stand_ins"] == {"secret": {"value": -999.0, "share": share}}
    assert re.search(r'note: feature \'secret\': -999, about \d+\.\d% .*declare it by "missing": \[-999\]', made[3])


def test_the_report_names_every_count(made):
    _, manifest, _, said = made
    counts, lines = manifest["counts"], said.splitlines()

    def line(what):
        (found,) = [line for line in lines if re.search(rf"│ {re.escape(what)} +│", line)]
        return [cell.strip() for cell in found.strip().strip("│").split("│")[1:]]

    for prefix, part in (("", counts), ("candidates ", counts["candidates"])):
        for title in ("dropped", "noted"):
            for reason, n in part[title].items():
                assert line(f"{prefix}{title}: {reason}") == [f"{n['requests']:,}", f"{n['rows']:,}"]
        assert line(f"{prefix}read") == [f"{part['read']['requests']:,}", f"{part['read']['rows']:,}"]
    for prefix, part in (("", counts), ("validation ", counts["validation"])):
        for fault, of in part["features"].items():
            for name, n in of.items():
                cells = [f"{n:,}", ""] if fault == "varies_within_request" else ["", f"{n:,}"]
                assert line(f"{prefix}{fault}: {name}") == cells
    for name, n in counts["features"]["far"].items():
        assert f"note: feature '{name}': {n:,} of {counts['elements'][name]:,} values are absurdly far" in said
    for name, n in counts["features"]["varies_within_request"].items():
        differs = rf"of the side \w+, but differs between the items of {n} of \d+ training requests"
        assert re.search(f"note: feature '{name}': {differs}", said)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [2, 7])
def test_the_same_for_any_parts(made, blocks, tmp_path):
    """In this process parts are read tile by tile, which needs requests in one tile: here they are sorted."""
    tables, manifest, samples, _ = made
    write_logs(tmp_path / "logs", requests=160, items_per_list=16, files=3, days=4)
    raw = copy.deepcopy(SCHEMA)
    raw["features"] = features()
    (tmp_path / "logs/schema.json").write_text(json.dumps(raw))
    for name, rows in tables.items():
        schema = pl.read_parquet_schema(tmp_path / "logs" / name / "part-0.parquet")
        for path in (tmp_path / "logs" / name).glob("*.parquet"):
            path.unlink()
        rows = sorted(rows, key=lambda row: (row["request_id"] is not None, row["request_id"]))
        frame = pl.DataFrame(rows, schema=schema)
        frame.write_parquet(tmp_path / "logs" / name / "0.parquet", row_group_size=100)
    options = {"draw": DRAW, "max_dropped": 0.6, "val_requests": 1000}
    build(tmp_path / "logs", tmp_path / "samples", blocks=blocks, **options)
    again = json.loads((tmp_path / "samples/manifest.json").read_text())
    assert len(again["rows"]) > len(manifest["rows"])
    assert again["counts"] == manifest["counts"] and again["stand_ins"] == manifest["stand_ins"]
    assert (tmp_path / "samples/stats.json").read_bytes() == (samples / "stats.json").read_bytes()
