"""Ratios of steps whose times are known, and the real steps on a batch."""

import itertools
from types import SimpleNamespace
from unittest import mock

import pytest

from prerank.benchmarks import search_step
from prerank.benchmarks.peer import Peer
from prerank.benchmarks.rows import Left


def test_ratios_of_known_times(taught):
    """A plain step takes 2 s, one of the weights 3, one of the architecture 5; the first batch takes ten times that."""
    now = SimpleNamespace(s=0.0)

    def takes(seconds):
        slow = itertools.chain([10], itertools.repeat(1))

        def turn(batch, step):
            now.s += seconds * next(slow)

        return turn

    def search(spec, schema, stats):
        name = f"{spec.search.form} {spec.search.estimator}"
        return {f"{name}, weights": takes(3.0), f"{name}, architecture": takes(5.0)}

    fakes = {"_plain": lambda *_: takes(2.0), "_search": search, "_nni": lambda *_: {}}
    with (
        mock.patch.multiple(search_step, **fakes),
        mock.patch.object(search_step.time, "perf_counter", lambda: now.s),
    ):
        found = search_step.ratios(taught, candidates="8,4,0", layers=2, batch=16, steps=2)
    assert found.plain_s == 2.0 and found.of.pop("plain") == 1.0
    expected = {f"{form} {estimator}{turn}" for form, estimator in search_step.FORMS for turn in ("", ", weights")}
    assert expected < set(found.of)
    for name, ratio in found.of.items():
        assert ratio == pytest.approx(1.5 if "weights" in name else 2.5 if "architecture" in name else 2.0)


@pytest.mark.slow
def test_every_turn_runs_on_taught_samples(taught):
    moved = {}

    def counted(turns, batches):
        assert len(batches) == 3
        for name, turn in turns.items():
            turn(batches[0], 0)
            moved[name] = 1.0
        return moved

    with mock.patch.object(search_step, "_medians", counted):
        found = search_step.ratios(taught, candidates="8,4,0", layers=2, batch=16, steps=2)
    forms = len(search_step.FORMS) + (not search_step.NNI.lacking)
    assert len(moved) == 1 + 2 * forms and set(found.of.values()) == {1.0}


def test_nni_is_held_against_each_form(taught, monkeypatch):
    of = {f"{search_step.NNI.name}, weights": 8.0, f"{search_step.NNI.name}, architecture": 16.0}
    of |= {f"{form} {estimator}": 3.0 for form, estimator in search_step.FORMS}
    monkeypatch.setattr(search_step, "ratios", lambda *_, **__: search_step.Ratios(2.0, of))
    monkeypatch.setattr(search_step, "NNI", Peer(search_step.NNI.name, ("numpy",)))
    rows = {row.name: row for row in search_step.rows(taught, steps=2)}
    assert rows["search, shared softmax, NNI"].value == pytest.approx(4.0)
    assert rows["search, shared softmax, NNI"].detail == "6000 and 24000 ms"
    monkeypatch.setattr(search_step, "NNI", Peer("NNI", ("no_such_package",)))
    *_, left = search_step.rows(taught, steps=2)
    assert isinstance(left, Left) and "no_such_package not installed" in left.why
