"""Training on Ray Train: one worker group trains any number of arms over the same samples, one after the other.

A checkpoint is Ray Train's: the folder that `ray.train.report` stores holds the finished arms' best weights and the
state of the arm under way. After a failure Ray restarts the workers from it; after a kill the same command does, as the
run's name and folder are the same.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from prerank.core.cluster.private import drop_torn, report_without_waiting, trainer_without_process_group
from prerank.core.config import plain
from prerank.core.errors import InputError
from prerank.core.outputs import fingerprint, is_done, publish, read_manifest
from prerank.core.storage import rmtree, staged
from prerank.logs.schema import load_schema
from prerank.models import checkpoint
from prerank.models.arch import Arch
from prerank.models.checkpoint import State
from prerank.models.options import Arm
from prerank.samples.files import SamplesManifest, check_k, samples_manifest
from prerank.tracking.runs import Run, run, send_unsent
from prerank.training.options import Compute
from prerank.training.progress import Bars, Teller
from prerank.training.worker import Job, Trained, Worker, check, logged, train_arm


def fit(
    arms: list[Arm], samples: Path, work: Path, *, compute: Compute, k: int, runs: dict[str, Run], key: str = ""
) -> dict[str, Trained]:
    """Trains the arms and returns them by name; `work` keeps the checkpoints, and the same call resumes from them.

    `k`: the cut-off of the validation metrics; `runs`: the MLflow run of an arm, if any; `key`: of the checkpoints,
    where it is that of more arms than are still to be trained. `check` says beforehand whether the samples have what
    the arms need.
    """
    samples = samples.resolve()
    job = {"arms": arms, "job": Job(samples, compute, k), "runs": runs}
    name = f"ray_train-{key or key_of(arms, samples, k, compute.lanes)}"
    done = launch(_train_arms, job, name=name, work=work, compute=compute)
    with done.as_directory() as folder:
        return {arm.name: Trained(arm, *checkpoint.load_best(Path(folder), arm.name)) for arm in arms}


def launch(
    worker: Callable[[dict[str, Any]], None], job: dict[str, Any], *, name: str, work: Path, compute: Compute
) -> ray.train.Checkpoint:
    """Runs `worker` on a worker group of Ray Train with a progress board; returns the last checkpoint it reported.

    The same name and folder go on from the latest checkpoint. The workers are packed on as few nodes as have room.
    """
    drop_torn(work / name)
    report_without_waiting()
    trainer = ray.train.torch.TorchTrainer if compute.workers > 1 else trainer_without_process_group()
    with Bars() as board:
        result = trainer(
            worker,
            train_loop_config=job | {"board": board},
            scaling_config=ray.train.ScalingConfig(
                num_workers=compute.workers,
                use_gpu=compute.gpu,
                resources_per_worker={"CPU": compute.cpus} | ({"GPU": 1} if compute.gpu else {}),
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=str(work.resolve()),
                failure_config=ray.train.FailureConfig(max_failures=compute.max_failures, controller_failure_limit=3),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            ),
        ).fit()
    return result.checkpoint


def key_of(arms: list[Arm], samples: Path, k: int, lanes: int) -> str:
    """What checkpoints are kept under: those of another configuration or of other samples are not gone on from."""
    of_samples = read_manifest(samples, kind="samples")["fingerprint"]
    return fingerprint([[plain(arm) for arm in arms], k, lanes, of_samples])


def train_models(
    arms: dict[Path, Arm],
    samples: Path,
    *,
    kind: str,
    work: Path,
    compute: Compute,
    k: int,
    beside: tuple[Arm, ...] = (),
    extra: Callable[[dict[str, Trained]], dict[str, Any]] = lambda trained: {},
    parent: Run | None = None,
) -> dict[str, dict[str, Any]]:
    """Trains each arm into its folder, which gets the finished model and its manifest; returns the manifests by arm.

    Models that are already there are left alone. `beside`: arms that are trained with them and not kept; `extra`:
    what else the manifests shall say, from all that was trained. `work` holds checkpoints until all is published.
    """
    manifest = samples_manifest(samples)
    inputs = {"samples": manifest["fingerprint"]}
    configs = {out: {**plain(arm), "k": k, "compute.lanes": compute.lanes} for out, arm in arms.items()}
    missing = {out: arm for out, arm in arms.items() if not is_done(out, kind=kind, config=configs[out], inputs=inputs)}
    todo = [*missing.values(), *beside]
    if missing:
        check(todo, samples)
        if any(arm.select_by == "recall" for arm in missing.values()):
            check_k(samples, k)
    for out in arms.keys() - missing.keys():
        send_unsent(out)
    key = key_of([*arms.values(), *beside], samples, k, compute.lanes)
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
                refuse_local_store(runs)
                trained = fit(todo, samples, work, compute=compute, k=k, runs=runs, key=key)
                saved = extra(trained)
                for out, arm in missing.items():
                    _publish(
                        out, kind, trained[arm.name], samples, manifest, config=configs[out], inputs=inputs, saved=saved
                    )
            for out, arm in unended.items():
                for name in ("arch.json", "schema.json", "manifest.json"):
                    runs[arm.name].artifact(out / name)
        rmtree(work)
    return {arm.name: read_manifest(out, kind=kind) for out, arm in arms.items()}


def refuse_local_store(runs: dict[str, Run]) -> None:
    """Workers log to the runs: a SQLite file is not a place that several nodes can write to."""
    nodes = sum(node["Alive"] for node in ray.nodes())
    local = [run.uri for run in runs.values() if run.uri.startswith("sqlite:")]
    if nodes > 1 and local:
        raise InputError(f"MLflow at {local[0]} cannot be shared by {nodes} nodes; set MLFLOW_TRACKING_URI to a server")


def _publish(
    out: Path,
    kind: str,
    trained: Trained,
    samples: Path,
    manifest: SamplesManifest,
    *,
    config: dict[str, Any],
    inputs: dict[str, str],
    saved: dict[str, Any],
) -> None:
    """Writes a finished model whole, with the days that its training left out."""
    state, schema = trained.state, load_schema(samples)
    stats = json.loads((samples / "stats.json").read_text())
    with publish(out, kind=kind, config=config, inputs=inputs) as (final, facts), staged(final) as staging:
        arch = Arch(trained.arm.features, trained.arm.widths)
        checkpoint.write_model(staging, arch=arch, schema=schema, stats=stats, best=trained.best)
        facts |= {"split": manifest["split"], "best": state.history[state.best_epoch], "history": state.history}
        facts |= saved


def _train_arms(job: dict[str, Any]) -> None:
    with train_worker(job) as worker:
        for arm in job["arms"]:
            train_arm(arm, job["job"], worker)


@contextmanager
def train_worker(job: dict[str, Any]) -> Iterator[Worker]:
    """A worker of Ray Train: the first one's folder is the checkpoint, and it logs to the `runs` of the job by name."""
    context, compute = ray.train.get_context(), job["job"].compute
    rank, runs = context.get_world_rank(), job["runs"]
    if not compute.gpu:
        torch.set_num_threads(max(1, int(compute.cpus)))
    with tempfile.TemporaryDirectory() as folder:
        done = Path(folder)
        resumed = ray.train.get_checkpoint()
        if resumed:
            resumed.to_directory(done)

        def keep(name: str, state: State, ended: bool) -> None:
            if rank == 0 and name in runs and state.step == 0 and not ended:
                runs[name].metrics(logged(state), step=state.history[-1]["epoch"])
            kept = ray.train.Checkpoint.from_directory(done) if rank == 0 else None
            ray.train.report({"name": name, "epoch": state.epoch, "step": state.step}, checkpoint=kept)

        yield Worker(
            done,
            ray.train.torch.get_device(),
            keep,
            **({"tell": Teller(job["board"])} if rank == 0 else {}),
            prepare=ray.train.torch.prepare_model,
            rank=rank,
            world=context.get_world_size(),
        )
