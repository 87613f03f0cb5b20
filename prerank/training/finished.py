"""Finished models, each in its folder: what is there is left alone, what is missing is trained and published."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from prerank.core.outputs import fingerprint, is_done, publish
from prerank.core.storage import rmtree, staged
from prerank.logs.schema import load_schema
from prerank.models import checkpoint
from prerank.models.checkpoint import ModelManifest, model_manifest
from prerank.models.options import Arm
from prerank.models.stats import load_stats
from prerank.samples.files import check_k, samples_manifest
from prerank.tracking.runs import Run, run, send_unsent
from prerank.training.few import dealt_of, facts_of, said_of_few, tags_of
from prerank.training.kinds import OTHERWISE, train_any
from prerank.training.options import Compute
from prerank.training.order import said_of_order
from prerank.training.preflight import check
from prerank.training.progress import Drawing
from prerank.training.worker import Job, Tell, Trained, alone


class Fit(Protocol):
    """Trains arms and returns them by name: on Ray Train (`prerank.training.group.fit`), or here (`fit_here`)."""

    def __call__(
        self, arms: list[Arm], samples: Path, work: Path, *, compute: Compute, k: int, runs: dict[str, Run], key: str
    ) -> dict[str, Trained]:
        """`runs`: those of MLflow, by arm; `work` is for checkpoints, which are kept under `key`."""
        ...


def fit_here(
    arms: list[Arm], samples: Path, work: Path, *, compute: Compute, k: int, runs: dict[str, Run], key: str = ""
) -> dict[str, Trained]:
    """By one worker in this process: no cluster, and no checkpoints, so that one that is killed begins anew."""
    with Drawing() as drawing:
        return fit_alone(arms, Job(samples, compute, k), runs, drawing.tell)


def fit_alone(
    arms: list[Arm], job: Job, runs: dict[str, Run], tell: Tell = lambda *_, **__: None
) -> dict[str, Trained]:
    """The same, and `tell` hears how far it is."""
    with alone(job.compute, runs, tell) as worker:
        for arm in arms:
            train_any(arm, job, worker)
        return {arm.name: Trained(arm, *checkpoint.load_best(worker.done, arm.name)) for arm in arms}


@dataclass(frozen=True)
class Beside:
    """Arms that are trained with the models and not kept; what the manifests shall say from all that was trained."""

    arms: tuple[Arm, ...] = ()
    facts: Callable[[dict[str, Trained]], Mapping[str, object]] = lambda trained: {}
    chosen: Callable[[dict[str, Trained]], dict[str, Trained]] = lambda trained: trained
    """What is published in an arm's place, of all that was trained."""
    config: Mapping[str, object] = field(default_factory=dict)
    """What else the models follow from, beside their arms."""


NO_OTHERS = Beside()


def finished_models(
    arms: dict[Path, Arm],
    job: Job,
    *,
    kind: str,
    work: Path,
    fit: Fit,
    beside: Beside = NO_OTHERS,
    parent: Run | None = None,
) -> dict[str, ModelManifest]:
    """Trains each arm into its folder, which gets the finished model and its manifest; returns the manifests by arm.

    Models that are already there are left alone. `work` holds checkpoints until all is published. Raises InputError
    where the samples lack what an arm needs, or a folder holds something else.
    """
    samples, k, lanes, inputs = job.samples, job.k, job.compute.lanes, inputs_of(job.samples)
    configs = {out: {**config_of(arm, job), **beside.config} for out, arm in arms.items()}
    missing = {out: arm for out, arm in arms.items() if not is_done(out, kind=kind, config=configs[out], inputs=inputs)}
    todo = [*missing.values(), *beside.arms]
    if missing:
        check(todo, samples)
        for said in (*said_of_few(kind, todo, samples, job.compute), *said_of_order(kind, todo, samples)):
            print(said)
        if any(arm.select_by == "recall" for arm in missing.values()):
            check_k(samples, k)
    for out in arms.keys() - missing.keys():
        send_unsent(out)
    key = key_of([*arms.values(), *beside.arms], samples, k, lanes)
    states = {out: work / f"{arm.name}.run-{key}.json" for out, arm in arms.items()}
    # A run whose model was published may not have come to its end, where the others were not.
    unended = {out: arm for out, arm in arms.items() if out in missing or states[out].is_file()}
    if unended:
        with ExitStack() as stack:
            runs: dict[str, Run] = {}
            for out, arm in unended.items():
                opened = run(arm.name, out=out, state=states[out], params=configs[out], tags=inputs, parent=parent)
                runs[arm.name] = stack.enter_context(opened)
            if missing:
                for arm in missing.values():
                    runs[arm.name].tags(tags_of(dealt_of(arm, samples, job.compute)))
                trained = beside.chosen(fit(todo, samples, work, compute=job.compute, k=k, runs=runs, key=key))
                cut = [arm.name for arm in missing.values() if rising(trained[arm.name])]
                if cut:
                    print(
                        f"note: {kind}: {', '.join(cut)}: still rising when optim.epochs ended the training; raise it"
                    )
                for out, arm in missing.items():
                    publish_model(out, kind, trained[arm.name], job, beside.facts(trained), configs[out])
            for out, arm in unended.items():
                for name in ("arch.json", "schema.json", "manifest.json"):
                    runs[arm.name].artifact(out / name)
        rmtree(work)
    return {arm.name: model_manifest(out, kind=kind) for out, arm in arms.items()}


def config_of(arm: Arm, job: Job) -> dict[str, object]:
    """What a finished model follows from beside its samples."""
    return {**arm.said(), "k": job.k, "compute.lanes": job.compute.lanes}


def inputs_of(samples: Path) -> dict[str, str]:
    return {"samples": samples_manifest(samples)["fingerprint"]}


def key_of(arms: list[Arm], samples: Path, k: int, lanes: int) -> str:
    """What checkpoints are kept under: those of another configuration or of other samples are not gone on from."""
    of_samples = samples_manifest(samples)["fingerprint"]
    return fingerprint([[arm.said() for arm in arms], k, lanes, of_samples])


def publish_model(
    out: Path,
    kind: str,
    trained: Trained,
    job: Job,
    saved: Mapping[str, object],
    asked: Mapping[str, object] | None = None,
) -> None:
    """Writes a finished model whole, with the days that its training left out.

    asked: what it follows from, where that is not its arm alone.
    """
    samples, state, arm = job.samples, trained.state, trained.arm
    schema, split, dealt = load_schema(samples), samples_manifest(samples)["split"], dealt_of(arm, samples, job.compute)
    config, inputs = asked or config_of(arm, job), inputs_of(samples)
    with publish(out, kind=kind, config=config, inputs=inputs) as (final, facts), staged(final) as staging:
        checkpoint.write_model(staging, arch=arm.arch, schema=schema, stats=load_stats(samples), best=trained.best)
        facts |= {"split": split, "best": state.history[state.best_epoch], "history": state.history, **saved}
        facts["dealt"] = facts_of(dealt)
        facts["rising"] = rising(trained)


def rising(trained: Trained) -> bool:
    """Whether `optim.epochs` ended the training before its patience was lost: more epochs may be better."""
    optim, state = trained.arm.optim, trained.state
    if trained.arm.model in OTHERWISE:
        return False
    return state.epoch >= optim.epochs and state.epoch - state.best_epoch <= optim.patience
