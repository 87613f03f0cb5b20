"""`latency.json`: what it says, and whether one that is there is of the same measurements."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from prerank.core.errors import InputError
from prerank.serving.timing import Machine, Stat
from prerank.serving.watch import Meanwhile

Runtime = Literal["onnxruntime", "torch"]

LayerTimes = TypedDict(
    "LayerTimes", {"in": int, "out": int, "count": int, "mean": float, "p5": float, "p50": float, "p99": float}
)
"""A layer of the widths `in` and `out`, without what any run costs. As a class it could not have a key `in`."""


class Errors(TypedDict):
    """Of predictions over whole networks, as shares of the prediction."""

    networks: int
    median_abs: float
    p90_abs: float
    worst: float


def metrics_of(error: Errors, prefix: str = "") -> dict[str, float]:
    """By their names in MLflow, such as `error_median_abs`."""
    return {
        f"{prefix}error_networks": error["networks"],
        f"{prefix}error_median_abs": error["median_abs"],
        f"{prefix}error_p90_abs": error["p90_abs"],
        f"{prefix}error_worst": error["worst"],
    }


class Entry(TypedDict):
    """What was measured in one setting."""

    runtime: Runtime
    candidates: int
    threads: int
    overhead_us: Stat
    """Of a run that does next to nothing."""
    inputs_us: dict[str, Stat]
    """By feature what its input path adds."""
    numbers_us: NotRequired[Stat]
    """What numbers cost beside, once for those of a request and once for those of items; not in files of earlier
    versions, whose features have a share of it each."""
    layers_us: list[LayerTimes]
    error: NotRequired[Errors]
    meanwhile: NotRequired[Meanwhile]
    """What the host did; not in files of earlier versions."""


class Checked(TypedDict):
    """A whole network, whose time the table predicts."""

    runtime: Runtime
    candidates: int
    threads: int
    features: list[str]
    widths: list[int]
    predicted_us: float
    measured_us: Stat
    error: float
    """How far the measured `p5` is above the prediction, as a share of it."""


class Measurements(TypedDict):
    """The whole file."""

    machine: Machine
    schema: str
    """Fingerprint of the features."""
    config: dict[str, object]
    settings: list[Entry]
    check: list[Checked]
    error: Errors
    """Of the first runtime."""


def finished(out: Path, asked: Mapping[str, object]) -> Measurements | None:
    """What `out` holds where it is of what is asked; raises InputError where it holds anything else."""
    if not out.exists():
        return None
    try:
        found = json.loads(out.read_text())
        there = {name: found[name] for name in asked}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{out}: exists, and is no latency.json of this program; name another --out") from error
    if there == asked:
        return found
    name = next(name for name in asked if there[name] != asked[name])
    was, now = there[name], asked[name]
    if isinstance(now, dict):
        part = next((part for part in now if was.get(part) != now[part]), "")
        name, was, now = f"{name} {part}", was.get(part), now.get(part)
    raise InputError(f"{out}: holds other measurements: {name} was {was!r}, now {now!r}; name another --out")
