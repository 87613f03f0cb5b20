"""Progress bars of training: workers tell an actor where they stand, a thread of the driver draws it."""

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@ray.remote(num_cpus=0)
class Board:
    """The latest word of each arm."""

    def __init__(self) -> None:
        self.arms: dict[str, dict[str, Any]] = {}

    def put(self, arm: str, done: int, total: int, note: str) -> None:
        self.arms[arm] = {"completed": done, "total": total, "note": note}

    def get(self) -> dict[str, dict[str, Any]]:
        return self.arms


class Teller:
    """The worker's end: sends at most twice a second and never waits."""

    def __init__(self, board: Any) -> None:
        self.board, self.last = board, 0.0

    def __call__(self, name: str, done: int, total: int, note: Callable[[], str], *, now: bool = False) -> None:
        if now or time.monotonic() - self.last > 0.5:
            self.last = time.monotonic()
            self.board.put.remote(name, done, total, note())


class Bars:
    """The driver's end: `with Bars() as board:` draws what is told to `board` until the block is left."""

    def __enter__(self) -> Any:
        here = ray.get_runtime_context().get_node_id()  # where it outlives the nodes that are lost
        self.board = Board.options(scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False)).remote()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self.progress = Progress(*columns)
        self.tasks: dict[str, Any] = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._draw, daemon=True)
        self.progress.start()
        self.thread.start()
        return self.board

    def __exit__(self, *_: Any) -> None:
        self.stop.set()
        self.thread.join()
        self.progress.stop()
        ray.kill(self.board)

    def _draw(self) -> None:
        while True:
            last = self.stop.wait(0.5)
            for arm, state in ray.get(self.board.get.remote()).items():
                if arm not in self.tasks:
                    self.tasks[arm] = self.progress.add_task(arm, note="")
                self.progress.update(self.tasks[arm], **state)
            if last:
                return
