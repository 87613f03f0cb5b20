"""Points at which processes of a cluster stop for as long as a test holds them there.

HELD names a folder, the same for the driver and the cluster: who comes to a point leaves a mark `POINT.at.NODE.PID.N`
there, and waits while there is a file `POINT.hold`.

    part      a task of build_samples has written its part
    worker    a worker of Ray Train begins
    epochN    a worker of Ray Train or a trial is about to log its epoch N (a trial's first is 1), and then to save it
"""

import os
import time
import uuid
from pathlib import Path
from typing import Any

import ray


def hold(point: str) -> None:
    folder, node = Path(os.environ["HELD"]), ray.get_runtime_context().get_node_id()
    (folder / f"{point}.at.{node}.{os.getpid()}.{uuid.uuid4().hex}").touch()
    while (folder / f"{point}.hold").exists():
        time.sleep(0.05)


def build_fine_lists(*parts: Any) -> dict[str, Any]:
    from prerank.samples.build import build_fine_lists

    counts = build_fine_lists(*parts)
    hold("part")
    return counts


def run_trial(drawn: dict[str, Any], *, trials: Any, held: Any) -> None:
    import drive

    from prerank.sweeps.trial import run_trial
    from prerank.tracking import runs

    runs.Run = drive.Run
    run_trial(drawn, trials=trials, held=held)


def train_arms(job: dict[str, Any]) -> None:
    from prerank.training.group import _train_arms

    hold("worker")
    _train_arms(job)
