"""Id dropout: which ids become the unknown, and that it is the same however requests come together."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import torch

from prerank.logs.schema import Feature, load_schema
from prerank.models.options import Arm
from prerank.samples import dropout
from prerank.samples.batches import training_batch
from prerank.samples.dropout import LARGE, gone, large
from prerank.samples.files import files_of

USER = Feature("user", "user", "id", "F1", 1.0, size=5000, dim=4)
ITEM = replace(USER, name="item", side="item")
SEEN = replace(USER, name="seen", kind="ids")
SMALL = replace(ITEM, name="city", size=LARGE - 1)
ITEMS, REQUESTS = 40, 200


def keys_of(requests: np.ndarray):
    keys = requests.astype(np.uint64) * np.uint64(977)
    return keys, np.repeat(keys, ITEMS), np.tile(np.arange(ITEMS, dtype=np.uint64), len(requests))


def drawn(feature: Feature, requests: np.ndarray, number: int = 0) -> np.ndarray:
    offsets = np.arange(len(requests) + 1) * 3 if feature is SEEN else None
    return gone(feature, keys_of(requests), offsets, share=0.3, seed=1, number=number)


def test_a_share_of_the_ids_of_large_tables_goes():
    assert large((USER, SMALL, SEEN, ITEM, replace(ITEM, kind="dense", dim=0, size=5000))) == (USER, SEEN, ITEM)
    for feature, ids in ((USER, REQUESTS), (SEEN, 3 * REQUESTS), (ITEM, ITEMS * REQUESTS)):
        of_pass, of_next = (drawn(feature, np.arange(REQUESTS), number) for number in (0, 1))
        assert len(of_pass) == ids and abs(of_pass.mean() - 0.3) < 4 * (0.21 / ids) ** 0.5
        assert abs((of_pass & of_next).mean() - 0.09) < 4 * (0.09 / ids) ** 0.5


def test_it_follows_the_request_and_not_the_batch():
    requests = np.arange(REQUESTS)
    for feature, ids in ((USER, 1), (SEEN, 3), (ITEM, ITEMS)):
        assert (drawn(feature, requests)[100 * ids :] == drawn(feature, requests[100:])).all()


def test_an_arm_learns_from_what_is_left(taught, monkeypatch):
    """Here tables are small, so the bound is lowered to that of the item's tags."""
    monkeypatch.setattr(dropout, "LARGE", 16)
    arm = Arm("a", ("brand", "item_tags", "user_tags"), (4,), hard="listwise", unexposed_ratio=1.0)
    features = load_schema(taught).select(arm.features, where="test")
    table = pq.read_table(files_of(taught, "train")[0])
    before, after = (training_batch(table, replace(arm, id_dropout=share), features, 0) for share in (0.0, 0.5))
    assert torch.equal(before.features["brand"], after.features["brand"])
    for name in ("item_tags", "user_tags"):
        old, new = before.features[name], after.features[name]
        lost = new.values != old.values
        assert (
            torch.equal(old.offsets, new.offsets) and (new.values[lost] == 16).all() and 0.3 < lost.float().mean() < 0.7
        )
