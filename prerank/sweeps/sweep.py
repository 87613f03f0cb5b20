"""A sweep on Ray Tune: which values are tried, which trials go on, and how a killed one is gone on with.

Ray keeps the state of a sweep with pickle: resume from your own folder alone.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import optuna
import pyarrow as pa
import ray
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from prerank.core.cluster.private import keep_every_checkpoint_quietly, ship_no_secrets
from prerank.core.errors import InputError
from prerank.core.storage import parquet
from prerank.sweeps.grid import grid
from prerank.sweeps.live import Live, Outcome
from prerank.sweeps.trial import FAULT, LATENCY, Trials, forget, run_trial
from prerank.training.worker import files_of

if TYPE_CHECKING:
    from prerank.core.cluster.private import Domain

SCHEDULED = ("optim.lr", "optim.weight_decay", "distill.score", "distill.kl", "distill.contrast", "distill.temperature")
SCHEDULED += ("distill.kl_temperature", "latency.penalty", "search.gate_lr", "search.width_lr", "search.entropy")
"""Keys that can change in the middle of a training, as population-based training changes them."""
HELD_SHARE = 0.4
"""Of a node's object store, at most, that the samples take; larger ones are read by each trial from their files."""


@dataclass(frozen=True)
class Plan:
    """How a space is gone through."""

    trials: int
    sampler: Literal["random", "tpe", "pareto", "grid"]
    scheduler: Literal["none", "asha", "pbt"]
    epochs: int
    """The most that a trial has, over search and training."""
    grace: int
    """ASHA: epochs before a trial may be stopped. PBT: epochs between two changes."""
    reduction: int
    """ASHA: one in so many goes on at each rung."""
    concurrent: int
    """Trials at a time; 0: as many as the cluster has CPUs or GPUs for."""
    retries: int
    seed: int

    def check(self, space: Mapping[str, "Domain"]) -> None:
        """Raises InputError where the parts of the plan do not go together."""
        for key in ("trials", "grace"):
            if getattr(self, key) < 1:
                raise InputError(f"--{key} must be 1 or more, got {getattr(self, key)}")
        if self.reduction < 2 or self.concurrent < 0 or self.retries < 0:
            raise InputError("--reduction must be 2 or more, --concurrent and --retries 0 or more")
        if self.sampler in ("pareto", "grid") and self.scheduler != "none":
            raise InputError(f"--sampler {self.sampler} needs whole trials: give --scheduler none")
        if self.scheduler == "pbt":
            if self.sampler != "random":
                raise InputError("--scheduler pbt changes values by itself: give --sampler random")
            fixed = [key for key in space if key not in SCHEDULED]
            if fixed:
                raise InputError(
                    f"--scheduler pbt: {', '.join(fixed)} cannot change in the middle of a training; it can change "
                    f"{', '.join(SCHEDULED)}"
                )


def sweep(trials: Trials, space: Mapping[str, "Domain"], plan: Plan, *, resume: bool) -> list[Outcome]:
    """Runs the plan, or goes on with it; the outcomes in the order the trials began.

    Raises InputError where the plan makes no sense, where a trial says that the input is at fault, and where the
    cluster has no room for a single trial, which would wait for ever.
    """
    plan.check(space)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # but JSON, which Ray reads itself
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the other prints whatever `verbose` says
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")  # what a killed driver forgets
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    keep_every_checkpoint_quietly()
    ship_no_secrets()
    compute = trials.job.compute
    needs = {"GPU": 1.0, "CPU": compute.cpus} if compute.gpu else {"CPU": compute.cpus}
    trainable = tune.with_parameters(partial(run_trial, trials=trials), held=_held(trials))
    trainable = tune.with_resources(trainable, needs)
    folder = trials.out / "tune"
    drawn_from = _drawn_from(space, plan)
    if resume and tune.Tuner.can_restore(str(folder)):
        tuner = tune.Tuner.restore(str(folder), trainable, resume_errored=True, param_space=drawn_from)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=drawn_from,
            tune_config=tune.TuneConfig(
                num_samples=1 if plan.sampler == "grid" else plan.trials,
                search_alg=_search(plan, trials.metric, _concurrent(plan, needs)),
                scheduler=_scheduler(plan, trials.metric, space),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                failure_config=tune.FailureConfig(max_failures=plan.retries),
                # Population-based training copies a checkpoint that its trial may have left behind meanwhile.
                checkpoint_config=tune.CheckpointConfig(num_to_keep=None if plan.scheduler == "pbt" else 2),
                stop=_StopsAtFault(),
                callbacks=[Live(trials, tuple(space), plan.trials, plan.epochs), JsonLoggerCallback()],
                verbose=0,
            ),
        )
    tuner.fit()
    outcomes = [Outcome(**row) for row in json.loads((trials.out / "trials.json").read_text())]
    _forget_others(trials, outcomes)
    for fault in (outcome.fault for outcome in outcomes if outcome.fault):
        raise InputError(fault)
    return outcomes


def _drawn_from(space: Mapping[str, "Domain"], plan: Plan) -> dict[str, Any]:
    if plan.sampler != "grid":
        return dict(space)
    return {key: tune.grid_search(values) for key, values in grid(dict(space), plan.trials).items()}


def _search(plan: Plan, metric: str, concurrent: int) -> SearchAlgorithm | Searcher:
    if plan.sampler in ("random", "grid"):
        return BasicVariantGenerator(max_concurrent=concurrent, random_state=plan.seed)
    # At first at random: Optuna's ten would leave a sweep of sixteen trials little to learn from.
    sampler = TPESampler(seed=plan.seed, n_startup_trials=max(2, min(10, plan.trials // 3)), multivariate=True)
    aim = {"metric": metric, "mode": "max"}
    if plan.sampler == "pareto":
        aim = {"metric": [metric, LATENCY], "mode": ["max", "min"]}
    return ConcurrencyLimiter(OptunaSearch(**aim, sampler=sampler), max_concurrent=concurrent)


def _scheduler(plan: Plan, metric: str, space: Mapping[str, "Domain"]) -> TrialScheduler | None:
    aim = {"time_attr": "epoch", "metric": metric, "mode": "max"}
    if plan.scheduler == "asha":
        most = max(plan.epochs, plan.grace) + 1  # it stops a trial there, before it could come to its end
        return ASHAScheduler(**aim, max_t=most, grace_period=plan.grace, reduction_factor=plan.reduction)
    if plan.scheduler == "pbt":
        changes = {"hyperparam_mutations": dict(space), "perturbation_interval": plan.grace}
        return PopulationBasedTraining(**aim, **changes)
    return None


def _concurrent(plan: Plan, needs: Mapping[str, float]) -> int:
    """Trials that the cluster has room for at a time."""
    there = ray.cluster_resources()
    room = min(int(there.get(kind, 0.0) / amount + 1e-9) for kind, amount in needs.items())
    if room < 1:
        wanted = ", ".join(f"{amount:g} {kind}" for kind, amount in needs.items())
        found = ", ".join(f"{there.get(kind, 0.0):g} {kind}" for kind in needs)
        raise InputError(f"a trial needs {wanted}, and the cluster has {found}; lower --compute.cpus")
    return min(room, plan.concurrent or room, plan.trials)


def _held(trials: Trials) -> dict[tuple[Path, int], pa.Table]:
    """The training samples, read once for all trials; nothing where they are too large for the object store."""
    files = files_of(trials.job.samples, "train")
    stores = [node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"]]
    room = HELD_SHARE * min(stores)  # each node with a trial has all of them
    tables: dict[tuple[Path, int], pa.Table] = {}
    taken = 0
    for path in files:
        file = parquet(path)
        for group in range(file.num_row_groups):
            tables[path, group] = table = file.read_row_group(group)
            taken += table.nbytes
            if taken > room:
                return {}
    return tables


class _StopsAtFault(tune.Stopper):
    """A fault of the input ends the sweep: no other trial would mend it."""

    def __init__(self) -> None:
        self.fault = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.fault |= FAULT in result
        return FAULT in result

    def stop_all(self) -> bool:
        return self.fault


def _forget_others(trials: Trials, outcomes: list[Outcome]) -> None:
    """Drops what a killed driver had begun and not noted, in whose place others were drawn."""
    kept = {outcome.name for outcome in outcomes}
    for folder in sorted((trials.out / "trials").glob("trial_*")):
        if folder.name not in kept:
            forget(folder, trials.parent)
