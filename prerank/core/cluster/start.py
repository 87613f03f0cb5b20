"""Ray is joined, or started on this machine alone."""

import logging
import os
import signal
import threading

import ray

from prerank.core.cluster.private import TOKEN_LOGGER, listen_on_loopback
from prerank.core.cluster.settings import configure

STORE_BYTES = 1 << 30
"""Object store of a local cluster: only a shuffle's input passes through it."""


def start_ray(cpus: int | None = None) -> None:
    """Joins the cluster of RAY_ADDRESS, or starts one on this machine; one that this process has joined is kept.

    `cpus`: of the one that it starts; by default all that there are.
    """
    if not ray.is_initialized():
        logging.getLogger(TOKEN_LOGGER).setLevel(logging.ERROR)  # it speaks while Ray starts
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False, logging_level=logging.WARNING)
        else:
            _start_here(cpus or os.cpu_count() or 1)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's own gets lost in its waiting
    configure()


def _start_here(cpus: int) -> None:
    """Ray's processes and torch's workers on loopback."""
    listen_on_loopback()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    ray.init(
        address="local",
        num_cpus=cpus,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
