"""Pairs and bins drawn anew from a pool, against loops over its items."""

from itertools import pairwise, product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.logs.schema import load_schema
from prerank.models.options import Arm, Distill
from prerank.samples.anew import Redraw, pairs_anew, pool_of, positions_of, shares_around
from prerank.samples.batches import columns, training_batch
from prerank.samples.draw import CODES, DrawConfig
from prerank.samples.files import sample_files

SMALL = DrawConfig(rank_items=5, bins=4, bin_items=2, tail_negatives=2, max_pairs=9)


def pools(seed=0, requests=12):
    """Pools of 0 to 15 items of lists of 40, as samples have them."""
    rng = np.random.default_rng(seed)
    rows = []
    for r in range(requests):
        n = int(rng.integers(0, 16))
        exposed = rng.random(n) < 0.4
        rows.append(
            {
                "request_id": f"r{r}",
                "position": rng.permutation(40)[:n].tolist(),
                "exposed": exposed.tolist(),
                "clicked": (exposed & (rng.random(n) < 0.4)).tolist(),
                "teacher_score": rng.normal(size=n).round(1).tolist(),
            }
        )
    types = {"position": pa.int32(), "exposed": pa.bool_(), "clicked": pa.bool_(), "teacher_score": pa.float32()}
    schema = pa.schema([("request_id", pa.string()), *((name, pa.list_(type_)) for name, type_ in types.items())])
    return pa.Table.from_pylist(rows, schema)


def drawn(table, strategies, number=0, seed=0, score="teacher_score", config=SMALL):
    lists = pool_of(table, positions_of(table, score), seed, number)
    pairs = pairs_anew(lists, strategies, Redraw(config))
    found = {(r, name): set() for r in range(len(table)) for name in strategies}
    for hi, lo, group in zip(*(x.tolist() for x in pairs), strict=True):
        r, slot = divmod(group, len(strategies))
        assert lists.request[hi] == lists.request[lo] == r
        pair = (hi - int(lists.offsets[r]), lo - int(lists.offsets[r]))
        assert pair not in found[r, strategies[slot]]
        found[r, strategies[slot]].add(pair)
    return found


def test_the_teachers_order_is_laid_over_the_places_of_the_pool():
    table = pa.table(
        {
            "position": pa.array([[5, 0, 9], [3, 1, 0, 2]], pa.list_(pa.int32())),
            "score": pa.array([[1.0, 3.0, 2.0], [7.0, 7.0, 9.0, 8.0]], pa.list_(pa.float32())),
        }
    )
    assert positions_of(table, "score").tolist() == [9, 0, 5, 2, 3, 0, 1]  # of equal scores the first is before
    assert positions_of(table, None).tolist() == [5, 0, 9, 3, 1, 0, 2]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
@given(scores=st.lists(st.lists(st.sampled_from([-2.5, -1e-3, -0.0, 0.0, 1e-3, 7.0, 8.0]), max_size=9), min_size=1))
def test_the_order_of_any_scores_is_that_of_sorting(dtype, scores):
    """Of equal ones, and 0 is -0, the first is before."""
    items = pa.array([list(range(len(row))) for row in scores], pa.list_(pa.int32()))
    typed = [np.abs(row).astype(dtype) if dtype == np.uint8 else np.array(row).astype(dtype) for row in scores]
    column = pa.array([row.tolist() for row in typed], pa.list_(pa.from_numpy_dtype(dtype)))
    found = iter(positions_of(pa.table({"position": items, "score": column}), "score").tolist())
    for row in typed:
        place = {item: rank for rank, item in enumerate(sorted(range(len(row)), key=lambda i, row=row: -float(row[i])))}
        assert [next(found) for _ in row] == [place[item] for item in range(len(row))]


@pytest.mark.parametrize("score", ["teacher_score", None])
def test_pairs_are_those_of_a_loop(score):
    table = pools()
    found = drawn(table, tuple(CODES), score=score)
    positions = iter(positions_of(table, score).tolist())
    for r, row in enumerate(table.to_pylist()):
        place = [next(positions) for _ in row["position"]]
        length, items = max(place, default=-1) + 1, range(len(place))
        clicked = [i for i in items if row["clicked"][i]]
        exposed = {(a, b) for a, b in product(clicked, items) if row["exposed"][b] and not row["clicked"][b]}
        tail = [i for i in items if not row["exposed"][i] and place[i] >= length / 2]
        bins = [p * 4 // length for p in place]
        assert found[r, "exposed"] <= exposed and len(found[r, "exposed"]) == min(9, len(exposed))
        low = found[r, "low_rank_negatives"]
        assert low <= set(product(clicked, tail)) and len(low) == min(9, len(clicked) * min(2, len(tail)))
        ranked, n = found[r, "rank_pairs"], min(5, len(place))
        assert all(place[a] < place[b] for a, b in ranked) and len(ranked) == min(9, n * (n - 1) // 2)
        binned, sizes = found[r, "bin_pairs"], [min(2, bins.count(b)) for b in range(4)]
        assert all(bins[a] < bins[b] for a, b in binned)
        assert len(binned) == min(9, (sum(sizes) ** 2 - sum(n * n for n in sizes)) // 2)


def test_a_request_draws_the_same_alone_and_anew_in_the_next_pass():
    table, names = pools(3), ("rank_pairs", "bin_pairs")
    together = drawn(table, names)
    for r in range(len(table)):
        alone = drawn(table.slice(r, 1), names)
        assert [alone[0, name] for name in names] == [together[r, name] for name in names]
    assert together == drawn(table, names) != drawn(table, names, number=1)
    assert drawn(table, names, number=1) != drawn(table, names, number=1, seed=1)


def test_every_item_of_a_pool_has_its_turn():
    table = pools(5)
    seen = {r: set() for r in range(len(table))}
    for number in range(60):
        for (r, _), pairs in drawn(table, ("rank_pairs",), number).items():
            seen[r] |= {i for pair in pairs for i in pair}
    for r, row in enumerate(table.to_pylist()):
        assert seen[r] == (set(range(len(row["position"]))) if len(row["position"]) > 1 else set())


@pytest.mark.parametrize(
    ("k", "candidates", "expected"),
    [(10, 100, (0, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8)), (100, 100, (0, 0.03125, 0.0625, 0.125, 0.25, 0.5))],
)
def test_an_edge_of_the_bins_is_k(k, candidates, expected):
    shares = shares_around(k, candidates)
    assert shares == pytest.approx(expected)
    place = np.arange(candidates)
    bins = Redraw(shares=shares).bins(place, np.full(candidates, candidates))
    assert bins.tolist() == [sum(edge <= (p + 0.5) / candidates for edge in expected) - 1 for p in place]
    assert k == candidates or bins[k - 1] + 1 == bins[k]


def test_of_one_item_of_a_list_there_is_one_bin():
    assert Redraw(shares=shares_around(150, 40)).bins(np.zeros(1, int), np.ones(1, int)).tolist() == [5]


def batch_of(folder, number=0, **options):
    arm = Arm("a", ("price",), (4,), strategies=("rank_pairs",), **options)
    [(path, _)] = sample_files(folder, "train")
    table = pq.read_table(path, columns=list(columns(arm, "teacher_score")))
    features = load_schema(folder).select(arm.features, where="test")
    return training_batch(table, arm, features, number, "teacher_score"), pq.read_table(path).to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["teacher", "logged"])
def test_pairs_and_bins_follow_one_order(taught, positions):
    """The teacher's or the logs', which contradict each other: the teacher of the fixture is one of random weights."""
    batch, rows = batch_of(taught, positions=positions, distill=Distill(contrast=1.0))
    scores = [score for row in rows for score in row["teacher_score"]]
    places = [place for row in rows for place in row["position"]]
    better, worse = batch.hi_P.tolist(), batch.lo_P.tolist()
    agree = [
        scores[a] >= scores[b] if positions == "teacher" else places[a] < places[b]
        for a, b in zip(better, worse, strict=True)
    ]
    other = [
        places[a] < places[b] if positions == "teacher" else scores[a] >= scores[b]
        for a, b in zip(better, worse, strict=True)
    ]
    assert all(agree) and not all(other)
    assert all(batch.bin_I[a] <= batch.bin_I[b] for a, b in zip(better, worse, strict=True))


@pytest.mark.slow
def test_items_take_turns_in_the_contrast(taught):
    distill = Distill(contrast=1.0, contrasted=5)
    batches = [batch_of(taught, number, distill=distill)[0] for number in range(10)]
    size_R = np.bincount(batches[0].request_I)
    for batch, after in pairwise(batches):
        assert np.bincount(batch.request_I[batch.contrasted_I]).max() <= 5
        assert not (batch.contrasted_I & after.contrasted_I)[size_R[batch.request_I] > 5].any()
    assert sum(batch.contrasted_I.long() for batch in batches).min() >= 1
