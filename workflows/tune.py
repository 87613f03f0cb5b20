"""Sweeps a space on Ray Tune, then trains the best trial once more and evaluates it on the test days.

    python -m workflows.tune --space joint --trials 16 --samples runs/demo/taught --latency-table runs/latency.json \
        --logs runs/logs --teacher runs/demo/teacher --out runs/sweep

A space is `tune_spaces/NAME.py`: a dict from dotted keys to what their values are drawn from. Where it has a key of
`search` or `latency`, a trial is a search and the training of what it finds; otherwise it is a training. After a kill,
the same command with `--resume` goes on.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tune_spaces
from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import Count, Positive, Seed, Widths, Within, apply, plain
from prerank.core.errors import InputError
from prerank.core.outputs import write_json
from prerank.latency.options import Latency
from prerank.models.options import Distill, Hard, Optim
from prerank.search.options import Search
from prerank.sweeps.outcome import Outcome, Swept, best_of, failures, summary
from prerank.sweeps.plan import Plan
from prerank.sweeps.resume import begin
from prerank.sweeps.space import Space, named_space, searches
from prerank.sweeps.sweep import sweep
from prerank.sweeps.trial import FUSION, Drawn, Planned, Trials, absolute, table_at
from prerank.tracking.runs import Run, run
from prerank.training.group import refuse_local_store
from prerank.training.options import Compute
from prerank.training.worker import Job
from workflows import compare, evaluate, export, front, search_arch, train_student

FIXED = ("samples", "logs", "teacher", "out", "space", "trials", "sampler", "scheduler", "metric", "grace", "reduction")
FIXED += ("concurrent", "retries", "resume", "latency_table", "arch", "k", "model")
"""Fields that are of the sweep, not of a trial: no key of a space."""


@dataclass(frozen=True)
class Tune:
    """Sweep a space of tune_spaces, and evaluate the best trial on the test days."""

    space: str
    """A module of tune_spaces."""
    samples: Path
    """A folder made by workflows.teach."""
    logs: Path
    teacher: str
    """What the best is evaluated against: a folder made by workflows.train_teacher, or `logged`."""
    out: Path
    trials: Positive = 16
    sampler: Literal["tpe", "random", "pareto", "grid"] = "tpe"
    """tpe: Optuna's, for the metric; pareto: for the metric against latency_us; grid: the space's quantiles."""
    scheduler: Literal["asha", "none", "pbt"] = "asha"
    """asha stops trials that fall behind; pbt copies good ones and changes their values on the way."""
    metric: str = ""
    """Of the validation day, as MLflow has it under val/; empty: recall at `k`."""
    grace: Positive = 2
    """asha: epochs before a trial may be stopped; pbt: epochs between two changes."""
    reduction: Annotated[int, Within(2)] = 3
    """asha: one in so many trials goes on at each rung."""
    concurrent: Count = 0
    """Trials at a time; 0: as many as the cluster has room for."""
    retries: Count = 2
    """How often a trial that failed is gone on with, from its last epoch."""
    resume: bool = False
    """Go on with the sweep in `out`."""
    latency_table: Path | None = None
    """The latency.json of workflows.profile_latency: for searches and for predicted latencies."""
    budget_us: Annotated[float | None, Within(0, above=True)] = None
    """Of searches: hard limit of fetch and inference; by default what hand_picked costs with `widths`."""
    arch: Path | None = None
    """Of trainings: an arch.json, instead of features and widths."""
    features: str = ""
    """Of trainings the student's, of searches to choose from; empty: as train_student and search_arch have it."""
    widths: Widths = "64,32"
    """Hidden widths, with commas; of searches those that the budget is reckoned with."""
    strategy: str = ""
    """Whose pairs to learn from, with commas; empty: every strategy in the samples."""
    hard: Hard = "pairwise"
    """The students' loss of these pairs, as in train_student; a search learns by pairwise."""
    fusion: str = ""
    """Objectives with their weights in the students' score, as in train_student."""
    k: Positive = 150
    """Cut-off of the metrics."""
    seed: Seed = 0
    model: str = "prerank-student"
    """The registered model of MLflow that gets the best as a new version, under the alias `champion`."""
    search: Search = Search()
    latency: Latency = Latency()
    distill: Distill = Distill(score=1.0)
    optim: Optim = Optim()
    compute: Compute = Compute()


def main(config: Tune) -> Swept:
    """Returns what stands in results.json."""
    space, config = space_of(config), absolute(replace(config, metric=config.metric or f"recall_at_{config.k}"))
    out, plan = config.out, plan_of(config, searches(space))
    plan.check(space)
    config.compute.check()
    if config.compute.workers != 1:
        raise InputError(f"compute.workers {config.compute.workers}: a trial is one process; trials run in parallel")
    planned = partial(planned_by, config, searches=searches(space))
    # A fault of the configuration ends it here, before anything runs.
    table = planned({}).check(config.samples) or table_at(config.latency_table, config.latency)
    begin(out, plain(config), resume=config.resume)
    start_ray()
    tags = {"space": config.space}
    about = {"kind": "sweep", "sampler": config.sampler, "scheduler": config.scheduler, "metric": config.metric}
    about |= {"swept": json.dumps(sorted(space)), **tags}
    with run("tune", out=out, state=out / "run.json", params=plain(config), tags=about) as parent:
        refuse_local_store({"tune": parent})
        job = Job(config.samples, replace(config.compute, checkpoint_steps=0), config.k)
        outcomes = sweep(
            Trials(planned, job, table, config.metric, out, parent, tags), space, plan, resume=config.resume
        )
        best, spent = best_of(outcomes, out), sum(outcome.epochs for outcome in outcomes)
        if FUSION in space:
            front.main(front.FrontOf(config.logs, config.teacher, out, out, k=config.k, seed=config.seed))
            return {"best": {}, "epochs": spent, "test": {}, "model": ""}
        test, model = _evaluated(config, best, searches(space), parent)
        results: Swept = {"best": asdict(best), "epochs": spent, "test": test, "model": model}
        parent.metrics({f"test/{key}": value for key, value in test.items() if isinstance(value, float)})
        write_json(out / "results.json", results)
        parent.artifact(out / "results.json")
    parent = parent.online()
    compare.main(compare.Compare(out / "compare", parents=parent.run_id, tracking_uri=parent.uri, seed=config.seed))
    print(*failures(outcomes), summary(outcomes, best, test, config.k), sep="\n")
    print(f"{out}/results.json\nmlflow ui --backend-store-uri {parent.uri}   (run {parent.run_id})")
    return results


def space_of(config: Tune) -> Space:
    """The space by its name, of keys that a trial has."""
    keys = [key for key in plain(config) if key not in FIXED and not key.startswith("compute.")]
    return named_space(config.space, tune_spaces, keys)


def planned_by(config: Tune, drawn: Drawn, *, searches: bool) -> Planned:
    """What the single runs would do with the drawn values."""
    config = apply(config, drawn, where=f"tune_spaces/{config.space}.py")
    params = {key: value for key, value in plain(config).items() if key not in FIXED}
    if not searches:
        student = train_student.TrainStudent(
            config.samples, config.out, config.arch, hard=config.hard, fusion=config.fusion, **_shared(config)
        )
        return Planned(train_student.arm_of(student), None, params)
    if config.latency_table is None:
        raise InputError(f"--space {config.space} searches: give --latency-table (workflows.profile_latency)")
    shared = _shared(config) | {"search": config.search, "latency": config.latency}
    spec = search_arch.spec_of(
        search_arch.SearchArch(config.samples, config.latency_table, config.out, config.budget_us, **shared)
    )
    return Planned(replace(spec.arm, name="student", hard=config.hard), spec, params)


def plan_of(config: Tune, searches: bool) -> Plan:
    same = ("trials", "sampler", "scheduler", "grace", "reduction", "concurrent", "retries", "seed")
    epochs = config.optim.epochs + (config.search.epochs if searches and config.search.method != "propose" else 0)
    return Plan(epochs=epochs, **{name: getattr(config, name) for name in same})


def _shared(config: Tune) -> dict[str, Any]:
    """What a trial has in common with the single runs."""
    names = ("features", "widths", "strategy", "k", "seed", "distill", "optim", "compute")
    return {name: getattr(config, name) for name in names}


def _evaluated(config: Tune, best: Outcome, searched: bool, parent: Run) -> tuple[Mapping[str, object], str]:
    """The best trial's student trained once more by the single run, on the test days and in the model registry.

    Its results, and the version in the registry.
    """
    out, chosen = config.out, apply(config, best.drawn, where=f"{config.out}/trials.json")
    arch = out / "trials" / best.name / "arch.json" if searched else config.arch
    student = train_student.TrainStudent(
        config.samples, out / "best", arch, hard=chosen.hard, fusion=chosen.fusion, **_shared(chosen)
    )
    train_student.main(student, parent)
    test = out / "best.json"
    results = evaluate.main(evaluate.Evaluate(config.logs, config.teacher, out / "best", test, k=config.k))
    exported = export.main(
        export.Export(out / "best", out / "export", config.samples, test, "student", config.model, "champion"), parent
    )
    return results, exported["mlflow"]["model"]


if __name__ == "__main__":
    cli.run(main, Tune)
