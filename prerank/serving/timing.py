"""How anything is timed on this host: in turns, by repeated runs on inputs that rotate."""

import gc
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TypedDict

import numpy as np

from prerank.core.outputs import fingerprint
from prerank.serving.watch import SLOWER, Watch

Run = Callable[[int], object]
"""Runs a piece on the inputs number 0, 1, 2, ...: they rotate."""
Times = list[np.ndarray]
"""Microseconds of the runs of a piece, turn by turn."""


FRESH = 4
"""Sets of inputs that a piece rotates among, so that no run finds in the cache what the one before has left."""


TURNS = 20
"""Pieces take turns so many times, so that a host that slows down slows all of them, and each meets it at its best."""


MOST_S = 0.5
"""Time for one piece: dear pieces are run less often, yet at least once a turn."""


class Stat(TypedDict):
    """Of the times of a piece, microseconds."""

    count: int
    mean: float
    p5: float
    """What a run takes by itself: other programs, and those of a virtual machine's neighbours, only add to it."""
    p50: float
    p99: float


class Host(TypedDict):
    """What measurements hold for."""

    cpu: str
    cores: int | None
    system: str
    python: str
    onnxruntime: str
    torch: str


class Machine(Host):
    fingerprint: str
    """Of all the rest."""


def machine() -> Machine:
    """The host that measures, and its fingerprint."""
    about: Host = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
        "torch": version("torch"),
    }
    return {**about, "fingerprint": fingerprint(about)}


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def timed(
    runs: Sequence[Run], repeats: int, tick: Callable[[], None] = lambda: None, watch: Watch | None = None
) -> list[Times]:
    """Times of each of `runs` by turn, about `repeats` in all; a turn begins with two runs that are not measured, while
    the piece has time left.

    A turn beside which the yardstick of `watch` was slow is measured again, once. `tick` is called after each turn of
    each, TURNS times a run.
    """
    watch = watch or Watch()
    out: list[Times] = [[] for _ in runs]
    left_us = [1e6 * MOST_S] * len(runs)

    def turn_of(index: int) -> tuple[float, np.ndarray]:
        """What the yardstick took beside it, and the times."""
        run, before_us = runs[index], watch.yard()
        began = time.perf_counter_ns()
        if left_us[index] > 0:
            run(0)
            run(1)
        left_us[index] -= (time.perf_counter_ns() - began) / 1000
        times: list[float] = []
        while not times or (len(times) < repeats / TURNS and left_us[index] > 0):
            began = time.perf_counter_ns()
            run(len(times))
            times.append((time.perf_counter_ns() - began) / 1000)
            left_us[index] -= times[-1]
        return max(before_us, watch.yard()), np.array(times)

    was_on = gc.isenabled()  # a collection in the middle of a run would count as its time
    gc.disable()
    try:
        for _ in range(TURNS):
            usual_us = watch.usual_us()
            for index in range(len(runs)):
                yard_us, times = turn_of(index)
                if yard_us > SLOWER * usual_us and left_us[index] > 0:
                    again_us, again = turn_of(index)
                    times = again if again_us < yard_us else times
                    watch.redone += 1
                out[index].append(times)
                watch.turns += 1
                tick()
    finally:
        if was_on:
            gc.enable()
    return out


def stat(by_turn: Times) -> Stat:
    """Of all the runs."""
    times = np.concatenate(by_turn)
    p5, p50, p99 = (micros(value) for value in np.percentile(times, [5, 50, 99]))
    return {"count": times.size, "mean": micros(times.mean()), "p5": p5, "p50": p50, "p99": p99}


def micros(value: float) -> float:
    return round(float(value), 3)
