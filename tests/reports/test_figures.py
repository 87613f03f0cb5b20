"""The figures of made-up results: what they hold, that their names do not collide, that they stay out of the way."""

import itertools

import matplotlib
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure
from report_fixture import made_up, with_search

from prerank.reports.drawing import inline_svg
from prerank.reports.pipeline.figures import figures


@pytest.fixture
def results() -> dict:
    return made_up()


def test_training_is_the_validation_recall_of_each_epoch(results):
    axes = figures(results)["training"].axes[0]
    base = next(line for line in axes.lines if len(line.get_xdata()) == 3 and line.get_color() == "#7a7f87")
    assert list(base.get_xdata()) == [0, 1, 2]
    assert list(base.get_ydata()) == pytest.approx([41.2 / 3, 82.4 / 3, 41.2])


@pytest.mark.slow
def test_one_epoch_and_one_k_are_drawn(results):
    for entry in results["rows"]:
        entry["history"] = entry["history"][:1]
        entry["curve"] = {"k": [150], "recall": [0.4], "hit_rate": [None]}
    assert set(figures(results)) == {"ladder", "recall_at_k", "training", "teacher_proof"}
    for name, figure in figures(results).items():
        assert "<path" in inline_svg(figure, name, "")


def test_names_at_the_ends_of_lines_do_not_overlap(results):
    for entry in results["rows"]:
        entry["curve"]["recall"] = entry["curve"]["hit_rate"] = [0.1, 0.2, 0.3, 0.4]
    axes = figures(results)["hit_rate_at_k"].axes[0]
    heights = sorted(text.get_position()[1] for text in axes.texts)
    assert len(heights) == 4
    assert min(b - a for a, b in itertools.pairwise(heights)) > 0.06
    assert heights[0] > -0.2 and heights[-1] <= 1  # the title stands above


def test_recall_against_time_has_a_point_and_an_interval_a_student_that_was_timed():
    axes = figures(with_search([0.05, 0.03, 0.07]))["latency_recall"].axes[0]
    dots = {line.get_xdata()[0]: line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"}
    assert dots == pytest.approx({291.0: 56.2, 520.4: 51.2})  # neither the teacher nor the untimed
    bars = [line for line in axes.lines if list(line.get_xdata()) == [291.0, 291.0]]
    assert [list(bar.get_ydata()) for bar in bars] == [pytest.approx([55.2, 57.4])]
    low, high = axes.get_ylim()
    assert low < 50.2 and high > 57.4  # no whisker is cut off


def test_points_of_one_time_stand_side_by_side(results):
    for entry in results["rows"]:
        entry["latency_us"] = 500.0
    axes = figures(results)["latency_recall"].axes[0]
    xs = sorted(line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o")
    assert len(xs) == 3 and sum(xs) == pytest.approx(1500)
    assert min(b - a for a, b in itertools.pairwise(xs)) == pytest.approx(0.016 * 550, rel=1e-3)


@pytest.mark.slow
def test_figures_are_plain_and_leave_no_global_state(results):
    before, managed = dict(matplotlib.rcParams), list(Gcf.figs)
    assert all(isinstance(figure, Figure) for figure in figures(results).values())
    for name, figure in figures(results).items():
        inline_svg(figure, name, "")
    assert dict(matplotlib.rcParams) == before
    assert list(Gcf.figs) == managed  # what pyplot would keep alive
