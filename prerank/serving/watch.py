"""What else the host does while times are taken: a yardstick that runs between, the load, and time that was stolen."""

import os
import time
from pathlib import Path
from typing import TypedDict

import numpy as np

SLOWER = 1.25
"""A turn beside which the yardstick took so many times what it usually takes is disturbed."""
_NUMBERS = np.linspace(0.1, 1.0, 16_384, dtype=np.float32)
_ROOM = np.empty_like(_NUMBERS)


class Meanwhile(TypedDict):
    """Of the host while something was timed."""

    yardstick_us: dict[str, float]
    """`p10`, `p50` and `p90` of one piece of arithmetic that ran between all the others."""
    turns: int
    redone: int
    """Of the turns, because the yardstick was slow beside them."""
    load: float | None
    """Average of the last minute; None where the system does not say."""
    others: float | None
    """Share of all cores' time that other programs took."""
    stolen: float | None
    """Share that the host of this virtual machine gave to others."""


class Watch:
    """Runs the yardstick, and says at the end what the host did since it was made."""

    def __init__(self) -> None:
        self.yards_us: list[float] = []
        self.turns = self.redone = 0
        self._ticks, self._own_s = _ticks(), time.process_time()

    def yard(self) -> float:
        """Microseconds of the yardstick now, the quicker of two runs: what interrupts one is no slower host."""
        us = min(_yardstick_us(), _yardstick_us())
        self.yards_us.append(us)
        return us

    def usual_us(self) -> float:
        """Of the yardstick, the lower quartile so far; infinite before the first."""
        return float(np.percentile(self.yards_us, 25)) if self.yards_us else float("inf")

    @property
    def quick_us(self) -> float:
        """Of the yardstick, where nothing else ran."""
        return float(np.percentile(self.yards_us, 10)) if self.yards_us else float("inf")

    def meanwhile(self) -> Meanwhile:
        p10, p50, p90 = np.percentile(self.yards_us or [0.0], [10, 50, 90]).round(3).tolist()
        others, stolen = self._shares()
        return {
            "yardstick_us": {"p10": p10, "p50": p50, "p90": p90},
            "turns": self.turns,
            "redone": self.redone,
            "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            "others": others,
            "stolen": stolen,
        }

    def _shares(self) -> tuple[float | None, float | None]:
        before, after = self._ticks, _ticks()
        if before is None or after is None or after.sum() <= before.sum():
            return None, None
        spent = after - before
        own = (time.process_time() - self._own_s) * os.sysconf("SC_CLK_TCK")
        idle, stolen, total = spent[3] + spent[4], spent[7], spent.sum()
        return round(max(0.0, float((total - idle - stolen - own) / total)), 3), round(float(stolen / total), 3)


def said(meanwhile: Meanwhile) -> str:
    """In a line for the terminal."""
    yard = meanwhile["yardstick_us"]
    parts = [f"a yardstick of {yard['p50']:.1f} µs took {yard['p10']:.1f} to {yard['p90']:.1f}"]
    if meanwhile["load"] is not None:
        parts.append(f"load {meanwhile['load']:.1f} on {os.cpu_count()} cores")
    if meanwhile["others"] is not None and meanwhile["stolen"] is not None:
        parts.append(f"{meanwhile['others']:.0%} of them taken by other programs, {meanwhile['stolen']:.0%} stolen")
    return f"{', '.join(parts)}; {meanwhile['redone']:,} of {meanwhile['turns']:,} turns measured again"


def _yardstick_us() -> float:
    begun = time.perf_counter_ns()
    np.sqrt(_NUMBERS, out=_ROOM)
    np.maximum(_NUMBERS, _ROOM, out=_ROOM)
    return (time.perf_counter_ns() - begun) / 1000


def _ticks() -> np.ndarray | None:
    """Of all cores so far: user, nice, system, idle, iowait, irq, softirq, steal; None where there is no /proc."""
    try:
        return np.array(Path("/proc/stat").read_text().splitlines()[0].split()[1:9], float)
    except (OSError, IndexError, ValueError):
        return None
