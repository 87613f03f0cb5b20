"""What saves time in every process of the tests; conftest imports it before all else."""

import gc
import os
from pathlib import Path

TESTS = Path(__file__).parent

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # tensors are small: threads that wait for each other take as long again
    "RAY_worker_niceness": "0",
    # With each worker group of Ray Train, a process that asks whether a node is about to be taken away: none is.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # each report of a worker waits for it
}
for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)
# The code and the tests for processes that import them, and `startup` for the workers of Ray.
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (TESTS / "startup", TESTS.parent, TESTS)))
gc.disable()  # while some thousand modules are imported, which it would go through again and again
