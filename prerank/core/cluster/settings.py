"""How Ray Data behaves in this project, whichever cluster it runs on."""

import logging

from ray.data import DataContext

from prerank.core.cluster.private import TOKEN_LOGGER, no_tracebacks_of_tasks

TILE_BYTES = 64 << 20
"""Rows of a task in memory, as Arrow; a task peaks at a few times that, whatever the size of the logs."""


def configure() -> None:
    """Sets what this process and the tasks that it sends go by; may be called again."""
    logging.getLogger(TOKEN_LOGGER).setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    no_tracebacks_of_tasks()
    context = DataContext.get_current()
    context.raise_original_map_exception = True  # an InputError of a task stays one
    # A keyed repartition in the object store takes memory with the size of the logs; in files it does not.
    context.use_disk_based_hash_shuffle = True
    context.shuffle_input_batch_bytes = TILE_BYTES  # by default a task gathers 1 GiB before it partitions
