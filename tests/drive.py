"""Runs a workflow that stops where `held` says.

python -m drive workflows.build_samples --logs L --out S
"""

import runpy
import sys

import held

from prerank.samples import job
from prerank.sweeps import sweep
from prerank.tracking import runs
from prerank.training import group


class Run(runs.Run):
    def metrics(self, values: dict[str, float | None], step: int = 0) -> None:
        if step:
            held.hold(f"epoch{step}")
        super().metrics(values, step)


def main() -> None:
    """What the driver ships to the cluster is found there by the names in `held` and here."""
    job.build_fine_lists, group._train_arms, sweep.run_trial = held.build_fine_lists, held.train_arms, held.run_trial
    runs.Run = Run
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    import drive

    drive.main()
