"""Searches on Ray Train: one worker group runs any number of them over the same samples, one after the other.

As `prerank.training.group` does for arms: a checkpoint holds the finished searches and the state of the one under way,
and the same call goes on from it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prerank.core.config import plain, widths
from prerank.core.errors import InputError
from prerank.core.outputs import fingerprint, read_manifest
from prerank.latency.options import Latency
from prerank.latency.table import Table
from prerank.logs.schema import Schema, load_schema
from prerank.models import checkpoint
from prerank.models.arch import Arch
from prerank.models.batch import Batch
from prerank.models.checkpoint import State
from prerank.models.options import Arm
from prerank.samples.batches import columns, training_batch
from prerank.samples.files import check_k
from prerank.samples.reader import Reader
from prerank.search.autofas import AutoFAS
from prerank.search.derive import derive
from prerank.search.loop import make_optimizer, search_steps
from prerank.search.options import Search
from prerank.search.rivals import RIVALS, untrained_values
from prerank.tracking.runs import Run
from prerank.training.group import launch, train_worker
from prerank.training.options import Compute
from prerank.training.worker import (
    Job,
    Worker,
    check,
    check_memory,
    files_of,
    teacher_column,
    teacher_width,
    validation,
)


@dataclass(frozen=True)
class Spec:
    """One search: `arm` has the features to choose from, the widths to fall back on, the losses and the seed."""

    arm: Arm
    search: Search
    latency: Latency
    table: Table
    budget_us: float


@dataclass(frozen=True)
class Found:
    spec: Spec
    history: list[dict[str, Any]]
    values: tuple[float, ...]
    """What each of the arm's features is worth to `derive`."""
    log_p: tuple[tuple[float, ...], ...]
    """Of the candidate widths, by layer."""

    def derive(self, schema: Schema, budget_us: float | None = None) -> Arch:
        """The best architecture that fits the budget, by default that of the search."""
        spec = self.spec
        searched = spec.search.method == "autofas"
        return derive(
            features=schema.select(spec.arm.features, where=spec.arm.name),
            fetch=schema.fetch,
            table=spec.table,
            widths=widths(spec.search.widths) if searched else tuple(sorted(set(spec.arm.widths))),
            budget_us=spec.budget_us if budget_us is None else budget_us,
            value_M=self.values,
            log_p_SC=self.log_p,
        )


def search_all(
    specs: list[Spec], samples: Path, work: Path, *, compute: Compute, k: int, runs: dict[str, Run]
) -> dict[str, Found]:
    """Runs the searches and returns them by the names of their arms; `work` keeps the checkpoints.

    Raises InputError where the samples, the latency table or the options do not fit each other.
    """
    samples, schema = samples.resolve(), load_schema(samples)
    for spec in specs:
        check_spec(spec, samples, schema)
    if any(spec.arm.select_by == "recall" for spec in specs):
        check_k(samples, k)
    untrained = {s.arm.name: s for s in specs if s.search.method in ("random", "hand_picked")}
    trained = [spec for spec in specs if spec.arm.name not in untrained]
    found = {name: _untrained(spec, schema) for name, spec in untrained.items()}
    if trained:
        job = {"specs": trained, "job": Job(samples, compute, k), "runs": runs}
        name = f"ray_train-{key_of(trained, samples, k, compute.lanes)}"
        done = launch(_search_all, job, name=name, work=work, compute=compute)
        with done.as_directory() as folder:
            found |= {spec.arm.name: found_in(Path(folder), spec) for spec in trained}
    return {spec.arm.name: found[spec.arm.name] for spec in specs}


def key_of(specs: list[Spec], samples: Path, k: int, lanes: int) -> str:
    """What checkpoints are kept under."""
    said = [
        [plain(s.arm), plain(s.search), plain(s.latency), s.table.fingerprint, s.table.candidates, s.budget_us]
        for s in specs
    ]
    return fingerprint([said, k, lanes, read_manifest(samples, kind="samples")["fingerprint"]])


def check_spec(spec: Spec, samples: Path, schema: Schema) -> None:
    """Raises InputError where a search cannot be run on these samples with this table, or nothing fits its budget."""
    arm, search = spec.arm, spec.search
    search.check(arm.name)
    spec.latency.check(arm.name)
    if search.joint and not (arm.distill.score or arm.distill.kl or arm.distill.contrast):
        raise InputError(f"{arm.name}: search.joint distils the ranking network: give distill.score a weight")
    check([arm], samples, taught=not search.joint)
    searched = ((0.0,) * len(widths(search.widths)),) * search.layers
    log_p = searched if search.method == "autofas" else _fixed(arm.widths)
    Found(spec, [], (0.0,) * len(arm.features), log_p).derive(schema)  # of nothing that it values: the cheapest


def _untrained(spec: Spec, schema: Schema) -> Found:
    features = schema.select(spec.arm.features, where=spec.arm.name)
    values = untrained_values(spec.search.method, features, schema.hand_picked, spec.arm.seed)
    return Found(spec, [], tuple(values.tolist()), _fixed(spec.arm.widths))


def _fixed(chosen: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    """log p that allows the arm's own widths alone."""
    candidates = sorted(set(chosen))
    return tuple(tuple(0.0 if width == c else float("-inf") for c in candidates) for width in chosen)


def _search_all(job: dict[str, Any]) -> None:
    with train_worker(job) as worker:
        for spec in job["specs"]:
            run_search(spec, job["job"], worker)


def run_search(spec: Spec, job: Job, worker: Worker) -> None:
    """Runs the search, or goes on with it; at the end the worker's folder holds what `found_in` reads."""
    arm, search, samples, compute, done = spec.arm, spec.search, job.samples, job.compute, worker.done
    if worker.finished(arm.name):
        return
    schema, stats = load_schema(samples), json.loads((samples / "stats.json").read_text())
    features = schema.select(arm.features, where=arm.name)
    check_memory(features, worker.device)
    torch.manual_seed(arm.seed)
    method: nn.Module = {"autofas": AutoFAS, **RIVALS}[search.method](
        features,
        schema.fetch,
        stats,
        arm=arm,
        search=search,
        latency=spec.latency,
        table=spec.table,
        budget_us=spec.budget_us,
        teacher_width=teacher_width(samples) if arm.distill.contrast and not search.joint else None,
    )
    model = worker.prepare(method)
    optimizer, state = make_optimizer(method, arm, search), State()
    if worker.under_way(arm.name):
        state, _ = checkpoint.load_state(done, arm.name, method, optimizer)
    learned = None if search.joint else teacher_column(samples)
    read = {"files": files_of(samples, "train"), "batch": arm.optim.batch, "lanes": compute.lanes, "seed": arm.seed}
    read |= {"columns": columns(arm, learned), "fold": search.fold, "tables": job.tables}
    reader = Reader(**read, rank=worker.rank, world=worker.world)
    held_out = Reader(**read, held_out=True, rank=worker.rank, world=worker.world)

    def save(state: State, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if worker.rank == 0:
            checkpoint.save_state(done, arm.name, state, method, optimizer, {})
        worker.keep(arm.name, state, False)

    def progress(state: State, method: nn.Module) -> None:
        at, total = state.epoch * reader.steps + state.step, search.epochs * reader.steps
        worker.tell(arm.name, at, total, lambda: note(method.facts()))

    search_steps(
        arm,
        search,
        features,
        model,
        optimizer,
        reader,
        held_out,
        validation(job, features, worker),
        teacher_score=learned,
        state=state,
        save=save,
        checkpoint_steps=compute.checkpoint_steps,
        progress=progress,
    )
    total = search.epochs * reader.steps
    worker.tell(arm.name, total, total, lambda: note(method.facts()), now=True)
    (done / f"{arm.name}.latest.safetensors").unlink(missing_ok=True)
    if worker.rank == 0:
        every = Reader(**read, held_out=True)

        def batches() -> Iterator[Batch]:
            for table in every.epoch(0):
                yield training_batch(table, arm, features, 0, learned).to(worker.device)

        log_p = method.width_logits.log_softmax(1).tolist() if search.method == "autofas" else _fixed(arm.widths)
        state.history.append({"values": method.values(batches()).tolist(), "log_p": log_p})
        checkpoint.save_best(done, arm.name, state, {})
    worker.keep(arm.name, state, True)


def found_in(folder: Path, spec: Spec) -> Found:
    """What a finished search left in a worker's folder or in its last checkpoint."""
    state, _ = checkpoint.load_best(folder, spec.arm.name)
    *history, last = state.history
    return Found(spec, history, last["values"], last["log_p"])


def note(facts: dict[str, Any]) -> str:
    """Where a search stands, in a few words beside its progress bar."""
    said = {
        "latency_us": "{:.0f} µs expected",
        "gate_entropy": "gates {:.2f} nats",
        "width_entropy": "widths {:.2f} nats",
    }
    return ", ".join(text.format(facts[key]) for key, text in said.items() if key in facts)
