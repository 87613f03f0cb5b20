"""Batches against the sample rows read as Python objects."""

import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from samples_fixture import rows_of

from prerank.logs.schema import load_schema
from prerank.models.options import Arm, Distill
from prerank.samples.batches import ahead, columns, scoring_batch, training_batch
from prerank.samples.draw import CODES, UNIFORM
from prerank.samples.files import sample_files

FEATURES = ("user_tags", "query_city", "price", "brand", "item_tags", "item_vector", "user_vector")


def load(folder, arm, epoch=0):
    schema = load_schema(folder)
    features = schema.select(arm.features, where="test")
    [(path, _)] = sample_files(folder, "train")
    table = pq.read_table(path, columns=list(columns(arm, "teacher_score")))
    return training_batch(table, arm, features, epoch, "teacher_score"), rows_of(folder, "train")


def test_pairs_are_those_of_the_rows(taught):
    """Of the strategy that draws nothing; those that draw are in test_anew."""
    batch, rows = load(taught, Arm("a", ("price",), (4,), strategies=("rank_pairs", "exposed")))
    price, mine = batch.features["price"][:, 0].numpy(), batch.group_P % 2 == 1
    found = sorted(
        (int(g), str(price[h]), str(price[lo]))
        for g, h, lo in zip(batch.group_P[mine], batch.hi_P[mine], batch.lo_P[mine], strict=True)
    )
    expected = []
    for r, row in enumerate(rows):
        for hi, lo, code in zip(row["pair_hi"], row["pair_lo"], row["pair_strategy"], strict=True):
            if code == CODES["exposed"]:
                expected.append((2 * r + 1, *(str(np.float32(row["price"][i])) for i in (hi, lo))))
    assert found == sorted(expected)
    assert batch.groups == len(rows) * 2
    assert set(batch.hi_P.tolist()) | set(batch.lo_P.tolist()) == set(range(len(batch.request_I)))


def test_the_places_are_those_of_the_items_that_are_kept(taught):
    arm = Arm("a", FEATURES, (4,), hard="listwise", unexposed_ratio=0.0, by_place=True)
    batch, rows = load(taught, arm)
    clicked = [row for row in rows if any(row["clicked"])]
    places = [p for row in clicked for p, shown in zip(row["shown_position"], row["exposed"], strict=True) if shown]
    assert batch.shown_I.tolist() == places and 1 < len(set(places)) <= 16
    assert load(taught, Arm("a", FEATURES, (4,), hard="listwise"))[0].shown_I is None


def test_pairs_stay_within_their_request(taught):
    batch, _ = load(taught, Arm("a", FEATURES, (4,), strategies=tuple(CODES)))
    request = batch.group_P // 4
    assert torch.equal(batch.request_I[batch.hi_P], request) and torch.equal(batch.request_I[batch.lo_P], request)


def test_neighbouring_bins_can_count_as_one(taught):
    arms = [
        Arm("a", FEATURES, (4,), distill=Distill(contrast=1.0, merge_bins=n), positions="logged") for n in (1, 2, 5)
    ]
    ones, twos, fives = (load(taught, arm)[0].bin_I.tolist() for arm in arms)
    assert len(set(ones)) == 10 and len(set(twos)) == 5 and len(set(fives)) == 2
    assert twos == [b // 2 for b in ones] and fives == [b // 5 for b in ones]


@pytest.mark.slow
def test_distillation_keeps_every_item_with_its_labels_and_features(taught):
    arm = Arm("a", FEATURES, (4,), distill=Distill(score=1.0, contrast=1.0, contrasted=1000))
    batch, rows = load(taught, arm)
    for name, kept in (("teacher_score", batch.teacher_I), ("clicked", batch.target_I)):
        assert kept.tolist() == [value for row in rows for value in row[name]]
    assert torch.equal(batch.teacher_ID, torch.tensor([v for row in rows for v in row["teacher_repr"]]).float())
    assert batch.features["brand"].tolist() == [value for row in rows for value in row["brand"]]
    assert batch.features["query_city"].tolist() == [row["query_city"] for row in rows]
    vectors = np.array([value for row in rows for value in row["item_vector"]], np.float32)
    assert np.array_equal(batch.features["item_vector"].numpy(), vectors, equal_nan=True)
    for name, lists in (
        ("item_tags", [tags for row in rows for tags in row["item_tags"]]),
        ("user_tags", [row["user_tags"] for row in rows]),
    ):
        bags = batch.features[name]
        ends = [*bags.offsets.tolist(), len(bags.values)]
        assert [bags.values[a:b].tolist() for a, b in itertools.pairwise(ends)] == lists


def test_exposed_items_alone_are_distilled(taught):
    arm = Arm("a", ("price",), (4,), strategies=("exposed",), distill=Distill(score=1.0, items="exposed"))
    batch, rows = load(taught, arm)
    assert len(batch.request_I) == sum(sum(row["exposed"]) for row in rows) and batch.exposed_I.all()


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.0])
def test_unexposed_negatives_of_the_teacher(taught, ratio):
    arm = Arm("teacher", ("price",), (4,), hard="listwise", unexposed_ratio=ratio)
    batch, rows = load(taught, arm)
    assert not batch.exposed_I[batch.request_I < 0].any()
    for r, row in enumerate(rows):
        mine = batch.request_I == r
        if not any(row["clicked"]):
            assert not mine.any()
            continue
        exposed = sum(row["exposed"])
        spare = sum(bool(d & UNIFORM) and not e for d, e in zip(row["drawn"], row["exposed"], strict=True))
        assert int(batch.exposed_I[mine].sum()) == exposed
        assert int((~batch.exposed_I[mine]).sum()) == min(round(ratio * exposed), spare)


def test_unexposed_negatives_are_drawn_anew_each_epoch(taught):
    arm = Arm("teacher", ("price",), (4,), hard="listwise", unexposed_ratio=1.0)
    prices = [load(taught, arm, epoch)[0].features["price"].flatten().tolist() for epoch in (0, 0, 1)]
    assert prices[0] == prices[1] != prices[2]


def test_scoring_keeps_all(taught):
    schema = load_schema(taught)
    [(path, _)] = sample_files(taught, "val")
    batch = scoring_batch(pq.read_table(path), schema.features)
    rows = rows_of(taught, "val")
    assert batch.request_I.tolist() == [r for r, row in enumerate(rows) for _ in row["item_id"]]


def test_slices_of_a_table_encode_the_same(taught):
    schema = load_schema(taught)
    [(path, _)] = sample_files(taught, "val")
    table = pq.read_table(path)
    whole, part = (scoring_batch(t, schema.features) for t in (table, table.slice(3, 2)))
    mine = (whole.request_I == 3) | (whole.request_I == 4)
    assert torch.equal(part.features["brand"], whole.features["brand"][mine])
    assert torch.equal(part.features["query_city"], whole.features["query_city"][3:5])
    assert part.features["item_tags"].offsets[0] == 0


def test_ahead_keeps_order_and_raises_where_it_fails():
    def numbers():
        yield from range(5)
        raise KeyError("sixth")

    seen = []
    with pytest.raises(KeyError, match="sixth"):
        for number in ahead(numbers()):
            seen.append(number)
    assert seen == list(range(5))
