"""What 1, 2 and 4 workers do on this host, step by step, each timed once it runs: what a start costs is left out."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import psutil
import ray
import torch
import torch.distributed as dist
from rich.progress import Progress
from rich.table import Table
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from prerank.benchmarks.capacity import GIB, Load, Need, Rates
from prerank.benchmarks.rows import Row
from prerank.core.cluster.settings import TILE_BYTES
from prerank.core.cluster.start import start_ray
from prerank.core.errors import InputError
from prerank.core.outputs import write_json
from prerank.logs.folder import open_logs
from prerank.models.arch import load_arch
from prerank.models.checkpoint import load_model
from prerank.models.options import Arm, Distill, Optim
from prerank.samples.files import items_of, samples_manifest
from prerank.training.arms import student_arm, teacher_arms
from prerank.training.options import Compute
from prerank.training.worker import Job, Worker, train_arm

TWO = 1.7
"""How many times the speed of one worker two should have."""
WORKERS = (1, 2, 4)
Timed = dict[str, dict[int, float]]
"""Of each step and number of workers the rows (of build_samples) or items a second of all workers together."""


@dataclass(frozen=True)
class Inputs:
    """What is measured on: logs, samples that the teacher has taught from them, and the teacher."""

    logs: Path
    taught: Path
    teacher: Path


@dataclass(frozen=True)
class Steps:
    """The steps of the data, as their commands run them."""

    build: Callable[[Path, Path], object]
    """From logs to samples."""
    teach: Callable[[Path, Path, Path], object]
    """From samples, by a teacher, to taught samples."""


def measured(inputs: Inputs, steps: Steps, *, batch: int) -> Timed:
    """Times every step; batch: requests of a global batch.

    Raises InputError for fewer requests than three batches, or where a Ray is named that is not started here.
    """
    if "RAY_ADDRESS" in os.environ:
        raise InputError(f"RAY_ADDRESS is {os.environ['RAY_ADDRESS']}: expected none, as Ray is started here; unset it")
    built, least = samples_manifest(inputs.taught)["counts"]["built"]["requests"], 3 * batch
    if built < least:
        raise InputError(
            f"{inputs.taught}: {built} training requests, expected {least} for three batches; lower --load.batch"
        )
    arms, timed = arms_of(inputs, batch), Timed()
    with tempfile.TemporaryDirectory() as folder, Progress(transient=True) as progress:
        for workers in progress.track(WORKERS, description="1, 2, 4 workers"):
            with _cpus(workers):
                for step, rate in _of_data(inputs, steps, Path(folder) / str(workers), workers).items():
                    timed.setdefault(step, {})[workers] = rate
                for step, trained in arms.items():
                    rates = [_of_training(arm, inputs.taught, workers) for arm in trained]
                    timed.setdefault(step, {})[workers] = 1 / sum(1 / rate for rate in rates)
    return timed


def arms_of(inputs: Inputs, batch: int) -> dict[str, list[Arm]]:
    """The teacher as it was trained, and the student with its defaults; two epochs, of which the second is timed."""
    arch, two = load_arch(inputs.teacher / "arch.json"), Optim(epochs=2, batch=batch, epoch_steps=1)
    return {
        "train_teacher": teacher_arms(inputs.taught, features=arch.features, widths=arch.widths, optim=two),
        "train_student": [student_arm(inputs.taught, distill=Distill(score=1.0, contrast=0.5), optim=two)],
    }


def rates_of(inputs: Inputs, timed: Timed) -> Rates:
    """The rates of one CPU where all of this host's are busy, and the sizes of rows and samples."""
    manifest, lists = samples_manifest(inputs.taught), open_logs(inputs.logs).tables["fine_lists"]
    read, built = manifest["counts"]["read"], manifest["counts"]["built"]
    busy = max(workers for workers in WORKERS if workers <= max(1, os.cpu_count() or 1))
    a_cpu = {step: rates[busy] / busy for step, rates in timed.items()}
    on_disk = sum(size for name, size in manifest["files"].items() if name.startswith("train/"))
    return Rates(
        rows_a_request=read["rows"] / read["requests"],
        disk_bytes=sum(file.bytes for file in lists.files.values()) / lists.rows,
        memory_bytes=lists.bytes / lists.rows,
        sample_items=built["rows"] / built["requests"],
        sample_bytes=on_disk / built["requests"],
        build_rows_s=a_cpu["build_samples"],
        teach_items_s=a_cpu["teach"],
        teacher_items_s=a_cpu["train_teacher"],
        student_items_s=a_cpu["train_student"],
        parameters=sum(weight.numel() for weight in load_model(inputs.teacher, kind="teacher").ranker.parameters()),
        tile_bytes=TILE_BYTES,
    )


def speedup(samples: Path, teacher: Path, *, rounds: int) -> list[Row]:
    """Items a second of two workers of one thread each, of one's.

    Of the teacher, and of the student with its defaults and the contrast, on the same batches, half of them each; and
    of the student, two on batches of twice as many requests.
    """
    one, two = (arms_of(Inputs(Path(), samples, teacher), n * Optim().batch) for n in (1, 2))
    of_workers = {
        "teacher": {1: one["train_teacher"], 2: one["train_teacher"]},
        "student": {1: one["train_student"], 2: one["train_student"]},
        "larger batches": {2: two["train_student"]},
    }
    rates: dict[tuple[str, int], list[float]] = {(name, n): [] for name, of in of_workers.items() for n in of}
    for _ in range(rounds):
        for name, workers in rates:
            with _cpus(workers):
                rates[name, workers].append(_of_training(of_workers[name][workers][0], samples, workers))
    rows, what = [], "speed of 2 workers, one thread each, of one's"
    found = {of: float(np.median(rate)) for of, rate in rates.items()}
    for name, beside in (("teacher", "teacher"), ("student", "student"), ("larger batches", "student")):
        both, alone = found[name, 2], found[beside, 1]
        detail = f"{both:,.0f} and {alone:,.0f} items a second"
        rows.append(Row(f"scale, {name}", what, both / alone, "times", least=TWO, detail=detail))
    return rows


@contextmanager
def _cpus(count: int) -> Iterator[None]:
    """This process and those that it starts have so many CPUs, or all that there are."""
    there = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(there)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, there)


def _of_data(inputs: Inputs, steps: Steps, folder: Path, cpus: int) -> dict[str, float]:
    """Of each step of the data on a local Ray with so many CPUs; the second time, as its workers run then."""
    rows = open_logs(inputs.logs).tables["fine_lists"].rows
    start_ray(cpus)
    rates = {}
    try:
        for turn in ("first", "second"):
            samples = folder / turn / "samples"
            begun = time.monotonic()
            with redirect_stdout(StringIO()):
                steps.build(inputs.logs, samples)
            rates["build_samples"], begun = rows / (time.monotonic() - begun), time.monotonic()
            with redirect_stdout(StringIO()):
                steps.teach(samples, inputs.teacher, folder / turn / "taught")
            seconds = time.monotonic() - begun
            rates["teach"] = sum(int(items_of(samples, split).sum()) for split in ("train", "val")) / seconds
    finally:
        ray.shutdown()
    return rates


def _of_training(arm: Arm, samples: Path, workers: int) -> float:
    """In the second epoch and without its validation, by the loop that Ray Train runs."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_train, (workers, arm, samples, Path(folder)), nprocs=workers)
        return json.loads((Path(folder) / "rate.json").read_text())


def _train(rank: int, workers: int, arm: Arm, samples: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=workers)
    (folder / str(rank)).mkdir()
    at: dict[int, float] = {}
    worker = Worker(
        folder / str(rank),
        torch.device("cpu"),
        keep=lambda *_: None,
        tell=lambda name, done, *_, **__: at.setdefault(done, time.monotonic()),
        prepare=partial(DistributedDataParallel, broadcast_buffers=False) if workers > 1 else lambda model: model,
        rank=rank,
        world=workers,
    )
    train_arm(arm, Job(samples, Compute(workers=workers), 150), worker)
    if rank == 0:
        steps = max(at) // arm.optim.epochs
        built = samples_manifest(samples)["counts"]["built"]
        items = (steps - 1) * arm.optim.batch * built["rows"] / built["requests"]
        write_json(folder / "rate.json", items / (at[2 * steps] - at[steps + 1]))
    dist.destroy_process_group()


def terminal_tables(timed: Timed, answer: list[Need], load: Load) -> tuple[Table, Table]:
    """What was measured, and what the load needs."""
    rates = Table("rows or items a second", *(f"{n} at work" for n in WORKERS), title=f"Measured on {host()}")
    for step, of in timed.items():
        rates.add_row(step, *(f"{of[n]:,.0f} ({of[n] / of[1]:.2f}x)" for n in WORKERS))
    asked = Table("", "", "", "by", title=f"A day of {load.rows_a_day:,.0f} rows")
    for need in answer:
        asked.add_row(need.what, f"{need.value:,.0f}" if need.value >= 100 else f"{need.value:.2g}", need.unit, need.by)
    return rates, asked


def host() -> str:
    return f"{os.cpu_count()} CPUs, {psutil.virtual_memory().total / GIB:.0f} GiB"
