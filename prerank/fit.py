"""Training on Ray Train: one worker group trains any number of arms over the same samples, one after the other.

A checkpoint is Ray Train's: the folder that `ray.train.report` stores holds the finished arms' best weights and the
state of the arm under way. After a failure Ray restarts the workers from it; after a kill the same command does, as the
run's name and folder are the same.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.train
import ray.train.torch
import torch
from torch import Tensor

from prerank import checkpoint, loop
from prerank.arch import Arch
from prerank.batches import columns
from prerank.checkpoint import State
from prerank.config import plain
from prerank.distill import Distiller
from prerank.errors import InputError
from prerank.options import Arm, Compute
from prerank.outputs import fingerprint, is_done, publish, read_manifest
from prerank.progress import Bars, Teller
from prerank.ranker import Ranker
from prerank.reader import Reader, sequential
from prerank.samples import sample_files
from prerank.schema import Feature, load_schema
from prerank.tracking import Run, run


@dataclass(frozen=True)
class Trained:
    """An arm after its training: its history and the best weights of its ranker."""

    arm: Arm
    state: State
    best: dict[str, Tensor]


def fit(
    arms: list[Arm], samples: Path, work: Path, *, compute: Compute, k: int, runs: dict[str, Run]
) -> dict[str, Trained]:
    """Trains the arms and returns them by name; `work` keeps the checkpoints, and the same call resumes from them.

    `k`: the cut-off of the validation metrics; `runs`: the MLflow run of an arm, if any. `check` says beforehand
    whether the samples have what the arms need.
    """
    samples = samples.resolve()
    job = {"arms": arms, "samples": samples, "compute": compute, "k": k, "runs": runs}
    done = launch(_train_arms, job, name=f"ray_train-{key_of(arms, samples, k)}", work=work, compute=compute)
    with done.as_directory() as folder:
        return {arm.name: Trained(arm, *checkpoint.load_best(Path(folder), arm.name)) for arm in arms}


def launch(
    worker: Callable[[dict[str, Any]], None], job: dict[str, Any], *, name: str, work: Path, compute: Compute
) -> ray.train.Checkpoint:
    """Runs `worker` on a worker group of Ray Train with a progress board; returns the last checkpoint it reported.

    The same name and folder go on from the latest checkpoint.
    """
    # Ray Train's controller looks at its workers every 2 s by default, which each report waits for: 15 reports took
    # 28 s, and 3 s at 0.2.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    with Bars() as board:
        result = ray.train.torch.TorchTrainer(
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


def key_of(arms: list[Arm], samples: Path, k: int) -> str:
    """What checkpoints are kept under: those of another configuration or of other samples are not gone on from."""
    return fingerprint([[plain(arm) for arm in arms], k, read_manifest(samples, kind="samples")["fingerprint"]])


def teacher_column(samples: Path, split: str = "train") -> str | None:
    """The column with the teacher's score: ours, or the one that the logs brought (which candidates do not have)."""
    present = _columns(samples, split).names
    return next((name for name in ("teacher_score", "fine_score") if name in present), None)


def check(arms: list[Arm], samples: Path, *, taught: bool = True) -> None:
    """Raises InputError where an arm needs what the samples do not have; `taught`: its teacher is in their columns."""
    manifest, schema = read_manifest(samples, kind="samples"), load_schema(samples)
    teacher_score, present = teacher_column(samples), _columns(samples, "train").names
    built = manifest["strategies"]
    for arm in arms:
        arm.check()
        if all(feature.of_request for feature in schema.select(arm.features, where=arm.name)):
            raise InputError(
                f"{arm.name}: no feature of an item or cross side: nothing tells one candidate from another"
            )
        if taught and arm.distill.active and teacher_score is None:
            raise InputError(f"{samples}: no teacher_score and no fine_score to distil from; run workflows.teach first")
        if taught and arm.distill.contrast and "teacher_repr" not in present:
            raise InputError(f"{samples}: no teacher_repr for --distill.contrast; run workflows.teach first")
        missing = [name for name in arm.strategies if name not in built]
        if arm.hard == "pairwise" and missing:
            raise InputError(
                f"{samples}: built with strategies {', '.join(built)}; {arm.name} needs {', '.join(missing)}"
            )
        if arm.hard == "listwise":
            _check_negatives(arm, samples, manifest["draw"]["uniform_items"])


def _check_negatives(arm: Arm, samples: Path, drawn: int) -> None:
    """Raises InputError where the samples cannot hold the unexposed items that the arm asks for."""
    first = next(sequential(files_of(samples, "train"), ("exposed",)))["exposed"]
    wanted = arm.unexposed_ratio * pc.sum(pc.list_flatten(first)).as_py() / len(first)
    if wanted > drawn:
        raise InputError(
            f"{samples}: holds at most {drawn} unexposed items a request (draw.uniform_items), but an unexposed_ratio "
            f"of {arm.unexposed_ratio:g} asks for {wanted:.0f}; lower it, or build samples with more"
        )


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
    manifest = read_manifest(samples, kind="samples")
    inputs = {"samples": manifest["fingerprint"]}
    configs = {out: {**plain(arm), "k": k} for out, arm in arms.items()}
    missing = {out: arm for out, arm in arms.items() if not is_done(out, kind=kind, config=configs[out], inputs=inputs)}
    if missing:
        todo = [*missing.values(), *beside]
        check(todo, samples)
        with ExitStack() as stack:
            runs: dict[str, Run] = {}
            for out, arm in missing.items():
                state = work / f"{arm.name}.run-{key_of(todo, samples, k)}.json"
                opened = run(arm.name, out=out, state=state, params=configs[out], tags=inputs, parent=parent)
                runs[arm.name] = stack.enter_context(opened)
            refuse_local_store(runs)
            trained = fit(todo, samples, work, compute=compute, k=k, runs=runs)
            saved = extra(trained)
            for out, arm in missing.items():
                _publish(
                    out, kind, trained[arm.name], samples, manifest, config=configs[out], inputs=inputs, saved=saved
                )
                for name in ("arch.json", "schema.json", "manifest.json"):
                    runs[arm.name].artifact(out / name)
        shutil.rmtree(work)
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
    manifest: dict[str, Any],
    *,
    config: dict[str, Any],
    inputs: dict[str, str],
    saved: dict[str, Any],
) -> None:
    """Writes a finished model whole, with the days that its training left out."""
    state, schema = trained.state, load_schema(samples)
    stats = json.loads((samples / "stats.json").read_text())
    with publish(out, kind=kind, config=config, inputs=inputs) as (staging, facts):
        arch = Arch(trained.arm.features, trained.arm.widths)
        checkpoint.write_model(staging, arch=arch, schema=schema, stats=stats, best=trained.best)
        facts |= {"split": manifest["split"], "best": state.history[state.best_epoch], "history": state.history}
        facts |= saved


def _train_arms(job: dict[str, Any]) -> None:
    with worker(job["compute"]) as (done, rank, world):
        for arm in job["arms"]:
            _train_arm(arm, job, done, rank, world)


@contextmanager
def worker(compute: Compute) -> Iterator[tuple[Path, int, int]]:
    """In a worker of Ray Train: a folder with what the latest checkpoint holds, this worker's rank, their number."""
    context = ray.train.get_context()
    if not compute.gpu:
        torch.set_num_threads(max(1, int(compute.cpus)))
    with tempfile.TemporaryDirectory() as done:
        resumed = ray.train.get_checkpoint()
        if resumed:
            resumed.to_directory(done)
        yield Path(done), context.get_world_rank(), context.get_world_size()


def _train_arm(arm: Arm, job: dict[str, Any], done: Path, rank: int, world: int) -> None:
    if (done / f"{arm.name}.best.safetensors").exists() and not (done / f"{arm.name}.latest.safetensors").exists():
        return
    samples, compute = job["samples"], job["compute"]
    teacher_score = teacher_column(samples)
    tracked: Run | None = job["runs"].get(arm.name) if rank == 0 else None
    features = load_schema(samples).select(arm.features, where=arm.name)
    torch.manual_seed(arm.seed)
    student = Ranker(features, arm.widths, json.loads((samples / "stats.json").read_text()))
    distiller = Distiller(student, arm, teacher_width(samples) if arm.distill.contrast else None)
    model = ray.train.torch.prepare_model(distiller)
    optimizer = loop.make_optimizer(model, arm)
    state, best = State(), checkpoint.weights(student)
    if (done / f"{arm.name}.latest.safetensors").exists():
        state, best = checkpoint.load_state(done, arm.name, distiller, optimizer)
    reader = Reader(
        files_of(samples, "train"),
        columns(arm, teacher_score),
        arm.optim.batch,
        compute.lanes,
        rank,
        world,
        arm.seed,
    )
    validate = validation(samples, features, job["k"], rank, world)
    tell = Teller(job["board"], arm.name) if rank == 0 else lambda *_, **__: None

    def save(state: State, distiller: Distiller, optimizer: torch.optim.Optimizer, best: dict[str, Tensor]) -> None:
        if rank == 0:
            checkpoint.save_state(done, arm.name, state, distiller, optimizer, best)
            if tracked and state.step == 0:
                tracked.metrics(state.history[-1], step=state.history[-1]["epoch"])
            tell.note = f"best {arm.select_by} {state.best:.4f} of epoch {state.best_epoch}" if state.history else ""
        report(done, rank, {"arm": arm.name, "epoch": state.epoch, "step": state.step})

    def progress(state: State) -> None:
        tell(state.epoch * reader.steps + state.step, arm.optim.epochs * reader.steps)

    best = loop.train(
        arm,
        features,
        model,
        optimizer,
        reader,
        validate,
        teacher_score=teacher_score,
        state=state,
        best=best,
        save=save,
        checkpoint_steps=compute.checkpoint_steps,
        progress=progress,
    )
    tell(state.epoch * reader.steps, state.epoch * reader.steps, now=True)
    (done / f"{arm.name}.latest.safetensors").unlink(missing_ok=True)
    if rank == 0:
        checkpoint.save_best(done, arm.name, state, best)
    report(done, rank, {"arm": arm.name, "epoch": state.epoch, "best": state.best})


def validation(
    samples: Path, features: tuple[Feature, ...], k: int, rank: int, world: int
) -> Callable[[Any], dict[str, float]]:
    """The metrics of a model on this worker's share of the validation day, averaged over all workers'."""
    score = teacher_column(samples, "val")
    names = [feature.name for feature in features] + ["item_id", "exposed", "clicked", "converted"]
    tables = sequential(files_of(samples, "val"), (*names, *([score] if score else [])), rank, world)
    return loop.validator(tables, features, k=k, teacher_score=score, device=ray.train.torch.get_device())


def report(done: Path, rank: int, metrics: dict[str, Any]) -> None:
    """Every worker reports equally often; the first one's folder is the checkpoint."""
    ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(done) if rank == 0 else None)


def teacher_width(samples: Path) -> int:
    return _columns(samples, "train").field("teacher_repr").type.value_type.list_size


def _columns(samples: Path, split: str) -> pa.Schema:
    files = files_of(samples, split)
    return pq.read_schema(files[0]) if files else pa.schema([])


def files_of(samples: Path, split: str) -> tuple[Path, ...]:
    return tuple(path for path, _ in sample_files(samples, split))
