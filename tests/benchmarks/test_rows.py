"""Rows of a benchmark from times that are known, and all of them once, for their form and never for their times."""

import itertools
import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from samples_fixture import random_teacher

from prerank.benchmarks import building, rows, scale, scoring, search_step, starting, tables
from prerank.benchmarks.rows import Row
from prerank.benchmarks.suite import NAMES
from prerank.core.errors import InputError
from workflows.benchmark import Benchmark, main


@pytest.mark.parametrize(
    ("value", "most", "least", "reached", "target"),
    [
        (2.0, 2.0, None, True, "≤ 2x"),
        (2.1, 2.0, None, False, "≤ 2x"),
        (0.9, None, 0.9, True, "≥ 0.9x"),
        (0.89, None, 0.9, False, "≥ 0.9x"),
        (7.0, None, None, True, ""),
    ],
)
def test_a_target_is_reached_or_not(value, most, least, reached, target):
    row = Row("x", "", value, "times", most, least)
    assert row.reached is reached and row.target == target


def test_a_value_is_said_with_its_unit():
    assert (str(Row("x", "", 0.0137, "share", most=0.1)), Row("x", "", 0.0137, "share", most=0.1).target) == (
        "1.37%",
        "≤ 10%",
    )
    assert (str(Row("x", "", 3.217, "s", most=2.0)), Row("x", "", 3.217, "s", most=2.0).target) == ("3.22 s", "≤ 2 s")


def test_things_take_turns_and_the_first_round_does_not_count(monkeypatch):
    now, order = SimpleNamespace(s=0.0), []
    monkeypatch.setattr(rows.time, "perf_counter", lambda: now.s)

    def takes(name, seconds):
        lasting = itertools.chain([100.0], itertools.cycle(seconds))

        def turn():
            order.append(name)
            now.s += next(lasting)

        return turn

    found = rows.in_turns({"a": takes("a", [1, 2, 9]), "b": takes("b", [4, 4, 4])}, 3)
    assert order == ["a", "b"] * 4
    np.testing.assert_allclose(found["a"], [1, 2, 9])
    assert rows.medians(found) == {"a": 2, "b": 4}


def test_folders_that_are_not_there_are_named_before_anything_is_timed(tmp_path):
    with pytest.raises(InputError, match=r"--samples .*none: no such folder"):
        main(Benchmark("feed", samples=tmp_path / "none"))


@pytest.mark.slow
def test_all_rows_have_their_form(taught, samples, tmp_path, monkeypatch, capsys):
    """Commands and other processes take times that are made up; what runs in this one runs once."""
    took = {building.OURS: (9.0, 900.0)}
    monkeypatch.setattr(building, "watch", lambda module, _: took.get(module, (2.0, 100.0)))
    monkeypatch.setattr(starting, "_python", lambda source: None)
    monkeypatch.setattr(starting, "_until", lambda *_: 1.0)
    monkeypatch.setattr(starting, "_head", lambda *_: nullcontext({}))
    monkeypatch.setattr(scale, "_of_training", lambda arm, samples, workers: 10.0 * workers)
    monkeypatch.setattr(tables, "SIZES", (2 * tables.SMALL,))
    monkeypatch.setattr(search_step, "WIDTHS", "8,4,0")
    monkeypatch.setattr(scoring, "CANDIDATES", (20,))
    teacher = random_teacher(samples, tmp_path / "teacher")
    student = random_teacher(samples, tmp_path / "student", kind="student", features=("price", "brand", "match"))
    out = tmp_path / "benchmark.json"
    config = Benchmark("all", tmp_path, taught, teacher, student, rows=2000, k=12, quick=True, out=out)
    assert main(config) == json.loads(out.read_text())
    told = json.loads(out.read_text())
    assert told["schema"] == rows.SCHEMA and told["quick"] and told["machine"]["cores"] and told["versions"]["torch"]
    left = {row["name"] for row in told["left_out"]}
    named = {name.split(",")[0].split(" ")[0] for name in {row["name"] for row in told["rows"]} | left}
    assert named == {*NAMES} - {"tables"} | {"id"}
    assert {"sweep", "evaluation", "pipeline"} < left and all(row["why"] for row in told["left_out"])
    build = next(row for row in told["rows"] if row["name"] == "build clustered, small")
    assert (build["value"], build["most"], build["reached"]) == (4.5, 3.0, False)
    for row in told["rows"]:
        assert row["value"] >= 0 and np.isfinite(row["value"]) and row["what"] and row["detail"]
        assert row["reached"] is Row(**{key: value for key, value in row.items() if key != "reached"}).reached
    printed = capsys.readouterr().out
    assert all(row["name"] in printed for row in told["rows"])
