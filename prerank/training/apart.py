"""Trainings side by side: what shares nothing but its samples is trained at once where there is room."""

from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from prerank.models.options import Arm
from prerank.tracking.runs import Run
from prerank.training.finished import fit_alone
from prerank.training.options import Compute
from prerank.training.worker import Job, Trained

Done = TypeVar("Done")


def side_by_side(works: Mapping[str, Callable[[], Done]]) -> dict[str, Done]:
    """What each comes to, all at once, each in a thread; the first error is raised at once.

    The others are not waited for then: daemons, they and what they started end with the command.
    """
    if len(works) == 1:
        return {name: work() for name, work in works.items()}
    ended: SimpleQueue[tuple[str, Done | None, BaseException | None]] = SimpleQueue()

    def one(name: str) -> None:
        try:
            ended.put((name, works[name](), None))
        except BaseException as error:
            ended.put((name, None, error))

    for name in works:
        Thread(target=one, args=(name,), daemon=True).start()
    found: dict[str, Done] = {}
    for _ in works:
        name, value, error = ended.get()
        if error is not None:
            raise error
        found[name] = cast(Done, value)
    return {name: found[name] for name in works}


def room_here(compute: Compute) -> int:
    """Trainings of one worker that this node has the processors for; 1 without a cluster, and on GPUs."""
    if not ray.is_initialized() or compute.gpu:
        return 1
    here = ray.get_runtime_context().get_node_id()
    cpus = next(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["NodeID"] == here)
    return max(1, int(cpus // compute.cpus))


class Apart:
    """Trainings of one worker side by side, each in a process of its own on this node, whose store of MLflow is this
    process's too."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.task = partial(cast(Any, ray.remote(fit_alone)).options, scheduling_strategy=here)
        self.running: set[Any] = set()
        self.stopped = False

    def fit(
        self, arms: list[Arm], samples: Path, work: Path, *, compute: Compute, k: int, runs: dict[str, Run], key: str
    ) -> dict[str, Trained]:
        """As `fit_here`; called by several threads."""
        if self.stopped:
            raise CancelledError
        trained = self.task(num_cpus=compute.cpus).remote(arms, Job(samples, compute, k), runs)
        self.running.add(trained)
        try:
            return ray.get(trained)
        finally:
            self.running.discard(trained)

    def stop(self) -> None:
        self.stopped = True
        for trained in list(self.running):
            ray.cancel(trained, force=True)
