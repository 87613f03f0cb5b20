"""One trial of a sweep: what the single runs do, a search and its retraining or a training alone, on Ray Tune.

A trial is one process: the trials are what runs in parallel. It reports after every epoch, with its checkpoint, so that
a scheduler can stop it, copy it or go on with it; epochs count over the search and the training that follows it.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import torch
from ray import tune

from prerank.core.errors import InputError
from prerank.core.outputs import fingerprint, is_done, write_json
from prerank.core.storage import rmtree, write_parquet
from prerank.latency.formula import times_us
from prerank.latency.options import Latency
from prerank.latency.table import Table, load_table
from prerank.logs.schema import load_schema
from prerank.models import checkpoint
from prerank.models.checkpoint import State
from prerank.models.options import Arm
from prerank.models.ranker import Ranker
from prerank.models.stats import load_stats
from prerank.search.found import found_in
from prerank.search.group import check_spec, proposed_here, run_search
from prerank.search.spec import Spec
from prerank.tracking.runs import Run, open_run
from prerank.training.finished import config_of, inputs_of, publish_model
from prerank.training.preflight import check
from prerank.training.worker import Job, Trained, Worker, logged, per_request, train_arm

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LATENCY = "latency_us"
"""Reported beside the metric: of the search as expected, then of the network as predicted; 0 without a table."""
FUSION = "fusion"
"""A key of spaces whose trials are students of other objectives: none is the best, and each is kept as it is."""
FAULT = "fault"
"""Reported where the input is at fault, which no other trial would mend."""


T = TypeVar("T", bound="DataclassInstance")
Drawn = dict[str, object]
"""What Ray Tune drew, by dotted key."""


@dataclass(frozen=True)
class Planned:
    """What a trial's keys come to."""

    arm: Arm
    """The student that is trained; after a search, with its features and widths."""
    spec: Spec | None
    params: dict[str, object]
    """The whole configuration, as MLflow has it."""

    def check(self, samples: Path) -> Table | None:
        """Raises InputError where it does not fit the samples; returns the table that a search reckons with."""
        check([self.arm], samples)
        if self.spec is None:
            return None
        check_spec(self.spec, samples, load_schema(samples))
        return self.spec.table


def table_at(path: Path | None, latency: Latency) -> Table | None:
    """The table that latencies are predicted by, where one is given."""
    return load_table(path, candidates=latency.candidates, threads=latency.threads) if path else None


def absolute(config: T) -> T:
    """A configuration whose paths hold in the trials too, each of which Ray Tune runs in a folder of its own."""
    paths = {name: path for name, path in vars(config).items() if hasattr(path, "resolve")}
    return replace(config, **{name: path.resolve() for name, path in paths.items()})


@dataclass(frozen=True)
class Trials:
    """What the trials of a sweep share."""

    plan: Callable[[Drawn], Planned]
    """Raises InputError where the drawn values make no sense."""
    job: Job
    table: Table | None
    metric: str
    """The validation metric, such as recall_at_150."""
    out: Path
    parent: Run
    tags: dict[str, str]

    def folder(self, trial_id: str) -> Path:
        return self.out / "trials" / name_of(trial_id)

    def run(self, trial_id: str, params: dict[str, object]) -> Run:
        """The trial's run in MLflow: a new one, or the one that its folder remembers."""
        folder, tags = self.folder(trial_id), self.tags | {"kind": "trial", "trial_id": trial_id}
        state = folder / "run.json"
        return open_run(name_of(trial_id), out=folder, state=state, params=params, tags=tags, parent=self.parent)


def name_of(trial_id: str) -> str:
    return f"trial_{trial_id}"


def run_trial(drawn: Drawn, *, trials: Trials, held: dict[tuple[Path, int], pa.Table]) -> None:
    """A trial from its start or its latest checkpoint to its end; what it comes to is in its folder and in MLflow.

    `held`: `Job.tables`, in the object store, which all trials of a node read without a copy.
    """
    try:
        _run_trial(drawn, replace(trials, job=replace(trials.job, tables=held)))
    except InputError as error:
        tune.report({trials.metric: float("-inf"), LATENCY: float("inf"), "epoch": 0, FAULT: str(error)})


def _run_trial(drawn: Drawn, trials: Trials) -> None:
    planned, trial_id = trials.plan(drawn), tune.get_context().get_trial_id()
    folder, schema = trials.folder(trial_id), load_schema(trials.job.samples)
    _begin(folder, drawn, trials.parent)
    tracked = trials.run(trial_id, planned.params)
    arm = planned.arm
    with _worker(trials, tracked) as (worker, so_far):
        if planned.spec:
            if planned.spec.confirms:
                found = proposed_here(planned.spec, trials.job)
            else:
                run_search(planned.spec, trials.job, worker)
                found = found_in(worker.done, planned.spec)
            arch = found.derive(schema)
            arm = replace(arm, features=arch.features, widths=arch.widths)
            so_far.epochs = len(found.history)
        features = schema.select(arm.features, where=arm.name)
        times = times_us(trials.table, features, schema.fetch, arm.widths) if trials.table else {}
        so_far.latency_us = times.get(LATENCY, 0.0)
        train_arm(arm, trials.job, worker)
        state, best = checkpoint.load_best(worker.done, arm.name)
        if FUSION in drawn and not is_done(folder / "student", kind="student", **_follows_from(arm, trials.job)):
            publish_model(folder / "student", "student", Trained(arm, state, best), trials.job, {})
        epochs, last = so_far.epochs + state.epoch, state.numbers(state.best_epoch)
        arm.arch.save(folder / "arch.json", **times)
        ranker = Ranker(features, arm.widths, load_stats(trials.job.samples), arm.fusion)
        ranker.load_state_dict(best)
        of_requests = per_request(ranker, features, trials.job.samples, trials.job.k, arm.fusion)
        write_parquet(of_requests, folder / "requests.parquet")
        tracked.metrics({k.replace("val/", "best/"): v for k, v in last.items() if k.startswith("val/")} | times)
        tracked.metrics({"epochs": float(epochs)})
        for name in ("arch.json", "requests.parquet"):
            tracked.artifact(folder / name)
        value = last[f"val/{trials.metric}"]
        done = {"epoch": epochs, "finished": True, trials.metric: value, LATENCY: so_far.latency_us}
        write_json(folder / "result.json", {"drawn": drawn, **done})
        tracked.end()
        tune.report(done)


def _follows_from(arm: Arm, job: Job) -> dict[str, Any]:
    return {"config": config_of(arm, job), "inputs": inputs_of(job.samples)}


def _begin(folder: Path, drawn: Drawn, parent: Run) -> None:
    """Gives the trial a folder: of another draw, it is what a killed sweep began and had not yet noted, and goes."""
    key, path = fingerprint(drawn), folder / "drawn.json"
    if tune.get_checkpoint() is None and path.exists() and json.loads(path.read_text())["key"] != key:
        forget(folder, parent)
    folder.mkdir(parents=True, exist_ok=True)
    begun = json.loads(path.read_text())["begun"] if path.exists() else time.time()
    write_json(path, {"key": key, "drawn": drawn, "begun": begun})


def forget(folder: Path, parent: Run) -> None:
    """Deletes a trial and its run."""
    state = folder / "run.json"
    if state.is_file():
        run = replace(parent, run_id=json.loads(state.read_text())["run_id"]).online()
        run.client.delete_run(run.run_id)
    rmtree(folder)


@dataclass
class _SoFar:
    """What the reports of a training say of the search before it."""

    epochs: int = 0
    latency_us: float = 0.0
    """Predicted, of the network that is trained; 0 without a table."""


@contextmanager
def _worker(trials: Trials, tracked: Run) -> Iterator[tuple[Worker, _SoFar]]:
    """A worker by itself, which reports to Ray Tune and to MLflow; and what it adds to the reports."""
    compute, so_far = trials.job.compute, _SoFar()
    if not compute.gpu:
        torch.set_num_threads(max(1, int(compute.cpus)))
    device = torch.device("cuda" if compute.gpu else "cpu")
    with tempfile.TemporaryDirectory() as kept:
        resumed = tune.get_checkpoint()
        if resumed:
            resumed.to_directory(kept)

        def keep(name: str, state: State, ended: bool) -> None:
            if ended:
                return
            last = state.numbers()
            metric, epoch = last.get(f"val/{trials.metric}"), so_far.epochs + state.epoch
            if metric is None:
                there = ", ".join(key.removeprefix("val/") for key in last if key.startswith("val/"))
                raise InputError(
                    f"--metric {trials.metric}: the validation day gives {there or 'nothing'}; name one (recall takes "
                    "requests of more than --k candidates)"
                )
            tracked.metrics(logged(state), step=epoch)
            said = {trials.metric: metric, "epoch": epoch, LATENCY: last.get(LATENCY, so_far.latency_us)}
            tune.report(said, checkpoint=tune.Checkpoint.from_directory(kept))

        yield Worker(Path(kept), device, keep, prepare=lambda model: model.to(device)), so_far
