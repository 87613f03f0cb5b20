"""Progress bars of training: workers tell an actor where they stand, a thread of the driver draws it.

Ours, as Ray's tqdm (`ray.experimental.tqdm_ray`) travels in what workers print, which `start_ray` keeps from the
terminal; it would also replace `print` and show no note beside the bar, such as the best metric so far.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Standing:
    """Where an arm stands."""

    done: int
    """Steps, of `total`."""
    total: int
    note: str


class Board:
    """The actor: the latest word of each arm."""

    def __init__(self) -> None:
        self.arms: dict[str, Standing] = {}

    def put(self, arm: str, standing: Standing) -> None:
        self.arms[arm] = standing

    def get(self) -> dict[str, Standing]:
        return self.arms


class Teller:
    """The worker's end: sends at most twice a second and never waits."""

    def __init__(self, board: ActorHandle[Board]) -> None:
        self.board, self.last = board, 0.0

    def __call__(self, name: str, done: int, total: int, note: Callable[[], str], *, now: bool = False) -> None:
        if now or time.monotonic() - self.last > 0.5:
            self.last = time.monotonic()
            self.board.put.remote(name, Standing(done, total, note()))


class Drawing:
    """A bar an arm in this process's terminal or notebook, while its block lasts."""

    def __enter__(self) -> "Drawing":
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self.progress = Progress(*columns)
        self.tasks: dict[str, TaskID] = {}
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def draw(self, arm: str, at: Standing) -> None:
        if arm not in self.tasks:
            self.tasks[arm] = self.progress.add_task(arm, note="")
        self.progress.update(self.tasks[arm], completed=at.done, total=at.total, note=at.note)

    def tell(self, name: str, done: int, total: int, note: Callable[[], str], *, now: bool = False) -> None:
        """As a worker tells it."""
        self.draw(name, Standing(done, total, note()))


class Bars:
    """The driver's end: `with Bars() as board:` draws what is told to `board` until the block is left."""

    def __enter__(self) -> ActorHandle[Board]:
        here = ray.get_runtime_context().get_node_id()  # where it outlives the nodes that are lost
        where = NodeAffinitySchedulingStrategy(here, soft=False)
        actor = ray.remote(num_cpus=0)(Board).options(scheduling_strategy=where)
        self.board = cast(ActorHandle[Board], actor.remote())
        self.drawing = Drawing()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._draw, daemon=True)
        self.drawing.__enter__()
        self.thread.start()
        return self.board

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.drawing.__exit__()
        ray.kill(self.board)

    def _draw(self) -> None:
        while True:
            last = self.stop.wait(0.5)
            for arm, at in cast(dict[str, Standing], ray.get(self.board.get.remote())).items():
                self.drawing.draw(arm, at)
            if last:
                return
