"""What can be configured about where training runs."""

import os
from dataclasses import dataclass
from typing import Annotated

import ray

from prerank.core.cluster.start import joins
from prerank.core.config import Above0, Count, Positive, Within, check
from prerank.core.errors import InputError


@dataclass(frozen=True)
class Compute:
    """Where training runs; none but `lanes` changes what is learned beyond the rounding of floats."""

    workers: Positive = 1
    """Ray Train workers, one a GPU or one a share of the CPUs, packed on as few nodes as have room for them, as what
    they exchange travels faster within a node; must divide `lanes`."""
    gpu: bool = False
    """Give each worker a GPU (NCCL, bf16 autocast where the device has it); otherwise CPUs and gloo."""
    cpus: Above0 = 1.0
    """CPUs for each worker."""
    lanes: Positive = 8
    """Parts of a global batch that are dealt to the workers: any divisor as number of workers learns the same. Another
    number puts other requests into a batch, as another seed does."""
    checkpoint_steps: Count = 0
    """Also save in mid-epoch every so many steps; 0 saves after each epoch alone."""
    max_failures: Annotated[int, Within(-1)] = 3
    """Restarts of the worker group after a failure, from the latest checkpoint."""

    def check(self) -> None:
        """Raises InputError where the workers do not go together with `lanes` or with what this machine has.

        What a cluster has that is joined may grow, and what of it is free may come: there the training waits.
        """
        check(self, "compute.")
        if self.lanes % self.workers:
            divisors = ", ".join(str(n) for n in range(1, self.lanes + 1) if self.lanes % n == 0)
            raise InputError(
                f"compute.workers {self.workers}: must divide compute.lanes {self.lanes}: expected one of {divisors}"
            )
        if joins() or ray.is_initialized():
            return
        cpus = os.cpu_count() or 1
        if self.workers * self.cpus > cpus:
            raise InputError(
                f"compute.workers {self.workers} of compute.cpus {self.cpus:g}: this machine has {cpus} CPUs; lower "
                "one, or set RAY_ADDRESS to a cluster"
            )
        if self.gpu:
            check_gpus(self.workers)


def check_gpus(wanted: int = 1) -> None:
    """Raises InputError where this machine has fewer GPUs, unless a cluster is joined."""
    import torch  # here, as those who only name options wait seconds for it

    there = torch.cuda.device_count()
    if there < wanted and not joins() and not ray.is_initialized():
        raise InputError(
            f"{wanted} GPU{'s' * (wanted > 1)} asked for, and torch sees {there} on this machine; leave the flag out, "
            "ask for fewer, or set RAY_ADDRESS to a cluster that has them"
        )
