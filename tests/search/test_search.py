"""The search from taught samples to arch.json and a student, over any number of workers and interruptions."""

import json
import os
import shutil
import signal
from dataclasses import replace
from unittest import mock

import pytest
import torch
from samples_fixture import build, made_up_latency, random_teacher, teach_here

from prerank.core.errors import InputError
from prerank.latency.formula import fetch_us, inference_us
from prerank.latency.options import Latency
from prerank.latency.table import load_table
from prerank.logs.schema import load_schema
from prerank.models.arch import load_arch
from prerank.models.checkpoint import load_model
from prerank.models.options import Distill, Optim
from prerank.samples.kept import Kept
from prerank.search import group
from prerank.search.found import found_in
from prerank.search.group import proposed_here, run_search, search_all
from prerank.search.options import Search
from prerank.training.options import Compute
from prerank.training.worker import Job
from workflows import search_arch, train_student
from workflows.search_arch import SearchArch, spec_of

ONE = Compute(cpus=0.5)


@pytest.fixture(scope="module")
def config(logs, tmp_path_factory):
    """A short search, with a made-up latency table."""
    folder = tmp_path_factory.mktemp("search")
    samples = build(logs, folder / "samples")
    taught = teach_here(samples, random_teacher(samples, folder / "teacher"), folder / "taught")
    table = made_up_latency(folder / "latency.json", taught, candidates=48)
    return SearchArch(
        taught,
        table,
        folder / "out",
        widths="8",
        k=12,
        search=Search("autofas", "8,4,0", layers=2, epochs=4, warmup_epochs=1, fold=2),
        latency=Latency(candidates=48),
        distill=Distill(score=1.0, contrast=0.5, projection=4),
        optim=Optim(batch=16, epoch_steps=1),
        compute=ONE,
    )


def searched(config, tmp_path, compute=ONE, runs=None):
    spec = spec_of(config)
    options = {"compute": compute, "k": config.k, "runs": runs or {}}
    return search_all([spec], config.samples, tmp_path / "work", **options)[spec.arm.name]


def assert_same(found, expected, tolerance):
    assert len(found.history) == len(expected.history)
    assert found.values == pytest.approx(expected.values, rel=tolerance, abs=tolerance)
    for here, there in zip(found.history, expected.history, strict=True):
        assert here["gates"] == pytest.approx(there["gates"], rel=tolerance, abs=tolerance)
        numbers = [{k: v for k, v in epoch.items() if isinstance(v, float)} for epoch in (here, there)]
        assert numbers[0] == pytest.approx(numbers[1], rel=tolerance, abs=tolerance)


@pytest.fixture(scope="module")
def said_and_found(config, ray_cluster):
    """What the command says, and what its one worker has found without a disturbance."""
    found = {}

    def kept(*args, **options):
        found.update(search_all(*args, **options))
        return found

    with mock.patch.object(search_arch, "search_all", kept):
        return search_arch.main(config), found["search"]


@pytest.fixture
def undisturbed(said_and_found):
    return said_and_found[1]


@pytest.mark.ray
def test_what_is_found_fits_the_budget_and_can_be_trained(config, said_and_found):
    said, found = said_and_found
    schema = load_schema(config.samples)
    table = load_table(config.latency_table, candidates=48)
    arch = load_arch(config.out / "arch.json")
    features = schema.select(arch.features, where="test")
    assert said["fetch_us"] == fetch_us(features, schema.fetch)
    assert said["inference_us"] == inference_us(table, features, arch.widths)
    assert said["latency_us"] == said["fetch_us"] + said["inference_us"] <= said["budget_us"]
    hand_picked = schema.select(schema.hand_picked, where="test")
    assert said["budget_us"] == fetch_us(hand_picked, schema.fetch) + inference_us(table, hand_picked, (8,))
    assert arch == found.derive(schema)
    history = json.loads((config.out / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == [0, 1, 2, 3]
    assert {path.name for path in config.out.glob("*.png")} == {"gates.png", "latency.png", "widths.png"}
    before = (config.out / "manifest.json").stat().st_mtime
    assert search_arch.main(config) == said and (config.out / "manifest.json").stat().st_mtime == before
    student = train_student.TrainStudent(
        config.samples,
        config.out.parent / "student",
        arch=config.out / "arch.json",
        k=12,
        optim=Optim(batch=16, epoch_steps=1, epochs=1),
        compute=ONE,
    )
    train_student.main(student)
    assert load_model(student.out, kind="student").arch == arch


@pytest.mark.ray
def test_two_workers_search_as_one_does(config, undisturbed, tmp_path):
    assert_same(searched(config, tmp_path, Compute(workers=2, cpus=0.5)), undisturbed, 2e-3)


@pytest.mark.ray
@pytest.mark.faults
def test_a_killed_worker_changes_nothing(config, undisturbed, tmp_path):
    class Kills:
        def __init__(self, marker):
            self.marker = marker

        def metrics(self, values, step):
            if step == 2 and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    marker = tmp_path / "killed"
    often = replace(ONE, checkpoint_steps=2)
    assert_same(searched(config, tmp_path, often, {"search": Kills(marker)}), undisturbed, 0)
    assert marker.exists()


class Copies:
    """The one worker of a search, which puts aside what it would go on with, at every step that it is kept."""

    rank, world, device, kept = 0, 1, torch.device("cpu"), Kept()

    def __init__(self, done):
        self.done, self.saved = done, []

    def finished(self, name):
        return False

    def under_way(self, name):
        return (self.done / f"{name}.latest.safetensors").is_file()

    def prepare(self, method):
        return method

    def keep(self, name, state, last):
        if not last:
            self.saved.append(self.done.with_name(f"{self.done.name}-{state.epoch}-{state.step}"))
            shutil.copytree(self.done, self.saved[-1])

    def tell(self, *_, **__):
        pass


@pytest.mark.slow
def test_it_goes_on_from_any_step_as_if_nothing_had_been(config, tmp_path):
    spec, job = spec_of(config), Job(config.samples, replace(ONE, checkpoint_steps=1), config.k)
    whole = Copies(tmp_path / "whole")
    whole.done.mkdir()
    run_search(spec, job, whole)
    assert len(whole.saved) == 12
    for folder in whole.saved:
        run_search(spec, job, Copies(folder))
        assert_same(found_in(folder, spec), found_in(whole.done, spec), 0)


def test_what_makes_no_sense_is_named(config, tmp_path):
    for change, complaint in (
        ({"search": replace(config.search, widths="0")}, "search.widths must be different widths"),
        ({"search": replace(config.search, fold=1)}, "search.fold must be 2 or more"),
        ({"search": replace(config.search, widths="16,4,0")}, "width 16 out of a layer, measured are"),
        ({"latency": Latency(candidates=48, penalty=-1.0)}, "latency.penalty is out of range"),
        ({"budget_us": 0.0}, "--budget-us 0 .*nothing fits; the cheapest, .*, takes .*; allow at least that"),
        ({"budget_us": 9.0, "search": replace(config.search, method="fscd")}, "--budget-us 9 .*nothing fits"),
        ({"features": "query_city"}, "nothing tells one candidate from another"),
    ):
        with pytest.raises(InputError, match=complaint):
            searched(replace(config, **change), tmp_path)
    with pytest.raises(InputError, match="there are: onnxruntime, 48 candidates"):
        spec_of(replace(config, latency=Latency(candidates=50)))


def test_searches_within_other_budgets_and_by_other_methods_ask_the_same_questions(config):
    job, spec = Job(config.samples, config.compute, config.k), spec_of(config)

    def ground(arm=spec.arm, search=spec.search, **changes):
        return group._ground(replace(spec, arm=arm, search=search, **changes), job)

    same = ground(search=replace(spec.search, method="propose"))
    for alike in ({"trainings": 7}, {"front": "0.5,2"}, {"method": "cegb_free"}):
        assert ground(search=replace(spec.search, **{"method": "propose", **alike})) == same
    assert ground(arm=replace(spec.arm, name="x"), budget_us=2.0) == same
    for other in ({"steps": 7}, {"widths": "8,0"}, {"gate_lr": 0.1}):
        assert ground(search=replace(spec.search, **other)) != same
    assert ground(arm=replace(spec.arm, seed=1)) != same != ground(arm=replace(spec.arm, widths=(4, 4)))


@pytest.mark.ray
def test_proposals_are_searched_side_by_side_as_in_one_process(config, ray_cluster, tmp_path):
    search = Search(widths="8,4,0", layers=2, trainings=30, steps=1, front="2", fold=2)
    config = replace(config, search=search, out=tmp_path / "proposed")
    said = search_arch.main(config)
    assert said["latency_us"] <= said["budget_us"]
    assert {path.name for path in config.out.iterdir()} >= {"arch.json", "front.json", "proposals.json", "front.png"}
    here = proposed_here(spec_of(config), Job(config.samples, config.compute, config.k))
    assert here.derive(load_schema(config.samples)) == load_arch(config.out / "arch.json")
    front = json.loads((config.out / "front.json").read_text())
    assert [point["features"] for point in front["points"]] == [
        point["features"] for point in here.front(load_schema(config.samples))["points"]
    ]
