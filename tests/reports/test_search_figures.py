"""The figures of a made-up search: every gate, time and width is drawn where it belongs, and nothing without data."""

import re
from types import SimpleNamespace

import pytest

from prerank.models.arch import Arch
from prerank.reports.drawing import inline_svg
from prerank.reports.search.figures import by_source, search_figures

FEATURES = [
    SimpleNamespace(name="price", source="near", fetch_us=3.0),
    SimpleNamespace(name="brand_$x_1$", source="near", fetch_us=2.5),
    SimpleNamespace(name="visits", source="far", fetch_us=1300.0),
    SimpleNamespace(name="rating", source="near", fetch_us=4.0),
]
GATES = [[0.5, 0.5, 0.5, 0.5], [0.1, 0.6, 0.9, 0.7]]
HISTORY = [
    {
        "epoch": epoch,
        "train/loss": 1.0,
        "gates": {f.name: gate for f, gate in zip(FEATURES, GATES[epoch], strict=True)},
        "widths": [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8]],
        "fetch_us": 900.0 - epoch,
        "inference_us": 300.0,
        "latency_us": 1200.0 - epoch,
        "gate_entropy": 0.69 - epoch / 10,
        "width_entropy": 1.0,
    }
    for epoch in range(2)
]
ARCH = Arch(("visits", "rating"), (64, 0, 0))


def drawn(history=HISTORY):
    return search_figures(history, arch=ARCH, features=FEATURES, widths=(64, 16, 0), budget_us=1000.0)


def test_gates_by_source_the_likeliest_first_and_the_kept_marked():
    groups = by_source(FEATURES, HISTORY[-1]["gates"])
    assert {source: [f.name for f in group] for source, group in groups.items()} == {
        "far": ["visits"],
        "near": ["rating", "brand_$x_1$", "price"],
    }
    axes = drawn()["gates"].axes[0]
    opacity = [colour[3] for colour in axes.collections[0].get_facecolors()]
    assert opacity == pytest.approx([0.04 + 0.96 * gate for gate in (0.5, 0.9, 0.5, 0.7, 0.5, 0.6, 0.5, 0.1)])
    at = {text.get_text(): text.xy[1] for text in axes.texts}
    ordered = ["far: 1 of 1 kept", "visits", "near: 1 of 3 kept", "rating", r"brand \$x 1\$", "price"]
    assert sorted(ordered, key=at.get) == ordered
    assert at["1,300"] == at["visits"] == at["0.90"] and at["2.5"] == at[r"brand \$x 1\$"] == at["0.60"]
    assert [text.xy[1] for text in axes.texts if text.get_text() == "●"] == [at["visits"], at["rating"]]


@pytest.mark.slow
def test_times_against_the_budget_and_entropies():
    times, entropies = drawn()["latency"].axes
    lines = {tuple(line.get_ydata()) for line in times.lines}
    assert {(900.0, 899.0), (300.0, 300.0), (1200.0, 1199.0)} <= lines
    assert [1000.0, 1000.0] in [list(line.get_ydata()) for line in times.lines]
    assert {"budget 1,000", "total 1,199", "fetch 899", "inference 300"} == {text.get_text() for text in times.texts}
    assert {"gates 0.59", "widths 1.00"} == {text.get_text() for text in entropies.texts}


def test_a_panel_a_layer_with_the_chosen_width_thick():
    panels = drawn()["widths"].axes
    assert [axes.get_title(loc="left") for axes in panels] == ["Layer 1", "Layer 2", "Layer 3"]
    for axes, chosen, chance in zip(panels, ("64 •", "skip •", "skip •"), (0.5, 0.6, 0.8), strict=True):
        assert chosen in {text.get_text() for text in axes.texts}
        assert [line.get_ydata()[0] for line in axes.lines if line.get_linewidth() == 3] == [chance]


def test_what_a_history_does_not_tell_is_not_drawn():
    assert drawn([]) == {} == drawn([{"epoch": 0, "train/loss": 1.0}])
    assert set(drawn([{"epoch": 0, "gates": HISTORY[0]["gates"]}])) == {"gates"}
    assert len(drawn([{"epoch": 0, "latency_us": 5.0}])["latency"].axes) == 1
    assert "widths" not in drawn([{**HISTORY[0], "widths": []}])  # no hidden layer


@pytest.mark.slow
def test_every_colour_follows_the_page():
    for name, figure in drawn().items():
        assert not re.findall(r"#[0-9a-f]{6}\b", inline_svg(figure, name, ""))
