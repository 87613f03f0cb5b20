"""How anything is timed on this host: in turns, by repeated runs on inputs that rotate."""

import gc
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from prerank.core.outputs import fingerprint

Run = Callable[[int], Any]
"""Runs a piece on the inputs number 0, 1, 2, ...: they rotate."""


FRESH = 4
"""Sets of inputs that a piece rotates among, so that no run finds in the cache what the one before has left."""


TURNS = 10
"""Pieces take turns so many times, so that a host that slows down slows all of them."""


MOST_S = 0.5
"""Time for one piece: dear pieces are run less often, yet at least once a turn."""


def machine() -> dict[str, Any]:
    """What the measurements hold for, with a `fingerprint` of it."""
    about = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
        "torch": version("torch"),
    }
    return about | {"fingerprint": fingerprint(about)}


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def timed(runs: Sequence[Run], repeats: int, tick: Callable[[], None] = lambda: None) -> list[list[np.ndarray]]:
    """Times of each of `runs` by turn, about `repeats` in all; a turn begins with two runs that are not measured.

    `tick` is called after each turn of each, TURNS times a run.
    """
    out: list[list[np.ndarray]] = [[] for _ in runs]
    left_us = [1e6 * MOST_S] * len(runs)
    was_on = gc.isenabled()
    gc.disable()
    try:
        for _ in range(TURNS):
            for index, run in enumerate(runs):
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
                out[index].append(np.array(times))
                tick()
    finally:
        if was_on:
            gc.enable()
    return out


def stat(by_turn: list[np.ndarray]) -> dict[str, float]:
    times = np.concatenate(by_turn)
    p50, p99 = np.percentile(times, [50, 99])
    return {"count": times.size, "mean": micros(times.mean()), "p50": micros(p50), "p99": micros(p99)}


def micros(value: float) -> float:
    return round(float(value), 3)
