"""What a day of logs asks of a cluster, reckoned from rates that were measured on a small part of such logs.

Every step is a sum of parts that do not know of each other (tiles of the logs, files of samples, slices of a batch), so
CPU time grows with the rows. Not reckoned with: what storage delivers, the footers that the driver reads, how many
workers divide a batch, and GPUs.
"""

from dataclasses import dataclass
from math import ceil

from prerank.core.config import Above0, Positive
from prerank.core.errors import InputError

GIB, TIB, HOUR_S = 2.0**30, 2.0**40, 3600.0


@dataclass(frozen=True)
class Rates:
    """Measured; a second is one of a CPU that is busy with nothing else."""

    rows_a_request: float
    """Of the fine lists."""
    disk_bytes: float
    """Of a row of the fine lists in its file."""
    memory_bytes: float
    """Of the same row as Arrow, which is what a shuffle moves."""
    sample_items: float
    """Items that are kept of a training request."""
    sample_bytes: float
    """Of a taught training request on disk."""
    build_rows_s: float
    teach_items_s: float
    teacher_items_s: float
    """Items of training requests a second, in one epoch of the teacher and of the small models that it has to beat."""
    student_items_s: float
    parameters: int
    """Of the teacher, the larger of the two."""
    tile_bytes: float
    """Of the logs that a task holds at once."""


@dataclass(frozen=True)
class Load:
    """What is asked."""

    rows_a_day: Above0 = 1e10
    """Of the fine lists."""
    hours: Above0 = 6.0
    """For the whole line: samples, teacher, teaching, student."""
    teacher_epochs: Above0 = 5.0
    student_epochs: Above0 = 5.0
    node_cpus: Positive = 32
    cpu_hour_usd: Above0 = 0.05
    """What an hour of one CPU costs."""
    batch: Positive = 4096
    """Requests of a global batch."""

    def check(self) -> None:
        """Raises InputError naming the flag whose value makes no sense."""
        for key, value in vars(self).items():
            if not value > 0:
                raise InputError(f"--load.{key} must be above 0, got {value}")


@dataclass(frozen=True)
class Need:
    """One line of the answer, with the sum that it follows from."""

    what: str
    value: float
    unit: str
    by: str


def needs(rates: Rates, load: Load) -> list[Need]:
    """What the load asks for at the measured rates, a day of logs at a time."""
    requests = load.rows_a_day / rates.rows_a_request
    items = requests * rates.sample_items
    hours = {
        "build_samples": load.rows_a_day / rates.build_rows_s / HOUR_S,
        "train_teacher": items * load.teacher_epochs / rates.teacher_items_s / HOUR_S,
        "teach": items / rates.teach_items_s / HOUR_S,
        "train_student": items * load.student_epochs / rates.student_items_s / HOUR_S,
    }
    total = sum(hours.values())
    cpus = total / load.hours
    nodes = ceil(cpus / load.node_cpus)
    shuffle, disk = load.rows_a_day * rates.memory_bytes, load.rows_a_day * rates.disk_bytes
    build_s = load.hours * HOUR_S * hours["build_samples"] / total
    sent = 2 * 4 * rates.parameters
    steps = requests / load.batch * load.teacher_epochs
    by = {
        "build_samples": "rows / rows a second",
        "train_teacher": "requests x items kept x epochs / items a second",
        "teach": "requests x items kept / items a second",
        "train_student": "requests x items kept x epochs / items a second",
    }
    return [
        Need("requests", requests / 1e6, "million", "rows / rows a request"),
        Need("logs on disk", disk / TIB, "TiB", "rows x bytes on disk"),
        Need("taught samples on disk", requests * rates.sample_bytes / TIB, "TiB", "requests x bytes"),
        *(Need(step, value, "CPU hours", by[step]) for step, value in hours.items()),
        Need("all steps", total, "CPU hours", "the sum"),
        Need("CPUs", cpus, f"for {load.hours:g} h", "CPU hours / hours"),
        Need("nodes", nodes, f"of {load.node_cpus} CPUs", "CPUs / CPUs of a node, rounded up"),
        Need("cost", total * load.cpu_hour_usd, "USD", f"CPU hours x {load.cpu_hour_usd:g}"),
        Need("read from storage", disk / build_s / GIB, "GiB/s", "bytes on disk / the build's share of the hours"),
        Need("shuffled, logs clustered by request", 0.0, "TiB", "nothing"),
        Need("shuffled, logs in any order", shuffle / TIB, "TiB", "rows x bytes in memory, written once and read once"),
        Need("local disk of a node for that", shuffle / nodes / TIB, "TiB", "shuffled / nodes"),
        Need("object store of a node", 2 * load.node_cpus * rates.tile_bytes / GIB, "GiB", "a tile in and out a CPU"),
        Need("gradients a worker sends", steps * sent / TIB, "TiB", "steps x 2 x 4 bytes x parameters of the teacher"),
    ]
