"""What a study found: means over requests and seeds, differences that are paired, what is out of order, its page."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from training_fixture import BASE

from prerank.reports.study.show import terminal_table, write_study
from prerank.search.study import name_of, out_of_order, rows_of, unfinished
from prerank.training.rungs import Rung
from prerank.training.study import Studied

NAMES = ("linear", "two_tower", "mlp")
FEATURES = {"linear": ("price", "match"), "two_tower": ("price",), "mlp": ("price", "match")}


YEARS = {"linear": "2016", "two_tower": "2018", "mlp": "2020"}


def studied(name):
    """Of two tries the second was better."""
    arm = replace(BASE, features=FEATURES[name])
    rung = Rung(name, f"what a {name} is", (arm, replace(arm, seed=4)), YEARS[name])
    return Studied(rung, [0.2, 0.3], 1, [Path(f"{name}0"), Path(f"{name}1")])


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    shift = {"linear": 0.0, "two_tower": -0.2, "mlp": 0.1}
    ease_R = rng.random(200) * 0.5 + 0.3
    columns = {}
    for name in NAMES:
        for seed in range(2):
            value_R = ease_R + shift[name] + 0.01 * seed
            columns |= {f"{name_of(name, seed)}.{metric}": value_R for metric in ("recall", "hit_rate")}
    costs = {name: {"fetch_us": 1.0, "inference_us": 2.0 + i, "latency_us": 3.0 + i} for i, name in enumerate(NAMES)}
    return rows_of([studied(name) for name in NAMES], pa.table(columns), costs, base="mlp"), ease_R


def test_means_and_differences(rows):
    rows, ease_R = rows
    linear, two_tower, mlp = rows
    assert linear["recall"]["seeds"] == pytest.approx([ease_R.mean(), ease_R.mean() + 0.01])
    assert linear["recall"]["mean"] == pytest.approx(ease_R.mean() + 0.005)
    assert linear["recall"]["lo"] < linear["recall"]["mean"] < linear["recall"]["hi"]
    # The requests are as hard for both, and the seeds move both: paired, nothing is left of either.
    assert [linear["vs_base"][key] for key in ("mean", "lo", "hi")] == pytest.approx([-0.1] * 3)
    assert [two_tower["vs_before"][key] for key in ("mean", "lo", "hi")] == pytest.approx([-0.2] * 3)
    assert "vs_base" not in mlp and "vs_before" not in linear and "ctr" not in mlp
    assert mlp["tries"] == [{"options": {"seed": 0}, "value": 0.2}, {"options": {"seed": 4}, "value": 0.3}]


def test_a_rung_out_of_order_is_explained(rows):
    (said,) = out_of_order(rows[0])
    assert said == (
        "two_tower (2018) keeps 20.0 points less than linear (2016), 95% interval -20.0 to -20.0: out of the article's "
        "order; it does not read match"
    )


def test_what_could_go_on_is_said():
    done = [studied("mlp"), replace(studied("linear"), rising=1)]
    assert unfinished(done) == [
        "linear was still rising with 1 of 2 seeds when optim.epochs (3) ended the training: more may keep more"
    ]


@pytest.mark.slow
def test_the_page_and_the_table(rows, tmp_path):
    facts = {"requests": 200, "candidates": 50.0, "k": 10}
    results = {"study": "ladder", "base": "mlp", "seeds": 2, "candidates": 50, "logs": facts, "rows": rows[0]}
    results |= {"said": out_of_order(rows[0]), "mlflow": "", "key": ""}
    write_study(results, tmp_path)
    page = (tmp_path / "study.html").read_text()
    assert "it does not read match." in page and "best of 2, seed 4" in page and "two tower" in page
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
    table = terminal_table(results)
    assert table.row_count == 3 and "mlp keeps most of the teacher's top 10" in table.title
