"""Batches that are made at once against each made alone."""

from dataclasses import fields
from itertools import chain

import pyarrow.parquet as pq
import pytest
import torch

from prerank.logs.schema import load_schema
from prerank.models.batch import Bags
from prerank.models.embed import NUMBERS
from prerank.models.options import Arm, Distill
from prerank.models.ranker import Ranker
from prerank.models.stats import load_stats
from prerank.samples import cut
from prerank.samples.batches import columns, training_batch
from prerank.samples.draw import CODES
from prerank.samples.files import sample_files

FEATURES = ("user_tags", "query_city", "price", "brand", "item_tags", "item_vector", "user_vector")
ALL = tuple(CODES)
ARMS = {
    "pairs": Arm("a", FEATURES, (4,), strategies=ALL),
    "gains": Arm("a", FEATURES, (4,), strategies=ALL, hard="lambda"),
    "lists": Arm("a", FEATURES, (4,), strategies=ALL, hard="listnet"),
    "exposed scores": Arm("a", FEATURES, (4,), strategies=("exposed",), distill=Distill(score=1.0)),
    "contrast": Arm("a", FEATURES, (4,), distill=Distill(score=1.0, contrast=1.0, contrasted=5), id_dropout=0.5),
    "clicks": Arm("a", FEATURES, (4,), hard="listwise", unexposed_ratio=2.0, by_place=True),
    "heads": Arm(
        "a",
        FEATURES,
        (4,),
        strategies=("exposed", "rank_pairs"),
        heads=("click", "converted"),
        shares=(0.5, 0.5),
        distill=Distill(score=1.0),
    ),
}


def same(a, b):
    for field in fields(a):
        one, two = getattr(a, field.name), getattr(b, field.name)
        if field.name == "features":
            assert one.keys() == two.keys()
            pairs = [(one[name], two[name]) for name in one]
        else:
            pairs = [*zip(one, two, strict=True)] if field.name == "heads" else [(one, two)]
        for x, y in pairs:
            if field.name == "heads":
                same(x, y)
            elif isinstance(x, Bags):
                assert torch.equal(x.values, y.values) and torch.equal(x.offsets, y.offsets)
            elif isinstance(x, torch.Tensor):
                assert x.dtype == y.dtype and x.shape == y.shape, field.name
                torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)
            else:
                assert x == y, field.name


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("at_once", [1, 300, 10**9])
def test_a_batch_is_the_same_whoever_is_beside(taught, name, at_once, monkeypatch):
    """Of 3 and 5 requests in turns, over two passes."""
    monkeypatch.setattr(cut, "AT_ONCE", at_once)
    arm, [(path, _)] = ARMS[name], sample_files(taught, "train")
    features = load_schema(taught).select(arm.features, where="test")
    table = pq.read_table(path)
    table = table.append_column("/teacher/converted", table["fine_score"]).select(columns(arm, "teacher_score"))
    starts = [*range(0, len(table) - 8, 8)]
    tables = [(number, table.slice(at + 3 * odd, (3, 5)[odd])) for number in (0, 1) for at in starts for odd in (0, 1)]
    made = [*cut.training_batches(tables, arm, features, "teacher_score")]
    assert {1: len(made) == len(tables), 300: 6 < len(made) < len(tables), 10**9: len(made) < 9}[at_once]
    for batch, (number, table) in zip([batch for group in made for batch in group], tables, strict=True):
        same(batch, training_batch(table, arm, features, number, "teacher_score"))


def test_inputs_are_packed_before_they_are_cut(taught):
    """A network says the same of them to the last bit."""
    arm, [(path, _)] = ARMS["pairs"], sample_files(taught, "train")
    features = load_schema(taught).select(arm.features, where="test")
    table = pq.read_table(path, columns=list(columns(arm, "teacher_score")))
    torch.manual_seed(0)
    ranker = Ranker(features, (4,), load_stats(taught))
    tables = [(0, table.slice(at, 3)) for at in range(0, 30, 3)]
    made = chain.from_iterable(cut.training_batches(tables, arm, features, packed=ranker.embed.packed))
    for batch, (_, part) in zip(made, tables, strict=True):
        assert {*NUMBERS} < batch.features.keys() and "price" not in batch.features
        plain = training_batch(part, arm, features, 0)
        for a, b in zip(ranker(batch.features, batch.request_I), ranker(plain.features, plain.request_I), strict=True):
            assert torch.equal(a, b)


def test_of_no_table_nothing_is_made():
    assert [*cut.training_batches([], ARMS["pairs"], ())] == []
