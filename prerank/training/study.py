"""A study's trainings: each rung's few tries, the best of them by the validation day, and that one with every seed.

What is finished is left alone, so that the same study goes on where it was stopped.
"""

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from prerank.core.config import plain
from prerank.core.outputs import MANIFEST
from prerank.models.checkpoint import ModelManifest, model_manifest
from prerank.models.options import Arm
from prerank.tracking.runs import Run
from prerank.training.apart import Apart, room_here
from prerank.training.finished import Fit, finished_models, fit_alone
from prerank.training.group import train_models
from prerank.training.options import Compute
from prerank.training.rungs import Rung
from prerank.training.worker import Job, Trained

COSTS = {"linear": 1.0, "logistic": 0.5, "two_tower_gbdt": 3.0}
"""Of a training, as a share of an MLP's: for the bar alone."""


@dataclass(frozen=True)
class Studied:
    """A rung after its trainings."""

    rung: Rung
    values: list[float]
    """Of the tries, what the validation day says."""
    at: int
    """Which was the best."""
    folders: list[Path]
    """Of the best, by seed."""
    rising: int = 0
    """Of these, those whose training `optim.epochs` ended before their patience."""

    @property
    def best(self) -> Arm:
        return self.rung.tries[self.at]


def studied(rungs: Sequence[Rung], job: Job, out: Path, *, seeds: int, parent: Run) -> list[Studied]:
    """Trains what is missing under `out` with a bar over all of it.

    With one worker a training is one process: as many rungs side by side as this node has room for, in this process
    where that is one. What is learned is the same. The seeds are that of the arms and those after it. Tries are told
    apart by the metric that decides on early stopping, of the validation day; the first of equal ones counts.
    """
    room = min(len(rungs), room_here(job.compute)) if job.compute.workers == 1 else 1
    with _Bar(sum(_cost(rung) * (len(rung.tries) + seeds - 1) for rung in rungs)) as bar:
        if room < 2:
            return [_rung(rung, job, out, seeds, parent, bar, bar.fit) for rung in rungs]
        apart = Apart()
        with ThreadPoolExecutor(room) as threads:
            futures = [threads.submit(_rung, rung, job, out, seeds, parent, bar, apart.fit) for rung in rungs]
            try:
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
                return [future.result() for future in futures]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                apart.stop()
                raise


def _rung(rung: Rung, job: Job, out: Path, seeds: int, parent: Run, bar: "_Bar", fit: Fit) -> Studied:
    def trained(folder: Path, arm: Arm) -> ModelManifest:
        bar.begin(folder.name, _cost(rung), done=(folder / MANIFEST).is_file())
        manifest = _trained(folder, arm, job, parent, fit)
        bar.end(folder.name)
        return manifest

    folders = [out / "tries" / f"{rung.name}-{index}" for index in range(len(rung.tries))]
    values: list[float] = []
    for folder, arm in zip(folders, rung.tries, strict=True):
        named = replace(arm, name=folder.name)
        values.append(_value(trained(folder, named), named, job.k))
    at = max(range(len(values)), key=lambda index: (values[index], -index))
    best, by_seed = rung.tries[at], [folders[at]]
    for more in range(1, seeds):
        folder = out / "seeds" / f"{rung.name}-try{at}-s{best.seed + more}"
        trained(folder, replace(best, name=folder.name, seed=best.seed + more))
        by_seed.append(folder)
    rising = sum(bool(model_manifest(folder, kind="student").get("rising")) for folder in by_seed)
    return Studied(rung, values, at, by_seed, rising)


def _cost(rung: Rung) -> float:
    return COSTS.get(rung.tries[0].model, 1.0)


def differs(arm: Arm, others: Sequence[Arm]) -> dict[str, object]:
    """Of an arm's options those in which the others are not all like it."""
    mine, rest = plain(arm), [plain(other) for other in others]
    return {key: value for key, value in mine.items() if any(other[key] != value for other in rest)}


def _trained(folder: Path, arm: Arm, job: Job, parent: Run, fit: Fit) -> ModelManifest:
    work = folder.parent / f".{folder.name}.work"
    if job.compute.workers > 1:
        shared = {"work": work, "compute": job.compute, "k": job.k, "parent": parent}
        return train_models({folder: arm}, job.samples, kind="student", **shared)[arm.name]
    return finished_models({folder: arm}, job, kind="student", work=work, fit=fit, parent=parent)[arm.name]


def _value(manifest: ModelManifest, arm: Arm, k: int) -> float:
    return manifest["best"][f"val/{arm.select_by}" + ("" if arm.select_by == "auc" else f"_at_{k}")]


class _Bar:
    """One bar over all trainings, and how long the rest of them will take by what was trained since it began."""

    def __init__(self, total: float) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn()
        self.progress = Progress(*columns)
        self.task = self.progress.add_task("study", total=total, note="")
        self.total, self.done, self.known, self.began = total, 0.0, 0.0, time.monotonic()
        self.running: dict[str, tuple[float, float]] = {}  # what each costs, and how much of it is done
        self.lock = Lock()

    def __enter__(self) -> "_Bar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begin(self, name: str, cost: float, *, done: bool) -> None:
        with self.lock:
            self.running[name] = cost, 0.0
            self.known += cost if done else 0.0
            self._show()

    def end(self, name: str) -> None:
        with self.lock:
            self.done += self.running.pop(name)[0]
            self._show()

    def fit(
        self, arms: list[Arm], samples: Path, work: Path, *, compute: Compute, k: int, runs: dict[str, Run], key: str
    ) -> dict[str, Trained]:
        """As `fit_here`, with this bar in the place of the arms' own."""
        return fit_alone(arms, Job(samples, compute, k), runs, self.told)

    def told(self, name: str, done: int, total: int, note: object, *, now: bool = False) -> None:
        """A training's own word of how far it is."""
        with self.lock:
            self.running[name] = self.running[name][0], done / max(total, 1)
            self._show()

    def _show(self) -> None:
        at = self.done + sum(cost * share for cost, share in self.running.values())
        fresh, left = at - self.known, self.total - at
        note = ", ".join(self.running) or "done"
        if fresh > 0 and left > 0:
            note += f", about {(time.monotonic() - self.began) / fresh * left / 60:.0f} min left"
        self.progress.update(self.task, completed=at, note=note)
