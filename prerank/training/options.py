"""What can be configured about where training runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Compute:
    """Where training runs; none but `lanes` changes what is learned beyond the rounding of floats."""

    workers: int = 1
    """Ray Train workers, one a GPU or one a share of the CPUs, packed on as few nodes as have room for them, as what
    they exchange travels faster within a node; must divide `lanes`."""
    gpu: bool = False
    """Give each worker a GPU (NCCL, bf16 autocast where the device has it); otherwise CPUs and gloo."""
    cpus: float = 1.0
    """CPUs for each worker."""
    lanes: int = 8
    """Parts of a global batch that are dealt to the workers: any divisor as number of workers learns the same. Another
    number puts other requests into a batch, as another seed does."""
    checkpoint_steps: int = 0
    """Also save in mid-epoch every so many steps; 0 saves after each epoch alone."""
    max_failures: int = 3
    """Restarts of the worker group after a failure, from the latest checkpoint."""
