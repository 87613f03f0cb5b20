"""The exported network: equal to torch where it is hard, self-describing, and one version a run in the registry."""

import copy
import json
import os
import urllib.request

import mlflow
import numpy as np
import pyarrow as pa
import pytest
import torch
from mlflow.tracking import MlflowClient
from samples_fixture import random_teacher
from server_fixture import answering, free_port

from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.core.outputs import read_manifest
from prerank.models.checkpoint import load_model
from prerank.serving import export, parity
from prerank.serving.graph import ranker_graph
from workflows import export as workflow

READ = ("user_age", "user_vector", "user_tags", "query_city", "quality", "brand", "item_tags", "price")


@pytest.fixture(scope="module")
def student(samples, tmp_path_factory):
    folder = random_teacher(samples, tmp_path_factory.mktemp("student") / "student", kind="student", features=READ)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"best": {"epoch": 1, "val/recall_at_150": 0.5}, "config": {"name": "all"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def model(student):
    return load_model(student, kind="student")


@pytest.fixture(scope="module")
def stats(student):
    return json.loads((student / "stats.json").read_text())


@pytest.fixture(scope="module")
def written(model, stats, samples, tmp_path_factory):
    """The folder of an export and what it found out."""
    folder = tmp_path_factory.mktemp("written")
    return folder, export.write_export(folder, model, stats, samples=samples, repeats=20)


@pytest.fixture(scope="module")
def hard(model, stats):
    return list(parity.hard_cases(model.ranker, features_of(model), stats, seed=1))


def features_of(model):
    return model.schema.select(model.arch.features, where="test")


@pytest.mark.slow
def test_equal_to_torch_and_timed(written):
    folder, facts = written
    assert facts["parity"]["hard"]["requests"] == parity.HARD_REQUESTS
    assert facts["parity"]["samples"]["scores"] > 1000
    assert max(each["worst"] for each in facts["parity"].values()) < 1e-5
    assert list(facts["inference_us"]) == ["200", "500", "1000", "2000"]
    assert all(0 < each["p50"] <= each["p99"] and each["count"] >= 20 for each in facts["inference_us"].values())
    assert {"model.onnx", "MLmodel", "signature.json", "schema.json", "arch.json"} <= {p.name for p in folder.iterdir()}


@pytest.mark.parametrize("spoilt", ["query_city", "brand", "user_tags", "item_tags", "mean_0", "std_1"])
def test_hard_requests_tell_a_wrong_graph(model, hard, spoilt):
    """Only the row of the unknown id, or how one number is normalised, differs."""
    other = copy.deepcopy(model.ranker)
    with torch.no_grad():
        if spoilt in other.embed.tables:
            other.embed.tables[spoilt].weight[-1] += 0.1
        else:
            getattr(other.embed, spoilt)[0] *= 1.01
    session = export.open_session(ranker_graph(other, features_of(model)), threads=1)
    with pytest.raises(RuntimeError, match="differ by"):
        parity.compare(lambda feed: session.run(None, feed)[0], hard)


def test_what_departs_from_torch_is_not_exported(model, stats, monkeypatch, tmp_path):
    other = copy.deepcopy(model.ranker)
    torch.nn.init.zeros_(other.layers[-1].bias)
    monkeypatch.setattr(export, "graph_of", lambda scorer, features, **_: ranker_graph(other, features))
    with pytest.raises(RuntimeError, match="differ by"):
        export.write_export(tmp_path, model, stats)
    assert not list(tmp_path.iterdir())


def test_scores_that_are_no_numbers_are_refused():
    case = [({}, np.zeros(2, np.float32))]
    for wrong in (np.array([0, np.nan], np.float32), np.zeros(3, np.float32)):
        with pytest.raises(RuntimeError, match="for 2 candidates"):
            parity.compare(lambda feed, wrong=wrong: wrong, case)


def test_hard_requests_hold_what_is_hard(hard):
    cases = [feed for feed, _ in hard]
    assert cases[0]["price"].shape == (1, 1)
    prices, brands = (np.concatenate([feed[name] for feed in cases]) for name in ("price", "brand"))
    assert np.isnan(prices).any() and np.isposinf(prices).any() and np.isneginf(prices).any()
    assert (brands < 0).any() and (brands >= 12).any() and ((brands >= 0) & (brands < 12)).any()
    assert any((feed["item_tags"] < 0).all(axis=1).any() for feed in cases)


def test_real_requests_are_fed_as_the_samples_have_them(model, samples):
    """The feed goes back to torch by the encoding of the logs, and gives the scores of the samples' own batch."""
    cases = list(parity.real_cases(model.ranker, features_of(model), samples))
    assert len(cases) > 20
    for feed, expected_N in cases:
        inputs = parity.as_trained(feed, features_of(model))
        with torch.no_grad():
            score_N, _ = model.ranker(inputs, torch.zeros(len(expected_N), dtype=torch.long))
        np.testing.assert_allclose(score_N, expected_N, atol=1e-5)


def test_the_signature_names_the_features_that_are_read_and_no_others(written):
    signature = json.loads((written[0] / "signature.json").read_text())
    by_name = {entry["name"]: entry for entry in signature["inputs"]}
    assert set(by_name) == set(READ)
    assert {name: (entry["dtype"], entry["shape"]) for name, entry in by_name.items()} == {
        "user_age": ("float32", [1, 1]),
        "user_vector": ("float32", [1, 3]),
        "user_tags": ("int64", [1, "length of user_tags"]),
        "query_city": ("int64", [1, 1]),
        "quality": ("float32", ["candidates", 2]),
        "brand": ("int64", ["candidates", 1]),
        "item_tags": ("int64", ["candidates", "length of item_tags"]),
        "price": ("float32", ["candidates", 1]),
    }
    assert by_name["brand"]["size"] == 12 and "`strings`" in by_name["brand"]["holds"]
    assert signature["output"]["shape"] == ["candidates"]


def siphash_2_4(data: bytes, key: bytes) -> int:
    """Aumasson and Bernstein, 2012."""
    mask, k = 2**64 - 1, [int.from_bytes(key[i : i + 8], "little") for i in (0, 8)]
    v = [
        k[i % 2] ^ c
        for i, c in enumerate((0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573))
    ]

    def rotated(x: int, by: int) -> int:
        return (x << by | x >> (64 - by)) & mask

    def rounds(n: int) -> None:
        for _ in range(n):
            for a, b, by, halves in ((0, 1, 13, True), (2, 3, 16, False), (0, 3, 21, False), (2, 1, 17, True)):
                v[a] = (v[a] + v[b]) & mask
                v[b] = rotated(v[b], by) ^ v[a]
                v[a] = rotated(v[a], 32) if halves else v[a]

    data += bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for start in range(0, len(data), 8):
        word = int.from_bytes(data[start : start + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_strings_are_hashed_as_the_signature_says():
    assert siphash_2_4(bytes(range(15)), bytes(range(16))) == 0xA129CA6149BE45E5  # the paper's own example
    for text in ("", "city-3", "北京", "x" * 40):
        h = siphash_2_4(text.encode(), b"0123456789123456")
        h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        h = (h ^ h >> 27) * 0x94D049BB133111EB % 2**64
        assert hash_ids(pa.array([text]))[0] == h ^ h >> 31


def test_pyfunc_gives_torchs_scores(written, hard):
    loaded = mlflow.pyfunc.load_model(str(written[0]))
    assert parity.compare(lambda feed: loaded.predict(feed)["score"], hard)["worst"] < 1e-5
    assert len(loaded.predict(loaded.input_example)["score"]) == 3


def test_faults_of_the_input(tmp_path):
    for wrong in (
        {"name": "a/b"},
        {"name": ""},
        {"alias": "Latest"},
        {"alias": "v2"},
        {"alias": "a b"},
        {"threads": 0},
    ):
        with pytest.raises(InputError, match=f"--{next(iter(wrong))}"):
            export.check(**{"name": "n", "alias": "a", "threads": 1} | wrong)
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"rows": [{"name": "all", "recall_at_150": 0.6}]}))
    assert export.results_row(results, "all")["recall_at_150"] == 0.6
    with pytest.raises(InputError, match="no row 'base'; name one of all"):
        export.results_row(results, "base")
    results.write_text(json.dumps({"recall_at_150": 0.7}))
    assert export.results_row(results, "whatever")["recall_at_150"] == 0.7


@pytest.mark.slow  # a new SQLite store takes seconds to set up
def test_registered_once_with_its_recall_and_its_times(student, samples, hard, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"rows": [{"name": "all", "recall_at_150": 0.6, "requests": 3}]}))
    config = workflow.Export(student, tmp_path / "export", samples=samples, results=results)

    renamed = os.rename
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))  # killed once registered
    with pytest.raises(KeyboardInterrupt):
        workflow.main(config)
    assert not config.out.exists()
    monkeypatch.setattr(os, "rename", renamed)
    manifest = workflow.main(config)
    assert workflow.main(config) == manifest == read_manifest(config.out, kind="export")
    assert manifest["recall"] == {"val/recall_at_150": 0.5, "test/recall_at_150": 0.6}

    client = MlflowClient()
    (version,) = client.search_model_versions("name='prerank-student'")
    assert client.get_model_version_by_alias("prerank-student", "candidate").version == version.version
    assert version.tags["test/recall_at_150"] == "0.6" and version.tags["student"] == manifest["inputs"]["student"]
    assert float(version.tags["p99_us_at_1000"]) == pytest.approx(manifest["inference_us"]["1000"]["p99"], rel=1e-4)
    (run,) = client.search_runs([client.get_experiment_by_name("export").experiment_id])
    assert run.info.status == "FINISHED" and run.data.metrics["val/recall_at_150"] == 0.5
    assert not list(tmp_path.glob(".export*"))

    loaded = mlflow.pyfunc.load_model(manifest["mlflow"]["model"])
    assert parity.compare(lambda feed: loaded.predict(feed)["score"], hard)["worst"] < 1e-5
    with pytest.raises(InputError, match="config threads was 1, now 2"):
        workflow.main(workflow.Export(student, config.out, samples=samples, results=results, threads=2))


@pytest.mark.slow  # a server starts
def test_mlflow_models_serve(written, hard, tmp_path):
    folder, _ = written
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["mlflow", "models", "serve", "-m", folder, "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    with answering(command, f"{url}/ping", tmp_path / "server.log"):

        def served(body: bytes) -> np.ndarray:
            request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
            return np.array(json.loads(urllib.request.urlopen(request).read())["predictions"]["score"])

        body = (folder / "serving_input_example.json").read_bytes()
        assert b"null" in body and b"NaN" not in body  # as JSON allows: a missing value is null
        assert served(body).shape == (3,)
        assert parity.compare(lambda feed: served(as_json(feed)), hard[::4])["worst"] < 1e-5


def as_json(feed: parity.Feed) -> bytes:
    """What any client can write: null for what is missing or infinite."""
    plain = {name: np.where(np.isfinite(values), values.astype(object), None).tolist() for name, values in feed.items()}
    return json.dumps({"inputs": plain}, allow_nan=False).encode()


@pytest.mark.slow
def test_packed_inputs(model, stats, samples, tmp_path):
    """As good as torch, and signature.json says which feature stands where."""
    facts = export.write_export(tmp_path, model, stats, samples=samples, repeats=20, packed=True)
    assert all(each["worst"] < 1e-5 for each in facts["parity"].values())
    said = json.loads((tmp_path / "signature.json").read_text())
    inputs = {one["name"]: one for one in said["inputs"]}
    assert {"/request/numbers", "/request/ids", "/item/numbers", "/item/ids", "user_tags", "item_tags"} == set(inputs)
    numbers = inputs["/item/numbers"]
    size = sum(one["shape"][1] for one in numbers["features"])
    assert numbers["shape"] == [size, "candidates"] and {one["name"] for one in numbers["features"]} <= set(READ)
    example = json.loads((tmp_path / "serving_input_example.json").read_text())["inputs"]
    loaded = mlflow.pyfunc.load_model(str(tmp_path))
    names = {key: np.array(example[key], np.float32 if key.endswith("numbers") else np.int64) for key in inputs}
    assert np.isfinite(loaded.predict(names)["score"]).all()
