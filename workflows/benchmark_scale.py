"""Measures what 1, 2 and 4 workers do with your logs on this host, and reckons from it what a day of them needs.

    python -m workflows.benchmark_scale --logs runs/logs --taught runs/demo/taught --teacher runs/demo/teacher

Builds samples with as many CPUs, teaches them, and trains a teacher (with the small models that it has to beat) and a
student in batches of `--load.batch` by the loop that Ray Train runs; each is timed once it runs, so that what a start
costs is left out. `--load.rows-a-day` and the rest of `--load` say what is asked. On Linux.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

import psutil
import ray
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch.nn.parallel import DistributedDataParallel

from prerank.benchmarks.capacity import GIB, Load, Need, Rates, needs
from prerank.core import cli
from prerank.core.cluster.settings import TILE_BYTES
from prerank.core.cluster.start import start_ray
from prerank.core.errors import InputError
from prerank.core.outputs import write_json
from prerank.logs.folder import Table as LogsTable
from prerank.logs.folder import open_logs
from prerank.models.arch import load_arch
from prerank.models.checkpoint import load_model
from prerank.models.options import Arm, Distill, Optim
from prerank.samples.files import SamplesManifest, items_of, samples_manifest
from prerank.training.options import Compute
from prerank.training.worker import Job, Worker, train_arm
from workflows import build_samples, teach, train_student, train_teacher

WORKERS = (1, 2, 4)


@dataclass(frozen=True)
class BenchmarkScale:
    """Measure rates on these logs, and reckon what a cluster needs for a day of them."""

    logs: Path
    taught: Path
    """A folder made by workflows.teach from these logs."""
    teacher: Path
    """A folder made by workflows.train_teacher."""
    out: Path | None = None
    """A JSON file for the figures."""
    load: Load = Load()


def main(config: BenchmarkScale) -> dict:
    """Returns the measured rates and what follows from them."""
    config.load.check()
    if "RAY_ADDRESS" in os.environ:
        raise InputError(f"RAY_ADDRESS is {os.environ['RAY_ADDRESS']}: expected none, as Ray is started here; unset it")
    logs, taught, teacher = (path.resolve() for path in (config.logs, config.taught, config.teacher))
    manifest, lists = samples_manifest(taught), open_logs(logs).tables["fine_lists"]
    built, least = manifest["counts"]["built"]["requests"], 3 * config.load.batch
    if built < least:
        raise InputError(f"{taught}: {built} training requests, expected {least} for three batches; lower --load.batch")
    arms = arms_of(taught, teacher, config.load.batch)
    timed: dict[str, dict[int, float]] = {}
    with tempfile.TemporaryDirectory() as folder, Progress(transient=True) as progress:
        for workers in progress.track(WORKERS, description="1, 2, 4 workers"):
            with _cpus(workers):
                for step, rate in _of_data(logs, lists.rows, teacher, Path(folder) / str(workers), workers).items():
                    timed.setdefault(step, {})[workers] = rate
                for step, trained in arms.items():
                    rates = [_of_training(arm, taught, workers) for arm in trained]
                    timed.setdefault(step, {})[workers] = 1 / sum(1 / rate for rate in rates)
    found = rates_of(lists, manifest, teacher, timed)
    answer = needs(found, config.load)
    show(timed, answer, config.load)
    results = {"host": host(), "by_workers": timed, "rates": asdict(found), "load": asdict(config.load)}
    results["needs"] = [asdict(need) for need in answer]
    if config.out:
        write_json(config.out, results)
    return results


def arms_of(taught: Path, teacher: Path, batch: int) -> dict[str, list[Arm]]:
    """The teacher as it was trained, and the student with its defaults; two epochs, of which the second is timed."""
    arch, two = load_arch(teacher / "arch.json"), Optim(epochs=2, batch=batch)
    features, widths = ",".join(arch.features), ",".join(map(str, arch.widths))
    student = train_student.TrainStudent(taught, taught, distill=Distill(score=1.0, contrast=0.5), optim=two)
    return {
        "train_teacher": train_teacher.arms_of(
            train_teacher.TrainTeacher(taught, teacher, features=features, widths=widths, optim=two)
        ),
        "train_student": [train_student.arm_of(student)],
    }


def rates_of(lists: LogsTable, manifest: SamplesManifest, teacher: Path, timed: dict[str, dict[int, float]]) -> Rates:
    """The rates of one CPU where all of this host's are busy, and the sizes of rows and samples."""
    read, built = manifest["counts"]["read"], manifest["counts"]["built"]
    busy = max(workers for workers in WORKERS if workers <= max(1, os.cpu_count() or 1))
    a_cpu = {step: rates[busy] / busy for step, rates in timed.items()}
    on_disk = sum(size for name, size in manifest["files"].items() if name.startswith("train/"))
    return Rates(
        rows_a_request=read["rows"] / read["requests"],
        disk_bytes=sum(size for size, _ in lists.files.values()) / lists.rows,
        memory_bytes=lists.bytes / lists.rows,
        sample_items=built["rows"] / built["requests"],
        sample_bytes=on_disk / built["requests"],
        build_rows_s=a_cpu["build_samples"],
        teach_items_s=a_cpu["teach"],
        teacher_items_s=a_cpu["train_teacher"],
        student_items_s=a_cpu["train_student"],
        parameters=sum(weight.numel() for weight in load_model(teacher, kind="teacher").ranker.parameters()),
        tile_bytes=TILE_BYTES,
    )


@contextmanager
def _cpus(count: int) -> Iterator[None]:
    """This process and those that it starts have so many CPUs, or all that there are."""
    there = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(there)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, there)


def _of_data(logs: Path, rows: int, teacher: Path, folder: Path, cpus: int) -> dict[str, float]:
    """Rows or items a second of each step of the data on a local Ray with so many CPUs.

    The second time, as its workers run then.
    """
    start_ray(cpus)
    rates = {}
    try:
        for turn in ("first", "second"):
            samples = folder / turn / "samples"
            begun = time.monotonic()
            with redirect_stdout(StringIO()):
                build_samples.main(build_samples.BuildSamples(logs, samples))
            rates["build_samples"], begun = rows / (time.monotonic() - begun), time.monotonic()
            with redirect_stdout(StringIO()):
                teach.main(teach.Teach(samples, teacher, folder / turn / "taught"))
            seconds = time.monotonic() - begun
            rates["teach"] = sum(int(items_of(samples, split).sum()) for split in ("train", "val")) / seconds
    finally:
        ray.shutdown()
    return rates


def _of_training(arm: Arm, samples: Path, workers: int) -> float:
    """Items a second of all workers together, in the second epoch and without its validation."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_train, (workers, arm, samples, Path(folder)), nprocs=workers)
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
        prepare=DistributedDataParallel if workers > 1 else lambda model: model,
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


def show(timed: dict[str, dict[int, float]], answer: list[Need], load: Load) -> None:
    """Both tables, in the terminal."""
    rates = Table("rows or items a second", *(f"{n} at work" for n in WORKERS), title=f"Measured on {host()}")
    for step, of in timed.items():
        rates.add_row(step, *(f"{of[n]:,.0f} ({of[n] / of[1]:.2f}x)" for n in WORKERS))
    asked = Table("", "", "", "by", title=f"A day of {load.rows_a_day:,.0f} rows")
    for need in answer:
        asked.add_row(need.what, f"{need.value:,.0f}" if need.value >= 100 else f"{need.value:.2g}", need.unit, need.by)
    console = Console(width=max(110, Console().width))
    console.print(rates)
    console.print(asked)


def host() -> str:
    return f"{os.cpu_count()} CPUs, {psutil.virtual_memory().total / GIB:.0f} GiB"


if __name__ == "__main__":
    cli.run(main, BenchmarkScale)
