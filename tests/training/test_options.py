"""Workers and GPUs that are not there are refused before Ray starts; those of a cluster are waited for."""

import os

import pytest
import ray

from prerank.core.errors import InputError
from prerank.training.options import Compute, check_gpus


@pytest.fixture(autouse=True)
def four_cpus(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        (Compute(workers=0), "compute.workers 0: expected 1 or more"),
        (Compute(workers=-2), "compute.workers -2: expected 1 or more"),
        (Compute(workers=3), r"compute.workers 3: must divide compute.lanes 8: expected one of 1, 2, 4, 8$"),
        (Compute(workers=16), r"must divide compute.lanes 8: expected one of 1, 2, 4, 8$"),
        (Compute(workers=4, lanes=6), r"compute.lanes 6: expected one of 1, 2, 3, 6$"),
        (Compute(lanes=0), "compute.lanes 0: expected 1 or more"),
        (
            Compute(workers=8),
            r"compute.workers 8 of compute.cpus 1: this machine has 4 CPUs; lower one, or set",
        ),
        (Compute(workers=2, cpus=2.5), r"compute.workers 2 of compute.cpus 2.5: this machine has 4 CPUs"),
        (Compute(cpus=0.0), "compute.cpus 0.0: expected a number above 0"),
        (Compute(cpus=-1.0), "compute.cpus -1.0: expected"),
        (Compute(cpus=float("nan")), "compute.cpus nan: expected"),
        (Compute(cpus=float("inf")), "compute.cpus inf: expected"),
        (Compute(checkpoint_steps=-1), "compute.checkpoint_steps -1: expected 0 or more"),
        (Compute(max_failures=-2), "compute.max_failures -2: expected -1 or more"),
        (Compute(gpu=True), "1 GPU asked for, and torch sees 0 on this machine"),
        (Compute(gpu=True, workers=2), "2 GPUs asked for, and torch sees 0"),
    ],
)
def test_what_is_refused(compute, said):
    with pytest.raises(InputError, match=said):
        compute.check()


@pytest.mark.parametrize(
    "compute",
    [
        Compute(),
        Compute(workers=4),
        Compute(workers=8, cpus=0.5),
        Compute(workers=3, lanes=3),
        Compute(max_failures=-1),
    ],
)
def test_what_fits(compute):
    compute.check()


def test_gpus_that_are_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    Compute(gpu=True, workers=2).check()
    with pytest.raises(InputError, match="4 GPUs asked for, and torch sees 2"):
        Compute(gpu=True, workers=4).check()


def test_a_cluster_may_have_more(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    Compute(workers=8, cpus=50, gpu=True).check()
    check_gpus(8)
    with pytest.raises(InputError, match=r"must divide"):
        Compute(workers=3).check()
