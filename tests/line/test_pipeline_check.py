"""What a pipeline finds out before anything is started: all that its last steps would stumble over."""

import json
import shutil
from dataclasses import replace
from typing import cast

import polars as pl
import pytest
from samples_fixture import made_up_latency

from prerank.core.errors import InputError
from prerank.latency.options import Latency
from prerank.logs.folder import open_logs
from prerank.models.options import Distill, Optim
from prerank.samples.build import Split
from prerank.search.options import Search
from prerank.tracking.runs import Run
from workflows import pipeline
from workflows.line import steps
from workflows.pipeline import Pipeline


@pytest.fixture
def config(logs, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "start_ray", lambda: pytest.fail("nothing is to be started"))
    monkeypatch.setattr(pipeline, "run", lambda *_, **__: pytest.fail("nothing is to be logged"))
    return Pipeline(logs, tmp_path / "run", k=12)


def test_what_is_right_goes_on(config, logs):
    steps.check(config, open_logs(logs))
    for right in (
        replace(config, features="price,user_age", widths="", budget_us=200.0),
        replace(config, search=Search("autofas", joint=True), latency=Latency(candidates=48)),
        replace(config, k=47),
        replace(config, split=Split(val_days=2, test_days=1)),
    ):
        steps.check(right, open_logs(logs))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": 48}, r"have 48 candidates at most.*--k 48; lower --k"),
        ({"k": 10**9}, r"--k 1000000000; lower --k"),
        ({"m": 48}, r"are the teacher's top at --m 48.*lower --m"),
        ({"split": Split(test_days=0)}, r"split\.test_days 0: expected 1 or more"),
        ({"split": Split(val_days=9)}, r"leave no day to train on"),
        ({"features": "prise"}, r"--features: unknown feature 'prise'; did you mean 'price'"),
        ({"features": "price,secret"}, r"--features: 'secret' is teacher_only"),
        ({"features": "user_age,hour"}, r"--features: no feature of an item or cross side"),
        ({"widths": "64,x"}, r"widths '64,x': expected whole numbers"),
        ({"widths": "-1"}, r"widths of 0 or more, got \(-1,\)"),
        ({"teacher_widths": "-5"}, r"teacher: .*widths of 0 or more, got \(-5,\)"),
        ({"unexposed_ratio": -1.0}, r"teacher: unexposed_ratio must be 0 or more"),
        ({"budget_us": 1.0}, r"--budget-us 1: the cheapest feature of a candidate takes 2 µs to fetch"),
        ({"search": Search(epochs=2, warmup_epochs=2)}, r"search\.warmup_epochs must be below search\.epochs"),
        ({"search": Search(widths="64,64")}, r"search\.widths must be different widths"),
        ({"search": Search("autofas", joint=True), "distill": Distill()}, r"search\.joint distils the ranking network"),
        (
            {"search": Search("autofas", joint=True, ranking_widths="64,-2")},
            r"search\.ranking_widths must be 0 or more",
        ),
        ({"latency": Latency(penalty=-1.0)}, r"latency\.penalty is out of range"),
        ({"optim": Optim(lr=0.0)}, r"optim\.lr must be above 0"),
        ({"distill": Distill(score=1.0, temperature=0.0)}, r"distill\.temperature must be above 0"),
        ({"distill": Distill(score=2.0, form="convex")}, r"distill\.score must be at most 1"),
    ],
    ids=str,
)
def test_options_that_a_later_step_would_refuse(config, changes, said):
    with pytest.raises(InputError, match=said) as error:
        pipeline.main(replace(config, **changes))
    assert "\n" not in str(error.value) and not config.out.exists()


def changed_schema(folder, **changes):
    schema = json.loads((folder / "schema.json").read_text())
    for feature in schema["features"]:
        feature |= changes.get(feature["name"], {})
    schema |= {key: value for key, value in changes.items() if key == "hand_picked"}
    (folder / "schema.json").write_text(json.dumps(schema))


def truth_without_its_column(folder):
    (folder / "truth").mkdir()
    table = pl.read_parquet(folder / "candidates/*.parquet").select("request_id", "item_id", p=pl.lit(0.5))
    table.write_parquet(folder / "truth/part.parquet")


def truth_of_half(folder):
    (folder / "truth").mkdir()
    table = pl.read_parquet(folder / "candidates/*.parquet").select("request_id", "item_id", click_probability=0.5)
    table[::2].write_parquet(folder / "truth/part.parquet")


def no_candidate_for_the_students(folder):
    dear = ("price", "quality", "brand", "item_tags", "item_vector", "match")
    changed_schema(folder, hand_picked=[], **{name: {"teacher_only": True} for name in dear})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (truth_without_its_column, r"truth/part\.parquet: column 'click_probability' is missing"),
        (truth_of_half, r"truth: 1,440 of 2,880 candidates .* have no click_probability"),
        (lambda f: changed_schema(f, hand_picked=["price", "secret"]), r"hand_picked: 'secret' is teacher_only"),
        (lambda f: changed_schema(f, hand_picked=["hour"]), r"hand_picked: no feature of an item or cross side"),
        (no_candidate_for_the_students, r"schema\.json.*no feature of an item or cross side"),
    ],
)
def test_logs_that_a_later_step_would_refuse(config, logs, change, said, tmp_path):
    shutil.copytree(logs, tmp_path / "logs")
    change(tmp_path / "logs")
    with pytest.raises(InputError, match=said) as error:
        pipeline.main(replace(config, logs=tmp_path / "logs"))
    assert "\n" not in str(error.value) and not config.out.exists()


def test_a_budget_that_nothing_fits_is_found_before_the_teacher_is_trained(config, samples, tmp_path, monkeypatch):
    """By the latency table, which takes samples alone."""
    made_up_latency(tmp_path / "latency.json", samples, candidates=48, widths=(4, 16, 32, 64))
    monkeypatch.setattr(steps.profile_latency, "main", lambda *_, **__: None)
    config = replace(config, features="price", widths="4", latency=Latency(candidates=0))
    wide = replace(config, search=Search(widths="64", layers=1))
    for right in (config, replace(wide, budget_us=1000.0)):
        assert steps.profiled(right, samples, tmp_path, cast(Run, None)) == tmp_path / "latency.json"
    with pytest.raises(InputError, match=r"nothing fits; the cheapest, price with widths \(64,\), takes"):
        steps.profiled(wide, samples, tmp_path, cast(Run, None))
