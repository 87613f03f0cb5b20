"""All methods of the search are methods: made alike, each takes its turns, and `derive` can read what it says."""

import inspect
from dataclasses import replace
from typing import get_args

import pytest
import torch
from search_fixture import ARM, FEATURES, FETCH, SCHEMA, STATS, TABLE, Made, table_of
from torch import nn

from prerank.latency.formula import latency_us
from prerank.latency.options import Latency
from prerank.models.checkpoint import State
from prerank.samples.batches import training_batch
from prerank.search.contest import FIXED, FREE
from prerank.search.found import Found
from prerank.search.group import METHODS, UNTRAINED, note
from prerank.search.loop import make_optimizer, search_steps, take_turn
from prerank.search.method import Facts, Method
from prerank.search.options import MethodName, Search
from prerank.search.portfolio import VALUED
from prerank.search.spec import Spec
from prerank.training.loop import Lesson

BUDGET_US = 500.0


def spec_of(name):
    search = Search(method=name, widths="16,8,4,0", layers=2, epochs=2, warmup_epochs=1)
    return Spec(ARM, search, Latency(), TABLE, BUDGET_US)


def made(spec):
    torch.manual_seed(0)
    return METHODS[spec.search.method](spec, SCHEMA, STATS, None)


def batch_of(seed):
    return training_batch(table_of(seed), ARM, FEATURES, 0, "teacher_score")


def test_every_name_is_a_method():
    orders = {*METHODS, *UNTRAINED} - {"autofas"}
    free = {f"{name}_free" for name in (*orders, "cegb", "autofas")}
    assert {*METHODS, *UNTRAINED, *free, "propose"} == set(get_args(MethodName))
    assert set(VALUED) == {name for name in free if name.removesuffix("_free") not in (*UNTRAINED, "autofas")}
    assert {*FIXED, *FREE, "autofas", "propose"} == set(get_args(MethodName))
    promised = {name for name in vars(Method) if not name.startswith("_")}
    for method in METHODS.values():
        assert issubclass(method, nn.Module) and promised <= set(dir(method))
        parameters = [inspect.signature(cls.__init__).parameters for cls in (Method, method)]
        assert [(p.name, p.default) for p in parameters[0].values()] == [
            (p.name, p.default) for p in parameters[1].values()
        ]


@pytest.mark.parametrize("name", METHODS)
def test_a_turn_moves_what_it_is_of_and_nothing_else(name):
    spec = spec_of(name)
    method = made(spec)
    optimizer = make_optimizer(method, ARM, spec.search)
    architecture = method.architecture()
    ids = {id(parameter) for parameter in architecture}
    weights = [parameter for parameter in method.parameters() if id(parameter) not in ids]
    for learns, moving, still in (("weights", weights, architecture), ("architecture", architecture, weights)):
        if not moving:
            continue
        before = [[p.detach().clone() for p in side] for side in (moving, still)]
        said = take_turn(method, optimizer, batch_of(1), 3, 1.0, learns, clip=5.0)
        assert torch.isfinite(said["loss"]) and {"hard", "score"} <= set(said)
        assert any(not torch.equal(old, new) for old, new in zip(before[0], moving, strict=True))
        assert all(torch.equal(old, new) for old, new in zip(before[1], still, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_a_short_search_ends_in_an_architecture_within_the_budget(name):
    spec = spec_of(name)
    method, state = made(spec), State()
    lesson = Lesson(ARM, FEATURES, Made(0, 3), lambda method: {"auc": 0.5}, "teacher_score")
    optimizer = make_optimizer(method, ARM, spec.search)
    search_steps(lesson, spec.search, Made(1, 3), method, optimizer, state=state, save=lambda _: None)
    assert [epoch["epoch"] for epoch in state.history] == [0, 1] and state.history[1]["val/auc"] == 0.5
    facts = method.facts()
    assert set(facts) <= Facts.__optional_keys__ and facts.items() <= state.history[-1].items()
    assert bool(note(facts)) == ("latency_us" in facts)
    data = batch_of(7)
    score_I, repr_ID = method.student(data.features, data.request_I)
    assert score_I.shape == data.request_I.shape and len(repr_ID) == len(score_I)
    values = method.values(batch_of(seed) for seed in range(2)).tolist()
    log_p = method.log_p()
    assert len(values) == len(FEATURES)
    assert [len(slot) for slot in log_p] == [len(spec.candidates)] * (2 if name == "autofas" else len(ARM.widths))
    arch = Found(spec, [], values, log_p).derive(SCHEMA)
    kept = SCHEMA.select(arch.features, where="test")
    assert latency_us(TABLE, kept, FETCH, arch.widths) <= BUDGET_US
    assert name == "autofas" or arch.widths == ARM.widths


def test_fixed_widths_are_the_arms_own_whatever_there_is_to_choose_from():
    """log p of one candidate a layer is 0, of all others -inf."""
    for spec, candidates in ((spec_of("autofas"), (16, 8, 4, 0)), (spec_of("fscd"), (8, 16))):
        assert spec.candidates == candidates
        for slot, width in zip(spec.fixed_log_p(), ARM.widths, strict=True):
            assert [c for c, p in zip(candidates, slot, strict=True) if p == 0.0] == [width]
            assert sum(p == float("-inf") for p in slot) == len(candidates) - 1
    spec = replace(spec_of("autofas"), budget_us=1000.0)
    searched = Found(spec, [], [1.0] * len(FEATURES), [[0.0, -9.0, -9.0, -9.0]] * 2)
    assert searched.derive(SCHEMA).widths == (16, 16)
    assert searched.with_fixed_widths().derive(SCHEMA).widths == ARM.widths
