"""A finished student as an ONNX file that says how to feed it, timed, and as a version in MLflow's model registry."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.onnx
import numpy as np
import onnx
import onnxruntime
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema as MlflowSchema
from mlflow.types import TensorSpec

from prerank.core.errors import InputError
from prerank.core.outputs import write_json
from prerank.logs.schema import Feature
from prerank.models.checkpoint import Model
from prerank.serving.graph import ranker_graph
from prerank.serving.parity import Feed, Stats, compare, draw_feed, hard_cases, real_cases
from prerank.serving.session import open_session
from prerank.serving.timing import FRESH, machine, stat, timed
from prerank.serving.timing import Run as Timed
from prerank.tracking.runs import Run

CANDIDATES = (200, 500, 1000, 2000)
STRINGS = (
    "prerank.core.hashing.hash_ids(ids) % size: h = SipHash-2-4 of the UTF-8 bytes under the key 0123456789123456 "
    "(ASCII); h ^= h >> 30; h *= 0xBF58476D1CE4E5B9; h ^= h >> 27; h *= 0x94D049BB133111EB; h ^= h >> 31; h % size; "
    "all uint64"
)
HOLDS = {
    "dense": "numbers as the logs have them, the network normalises; missing: NaN (null in JSON) or an infinite one",
    "id": "an integer as the logs have it, a string by `strings`; unknown or missing: -1, as is all outside 0..size-1",
    "ids": "any number of ids a row, or none: an integer as the logs have it, a string by `strings`, an unknown or "
    "missing one as `size`; rows are filled up to one length with -1 (all that is below 0 is passed over)",
}


def check(*, name: str, alias: str, threads: int) -> None:
    """Raises InputError for what MLflow or ONNX Runtime would refuse later."""
    if not re.fullmatch(r"[^/:.'\"][^/:'\"]*", name):
        raise InputError(f"--name {name!r}: a registered model's name has no /, : or quotes, and is not empty")
    if not re.fullmatch(r"[\w-]+", alias) or alias.lower() == "latest" or re.fullmatch(r"v\d+", alias, re.I):
        raise InputError(f"--alias {alias!r}: letters, digits, _ and - alone; MLflow keeps latest and v1, v2, ...")
    if threads < 1:
        raise InputError(f"--threads must be 1 or more, got {threads}")


def write_export(
    folder: Path, model: Model, stats: Stats, *, threads: int = 1, samples: Path | None = None, repeats: int = 1000
) -> dict[str, Any]:
    """Writes the MLflow model with `signature.json`, `arch.json` and `schema.json` into an empty folder.

    Returns what the manifest says: `parity` (made-up requests, and real ones of `samples`), `inference_us` by the
    number of candidates, `machine`. Raises RuntimeError, and writes nothing, where ONNX Runtime departs from torch.
    """
    features = model.schema.select(model.arch.features, where="arch.json")
    graph = ranker_graph(model.ranker, features)
    session = open_session(graph, threads)
    cases = {"hard": hard_cases(model.ranker, features, stats)}
    if samples:
        cases["samples"] = real_cases(model.ranker, features, samples)
    equal = {name: compare(lambda feed: session.run(None, feed)[0], each) for name, each in cases.items()}
    example = draw_feed(features, stats, 3, np.random.default_rng(0))
    for feature in [feature for feature in features if not feature.dim and not feature.of_request][:1]:
        example[feature.name][-1] = np.nan
    write_mlflow_model(folder, graph, example, threads=threads)
    write_json(folder / "signature.json", describe(graph, features))
    model.arch.save(folder / "arch.json")
    model.schema.save(folder)
    times = measure(session, features, stats, repeats=repeats)
    return {"parity": equal, "inference_us": times, "machine": machine()}


def describe(graph: onnx.ModelProto, features: tuple[Feature, ...]) -> dict[str, Any]:
    """What `signature.json` says: how to make each input, and how to ask a server for scores."""
    by_name = {feature.name: feature for feature in features}
    inputs = []
    for name, dtype, shape in _tensors(graph.graph.input):
        feature = by_name[name]
        size = {"size": feature.size} if feature.dim else {}
        holds = HOLDS["dense" if feature.kind == "embedding" else feature.kind]
        rows = "one row for the request" if feature.of_request else "one row a candidate, in the same order everywhere"
        about = {"side": feature.side, "kind": feature.kind, **size, "rows": rows, "holds": holds}
        inputs.append({"name": name, "dtype": str(dtype), "shape": shape, **about})
    ((name, dtype, shape),) = _tensors(graph.graph.output)
    holds = "higher ranks first; only the order within one request means anything"
    return {
        "inputs": inputs,
        "output": {"name": name, "dtype": str(dtype), "shape": shape, "holds": holds},
        "strings": STRINGS,
        "serve": {
            "start": "mlflow models serve -m FOLDER_OR_MODEL_URI --env-manager local --port 5001",
            "ask": "curl localhost:5001/invocations -H 'Content-Type: application/json' -d @serving_input_example.json",
            "answer": {"predictions": {"score": ["one number a candidate"]}},
        },
    }


def mlflow_signature(graph: onnx.ModelProto) -> ModelSignature:
    """Named tensors; -1 for the dimensions that are free."""

    def schema(values: Iterable[onnx.ValueInfoProto]) -> MlflowSchema:
        tensors = _tensors(values)
        return MlflowSchema(
            [TensorSpec(t, tuple(d if isinstance(d, int) else -1 for d in s), n) for n, t, s in tensors]
        )

    return ModelSignature(schema(graph.graph.input), schema(graph.graph.output))


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> Iterator[tuple[str, np.dtype, list[int | str]]]:
    """Name, type and shape of inputs or outputs; a free dimension by its name."""
    for value in values:
        tensor = value.type.tensor_type
        dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        yield value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), dims


def measure(
    session: onnxruntime.InferenceSession, features: tuple[Feature, ...], stats: Stats, *, repeats: int
) -> dict[str, dict[str, float]]:
    """Microseconds of a run by the number of candidates: `{"200": {"count", "mean", "p50", "p99"}, ...}`."""
    rng = np.random.default_rng(0)
    times = timed([runs_of(session, features, stats, candidates, rng) for candidates in CANDIDATES], repeats)
    return {str(candidates): stat(one) for candidates, one in zip(CANDIDATES, times, strict=True)}


def runs_of(
    session: onnxruntime.InferenceSession,
    features: tuple[Feature, ...],
    stats: Stats,
    candidates: int,
    rng: np.random.Generator,
) -> Timed:
    """Runs of a whole network on made-up requests, as `timed` takes them."""
    feeds = [draw_feed(features, stats, candidates, rng) for _ in range(FRESH)]
    return lambda k: session.run(None, feeds[k % FRESH])


def write_mlflow_model(folder: Path, graph: onnx.ModelProto, example: Feed, *, threads: int) -> None:
    """An MLflow model in an empty folder: `model.onnx`, `MLmodel`, the examples; a server runs it on `threads`."""
    mlflow.onnx.save_model(
        graph,
        folder,
        signature=mlflow_signature(graph),
        input_example=example,
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "onnx", "onnxruntime")],
        onnx_execution_providers=["CPUExecutionProvider"],
        onnx_session_options={"intra_op_num_threads": threads, "inter_op_num_threads": 1},
        save_as_external_data=False,
    )


def register(run: Run, folder: Path, *, name: str, alias: str, tags: dict[str, str]) -> str:
    """Logs an MLflow model to the run, as the next version of `name` that `alias` then stands for; its URI.

    Where the run has a version of that name already, that one is taken: a restart adds none. Raises InputError where
    the server is down.
    """
    run = run.online()
    client = run.client
    client.log_artifacts(run.run_id, str(folder), "model")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = client.search_model_versions(f"name='{name}' and run_id='{run.run_id}'")
    source = f"{client.get_run(run.run_id).info.artifact_uri}/model"
    number = found[0].version if found else client.create_model_version(name, source, run.run_id).version
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value)
    client.set_registered_model_alias(name, alias, number)
    return f"models:/{name}/{number}"


def kept(values: Mapping[str, Any], *prefixes: str) -> dict[str, float]:
    """The numbers whose names begin with one of the prefixes."""
    return {key: value for key, value in values.items() if key.startswith(prefixes) and isinstance(value, float)}


def results_row(path: Path, name: str) -> dict[str, Any]:
    """A student's row of a `results.json`: of that name, or the only one; raises InputError where there is none."""
    try:
        results = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"--results {path}: {error}") from error
    rows = {row["name"]: row for row in results.get("rows", [])}
    if rows and name not in rows:
        raise InputError(f"--results {path}: no row {name!r}; name one of {', '.join(rows)} by --row")
    return rows[name] if rows else results
