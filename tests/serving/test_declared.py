"""Declared missing values and hashed ids in the served network: what it makes of raw inputs, against plain Python."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prerank.core.hashing import mix, unmix
from prerank.latency import profiler
from prerank.latency.pieces import PIECES, Setting
from prerank.logs.encoding import PADDING, UNKNOWN
from prerank.logs.schema import Feature, parse_schema
from prerank.models.batch import Bags
from prerank.models.ranker import Ranker
from prerank.serving import parity
from prerank.serving.graph import inputs_graph, ranker_graph
from prerank.serving.session import open_session, score_by
from prerank.serving.signature import describe

pytestmark = pytest.mark.slow  # exports, and holds the graphs against torch

OF = {
    "number": {"kind": "dense", "missing": [-999, 0.25]},
    "plain_number": {"kind": "dense"},
    "vector": {"kind": "embedding", "size": 3, "missing": [-1.5]},
    "id": {"kind": "id", "size": 7, "dim": 2, "missing": [0, 3, -1, 99]},
    "text": {"kind": "id", "size": 7, "dim": 2, "missing": ["", "N/A"]},
    "hashed": {"kind": "id", "size": 7, "dim": 2, "hash": True, "missing": [-1, 2**64 - 5]},
    "hashed_plainly": {"kind": "id", "size": 1000, "dim": 2, "hash": True},
    "ids": {"kind": "ids", "size": 7, "dim": 2, "missing": [0, 9]},
    "signed_ids": {"kind": "ids", "size": 7, "dim": 2, "missing": [-1, 5]},
    "plain_ids": {"kind": "ids", "size": 7, "dim": 2},
    "hashed_ids": {"kind": "ids", "size": 7, "dim": 2, "hash": True, "missing": [0]},
    "hashed_ids_plainly": {"kind": "ids", "size": 1000, "dim": 2, "hash": True},
}
SCHEMA = parse_schema(
    {
        "fetch": {"F": {"per_feature_us": 1}},
        "features": [
            {"name": f"{side}: {name}", "side": side, "source": "F", "fetch_us": 1} | keys
            for side in ("user", "item")
            for name, keys in OF.items()
        ],
    },
    "here",
)
FEATURES = SCHEMA.features
STATS = {f.name: {"mean": [0.25] * f.size, "std": [2.0] * f.size, "missing": 0.0} for f in FEATURES if not f.dim}
EDGES = [
    0,
    1,
    -1,
    -2,
    3,
    5,
    6,
    7,
    9,
    99,
    -5,
    2**31,
    2**32 - 1,
    2**40,
    -(2**32),
    -(2**40),
    2**63 - 1,
    PADDING,
    UNKNOWN,
    UNKNOWN + 1,
]


@pytest.fixture(scope="module")
def ranker():
    torch.manual_seed(0)
    out = Ranker(FEATURES, (8,), STATS).eval()
    for table in out.embed.tables.values():
        torch.nn.init.normal_(table.weight)
    return out


@pytest.fixture(scope="module")
def served(ranker):
    return score_by(open_session(ranker_graph(ranker, FEATURES), threads=1))


def splitmix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def row_of(x: int, f: Feature) -> int | None:
    """The row of the table that an id is looked up in by what `signature.json` says; None for what is no id."""
    declared = [v % 2**64 for v in f.missing if isinstance(v, int)]
    if f.kind == "ids" and (x == PADDING if f.hash or any(v >= 2**63 for v in declared) else x < 0):
        return None
    if x % 2**64 in declared:
        return f.size
    if f.hash:
        return f.size if x in (PADDING, UNKNOWN) else splitmix(x % 2**64) % f.size
    if f.kind == "ids" and x < 0:
        return None
    return x if 0 <= x < f.size else f.size


def by_hand(ranker, feed, n):
    inputs = {}
    for f in FEATURES:
        x = feed[f.name]
        if f.kind == "id":
            inputs[f.name] = torch.tensor([row_of(i, f) for i in x[:, 0].tolist()])
        elif f.kind == "ids":
            lists = [[row for i in ids if (row := row_of(i, f)) is not None] for ids in x.tolist()]
            offsets = np.cumsum([0, *map(len, lists)])[:-1]
            inputs[f.name] = Bags(
                torch.tensor([i for one in lists for i in one], dtype=torch.long), torch.tensor(offsets)
            )
        else:
            gone = ~np.isfinite(x) | np.isin(x, np.float32(f.missing))
            inputs[f.name] = torch.tensor(np.where(gone, np.float32(np.nan), x))
    with torch.inference_mode():
        return ranker(inputs, torch.zeros(n, dtype=torch.long))[0].numpy()


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 3))
def test_raw_inputs_are_what_the_signature_says(ranker, served, seed, n, length):
    rng = np.random.default_rng(seed)
    feed = {}
    for f in FEATURES:
        shape = (1 if f.of_request else n, {"id": 1, "ids": length}.get(f.kind, f.size))
        values = (
            [*EDGES, *rng.integers(-(2**63), 2**63 - 1, 4)] if f.dim else [np.nan, np.inf, -999, 0.25, -1.5, 0.3, 3e38]
        )
        feed[f.name] = rng.choice(np.array(values, np.int64 if f.dim else np.float32), shape)
    np.testing.assert_allclose(served(feed), by_hand(ranker, feed, n), rtol=1e-5, atol=1e-5)


def test_the_hard_requests_of_an_export_hold_all_of_it(ranker, served):
    hard = list(parity.hard_cases(ranker, FEATURES, STATS))
    assert parity.compare(served, hard)["worst"] < 1e-5
    for feed, expected in hard[-3:]:
        np.testing.assert_allclose(by_hand(ranker, feed, len(expected)), expected, rtol=1e-5, atol=1e-5)
    for f in FEATURES[len(OF) :]:
        found = np.concatenate([feed[f.name].ravel() for feed, _ in hard])
        for value in f.missing:
            bits = value % 2**64 if isinstance(value, int) and f.dim else value
            assert isinstance(value, str) or bits in (found.astype(np.uint64) if f.dim else found).tolist(), f.name
        if f.hash:
            assert UNKNOWN in found and (found < -1).sum() > 100


@pytest.mark.parametrize("forgotten", ["missing", "hash"])
def test_a_graph_that_forgets_them_is_told(ranker, forgotten):
    wrong = tuple(replace(f, **{forgotten: type(getattr(f, forgotten))()}) for f in FEATURES)
    session = open_session(ranker_graph(ranker, wrong), threads=1)
    with pytest.raises(RuntimeError, match="differ by"):
        parity.compare(score_by(session), parity.hard_cases(ranker, FEATURES, STATS))


def test_the_signature_says_what_is_missing_and_what_is_hashed(ranker):
    graph = ranker_graph(ranker, FEATURES)
    said = {one["name"].removeprefix("item: "): one for one in describe(graph, FEATURES)["inputs"]}
    assert said["number"]["missing"] == [-999, 0.25] and "of `missing`" in said["number"]["holds"]
    assert "missing" not in said["plain_number"] and "of `missing`" not in said["plain_number"]["holds"]
    assert said["text"]["missing"] == ["", "N/A"] and "not hashed" in said["text"]["holds"]
    assert [said[name]["unknown"] for name in ("id", "hashed", "ids", "hashed_ids")] == [-1, UNKNOWN, 7, UNKNOWN]
    assert [said[name]["padding"] for name in ("plain_ids", "ids", "signed_ids", "hashed_ids")] == [
        -1,
        -1,
        PADDING,
        PADDING,
    ]
    assert {name for name, one in said.items() if one.get("hash") and not name.startswith("user:")} == {
        *("hashed", "hashed_plainly", "hashed_ids", "hashed_ids_plainly")
    }
    props = {p.key: json.loads(p.value) for p in graph.metadata_props if p.key == "features"}
    about = {one["name"]: one for one in props["features"]}
    assert about["item: id"]["missing"] == [0, 3, -1, 99] and about["item: hashed"]["hash"] is True
    assert set(about["item: plain_ids"]) == {"name", "side", "kind", "size"}


def test_graphs_of_plain_features_stay_as_they_were(ranker):
    """No node is added where nothing is declared."""
    plain = [f for f in FEATURES if not f.missing and not f.hash]
    ops = {node.op_type for node in inputs_graph(ranker, plain).graph.node}
    assert not ops & {"Equal", "Or", "Mod", "BitShift"}


@pytest.mark.parametrize("runtime", PIECES)
def test_their_paths_are_timed(runtime):
    setting = Setting(runtime, candidates=5, threads=1)
    pieces = PIECES[runtime](setting, FEATURES, STATS, 3)
    names = list(pieces.by_name)
    for run in (pieces.paths(names), pieces.network(names, (4,)), *(pieces.paths([name]) for name in names)):
        run(0)
    raw = [inputs["item: hashed_plainly"] for inputs in pieces.inputs]
    assert np.abs(np.concatenate(raw)).max() > 2**40, "as they are served: not hashed before"


def test_a_path_that_hashes_is_not_pooled_with_one_that_does_not():
    paths = {name: profiler._path(f) for name, f in SCHEMA.by_name.items()}
    assert paths["item: hashed_plainly"] != paths["item: id"] and paths["user: hashed"] != paths["user: id"]
    assert paths["item: number"] != paths["item: plain_number"]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_unmix_is_the_inverse_of_mix(values):
    values = np.array(values, np.uint64)
    assert unmix(mix(values)).tolist() == mix(unmix(values)).tolist() == values.tolist()


def test_ids_of_samples_are_fed_as_ids_that_have_their_hash():
    f = SCHEMA.by_name["item: hashed_plainly"]
    rows = np.arange(f.size + 1)
    fed = parity._raw(rows, f)
    assert [row_of(x, f) for x in fed.tolist()] == rows.tolist()
    assert pa.array(fed).type == pa.int64()
