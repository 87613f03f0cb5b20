"""Labels, drops, pools and pairs against loops over requests and items in plain Python."""

import errno
import functools
from dataclasses import replace
from datetime import datetime
from itertools import permutations, product
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs_fixture import write_logs

from prerank.core.counts import check_dropped, check_scores, lines, merge
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids, keyed_uniform
from prerank.core.nested import find_within, lowest_within, rank_within
from prerank.core.outputs import publish
from prerank.logs.folder import open_logs, read_groups
from prerank.logs.requests import to_requests
from prerank.logs.schema import Feature, Schema
from prerank.samples.build import Recipe, Split, build_fine_lists, val_key, validation, validation_requests
from prerank.samples.draw import CODES, UNIFORM, DrawConfig, draw, parse_strategies, undrawn
from prerank.samples.fitting import check_built

SCHEMA = Schema((Feature("price", "item", "dense", "F1", 1.0),), {"F1": {"per_feature_us": 1.0}})
ALL = tuple(CODES)
SMALL = DrawConfig(tail_negatives=3, rank_items=4, bins=4, bin_items=2, uniform_items=3, max_pairs=9)


def fine_rows(rows):
    """[(request, item, position), ...] as a table of the logs."""
    request, item, position = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "request_id": pa.array(request, pa.int64()),
            "item_id": pa.array(item, pa.string()),
            "ts": pa.array([1_700_000_000_000_000] * len(rows), pa.timestamp("us")),
            "fine_position": pa.array(position, pa.int64()),
            "price": pa.array([float(i) for i in range(len(rows))]),
        }
    )


def shown_rows(rows):
    """[(request, item, clicked), ...] as impressions."""
    request, item, clicked = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "request_id": pa.array(request, pa.int64()),
            "item_id": pa.array(item, pa.string()),
            "shown_position": pa.array(range(len(rows)), pa.int64()),
            "clicked": pa.array(clicked, pa.int8()),
        }
    )


@functools.cache
def hash_of(value):
    return int(hash_ids(pa.array([value]))[0])


def item_lists(table, *names):
    """{request: [(values of the named list columns), ...]}"""
    return {
        row["request_id"]: list(zip(*(row[name] for name in names), strict=True))
        for row in table.select(["request_id", *names]).to_pylist()
    }


def expected_requests(rows, shown):
    """The rules of `to_requests`, one request at a time: `({request: [(item, position, clicked or None)]}, drops)`."""
    drops = {}

    def drop(reason, n, requests=1):
        if n:
            old = drops.get(reason, (0, 0))
            drops[reason] = (old[0] + n, old[1] + requests)

    drop("null_key", sum(request is None for request, _, _ in rows), 0)
    found = {}
    for request in {request for request, _, _ in rows if request is not None}:
        logged = [(item, -1 if place is None else place) for other, item, place in rows if other == request]
        of_list = sorted(set(logged), key=str)
        nulls = sum(item is None for item, _ in logged)
        places = [place for _, place in of_list]
        if min(places) < 0 or len(set(places)) < len(places):
            drop("positions_not_a_permutation", len(of_list))
            nulls_again = nulls - sum(item is None for item, _ in of_list)
            drop("null_key", nulls_again)
            drop("duplicate_item", len(logged) - len(of_list) - nulls_again)
            continue
        drop("null_key", nulls)
        best = {}
        for item, position in sorted((row for row in of_list if row[0] is not None), key=lambda row: row[1]):
            best.setdefault(item, position)
        drop("duplicate_item", len(logged) - nulls - len(best))
        if len(best) == 1:
            drop("single_item", 1)
        elif best:
            found[request] = {item: rank for rank, item in enumerate(sorted(best, key=best.get))}
    listed = {request for request, _, _ in rows}
    clicks, missing, orphans, unsaid = {}, [], [], []
    for request, item, clicked in shown:
        if request is None or item is None:
            drop("impression_null_key", 1, 0)
        elif clicked is None:
            unsaid.append(request)
        elif request not in listed:
            orphans.append(request)
        elif request in found and item not in found[request]:
            missing.append(request)
        else:
            clicks[request, item] = clicks.get((request, item), False) or clicked == 1
    drop("impression_null_click", len(unsaid), len(set(unsaid)))
    drop("impression_without_list", len(orphans), len(set(orphans)))
    drop("impression_not_in_list", len(missing), len(set(missing)))
    lists = {
        request: sorted(((i, p, clicks.get((request, i))) for i, p in items.items()), key=lambda row: hash_of(row[0]))
        for request, items in found.items()
    }
    return lists, drops


ITEMS = st.sampled_from([None, "a", "b", "c", "d", "e"])


@st.composite
def faulty_logs(draw_):
    rows = []
    for request in draw_(st.lists(st.sampled_from([None, -5, 0, 1, 2, 2**40]), unique=True, max_size=5)):
        n = draw_(st.integers(1, 5))
        position = draw_(
            st.one_of(st.permutations(range(n)), st.lists(st.sampled_from([None, -1, 0, 1, 9]), min_size=n, max_size=n))
        )
        rows += [(request, draw_(ITEMS), p) for p in position]
        rows += draw_(st.lists(st.sampled_from(rows), max_size=3))  # logged at least once
    requests = st.sampled_from([None, -5, 0, 1, 2, 77])
    shown = draw_(st.lists(st.tuples(requests, ITEMS, st.sampled_from([None, 0, 1])), max_size=12))
    return draw_(st.permutations(rows)), shown


@pytest.mark.slow
@given(faulty_logs())
def test_requests_and_drops_are_those_of_a_loop(logs):
    rows, shown = logs
    table, counts = to_requests(fine_rows(rows), shown_rows(shown))
    lists, drops = expected_requests(rows, shown)
    assert {reason: (n["rows"], n["requests"]) for reason, n in counts["dropped"].items()} == drops
    assert item_lists(table, "item_id", "position") == {r: [(i, p) for i, p, _ in items] for r, items in lists.items()}
    assert item_lists(table, "exposed", "clicked", "stage") == {
        r: [(c is not None, bool(c), 3 if c else 2 if c is not None else 1) for _, _, c in items]
        for r, items in lists.items()
    }
    origin = fine_rows(rows).select(["request_id", "item_id"]).to_pylist()
    for request, items in item_lists(table, "item_id", "row").items():
        assert [origin[row] for _, row in items] == [{"request_id": request, "item_id": item} for item, _ in items]


def test_faults_by_hand():
    rows = [
        (1, "a", 1), (1, "b", 0), (1, "b", 2), (1, "c", 3),  # b twice: position 0 stays, the gap closes
        (2, "a", 0), (2, "b", 0),  # both at the top
        (3, "a", 0),  # alone
        (4, "a", 0), (4, "b", 1),
    ]  # fmt: skip
    shown = [(1, "c", 1), (1, "z", 0), (2, "a", 1), (9, "a", 0), (4, "a", 0), (4, "a", 0)]
    table, counts = to_requests(fine_rows(rows), shown_rows(shown))
    assert {r: dict(items) for r, items in item_lists(table, "item_id", "position").items()} == {
        1: {"b": 0, "a": 1, "c": 2},
        4: {"a": 0, "b": 1},
    }
    assert counts["read"] == {"rows": 9, "requests": 4, "impressions": 6}
    assert counts["dropped"] == {
        "positions_not_a_permutation": {"rows": 2, "requests": 1},
        "duplicate_item": {"rows": 1, "requests": 1},
        "single_item": {"rows": 1, "requests": 1},
        "impression_without_list": {"rows": 1, "requests": 1},
        "impression_not_in_list": {"rows": 1, "requests": 1},
    }
    assert counts["noted"]["without_click"] == {"rows": 2, "requests": 1}
    assert counts["noted"]["duplicate_impression"]["rows"] == 1
    check_dropped(counts, 0.4)
    with pytest.raises(
        InputError, match=r"fine_lists: 3 of 9 rows .*duplicate_item 1, positions.* 2\).*max_dropped 0.3"
    ):
        check_dropped(counts, 0.3)


def scored_rows(rows):
    """[(item, position, score, second), ...] of one request, as rows of the logs."""
    item, position, score, second = zip(*rows, strict=True)
    table = fine_rows([(1, i, p) for i, p in zip(item, position, strict=True)])
    table = table.append_column("fine_score", pa.array(score, pa.float64()))
    return table.set_column(2, "ts", pa.array([s * 10**6 for s in second], pa.timestamp("us")))


def test_a_repeated_row_costs_itself_alone():
    rows = [(1, "a", 0), (1, "b", 1), (1, "b", 1), (1, "c", 2), (2, "a", 0), (2, "a", 0), (2, "b", 0)]
    table, counts = to_requests(fine_rows(rows), shown_rows([]))
    assert {r: dict(items) for r, items in item_lists(table, "item_id", "position").items()} == {
        1: {"a": 0, "b": 1, "c": 2}
    }
    assert counts["dropped"] == {
        "duplicate_item": {"rows": 2, "requests": 2},
        "positions_not_a_permutation": {"rows": 2, "requests": 1},
    }


@pytest.mark.parametrize("places", [[1, 2, 3], [0, 2, 9], [5, 7, 2**40]])
def test_positions_are_an_order_wherever_they_begin(places):
    rows = [(1, "a", places[2]), (1, "b", places[0]), (1, "c", places[1]), (2, "a", 0), (2, "b", 1)]
    table, counts = to_requests(fine_rows(rows), shown_rows([]))
    assert dict(item_lists(table, "item_id", "position")[1]) == {"b": 0, "c": 1, "a": 2}
    assert counts["noted"]["positions_with_gaps"] == {"rows": 3, "requests": 1} and not counts["dropped"]


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=1, max_size=12))
def test_a_request_is_over_within_hours(logged):
    """Ids that start again each day melt requests of several days into one."""
    rows = fine_rows([(request, f"i{i}", None) for i, (request, _) in enumerate(logged)]).drop_columns("fine_position")
    ts = [1_700_000_000_000_000 + hour * 3_600_000_000 for _, hour in logged]
    table, counts = to_requests(rows.set_column(2, "ts", pa.array(ts, pa.timestamp("us"))), shown_rows([]))
    hours = {request: [hour for other, hour in logged if other == request] for request, _ in logged}
    long = {request for request, found in hours.items() if max(found) - min(found) >= 6}
    assert set(table["request_id"].to_pylist()) == {r for r, found in hours.items() if r not in long and len(found) > 1}
    found = counts["dropped"].get("request_spans_hours", {"rows": 0, "requests": 0})
    assert found == {"rows": sum(len(hours[request]) for request in long), "requests": len(long)}
    if sum(len(hours[request]) for request in long) > 0.5 * len(logged):
        with pytest.raises(InputError, match=r"request_spans_hours .*make ids unique over all days"):
            check_dropped(counts, 0.5)


def test_a_click_that_is_null_is_no_click_and_no_negative():
    rows = fine_rows([(1, "a", 0), (1, "b", 1), (1, "c", 2)])
    table, counts = to_requests(rows, shown_rows([(1, "a", None), (1, "b", 1), (1, "c", 0)]))
    assert dict(item_lists(table, "item_id", "exposed")[1]) == {"a": False, "b": True, "c": True}
    assert counts["dropped"] == {"impression_null_click": {"rows": 1, "requests": 1}}
    with pytest.raises(InputError, match=r"1 of 3 rows .*clicked is null: write false where nothing was clicked"):
        check_dropped(counts, 0.3)
    shown = shown_rows([(1, "a", 1), (1, "b", 0)]).append_column("converted", pa.array([None, 1], pa.int8()))
    table, counts = to_requests(rows, shown)
    assert dict(item_lists(table, "item_id", "converted")[1]) == {"a": False, "b": True, "c": False}
    assert counts["noted"]["converted_null"] == {"rows": 1, "requests": 1}


@pytest.mark.slow
@given(st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=9), min_size=1, max_size=5))
def test_scores_that_rise_with_the_position_are_noted(lists):
    rows = [(r, f"i{i}", i) for r, scores in enumerate(lists) for i in range(len(scores))]
    score = pa.array([float(s) for scores in lists for s in scores])
    order = pa.array(np.random.default_rng(0).permutation(len(rows)))
    _, counts = to_requests(fine_rows(rows).append_column("fine_score", score).take(order), shown_rows([]))

    def rises(scores):
        half = len(scores) // 2
        signs = [np.sign(above - below) for above, below in zip(scores, scores[half:], strict=False)]
        return sum(signs) < 0

    against = [scores for scores in lists if rises(scores)]
    found = counts["noted"].get("fine_score_against_position", {"rows": 0, "requests": 0})
    assert found == {"rows": sum(map(len, against)), "requests": len(against)}
    if 2 * len(against) > len(lists):
        with pytest.raises(InputError, match="fine_score rises with fine_position"):
            check_scores(counts)
    else:
        check_scores(counts)


NAN, INF = float("nan"), float("inf")


@pytest.mark.slow
@pytest.mark.parametrize("positions", [True, False])
def test_of_copies_that_differ_the_same_one_is_kept_in_any_order(positions):
    """The best position, then the highest finite score, then the earliest; one with a time before one without."""
    rows = [("a", 0, 0.5, 7), ("a", 0, 0.9, 9), ("a", 0, 0.9, 8), ("a", 0, NAN, 1), ("a", 0, INF, 1), ("b", 1, 0.1, 9)]
    for order in permutations(range(6)):
        table = scored_rows([rows[i] for i in order])
        if not positions:
            table = table.drop_columns("fine_position")
        requests, counts = to_requests(table, shown_rows([]))
        found = {item: values for item, *values in item_lists(requests, "item_id", "fine_score", "row")[1]}
        assert found == {"a": [np.float32(0.9), order.index(2)], "b": [np.float32(0.1), order.index(5)]}
        assert counts["dropped"] == {"duplicate_item": {"rows": 4, "requests": 1}}
        assert requests["ts"].to_pylist() == [datetime(1970, 1, 1, 0, 0, 8)]
    late = fine_rows([(1, "a", 0), (1, "a", 0), (1, "b", 1)])
    late = late.set_column(2, "ts", pa.array([None, 5, 5], pa.timestamp("us")))
    requests, counts = to_requests(late, shown_rows([]))
    assert set(requests["row"].to_pylist()[0]) == {1, 2}
    assert counts["dropped"] == {"null_key": {"rows": 1, "requests": 1}}


def test_scores_that_are_not_finite_become_the_lowest_of_their_request():
    score = [0.5, NAN, -2.0, INF, None, 1e300, NAN, -INF]
    rows = fine_rows([(1 if i < 6 else 2, f"i{i}", i % 6) for i in range(8)])
    table, counts = to_requests(rows.append_column("fine_score", pa.array(score, pa.float64())), shown_rows([]))
    found = {item: score for items in item_lists(table, "item_id", "fine_score").values() for item, score in items}
    assert found == {"i0": 0.5, **{f"i{i}": -2.0 for i in range(1, 6)}, "i6": 0.0, "i7": 0.0}
    assert counts["noted"]["fine_score_not_finite"] == {"rows": 6, "requests": 2}


def test_a_click_is_true_or_false():
    with pytest.raises(InputError, match="'clicked' holds 3; expected true and false, or 0 and 1"):
        to_requests(fine_rows([(1, "a", 0), (1, "b", 1)]), shown_rows([(1, "a", 3)]))


def test_sampled_lists_have_no_positions_and_need_no_impression():
    rows = fine_rows([(1, "a", 0), (1, "b", 1)]).drop_columns("fine_position")
    table, counts = to_requests(rows, shown_rows([(1, "a", 1), (2, "a", 1)]), sampled=True)
    assert counts["dropped"] == {}
    found = {item: values for item, *values in item_lists(table, "item_id", "position", "stage")[1]}
    assert found == {"a": [-1, 3], "b": [-1, 0]}


def test_clicks_outside_the_candidates_are_noted():
    rows = fine_rows([(1, "a", 0), (1, "b", 1), (2, "a", 0), (2, "b", 1)])
    shown = shown_rows([(1, "a", 1), (1, "x", 1), (1, "x", 1), (1, "y", 0), (2, "x", 1), (2, "z", 1), (9, "a", 1)])
    _, counts = to_requests(rows, shown, sampled=True)
    assert counts["noted"]["clicks_outside_candidates"] == {"rows": 3, "requests": 2}
    assert counts["dropped"] == {"impression_not_in_list": {"rows": 5, "requests": 2}}
    assert "clicks_outside_candidates" not in to_requests(rows, shown)[1]["noted"]


def test_faults_of_the_candidates_are_shown_and_stop_too():
    rows = fine_rows([(1, item, position) for position, item in enumerate("abcd")])
    counts = merge(to_requests(rows, shown_rows([(1, "a", 1)]))[1], {"pairs": {}, "built": {"requests": 1, "rows": 4}})
    sampled = fine_rows([(1, item, 0) for item in "aabcc"])
    counts["candidates"] = to_requests(sampled, shown_rows([(1, "a", 1), (1, "z", 1)]), sampled=True)[1]
    shown = {what: numbers for what, *numbers in lines(counts)}
    assert shown["read"] == [1, 4] and shown["candidates read"] == [1, 5]
    assert shown["candidates dropped: duplicate_item"] == [1, 2]
    assert shown["candidates noted: clicks_outside_candidates"] == [1, 1]
    check_dropped(counts, 0.5)
    with pytest.raises(InputError, match=r"^impressions of candidates: 1 of 2 rows dropped .*impression_not_in_list 1"):
        check_dropped(counts, 0.4)
    with pytest.raises(InputError, match=r"^candidates: 2 of 5 rows dropped for faults \(duplicate_item 2\)"):
        check_dropped(counts, 0.3)
    with pytest.raises(InputError, match=r"^candidates: 2 of 5 rows"):
        check_dropped(counts["candidates"], 0.3, "candidates")


def random_requests(seed, requests=12, longest=17):
    """Whole lists with every combination that matters: no click, nothing exposed, all exposed, short lists."""
    rng = np.random.default_rng(seed)
    rows, shown = [], []
    for request in range(requests):
        n = int(rng.integers(2, longest))
        items = [f"i{x}" for x in rng.permutation(40)[:n]]
        rows += [(request, item, position) for position, item in enumerate(items)]
        n_shown = int(rng.choice([0, 1, min(4, n), n]))
        shown += [(request, item, int(rng.random() < 0.3)) for item in rng.permutation(items)[:n_shown]]
    return to_requests(fine_rows(rows), shown_rows(shown))[0]


def lowest(seed, salt, request, items, k):
    """The k items with the lowest keyed numbers, one number at a time."""

    def number(item):
        keys = (np.array([hash_of(request)], np.uint64), np.array([hash_of(item)], np.uint64))
        return int(keyed_uniform(seed, salt, *keys)[0] * 2**40)

    return set(sorted(items, key=number)[:k])


def expected_draw(row, config, strategies, seed):
    """Pool `{item: bits}`, bins and pairs `{strategy: set of (better, worse)}` of one request by loops, not capped."""
    request, n = row["request_id"], len(row["item_id"])
    position = dict(zip(row["item_id"], row["position"], strict=True))
    exposed = {i for i, e in zip(row["item_id"], row["exposed"], strict=True) if e}
    clicked = {i for i, c in zip(row["item_id"], row["clicked"], strict=True) if c}
    edges = [int(e) for e in config.bin_edges.split(",") if e]
    if edges:
        bins = {i: max(b for b, edge in enumerate(edges) if edge <= p) for i, p in position.items()}
    else:
        bins = {i: p * config.bins // n for i, p in position.items()}
    drawn, pairs = {"exposed": exposed}, {}
    pairs["exposed"] = {(c, e) for c in clicked for e in exposed - clicked}
    tail = {i for i, p in position.items() if p >= n * (1 - config.tail_share)} - exposed
    drawn["low_rank_negatives"] = lowest(seed, "low_rank_negatives", request, tail, config.tail_negatives)
    pairs["low_rank_negatives"] = set(product(clicked, drawn["low_rank_negatives"]))
    drawn["rank_pairs"] = lowest(seed, "rank_pairs", request, position, config.rank_items)
    pairs["rank_pairs"] = {(a, b) for a, b in product(drawn["rank_pairs"], repeat=2) if position[a] < position[b]}
    drawn["bin_pairs"] = set()
    for bin_ in set(bins.values()):
        drawn["bin_pairs"] |= lowest(seed, "bin_pairs", request, [i for i in bins if bins[i] == bin_], config.bin_items)
    pairs["bin_pairs"] = {(a, b) for a, b in product(drawn["bin_pairs"], repeat=2) if bins[a] < bins[b]}
    most = max(config.uniform_items, round(config.uniform_ratio * len(exposed)))
    uniform = lowest(seed, "uniform", request, set(position) - exposed, most)
    pool = {i: UNIFORM for i in uniform}
    for name in {"exposed", *strategies}:
        for item in drawn[name]:
            pool[item] = pool.get(item, 0) | CODES[name]
    return pool, bins, {name: pairs[name] for name in strategies}, bool(clicked and uniform)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("edges", ["", "0,1,3,8"])
@pytest.mark.parametrize("strategies", [ALL, *((name,) for name in ALL)])
def test_pools_and_pairs_are_those_of_a_loop(strategies, edges, seed):
    config = replace(SMALL, bin_edges=edges)
    whole = random_requests(seed)
    out, counts = draw(whole, SCHEMA, config, strategies, seed=seed)
    rows = {row["request_id"]: row for row in out.to_pylist()}
    built, skipped = dict.fromkeys(strategies, 0), 0
    for row in whole.to_pylist():
        pool, bins, pairs, teaches = expected_draw(row, config, strategies, seed)
        if not any(pairs.values()) and not teaches:
            skipped += 1
            assert row["request_id"] not in rows
            continue
        got = rows.pop(row["request_id"])
        assert got["item_id"] == [i for i in row["item_id"] if i in pool], "canonical order, nothing else"
        assert got["drawn"] == [pool[i] for i in got["item_id"]]
        assert got["bin"] == [bins[i] for i in got["item_id"]]
        for column in ("position", "exposed", "clicked", "row"):
            of_item = dict(zip(row["item_id"], row[column], strict=True))
            assert got[column] == [of_item[i] for i in got["item_id"]]
        triples = list(zip(got["pair_strategy"], got["pair_hi"], got["pair_lo"], strict=True))
        assert triples == sorted(set(triples))
        for name in strategies:
            found = {(got["item_id"][hi], got["item_id"][lo]) for code, hi, lo in triples if code == CODES[name]}
            assert found <= pairs[name]
            assert len(found) == min(len(pairs[name]), config.max_pairs)
            built[name] += len(found)
    assert not rows
    assert counts["pairs"] == built
    assert counts["dropped"].get("no_pairs", {"requests": 0})["requests"] == skipped


def test_an_exposed_item_is_never_a_drawn_negative():
    out, _ = draw(random_requests(7, requests=50), SCHEMA, SMALL, ALL, seed=7)
    for row in out.to_pylist():
        for exposed, drawn in zip(row["exposed"], row["drawn"], strict=True):
            assert not (exposed and drawn & (CODES["low_rank_negatives"] | UNIFORM))


def test_the_cap_is_random_but_repeatable():
    whole = random_requests(3, requests=30)
    free = draw(whole, SCHEMA, replace(SMALL, max_pairs=10**6), ("bin_pairs",), seed=0)[0]
    capped = draw(whole, SCHEMA, SMALL, ("bin_pairs",), seed=0)[0]
    assert capped.equals(draw(whole.slice(0), SCHEMA, SMALL, ("bin_pairs",), seed=0)[0])
    assert max(len(pairs) for pairs in capped["pair_hi"].to_pylist()) == 9
    first = [pairs[:9] for pairs in free["pair_hi"].to_pylist()]
    assert capped["pair_hi"].to_pylist() != first


def test_a_request_is_drawn_the_same_alone_and_among_others():
    whole = random_requests(5)
    together = draw(whole, SCHEMA, SMALL, ALL, seed=1)[0]
    alone = pa.concat_tables(draw(whole.slice(i, 1), SCHEMA, SMALL, ALL, seed=1)[0] for i in range(len(whole)))
    assert alone.to_pylist() == together.to_pylist()
    assert draw(whole, SCHEMA, SMALL, ALL, seed=2)[0]["drawn"] != together["drawn"]
    assert draw(whole.slice(0, 0), SCHEMA, SMALL, ALL, seed=1)[0].schema == together.schema


def test_every_item_is_drawn_equally_often():
    requests, n, k = 4000, 10, 3
    whole = to_requests(fine_rows([(r, f"i{i}", i) for r in range(requests) for i in range(n)]), shown_rows([]))[0]
    out, _ = draw(whole, SCHEMA, DrawConfig(rank_items=k, uniform_items=0), ("rank_pairs",), seed=0)
    found = np.bincount(np.concatenate(out["position"].to_pylist()), minlength=n)
    spread = np.sqrt(requests * k / n * (1 - k / n))
    assert np.abs(found - requests * k / n).max() < 4.5 * spread


def test_without_positions_lists_stay_whole_until_a_teacher_gives_them():
    whole = random_requests(2)
    offsets, position = whole["item_id"], whole["position"]
    unknown = whole.set_column(
        whole.column_names.index("position"),
        "position",
        pa.array([[-1] * len(items) for items in offsets.to_pylist()], pa.list_(pa.int32())),
    )
    out, counts = draw(unknown, SCHEMA, SMALL, ALL, seed=0)
    assert out["item_id"].to_pylist() == whole["item_id"].to_pylist()
    assert set(counts["pairs"]) == {"exposed"}
    assert {bin_ for bins in out["bin"].to_pylist() for bin_ in bins} == {-1}
    assert {bits for row in out["drawn"].to_pylist() for bits in row} <= {0, 1, UNIFORM}
    check_built({"pairs": {"exposed": 1}}, ALL, positions=False)
    again = out.set_column(out.column_names.index("position"), "position", position)
    redrawn, _ = draw(again, SCHEMA, SMALL, ALL, seed=0)
    assert redrawn.to_pylist() == draw(whole, SCHEMA, SMALL, ALL, seed=0)[0].select(redrawn.column_names).to_pylist()


def test_undrawn_has_the_columns_of_draw():
    whole = random_requests(0)
    drawn, plain = draw(whole, SCHEMA, SMALL, ALL, seed=0)[0], undrawn(whole)
    assert plain.schema == drawn.schema
    assert set(map(tuple, plain["pair_hi"].to_pylist())) == {()}


def test_a_strategy_without_a_pair_is_named():
    whole, counts = to_requests(fine_rows([(1, "a", 0), (1, "b", 1)]), shown_rows([(1, "a", 0)]))
    merge(counts, draw(whole, SCHEMA, SMALL, ("exposed", "rank_pairs"), seed=0)[1])
    with pytest.raises(
        InputError, match=r"strategy 'exposed' built no pair from 1 requests \(without_click 1 requests\)"
    ):
        check_built(counts, ("exposed", "rank_pairs"), positions=True)
    check_built(counts, ("rank_pairs",), positions=True)


def test_strategies_and_draw_options_are_checked():
    assert parse_strategies("all") == ALL
    assert parse_strategies("bin_pairs, exposed") == ("exposed", "bin_pairs")
    with pytest.raises(InputError, match="unknown strategy 'rank_pair'; did you mean 'rank_pairs'"):
        parse_strategies("rank_pair")
    with pytest.raises(InputError, match="--strategy: expected"):
        parse_strategies(",")
    for key, value in (
        ("bins", 0),
        ("tail_share", 0.0),
        ("bin_edges", "0,5,5"),
        ("bin_edges", "1,2"),
        ("rank_items", -1),
        ("bin_edges", "x"),
    ):
        with pytest.raises(InputError, match=f"draw.{key}"):
            replace(DrawConfig(), **{key: value}).check()
    DrawConfig(bin_edges="0,5,10").check()


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5), st.integers(0, 9), st.integers(1, 4))
def test_segments(lists, wanted, k):
    offsets = np.cumsum([0, *map(len, lists)])
    segment = np.repeat(np.arange(len(lists)), np.diff(offsets))
    values = np.array([v for values in lists for v in values], np.int64)
    ranks = [
        sorted(range(len(values)), key=values.__getitem__).index(i) for values in lists for i in range(len(values))
    ]
    assert rank_within(segment, values).tolist() == ranks
    assert lowest_within(segment, values / 10, k).tolist() == [rank < k for rank in ranks]
    ascending = np.array([v for values in lists for v in sorted(values)], np.int64)
    found = find_within(ascending, offsets, np.arange(len(lists)), np.full(len(lists), wanted))
    for place, first, values in zip(found, offsets, lists, strict=False):
        assert place == (first + sorted(values).index(wanted) if wanted in values else -1)


def test_days_are_split_by_the_clock_of_the_logs(tmp_path):
    write_logs(tmp_path, days=4)
    logs = open_logs(tmp_path)
    assert Split().bounds(logs) == (np.datetime64("2024-03-03"), np.datetime64("2024-03-04"))
    assert Split(val_days=2, test_days=0).bounds(logs) == (np.datetime64("2024-03-03"), np.datetime64("2024-03-05"))
    with pytest.raises(InputError, match="leave no day to train on"):
        Split(val_days=3).bounds(logs)
    with pytest.raises(InputError, match=r"split.val_days 0: expected 1 or more; a validation day stops the training"):
        Split(val_days=0).bounds(logs)


def test_what_is_validated_on(tmp_path):
    write_logs(tmp_path, days=4)
    logs = open_logs(tmp_path)
    days = Split().bounds(logs)
    table, key = validation(logs, *days, requests=7, seed=3)
    assert table == "candidates" and key == val_key(logs, "candidates", *days, requests=7, seed=3)
    with pytest.raises(InputError, match="--val-requests 0: expected 1 or more"):
        validation(logs, *days, requests=0, seed=3)
    for path in (tmp_path / "candidates").iterdir():
        rows = pq.read_table(path)
        pq.write_table(rows.filter(pa.array(rows["ts"].to_numpy() >= days[1])), path)
    logs = open_logs(tmp_path)
    assert validation(logs, *days, requests=7, seed=3) == (
        "fine_lists", val_key(logs, "fine_lists", *days, requests=7, seed=3)
    )  # fmt: skip
    for path in (tmp_path / "fine_lists").iterdir():
        rows = pq.read_table(path)
        pq.write_table(
            rows.filter(pa.array((rows["ts"].to_numpy() >= days[1]) | (rows["ts"].to_numpy() < days[0]))), path
        )
    with pytest.raises(InputError, match=r"no usable request of 2024-03-03T00:00 until .*: raise split.val_days"):
        validation(open_logs(tmp_path), *days, requests=7, seed=3)


@pytest.mark.slow
def test_exactly_the_wanted_number_of_validation_requests(tmp_path):
    write_logs(tmp_path, shuffled=True)
    logs = open_logs(tmp_path)
    bounds = Split().bounds(logs)
    rows = read_groups(logs.tables["candidates"], logs.tables["candidates"].groups)
    for wanted in (1, 7, 15, 100):
        key = val_key(logs, "candidates", *bounds, requests=wanted, seed=3)
        recipe = SimpleNamespace(seed=3, val_key=key)
        of_day = (rows["ts"].to_numpy() >= bounds[0]) & (rows["ts"].to_numpy() < bounds[1])
        chosen = rows["request_id"].to_numpy()[validation_requests(rows, recipe) & of_day]
        assert len(set(chosen.tolist())) == min(wanted, 15)


def test_a_full_disk_publishes_nothing(tmp_path, monkeypatch):
    write_logs(tmp_path / "logs")
    logs = open_logs(tmp_path / "logs")
    rows, shown = (read_groups(logs.tables[name], logs.tables[name].groups) for name in ("fine_lists", "impressions"))
    write = pq.ParquetWriter.write_table

    def full(self, table, **options):
        write(self, table.slice(0, 1), **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with (
        pytest.raises(OSError, match="No space left"),
        publish(tmp_path / "out", kind="samples", config={}, inputs={}) as (folder, _),
    ):
        recipe = Recipe(logs.schema, SMALL, ALL, 0, *Split().bounds(logs), -1.0, "candidates", folder)
        build_fine_lists(rows, shown, recipe)
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_where_an_item_was_shown():
    """Shown twice, it has the first place; where the logs say nothing it has none, as what was not shown."""
    rows = fine_rows([(1, item, place) for place, item in enumerate("abcdef")])
    shown = shown_rows([(1, item, int(item == "c")) for item in "cabdac"])  # at 0, 1, ... 5
    places = pa.array([7, 3, None, -2, 2, 9], pa.int64())
    shown = shown.set_column(shown.column_names.index("shown_position"), "shown_position", places)
    table, _ = to_requests(rows, shown)
    assert dict(item_lists(table, "item_id", "shown_position")[1]) == {
        "a": 2,
        "b": -1,
        "c": 7,
        "d": -1,
        "e": -1,
        "f": -1,
    }
    assert dict(item_lists(table, "item_id", "exposed")[1]) == {item: item in "abcd" for item in "abcdef"}
