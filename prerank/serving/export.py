"""A finished student as an ONNX file that says how to feed it, timed, and as a version in MLflow's model registry."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import onnx
import onnxruntime
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.onnx import save_model
from mlflow.types import Schema as MlflowSchema
from mlflow.types import TensorSpec

from prerank.core.errors import InputError
from prerank.core.outputs import Manifest, read_manifest, write_json
from prerank.logs.schema import Feature
from prerank.models.checkpoint import Model
from prerank.models.ranker import Ranker, Scorer
from prerank.models.stats import Stats
from prerank.models.towers import TwoTower
from prerank.models.trees import Boosted, TowerTrees
from prerank.serving.packed import pack
from prerank.serving.parity import Feed, Parity, Scores, compare, draw_feed, hard_cases, real_cases
from prerank.serving.served import TREES, as_served, graph_of
from prerank.serving.session import heads_by, open_session, score_by
from prerank.serving.signature import describe, tensors_of
from prerank.serving.timing import FRESH, Machine, Stat, machine, stat, timed
from prerank.serving.timing import Run as Timed
from prerank.serving.towers import write_towers
from prerank.tracking.runs import Run

CANDIDATES = (200, 500, 1000, 2000)


class Exported(TypedDict):
    """What was found out of a network that is exported."""

    parity: dict[str, Parity]
    """Of made-up requests, `hard`, and of real ones, `samples`."""
    inference_us: dict[str, Stat]
    """By the number of candidates."""
    machine: Machine


class Registered(TypedDict):
    """Where it is in MLflow."""

    uri: str
    run_id: str
    model: str


class ExportManifest(Manifest, Exported):
    recall: dict[str, float]
    mlflow: Registered


def export_manifest(folder: Path) -> ExportManifest:
    """Raises InputError for what is no finished export."""
    return cast("ExportManifest", read_manifest(folder, kind="export"))


def check(*, name: str, alias: str, threads: int) -> None:
    """Raises InputError for what MLflow or ONNX Runtime would refuse later."""
    if not re.fullmatch(r"[^/:.'\"][^/:'\"]*", name):
        raise InputError(f"--name {name!r}: a registered model's name has no /, : or quotes, and is not empty")
    if not re.fullmatch(r"[\w-]+", alias) or alias.lower() == "latest" or re.fullmatch(r"v\d+", alias, re.I):
        raise InputError(f"--alias {alias!r}: letters, digits, _ and - alone; MLflow keeps latest and v1, v2, ...")
    if threads < 1:
        raise InputError(f"--threads must be 1 or more, got {threads}")


def write_export(
    folder: Path,
    model: Model,
    stats: Stats,
    *,
    threads: int = 1,
    samples: Path | None = None,
    repeats: int = 1000,
    packed: bool = False,
) -> Exported:
    """Writes the MLflow model with `signature.json`, `arch.json` and `schema.json` into an empty folder.

    Of two towers, with trees or without, also their networks and the vectors of the items (`write_towers`), and
    `served.onnx`, which answers a request from these vectors: the network that is timed. `packed`: as `ranker_graph`
    says.

    Raises RuntimeError, and writes nothing, where ONNX Runtime departs from torch.
    """
    features = model.schema.select(model.arch.features, where="arch.json")
    graph = graph_of(model.ranker, features, packed=packed)
    equal = parity_of(model.ranker, graph, features, stats, samples, threads, packed=packed)
    example = draw_feed(features, stats, 3, np.random.default_rng(0))
    for feature in [feature for feature in features if not feature.dim and not feature.of_request][:1]:
        example[feature.name][-1] = np.nan
    write_mlflow_model(folder, graph, pack(example, features) if packed else example, threads=threads)
    write_json(folder / "signature.json", describe(graph, features))
    model.arch.save(folder / "arch.json")
    model.schema.save(folder)
    served = as_served(model.ranker, features, model.schema, stats, packed=packed)
    towers = model.ranker.towers if isinstance(model.ranker, TowerTrees) else model.ranker
    if isinstance(towers, TwoTower):
        of_towers = tuple(feature for feature in features if feature.side != "cross")
        equal["towers"] = write_towers(folder, towers, of_towers, stats, samples)
        (folder / "served.onnx").write_bytes(served.graph.SerializeToString())
    session = open_session(served.graph, threads)
    times = measure(session, served.features, served.stats, repeats=repeats, packed=packed)
    return {"parity": equal, "inference_us": times, "machine": machine()}


def parity_of(
    scorer: Scorer,
    graph: onnx.ModelProto,
    features: tuple[Feature, ...],
    stats: Stats,
    samples: Path | None,
    threads: int,
    *,
    packed: bool = False,
) -> dict[str, Parity]:
    """How far the graph is from torch on hard requests and, where there are samples, on real ones.

    Of a model with trees it is what these read, as a score that is a rounding beside a split's threshold may fall to
    the other side, which no tolerance bounds; `trees` is how far they are from torch's on the graph's own inputs.
    """
    cases: dict[str, Callable[[Scores], Iterable[tuple[Feed, np.ndarray]]]] = {
        "hard": lambda model: hard_cases(model, features, stats)
    }
    if samples:
        cases["samples"] = lambda model: real_cases(model, features, samples)
    if not isinstance(scorer, TowerTrees | Boosted):
        score = score_by(open_session(graph, threads))
        fed_to = (lambda feed: score(pack(feed, features))) if packed else score
        equal = {name: compare(fed_to, each(scorer)) for name, each in cases.items()}
        if isinstance(scorer, Ranker) and scorer.fusion.heads:
            heads = heads_by(open_session(graph, threads), scorer.fusion.heads)
            of_heads = (lambda feed: heads(pack(feed, features))) if packed else heads
            equal["heads"] = compare(of_heads, cases["hard"](scorer.heads))
        return equal
    trees, inputs, session = scorer.trees, scorer.inputs, open_session(graph_of(scorer, features, trees=True), threads)

    def read(feed: Feed) -> np.ndarray:
        return cast(np.ndarray, session.run([TREES], feed)[0])

    out = {name: compare(read, each(lambda x, request_I: (inputs(x, request_I), None))) for name, each in cases.items()}
    fed = ((feed, trees(torch.from_numpy(read(feed))).numpy()) for feed, _ in cases["hard"](scorer))
    return out | {"trees": compare(score_by(open_session(graph, threads)), fed)}


def mlflow_signature(graph: onnx.ModelProto) -> ModelSignature:
    """Named tensors; -1 for the dimensions that are free."""

    def schema(values: Iterable[onnx.ValueInfoProto]) -> MlflowSchema:
        return MlflowSchema(
            [TensorSpec(t, tuple(d if isinstance(d, int) else -1 for d in s), n) for n, t, s in tensors_of(values)]
        )

    return ModelSignature(schema(graph.graph.input), schema(graph.graph.output))


def measure(
    session: onnxruntime.InferenceSession,
    features: tuple[Feature, ...],
    stats: Stats,
    *,
    repeats: int,
    packed: bool = False,
) -> dict[str, Stat]:
    """Of a run, by the number of candidates."""
    rng = np.random.default_rng(0)
    runs = [runs_of(session, features, stats, candidates, rng, packed=packed) for candidates in CANDIDATES]
    times = timed(runs, repeats)
    return {str(candidates): stat(one) for candidates, one in zip(CANDIDATES, times, strict=True)}


def times_of(made: Exported) -> dict[str, float]:
    """By their names in MLflow, such as `p50_us_at_1000`."""
    times: dict[str, float] = {}
    for candidates, measured in made["inference_us"].items():
        times |= {f"{name}_us_at_{candidates}": measured[name] for name in ("p5", "p50", "p99")}
    return times


def runs_of(
    session: onnxruntime.InferenceSession,
    features: tuple[Feature, ...],
    stats: Stats,
    candidates: int,
    rng: np.random.Generator,
    *,
    packed: bool = False,
) -> Timed:
    """Runs of a whole network on made-up requests, as `timed` takes them."""
    feeds = [draw_feed(features, stats, candidates, rng) for _ in range(FRESH)]
    feeds = [pack(feed, features) for feed in feeds] if packed else feeds
    return lambda k: session.run(None, feeds[k % FRESH])


def write_mlflow_model(folder: Path, graph: onnx.ModelProto, example: Feed, *, threads: int) -> None:
    """An MLflow model in an empty folder: `model.onnx`, `MLmodel`, the examples; a server runs it on `threads`."""
    save_model(
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


def kept(values: Mapping[str, object], *prefixes: str) -> dict[str, float]:
    """The numbers whose names begin with one of the prefixes."""
    return {key: value for key, value in values.items() if key.startswith(prefixes) and isinstance(value, float)}


def results_row(path: Path, name: str) -> dict[str, object]:
    """A student's row of a `results.json`: of that name, or the only one; raises InputError where there is none."""
    try:
        results = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"--results {path}: {error}") from error
    rows = {row["name"]: row for row in results.get("rows", [])}
    if rows and name not in rows:
        raise InputError(f"--results {path}: no row {name!r}; name one of {', '.join(rows)} by --row")
    return rows[name] if rows else results
