"""Hosts a Ray cluster of several nodes: `add` and `lose NODE` come in by the line, and a line is the answer."""

import sys
import tempfile
from contextlib import suppress
from typing import Any
from unittest import mock

import psutil
from ray.cluster_utils import Cluster

CPUS = 2
"""Of a node; the head has none."""
LOST_SOON = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 4}


def lose(cluster: Cluster, node: Any) -> None:
    """Its workers die with it: left to themselves they notice a second later, and a short training ends before."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    raylet.suspend()  # it starts no further one meanwhile
    workers = raylet.children(recursive=True)
    cluster.remove_node(node, allow_graceful=False)
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    psutil.wait_procs(workers, timeout=10)


def main() -> None:
    # What /tmp/ray says of the latest cluster is not for the tests to change.
    with mock.patch("ray._private.utils.write_ray_address"), tempfile.TemporaryDirectory(prefix="prerank-") as short:
        options = {"node_ip_address": "127.0.0.1", "include_dashboard": False, "temp_dir": short}
        head = {"num_cpus": 0, "_system_config": LOST_SOON}
        cluster = Cluster(initialize_head=True, head_node_args=options | head)
        print("> " + cluster.address, flush=True)
        nodes = {}
        for line in sys.stdin:
            if line.startswith("add"):
                node = cluster.add_node(**options, num_cpus=CPUS)
                nodes[node.node_id] = node
                print("> " + node.node_id, flush=True)
            else:
                lose(cluster, nodes.pop(line.split()[1]))
                print("> lost", flush=True)
        cluster.shutdown()


if __name__ == "__main__":
    main()
