"""A sweep on Ray Tune, begun or resumed.

Ray keeps the state of a sweep with pickle: resume from your own folder alone.
"""

import os
import time
from collections import defaultdict, deque
from functools import partial
from pathlib import Path

import optuna
import pyarrow as pa
import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.logger import JsonLoggerCallback

from prerank.core.cluster.private import keep_every_checkpoint_quietly, ship_no_secrets
from prerank.core.errors import InputError
from prerank.core.storage import parquet
from prerank.samples.files import files_of
from prerank.sweeps.live import Live
from prerank.sweeps.outcome import Outcome, read_outcomes
from prerank.sweeps.plan import Plan, at_a_time, drawn_from, sampler, scheduler
from prerank.sweeps.space import Space
from prerank.sweeps.trial import FAULT, Trials, forget, run_trial

KEPT_S = 30.0
"""What a killed driver last wrote of its trials, once a second, is no older than this."""
HELD_SHARE = 0.4
"""Of a node's object store, at most, that the samples take; larger ones are read by each trial from their files."""


def sweep(trials: Trials, space: Space, plan: Plan, *, resume: bool) -> list[Outcome]:
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
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # which would end the sweep as if it were done
    keep_every_checkpoint_quietly()
    ship_no_secrets()
    compute = trials.job.compute
    needs = {"GPU": 1.0, "CPU": compute.cpus} if compute.gpu else {"CPU": compute.cpus}
    trainable = tune.with_parameters(partial(run_trial, trials=trials), held=_held(trials))
    trainable = tune.with_resources(trainable, needs)
    folder = trials.out / "tune"
    drawn = drawn_from(space, plan)
    if resume and tune.Tuner.can_restore(str(folder)):
        tuner = tune.Tuner.restore(str(folder), trainable, resume_errored=True, param_space=drawn)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=drawn,
            tune_config=tune.TuneConfig(
                num_samples=1 if plan.sampler == "grid" else plan.trials,
                search_alg=sampler(plan, trials.metric, at_a_time(plan, needs)),
                scheduler=scheduler(plan, trials.metric, space),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                failure_config=tune.FailureConfig(max_failures=plan.retries),
                stop=_StopsAtFault(),
                callbacks=[
                    Live(trials, tuple(space), plan.trials, plan.epochs),
                    JsonLoggerCallback(),
                    # Population-based training copies a checkpoint that its trial may have left behind meanwhile.
                    *([] if plan.scheduler == "pbt" else [_KeepsFewCheckpoints()]),
                ],
                verbose=0,
            ),
        )
    tuner.fit()
    outcomes = read_outcomes(trials.out)
    _forget_others(trials, outcomes)
    for fault in (outcome.fault for outcome in outcomes if outcome.fault):
        raise InputError(fault)
    trials.parent.artifact(trials.out / "trials.json")
    trials.parent.metrics({"trials": float(len(outcomes)), "epochs": float(sum(one.epochs for one in outcomes))})
    return outcomes


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


class _KeepsFewCheckpoints(tune.Callback):
    """Deletes a trial's checkpoints but the last, once no state of the sweep on disk can name them.

    Ray's own `num_to_keep` goes by their number: of short epochs it deletes the one that the state on disk still names,
    and a driver killed before it writes the next loses the trial.
    """

    def __init__(self) -> None:
        self.left: dict[str, deque[tuple[float, tune.Checkpoint]]] = defaultdict(deque)
        """Of each trial, what was followed by another and when, oldest first."""
        self.latest: dict[str, tune.Checkpoint] = {}

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **_: object
    ) -> None:
        now, left = time.time(), self.left[trial.trial_id]
        if trial.trial_id in self.latest:
            left.append((now, self.latest[trial.trial_id]))
        self.latest[trial.trial_id] = checkpoint
        while left and now - left[0][0] > KEPT_S:
            gone = left.popleft()[1]
            assert gone.filesystem  # which Ray has set
            gone.filesystem.delete_dir(gone.path)


class _StopsAtFault(tune.Stopper):
    """A fault of the input ends the sweep: no other trial would mend it."""

    def __init__(self) -> None:
        self.fault = False

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
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
