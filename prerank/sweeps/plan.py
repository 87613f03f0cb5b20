"""How a space is gone through: the sampler and the scheduler of Ray Tune, and how many trials run at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import ray
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from prerank.core.errors import InputError
from prerank.sweeps.grid import grid
from prerank.sweeps.space import Space
from prerank.sweeps.trial import FUSION, LATENCY

SCHEDULED = ("optim.lr", "optim.weight_decay", "distill.score", "distill.kl", "distill.contrast", "distill.temperature")
SCHEDULED += ("distill.kl_temperature", "distill.of_bin", "distill.relations")
SCHEDULED += ("latency.penalty", "search.gate_lr", "search.width_lr", "search.entropy")
"""Keys that can change in the middle of a training, as population-based training changes them."""


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

    def check(self, space: Space) -> None:
        """Raises InputError where the parts of the plan do not go together."""
        for key in ("trials", "grace"):
            if getattr(self, key) < 1:
                raise InputError(f"--{key} must be 1 or more, got {getattr(self, key)}")
        if self.reduction < 2 or self.concurrent < 0 or self.retries < 0:
            raise InputError("--reduction must be 2 or more, --concurrent and --retries 0 or more")
        if self.sampler in ("pareto", "grid") and self.scheduler != "none":
            raise InputError(f"--sampler {self.sampler} needs whole trials: give --scheduler none")
        if FUSION in space and (self.sampler not in ("random", "grid") or self.scheduler != "none"):
            raise InputError(
                f"--sampler {self.sampler} --scheduler {self.scheduler}: students of other objectives cannot be told "
                "better or worse by one metric; give --sampler grid --scheduler none"
            )
        if self.scheduler == "pbt":
            if self.sampler != "random":
                raise InputError("--scheduler pbt changes values by itself: give --sampler random")
            fixed = [key for key in space if key not in SCHEDULED]
            if fixed:
                raise InputError(
                    f"--scheduler pbt: {', '.join(fixed)} cannot change in the middle of a training; it can change "
                    f"{', '.join(SCHEDULED)}"
                )


def drawn_from(space: Space, plan: Plan) -> dict[str, object]:
    """As Ray Tune takes it: the space's domains, or the values of a grid."""
    if plan.sampler != "grid":
        return dict(space)
    return {key: tune.grid_search(values) for key, values in grid(dict(space), plan.trials).items()}


def sampler(plan: Plan, metric: str, concurrent: int) -> SearchAlgorithm | Searcher:
    if plan.sampler in ("random", "grid"):
        return BasicVariantGenerator(max_concurrent=concurrent, random_state=plan.seed)
    # At first at random: Optuna's ten would leave a sweep of sixteen trials little to learn from.
    tpe = TPESampler(seed=plan.seed, n_startup_trials=max(2, min(10, plan.trials // 3)), multivariate=True)
    both = plan.sampler == "pareto"
    optuna = OptunaSearch(
        metric=[metric, LATENCY] if both else metric, mode=["max", "min"] if both else "max", sampler=tpe
    )
    return ConcurrencyLimiter(optuna, max_concurrent=concurrent)


def scheduler(plan: Plan, metric: str, space: Space) -> TrialScheduler | None:
    if plan.scheduler == "asha":
        return ASHAScheduler(
            time_attr="epoch",
            metric=metric,
            mode="max",
            max_t=max(plan.epochs, plan.grace) + 1,  # it stops a trial there, before it could come to its end
            grace_period=plan.grace,
            reduction_factor=plan.reduction,
        )
    if plan.scheduler == "pbt":
        return PopulationBasedTraining(
            time_attr="epoch",
            metric=metric,
            mode="max",
            perturbation_interval=plan.grace,
            hyperparam_mutations=dict(space),
        )
    return None


def at_a_time(plan: Plan, needs: Mapping[str, float]) -> int:
    """Trials that the cluster has room for at a time; raises InputError where it has none for a single one."""
    there = ray.cluster_resources()
    room = min(int(there.get(kind, 0.0) / amount + 1e-9) for kind, amount in needs.items())
    if room < 1:
        wanted = ", ".join(f"{amount:g} {kind}" for kind, amount in needs.items())
        found = ", ".join(f"{there.get(kind, 0.0):g} {kind}" for kind in needs)
        raise InputError(f"a trial needs {wanted}, and the cluster has {found}; lower --compute.cpus")
    return min(room, plan.concurrent or room, plan.trials)
