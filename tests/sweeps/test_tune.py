"""Sweeps: the same as the single runs, nothing lost or doubled by kills and failures, faults named."""

import importlib
import io
import json
import math
import os
import pickle
import pkgutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from driver_fixture import Driver, environment, tail
from mlflow.tracking import MlflowClient
from ray import tune as ray_tune
from samples_fixture import build, made_up_latency, random_teacher, teach_here

import tune_spaces
from prerank.core.config import plain
from prerank.core.errors import InputError
from prerank.core.outputs import read_manifest
from prerank.latency.options import Latency
from prerank.models.arch import load_arch
from prerank.models.options import Distill, Optim
from prerank.samples.files import files_of
from prerank.search.options import Search
from prerank.sweeps import grid, resume
from prerank.sweeps.live import Live
from prerank.sweeps.plan import SCHEDULED
from prerank.sweeps.space import searches
from prerank.sweeps.sweep import _held, _StopsAtFault, sweep
from prerank.sweeps.trial import Trials, run_trial, table_at
from prerank.tracking.runs import Run, run
from prerank.training.options import Compute
from prerank.training.worker import Job
from workflows import search_arch, train_student, tune
from workflows.tune import Tune

KEPT = {
    *("prerank.latency.options.Latency", "prerank.latency.table.Table"),
    *("prerank.models.options.Distill", "prerank.models.options.Optim", "prerank.search.options.Search"),
    *("prerank.sweeps.live.Live", "prerank.sweeps.sweep._StopsAtFault"),
    *("prerank.sweeps.trial.Trials", "prerank.sweeps.trial.run_trial", "prerank.tracking.runs.Run"),
    *("prerank.training.options.Compute", "prerank.training.worker.Job"),
    *("workflows.tune.Tune", "workflows.tune.planned_by"),
}
"""What the state of a sweep of format 2 takes from this project."""
SPACES = sorted({module.name for module in pkgutil.iter_modules(tune_spaces.__path__)} - {"objectives"})
"""All but that of logs with labels: see test_objectives.py."""


@pytest.fixture(scope="module")
def config(logs, tmp_path_factory):
    """A small sweep of small students."""
    folder = tmp_path_factory.mktemp("tune")
    samples = build(logs, folder / "samples")
    teacher = random_teacher(samples, folder / "teacher")
    taught = teach_here(samples, teacher, folder / "taught")
    return Tune(
        "smoke",
        taught,
        logs,
        str(teacher),
        folder / "sweep",
        trials=4,
        latency_table=made_up_latency(folder / "latency.json", taught, candidates=48),
        widths="8",
        k=12,
        grace=1,
        search=Search("autofas", "8,4,0", layers=1, epochs=3, warmup_epochs=1, fold=2),
        latency=Latency(candidates=48),
        distill=Distill(score=1.0, contrast=0.5, projection=4),
        optim=Optim(batch=16, epoch_steps=1, epochs=3),
        compute=Compute(cpus=1),
    )


@pytest.mark.parametrize("name", SPACES)
def test_every_space_is_of_fields_and_values_that_a_trial_has(config, name):
    config = replace(config, space=name)
    space = tune.space_of(config)
    for domain in space.values():
        assert hasattr(domain, "sample")
    for _ in range(20):
        drawn = {key: domain.sample() for key, domain in space.items()}
        planned = tune.planned_by(config, drawn, searches=searches(space))
        planned.arm.check()
        assert all(planned.params[key] == value for key, value in drawn.items())
        assert (planned.spec is not None) == (name in ("joint", "search"))


def test_a_grid_has_the_quantiles_of_its_ranges():
    space = {
        "a": ray_tune.loguniform(1.0, 10_000.0),
        "b": ray_tune.uniform(0.0, 1.0),
        "c": ray_tune.choice(["x", "y"]),
        "d": ray_tune.randint(0, 10),
    }
    levels = grid.grid(space, 16)
    assert levels["a"] == pytest.approx([10.0, 1000.0])
    assert levels["b"] == [0.25, 0.75] and levels["c"] == ["x", "y"] and levels["d"] == [2, 7]
    sizes = [len(values) for values in grid.grid({k: space[k] for k in "abc"}, 16).values()]
    assert math.prod(sizes) == 16 and max(sizes) == 4
    assert grid.grid(space, 1) == {"a": [pytest.approx(100.0)], "b": [0.5], "c": ["x"], "d": [5]}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"space": "smok"}, "--space smok: no such file in tune_spaces; did you mean 'smoke'"),
        ({"trials": 0}, "--trials must be 1 or more"),
        ({"sampler": "grid"}, "--sampler grid needs whole trials: give --scheduler none"),
        ({"scheduler": "pbt"}, "give --sampler random"),
        ({"scheduler": "pbt", "sampler": "random", "space": "distill"}, "distill.ordered, strategy cannot change"),
        ({"space": "joint", "latency_table": None}, "--space joint searches: give --latency-table"),
        ({"space": "joint", "budget_us": 5.0}, "--budget-us 5 .*nothing fits"),
        ({"features": "pricy"}, "unknown feature 'pricy'"),
        ({"compute": Compute(workers=2)}, "compute.workers 2: a trial is one process"),
        ({"resume": True}, "--resume: .* holds no sweep"),
    ],
)
def test_faults_are_named_before_anything_runs(config, change, complaint, tmp_path):
    with pytest.raises(InputError, match=complaint):
        tune.main(replace(config, out=tmp_path / "sweep", **change))
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_trials_find_what_was_named_from_the_drivers_folder(config, monkeypatch, tmp_path):
    """Ray Tune runs each trial in a folder of its own."""

    class Begun(Exception):
        pass

    def begun(trials, *_, **__):
        raise Begun(trials)

    monkeypatch.setattr(tune, "sweep", begun)
    for name in ("start_ray", "refuse_local_store"):
        monkeypatch.setattr(tune, name, lambda *_: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    monkeypatch.chdir(tmp_path)
    named = {name: Path(os.path.relpath(getattr(config, name))) for name in ("samples", "latency_table")}
    with pytest.raises(Begun) as caught:
        tune.main(replace(config, space="joint", out=Path("sweep"), **named))
    (trials,) = caught.value.args
    (tmp_path / "trial").mkdir()
    monkeypatch.chdir(tmp_path / "trial")
    expected = tune.planned_by(replace(config, space="joint"), {}, searches=True)
    assert trials.plan({}).spec == expected.spec
    assert trials.job.samples == config.samples and trials.out == tmp_path / "sweep"
    trials.run("0", {})
    assert (tmp_path / "runs.db").is_file() and not (tmp_path / "trial" / "runs.db").exists()


def test_a_key_that_is_no_field_is_named(config, monkeypatch):
    space = importlib.import_module("tune_spaces.smoke")
    for key, nearest in (("distill.scor", "; did you mean 'distill.score'"), ("trials", "")):
        monkeypatch.setattr(space, "SPACE", {key: ray_tune.uniform(0, 1)})
        with pytest.raises(InputError, match=f"tune_spaces/smoke.py: unknown key '{key}'{nearest}"):
            tune.space_of(config)


def test_a_sweep_is_not_mistaken_for_another(config, tmp_path):
    swept = plain(replace(config, out=tmp_path))
    resume.begin(tmp_path, swept, resume=False)
    with pytest.raises(InputError, match="go on with it by --resume"):
        resume.begin(tmp_path, swept, resume=False)
    resume.begin(tmp_path, swept, resume=True)
    with pytest.raises(InputError, match="another sweep: seed was 0, now 1"):
        resume.begin(tmp_path, swept | {"seed": 1}, resume=True)


@pytest.mark.parametrize("again", [True, False])
def test_a_sweep_of_an_earlier_version_is_refused_with_what_to_do(config, again, monkeypatch, tmp_path):
    """Its state names modules that are gone: nothing of it is read, and nothing of it is changed."""

    def unexpected(*_):
        raise AssertionError("work has begun")

    monkeypatch.setattr(tune, "start_ray", unexpected)
    config = replace(config, out=tmp_path / "sweep", resume=again)
    (tmp_path / "sweep" / "tune").mkdir(parents=True)
    (tmp_path / "sweep" / "tune" / "tuner.pkl").write_bytes(b"cprerank.live\nLive\n.")
    was = {key: value for key, value in plain(config).items() if key != "resume"} | {"metric": "recall_at_12"}
    written = json.dumps(was)
    (tmp_path / "sweep" / "sweep.json").write_text(written)
    said = "sweep: a sweep of an earlier version of prerank, .*; finish it with that version, or begin anew in another"
    with pytest.raises(InputError, match=said) as raised:
        tune.main(config)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "sweep" / "sweep.json").read_text() == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep"]


def test_what_ray_tune_keeps_of_a_sweep_has_the_names_of_this_format(config):
    """Where one of these moves, a sweep begun before cannot be gone on with: raise `resume.FORMAT` along with it."""
    config, names = replace(config, space="joint"), set()

    class Names(pickle.Unpickler):
        def find_class(self, module, name):
            names.add(f"{module}.{name}")
            return super().find_class(module, name)

    trials = Trials(
        plan=partial(tune.planned_by, config, searches=True),
        job=Job(config.samples, config.compute, config.k),
        table=table_at(config.latency_table, config.latency),
        metric="recall_at_12",
        out=config.out,
        parent=Run("sqlite:///x.db", "run", "0"),
        tags={},
    )
    live = Live(trials, tuple(tune.space_of(config)), 4, 6)
    kept = cloudpickle.dumps([live, partial(run_trial, trials=trials), _StopsAtFault()])
    Names(io.BytesIO(kept)).load()
    assert {name for name in names if name.startswith(("prerank.", "workflows."))} == KEPT
    assert resume.FORMAT == 2


def test_what_can_change_in_a_training_is_a_field(config):
    apply = tune.apply(config, dict.fromkeys(SCHEDULED, 0.5), where="test")
    assert apply.distill.score == apply.optim.lr == apply.latency.penalty == 0.5


def children(client, parent):
    found = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    return {run.info.run_name: run for run in found if run.data.tags.get("kind") == "trial"}, found


def the_parent(client):
    experiment = client.get_experiment_by_name("tune")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.kind = 'sweep'")
    return parent


def test_samples_are_held_where_each_node_has_room(config, monkeypatch):
    """One put is copied to every node with a trial, the smallest among them."""
    trials = SimpleNamespace(job=SimpleNamespace(samples=config.samples))
    files = files_of(config.samples, "train")
    for smallest, held in ((2e9, sum(pq.ParquetFile(path).num_row_groups for path in files)), (100.0, 0)):
        stores = [{"Alive": True, "Resources": {"object_store_memory": size}} for size in (2e9, smallest)]
        monkeypatch.setattr(ray, "nodes", lambda stores=stores: stores)
        assert len(_held(trials)) == held


@pytest.mark.ray
def test_a_sweep_ends_in_one_evaluated_and_registered_model(config, ray_cluster):
    results = tune.main(config)
    out = config.out
    outcomes = json.loads((out / "trials.json").read_text())
    assert len({outcome["name"] for outcome in outcomes}) == len(outcomes) == 4
    assert {outcome["status"] for outcome in outcomes} <= {"finished", "stopped"}
    finished = [outcome for outcome in outcomes if outcome["status"] == "finished"]
    assert results["best"]["value"] == max(outcome["value"] for outcome in finished)
    client = MlflowClient(f"sqlite:///{out.parent}/mlflow.db")
    parent = the_parent(client)
    trials, every = children(client, parent)
    assert len(trials) == 4 and len(every) == 6  # and the student and its export
    assert parent.info.status == "FINISHED" and {run.info.status for run in every} == {"FINISHED"}
    assert json.loads(parent.data.tags["swept"]) == ["distill.score", "optim.lr"]
    for outcome in outcomes:
        run = trials[outcome["name"]]
        assert float(run.data.params["optim.lr"]) == outcome["drawn"]["optim.lr"]
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "val/recall_at_12")]
        assert steps == list(range(1, outcome["epochs"] + 1))
        ended = outcome["status"] == "finished"
        assert (run.data.tags.get("stopped_early") == "true") == (not ended)
        assert ("best/recall_at_12" in run.data.metrics) == ended
        if ended:
            assert run.data.metrics["best/recall_at_12"] == outcome["value"]
            requests = pq.read_table(out / "trials" / outcome["name"] / "requests.parquet")
            assert np.nanmean(requests["recall"].to_numpy()) == pytest.approx(outcome["value"], abs=1e-9)
    # trained once more, alone, the best is what it was
    assert read_manifest(out / "best", kind="student")["best"]["val/recall_at_12"] == results["best"]["value"]
    assert results["test"]["recall_at_12"] == json.loads((out / "best.json").read_text())["recall_at_12"]
    version = client.get_model_version_by_alias("prerank-student", "champion")
    assert results["model"].endswith(f"/{version.version}")
    assert json.loads((out / "compare" / "compare.json").read_text())["rows"]
    again = tune.main(replace(config, resume=True))
    assert again == results and len(children(client, the_parent(client))[1]) == 6


@pytest.fixture
def here(config, tmp_path, monkeypatch):
    """The trials of a sweep in a folder of the test's own, with a run to log to."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with run("tune", out=tmp_path / "sweep", state=tmp_path / "run.json", params={}) as parent:
        yield Trials(
            plan=lambda drawn: tune.planned_by(config, drawn, searches=False),
            job=Job(config.samples, config.compute, config.k),
            table=None,
            metric="recall_at_12",
            out=tmp_path / "sweep",
            parent=parent,
            tags={"space": "test"},
        )


PLAIN = {"sampler": "random", "scheduler": "none"}


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_is_a_search_and_its_retraining_as_the_single_runs_do_them(config, here, ray_cluster, tmp_path):
    config = replace(config, space="joint", trials=1, **PLAIN)
    here = replace(here, plan=lambda drawn: tune.planned_by(config, drawn, searches=True))
    here = replace(here, table=table_at(config.latency_table, config.latency))
    space = {"latency.penalty": ray_tune.choice([0.3])}
    (outcome,) = sweep(here, space, tune.plan_of(config, True), resume=False)
    assert outcome.epochs == 3 + 3 and outcome.status == "finished"
    shared = {"widths": "8", "k": 12, "distill": config.distill, "optim": config.optim, "compute": config.compute}
    latency = replace(config.latency, penalty=0.3)
    options = {"search": config.search, "latency": latency, **shared}
    search_arch.main(search_arch.SearchArch(config.samples, config.latency_table, tmp_path / "search", **options))
    arch = tmp_path / "search" / "arch.json"
    best = train_student.main(train_student.TrainStudent(config.samples, tmp_path / "one", arch=arch, **shared))
    assert load_arch(here.out / "trials" / outcome.name / "arch.json") == load_arch(arch)
    client = MlflowClient(here.parent.uri)
    (kept,) = client.search_runs([here.parent.experiment_id], "tags.kind = 'trial'")
    predicted = json.loads(arch.read_text())
    for key in ("fetch_us", "inference_us", "latency_us"):
        assert kept.data.metrics[key] == predicted[key]
    assert outcome.value == best["val/recall_at_12"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.faults
def test_failures_are_gone_on_with_and_shown(config, here, ray_cluster, tmp_path):
    """One trial is killed once, in its second epoch; one fails for good."""

    def plan(drawn):
        if drawn["optim.lr"] == 0.003:
            raise ValueError("a fault of the program")
        planned = tune.planned_by(config, drawn, searches=False)
        return replace(planned, arm=replace(planned.arm, seed=1)) if drawn["optim.lr"] == 0.002 else planned

    class Killing(Trials):
        def run(self, trial_id, params):
            opened, marker = super().run(trial_id, params), tmp_path / "killed"

            class Kills(Run):
                def metrics(self, values, step=0):
                    super().metrics(values, step)
                    if step == 2 and not marker.exists():
                        marker.touch()
                        os.kill(os.getpid(), signal.SIGKILL)

            return Kills(**vars(opened))

    killing = Killing(**vars(replace(here, plan=plan)))
    space = {"optim.lr": ray_tune.grid_search([0.001, 0.002, 0.003])}
    outcomes = sweep(killing, space, tune.plan_of(replace(config, trials=1, retries=1, **PLAIN), False), resume=False)
    by_lr = {outcome.drawn["optim.lr"]: outcome for outcome in outcomes}
    assert [by_lr[lr].status for lr in (0.001, 0.002, 0.003)] == ["finished", "finished", "failed"]
    assert by_lr[0.001].failures + by_lr[0.002].failures == 1 and by_lr[0.003].failures == 2
    assert "a fault of the program" in by_lr[0.003].error
    optim = replace(config.optim, lr=0.001)
    single = train_student.TrainStudent(
        config.samples, tmp_path / "one", widths="8", k=12, distill=config.distill, optim=optim
    )
    assert by_lr[0.001].value == train_student.main(single)["val/recall_at_12"]
    client = MlflowClient(here.parent.uri)
    found = client.search_runs([here.parent.experiment_id], "tags.kind = 'trial'")
    ends = {run.info.run_name: run.info.status for run in found}
    assert ends == {outcome.name: {"failed": "FAILED"}.get(outcome.status, "FINISHED") for outcome in outcomes}


@pytest.mark.ray
def test_a_metric_that_never_comes_ends_the_sweep(config, here, ray_cluster):
    plan = tune.plan_of(replace(config, **PLAIN), False)
    with pytest.raises(InputError, match="--metric ndcg: the validation day gives recall_at_12, hit_rate_at_12, auc"):
        sweep(replace(here, metric="ndcg"), tune.space_of(config), plan, resume=False)


@pytest.mark.ray
def test_resources_that_are_not_there_are_named(config, here, ray_cluster):
    here = replace(here, job=replace(here.job, compute=Compute(cpus=1000)))
    with pytest.raises(InputError, match="a trial needs 1000 CPU, and the cluster has"):
        sweep(here, tune.space_of(config), tune.plan_of(replace(config, **PLAIN), False), resume=False)


@pytest.mark.ray
@pytest.mark.slow
def test_population_based_training_brings_every_trial_to_its_end(config, here, ray_cluster):
    """Who copies whom depends on timing; that trials go on from another's checkpoint with another rate does not."""
    optim = replace(config.optim, epochs=5, patience=5)
    config = replace(config, trials=4, scheduler="pbt", sampler="random", optim=optim)
    here = replace(here, plan=lambda drawn: tune.planned_by(config, drawn, searches=False))
    space = {"optim.lr": ray_tune.loguniform(1e-9, 1e-2)}
    outcomes = sweep(here, space, tune.plan_of(config, False), resume=False)
    assert [(outcome.status, outcome.epochs, outcome.failures) for outcome in outcomes] == 4 * [("finished", 5, 0)]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_sweep_is_resumed_without_loss(config, tmp_path):
    """SIGKILL to the driver in mid-sweep; the cluster that it had started goes with it."""
    out, log = tmp_path / "sweep", tmp_path / "log"
    flags = ["--space", "smoke", "--samples", config.samples, "--logs", config.logs, "--teacher", config.teacher]
    flags += ["--out", out, "--trials", 6, "--widths", 8, "--k", 12, "--grace", 2, "--optim.batch", 16]
    flags += ["--optim.epoch-steps", 1, "--optim.epochs", 6, "--optim.patience", 6, "--distill.projection", 4]
    command = [environment(), "workflows.tune", *flags]
    with Driver(log, *command) as first:  # how many come to their end is for the scheduler to say
        first.wait_for(lambda: len(list(out.glob("trials/*"))) >= 4, "four trials")
        first.kill()
    with Driver(log, *command) as refused:
        assert refused.end() == 2 and "go on with it by --resume" in tail(log)
    done = {path: path.read_text() for path in out.glob("trials/*/result.json")}
    with Driver(log, *command, "--resume") as again:
        again.ends_well()
    outcomes = json.loads((out / "trials.json").read_text())
    assert len({outcome["name"] for outcome in outcomes}) == len(outcomes) == 6
    assert {path: path.read_text() for path in done} == done
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    trials, every = children(client, the_parent(client))
    assert set(trials) == {outcome["name"] for outcome in outcomes} and len(every) == 6 + 2
    assert {run.info.status for run in every} == {"FINISHED"}
