"""Any name of a feature goes the whole line, from the logs to the served network, or is refused by schema.json."""

import copy
import json
import shutil

import mlflow
import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from logs_fixture import SCHEMA, write_logs
from samples_fixture import build, random_teacher
from torch import nn

from prerank.core.errors import InputError
from prerank.logs.schema import load_schema, parse_schema
from prerank.models.checkpoint import load_model
from prerank.models.embed import Embed, module_name
from prerank.models.stats import load_stats
from prerank.serving import export, parity
from prerank.serving.graph import inputs_graph, ranker_graph
from prerank.serving.session import open_session, score_by
from prerank.serving.signature import describe
from prerank.training.student import load_student

pytestmark = pytest.mark.slow  # whole lines, and MLflow serves

PLAIN = [feature["name"] for feature in SCHEMA["features"]]
TAKEN = [
    *("user.city", "user", "user.city.name", "type", "keys", "training", "forward", "T_destination", "candidates"),
    *("a.list.element", "a"),
    "length of a",
]
STRANGE = [
    *("b/c", "request", "items", "h", "key", "is_impression", "價格 ￥", "قیمت‌ها", "👩‍👩‍👧"),
    *("$x^$ [/bold] {0} %s", "'\"\\", "a%2Eb"),
]


@pytest.fixture(scope="module")
def plain_logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "logs"
    write_logs(folder, requests=40, items_per_list=12, files=1)
    return folder


def renamed(logs, folder, names):
    """The logs with other names of their features, in the order of the schema."""
    new = dict(zip(PLAIN, names, strict=True))
    shutil.copytree(logs, folder)
    raw = copy.deepcopy(SCHEMA)
    for feature in raw["features"]:
        feature["name"] = new[feature["name"]]
    raw["hand_picked"] = [new[name] for name in raw["hand_picked"]]
    (folder / "schema.json").write_text(json.dumps(raw))
    for path in folder.glob("*/*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.rename_columns([new.get(name, name) for name in table.column_names]), path)
    return folder


def student_of(logs, folder):
    """Samples of the logs, and a student with random weights on all features."""
    samples = build(logs, folder / "samples", val_requests=5)
    random_teacher(samples, folder / "student", kind="student", widths=(4,))
    return samples, load_model(folder / "student", kind="student")


def acceptable(name):
    try:
        parse_schema({**SCHEMA, "features": [{**SCHEMA["features"][5], "name": name}], "hand_picked": []}, "here")
    except InputError:
        return False
    return True


NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8).filter(acceptable)


@pytest.mark.slow
@settings(max_examples=8)
@given(names=st.lists(NAMES, min_size=len(PLAIN), max_size=len(PLAIN), unique=True))
@example(names=TAKEN)
@example(names=STRANGE)
def test_any_name_goes_from_the_logs_to_onnx_runtime(names, plain_logs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    logs = renamed(plain_logs, folder / "logs", names)
    samples, model = student_of(logs, folder)
    assert load_schema(samples).names == tuple(names)
    for path in (samples / "val").iterdir():
        assert set(names) <= set(pq.read_schema(path).names)

    features, stats = model.schema.features, load_stats(folder / "student")
    graph = ranker_graph(model.ranker, features)
    onnx.checker.check_model(graph, full_check=True)
    session = open_session(graph, threads=1)
    assert sorted(found.name for found in session.get_inputs()) == sorted(names)
    assert sorted(one["name"] for one in describe(graph, features)["inputs"]) == sorted(names)
    cases = [*parity.hard_cases(model.ranker, features, stats), *parity.real_cases(model.ranker, features, samples)]
    assert parity.compare(score_by(session), cases)["worst"] < 1e-5
    onnx.checker.check_model(inputs_graph(model.ranker, features), full_check=True)

    rows = pq.read_table(next((logs / "candidates").iterdir()))
    scores = load_student(folder / "student").score(rows.slice(0, 30))
    assert np.isfinite(scores).all() and len(np.unique(scores)) > 1
    shutil.rmtree(folder)


def test_the_same_samples_and_scores_by_other_names(plain_logs, tmp_path):
    _, plain = student_of(plain_logs, tmp_path / "plain")
    _, named = student_of(renamed(plain_logs, tmp_path / "logs", TAKEN), tmp_path / "named")
    new = dict(zip(PLAIN, TAKEN, strict=True))
    feed = parity.draw_feed(plain.schema.features, load_stats(tmp_path / "plain/student"), 9, np.random.default_rng(0))
    scores = score_by(open_session(ranker_graph(plain.ranker, plain.schema.features), 1))(feed)
    again = score_by(open_session(ranker_graph(named.ranker, named.schema.features), 1))(
        {new[name]: values for name, values in feed.items()}
    )
    assert scores.tolist() == again.tolist()


@pytest.mark.parametrize("names", [TAKEN, STRANGE], ids=["taken", "strange"])
def test_mlflow_serves_any_name(names, plain_logs, tmp_path):
    samples, model = student_of(renamed(plain_logs, tmp_path / "logs", names), tmp_path)
    stats = load_stats(tmp_path / "student")
    export.write_export(tmp_path / "export", model, stats, samples=samples, repeats=2)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "export"))
    assert sorted(loaded.metadata.get_input_schema().input_names()) == sorted(names)
    hard = list(parity.hard_cases(model.ranker, model.schema.features, stats))
    assert parity.compare(lambda feed: loaded.predict(feed)["score"], hard)["worst"] < 1e-5
    assert len(loaded.predict(loaded.input_example)["score"]) == 3


@given(st.lists(st.one_of(NAMES, st.sampled_from(dir(nn.ModuleDict()))), min_size=1, max_size=6, unique=True))
def test_torch_takes_the_name_of_every_table_and_no_two_are_one(names):
    names = [name for name in names if acceptable(name)]
    made = {module_name(name) for name in names}
    assert len(made) == len(names)
    tables = nn.ModuleDict({name: nn.Embedding(1, 1) for name in made})
    assert len(tables.state_dict()) == len(names)
    tables.load_state_dict(tables.state_dict())


def test_checkpoints_of_earlier_versions_have_the_names_of_the_features():
    features = parse_schema(SCHEMA, "here").features
    stats = {f.name: {"mean": [0.0] * f.size, "std": [1.0] * f.size, "missing": 0.0} for f in features if not f.dim}
    names = {f"tables.{feature.name}.weight" for feature in features if feature.dim}
    assert names == {key for key in Embed(features, stats).state_dict() if key.startswith("tables.")}
    assert module_name("user/city %2E") == "user/city %2E" and module_name("a.b") == "/a%2Eb"
