"""What short trainings are worth, from trainings whose ends are known; and samples that are made wider."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from prerank.benchmarks import proposals
from prerank.benchmarks.proposals import Made
from prerank.latency.table import Table
from prerank.logs.schema import load_schema
from prerank.models.arch import Arch
from prerank.search.short import hold


def table_of(features):
    width = sum(feature.width for feature in features)
    inputs = {feature.name: 1.0 for feature in features}
    return Table("onnxruntime", 20, 1, 5.0, inputs, (1, width), (1, 8), ((1.0, 2.0), (3.0, 9.0)), "")


@pytest.fixture
def made(taught, tmp_path):
    rows = [{"features": ["price", f"f{i}"], "widths": [8], "rung": 0, "metric": i / 10} for i in range(9)]
    (tmp_path / "proposals.json").write_text(json.dumps(rows[::-1]))
    return Made(taught, tmp_path, tmp_path / "latency.json")


def test_how_alike_two_orders_are(made, monkeypatch):
    """Four proposals: of six pairs, one is the other way round after the shortest training, and none after longer."""
    after = {60: [0.1, 0.2, 0.4, 0.3], 180: [0.1, 0.2, 0.3, 0.4], 540: [0.1, 0.2, 0.3, 0.4]}
    asked = []

    def trained(arch, held, steps, seed):
        asked.append(arch)
        return arch, np.array([after[steps][(len(asked) - 1) % 4], np.nan])

    monkeypatch.setattr(proposals, "trained", trained)
    monkeypatch.setattr(proposals, "_whole", lambda archs, base, job: (np.array([0.5, 0.6, 0.7, 0.8]), 2.0))
    short, longer, longest = proposals.order(made, k=12, number=4)
    assert [row.value for row in (short, longer, longest)] == pytest.approx([4 / 6, 1, 1])
    assert "its first keeps 70.0 after a whole one, the best 80.0" in short.detail and str(longer) == "1.00"
    # From the worst to the best, evenly.
    assert asked[:4] == [Arch(("price", f"f{i}"), (8,)) for i in (0, 3, 5, 8)]


def test_every_feature_stands_more_often(made):
    schema = load_schema(made.samples)
    table = table_of(schema.features)
    with proposals._grown(made, table, 3) as (grown, wider):
        features = load_schema(grown.samples).features
        assert len(features) == 3 * len(schema.features)
        assert {replace(f, name="price") for f in features if f.name.startswith("price")} == {
            f for f in schema.features if f.name == "price"
        }
        here, there = (
            pq.read_table(sorted(folder.glob("train/*.parquet"))[0]) for folder in (made.samples, grown.samples)
        )
        for name in ("price", "brand"):
            assert there[f"{name}_2"].equals(here[name])
        held = hold(grown.arm, grown.job(12))
        assert len(held.features) == 3 * len([f for f in schema.features if not f.teacher_only])
        assert set(wider.inputs_us) == {f.name for f in features}
        assert wider.at(sum(feature.width for feature in features), 8) == 27.0


def test_a_search_is_reckoned_in_trainings_of_its_student(made, monkeypatch):
    clock = iter([0.0, 30.0, 100.0, 190.0])
    monkeypatch.setattr(proposals.time, "process_time", lambda: next(clock))
    monkeypatch.setattr(proposals, "load_table", lambda path, **_: table_of(load_schema(made.samples).features))
    found = {"candidates": 20, "threads": 1, "budget_us": 100.0}
    monkeypatch.setattr(proposals, "read_found_arch", lambda folder: found)

    class Finds:
        def derive(self, schema):
            return Arch(("price",), (8,))

    monkeypatch.setattr(proposals, "proposed_here", lambda spec, job: Finds())
    monkeypatch.setattr(proposals, "_whole", lambda archs, base, job: (np.array([0.5]), 6.0))
    once, twice = proposals.cost(made, k=12, times=(1, 2))
    assert (once.value, twice.value) == (5, 15)
    assert once.name != twice.name and once.detail == "30 and 6.0 s of one core"
