"""Sweeps a space on Ray Tune, then trains the best trial once more and evaluates it on the test days.

    python -m workflows.tune --space joint --trials 16 --samples runs/demo/taught --latency-table runs/latency.json \
        --logs runs/logs --teacher runs/demo/teacher --out runs/sweep

A space is `tune_spaces/NAME.py`: a dict from dotted keys to what their values are drawn from. Where it has a key of
`search` or `latency`, a trial is a search and the training of what it finds; otherwise it is a training. After a kill,
the same command with `--resume` goes on.
"""

import importlib
import json
import pkgutil
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tune_spaces
from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import apply, plain
from prerank.core.errors import InputError, nearest
from prerank.core.outputs import write_json
from prerank.latency.options import Latency
from prerank.latency.table import Table, load_table
from prerank.logs.schema import load_schema
from prerank.models.options import Distill, Optim
from prerank.search.group import check_spec
from prerank.search.options import Search
from prerank.sweeps.live import Outcome
from prerank.sweeps.sweep import Plan, sweep
from prerank.sweeps.trial import Planned, Trials
from prerank.tracking.runs import Run, run
from prerank.training.group import refuse_local_store
from prerank.training.options import Compute
from prerank.training.worker import Job, check
from workflows import compare, evaluate, export, search_arch, train_student

SEARCHING = ("search.", "latency.")
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
    trials: int = 16
    sampler: Literal["tpe", "random", "pareto", "grid"] = "tpe"
    """tpe: Optuna's, for the metric; pareto: for the metric against latency_us; grid: the space's quantiles."""
    scheduler: Literal["asha", "none", "pbt"] = "asha"
    """asha stops trials that fall behind; pbt copies good ones and changes their values on the way."""
    metric: str = ""
    """Of the validation day, as MLflow has it under val/; empty: recall at `k`."""
    grace: int = 2
    """asha: epochs before a trial may be stopped; pbt: epochs between two changes."""
    reduction: int = 3
    """asha: one in so many trials goes on at each rung."""
    concurrent: int = 0
    """Trials at a time; 0: as many as the cluster has room for."""
    retries: int = 2
    """How often a trial that failed is gone on with, from its last epoch."""
    resume: bool = False
    """Go on with the sweep in `out`."""
    latency_table: Path | None = None
    """The latency.json of workflows.profile_latency: for searches and for predicted latencies."""
    budget_us: float | None = None
    """Of searches: hard limit of fetch and inference; by default what hand_picked costs with `widths`."""
    arch: Path | None = None
    """Of trainings: an arch.json, instead of features and widths."""
    features: str = ""
    """Of trainings the student's, of searches to choose from; empty: as train_student and search_arch have it."""
    widths: str = "64,32"
    """Hidden widths, with commas; of searches those that the budget is reckoned with."""
    strategy: str = ""
    """Whose pairs to learn from, with commas; empty: every strategy in the samples."""
    k: int = 150
    """Cut-off of the metrics."""
    seed: int = 0
    model: str = "prerank-student"
    """The registered model of MLflow that gets the best as a new version, under the alias `champion`."""
    search: Search = Search()
    latency: Latency = Latency()
    distill: Distill = Distill(score=1.0, contrast=0.5)
    optim: Optim = Optim()
    compute: Compute = Compute()


def main(config: Tune) -> dict[str, Any]:
    """Returns what stands in results.json."""
    space, config = space_of(config), _absolute(replace(config, metric=config.metric or f"recall_at_{config.k}"))
    out = config.out
    plan_of(config, searches(space)).check(space)
    if config.compute.workers != 1:
        raise InputError(f"compute.workers {config.compute.workers}: a trial is one process; trials run in parallel")
    planned = planned_by(config, {}, searches=searches(space))  # a fault of the configuration ends it here
    check([planned.arm], config.samples)
    if planned.spec:
        check_spec(planned.spec, config.samples, load_schema(config.samples))
    table = planned.spec.table if planned.spec else _table(config)
    _begun(config)
    start_ray()
    tags = {"space": config.space}
    about = {"kind": "sweep", "sampler": config.sampler, "scheduler": config.scheduler, "metric": config.metric}
    about |= {"swept": json.dumps(sorted(space)), **tags}
    with run("tune", out=out, state=out / "run.json", params=plain(config), tags=about) as parent:
        refuse_local_store({"tune": parent})
        trials = Trials(
            plan=partial(planned_by, config, searches=searches(space)),
            job=Job(config.samples, replace(config.compute, checkpoint_steps=0), config.k),
            table=table,
            metric=config.metric,
            out=out,
            parent=parent,
            tags=tags,
        )
        outcomes = sweep(trials, space, plan_of(config, searches(space)), resume=config.resume)
        parent.artifact(out / "trials.json")
        spent = sum(outcome.epochs for outcome in outcomes)
        parent.metrics({"trials": float(len(outcomes)), "epochs": float(spent)})
        best = _best(outcomes, out)
        results = {"best": asdict(best), "epochs": spent, **_evaluated(config, best, searches(space), parent)}
        parent.metrics({f"test/{key}": v for key, v in results["test"].items() if isinstance(v, float)})
        write_json(out / "results.json", results)
        parent.artifact(out / "results.json")
    parent = parent.online()
    compare.main(compare.Compare(out / "compare", parents=parent.run_id, tracking_uri=parent.uri, seed=config.seed))
    for outcome in outcomes:
        if outcome.failures:
            last = (outcome.error or "").strip().splitlines()[-1:] or ["gone on with from its last epoch"]
            print(f"{outcome.name}: {outcome.status} after {outcome.failures} failures: {last[0]}")
    stopped = sum(outcome.status == "stopped" for outcome in outcomes)
    shown = (f"recall_at_{config.k}", f"hit_rate_at_{config.k}")
    said = ", ".join(f"{key} {results['test'][key]:.4f}" for key in shown if results["test"].get(key) is not None)
    print(
        f"{len(outcomes)} trials, {stopped} of them stopped early, {spent} epochs; {best.name} on the test days: {said}"
    )
    print(f"{out}/results.json\nmlflow ui --backend-store-uri {parent.uri}   (run {parent.run_id})")
    return results


def _absolute(config: Tune) -> Tune:
    """With paths that hold in the trials too, each of which Ray Tune runs in a folder of its own."""
    paths = {name: path for name, path in vars(config).items() if hasattr(path, "resolve")}
    return replace(config, **{name: path.resolve() for name, path in paths.items()})


def space_of(config: Tune) -> dict[str, Any]:
    """The space by its name; raises InputError where there is none, or a key of it is no field of a trial."""
    there = sorted(module.name for module in pkgutil.iter_modules(tune_spaces.__path__))
    if config.space not in there:
        found = f"{nearest(config.space, there)}; there are {', '.join(there)}"
        raise InputError(f"--space {config.space}: no such file in tune_spaces{found}")
    space = importlib.import_module(f"tune_spaces.{config.space}").SPACE
    fields = [key for key in plain(config) if key not in FIXED and not key.startswith("compute.")]
    for key in space:
        if key not in fields:
            raise InputError(f"tune_spaces/{config.space}.py: unknown key {key!r}{nearest(key, fields)}")
    return dict(space)


def searches(space: dict[str, Any]) -> bool:
    """Whether a trial of the space is a search."""
    return any(key.startswith(SEARCHING) for key in space)


def planned_by(config: Tune, drawn: dict[str, Any], *, searches: bool) -> Planned:
    """What the single runs would do with the drawn values."""
    config = apply(config, drawn, where=f"tune_spaces/{config.space}.py")
    shared = ("samples", "out", "widths", "strategy", "k", "seed", "distill", "optim", "compute", "features")
    options = {name: getattr(config, name) for name in shared}
    params = {key: value for key, value in plain(config).items() if key not in FIXED}
    if not searches:
        return Planned(train_student.arm_of(train_student.TrainStudent(arch=config.arch, **options)), None, params)
    if config.latency_table is None:
        raise InputError(f"--space {config.space} searches: give --latency-table (workflows.profile_latency)")
    limits = {"latency_table": config.latency_table, "budget_us": config.budget_us}
    search = search_arch.SearchArch(search=config.search, latency=config.latency, **limits, **options)
    spec = search_arch.spec_of(search)
    return Planned(replace(spec.arm, name="student"), spec, params)


def plan_of(config: Tune, searches: bool) -> Plan:
    same = ("trials", "sampler", "scheduler", "grace", "reduction", "concurrent", "retries", "seed")
    epochs = config.optim.epochs + (config.search.epochs if searches else 0)
    return Plan(epochs=epochs, **{name: getattr(config, name) for name in same})


def _table(config: Tune) -> Table | None:
    latency = config.latency
    return (
        load_table(config.latency_table, candidates=latency.candidates, threads=latency.threads)
        if (config.latency_table)
        else None
    )


def _begun(config: Tune) -> None:
    """Notes what is swept; raises InputError where `out` holds another sweep, or `--resume` does not say to go on."""
    path = config.out / "sweep.json"
    now = {key: value for key, value in plain(config).items() if key != "resume"}
    if not path.is_file():
        if config.resume:
            raise InputError(f"--resume: {config.out} holds no sweep; leave the flag out to begin one")
        write_json(path, now)
        return
    was = json.loads(path.read_text())
    for key in sorted({*was, *now}):
        if was.get(key) != now.get(key):
            changed = f"{key} was {was.get(key)!r}, now {now.get(key)!r}"
            raise InputError(f"{config.out}: holds another sweep: {changed}; name another --out")
    if not config.resume:
        raise InputError(f"{config.out}: holds this sweep already; go on with it by --resume, or name another --out")


def _best(outcomes: list[Outcome], out: Path) -> Outcome:
    """The best of those that came to their end."""
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    if not finished:
        raise InputError(f"{out}: no trial came to its end; {out}/trials.json says what went wrong")
    return max(finished, key=lambda outcome: outcome.value)


def _evaluated(config: Tune, best: Outcome, searched: bool, parent: Run) -> dict[str, Any]:
    """The best trial's student trained once more by the single run, on the test days and in the model registry."""
    out, chosen = config.out, apply(config, best.drawn, where=f"{config.out}/trials.json")
    arch = out / "trials" / best.name / "arch.json" if searched else config.arch
    shared = ("widths", "features", "strategy", "k", "seed", "distill", "optim", "compute")
    options = {name: getattr(chosen, name) for name in shared}
    train_student.main(train_student.TrainStudent(config.samples, out / "best", arch=arch, **options), parent)
    test = out / "best.json"
    results = evaluate.main(evaluate.Evaluate(config.logs, config.teacher, out / "best", test, k=config.k))
    exported = export.main(
        export.Export(out / "best", out / "export", config.samples, test, "student", config.model, "champion"), parent
    )
    return {"test": results, "model": exported["mlflow"]["model"]}


if __name__ == "__main__":
    cli.run(main, Tune)
