"""How much memory there is, of the machine or of the container that this process is in."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
LIMITS = (
    ("memory.max", "memory.current", "memory.stat"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
    ),
)
"""Of version 2 and of version 1."""


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    total: int
    available: int


def memory() -> Memory:
    """Of the machine, or of its container where that has less. What files leave in its caches counts as available."""
    import psutil  # late: what is in memory already is trained on without it

    machine = psutil.virtual_memory()
    found = Memory(machine.total, machine.available)
    for names in LIMITS:
        with suppress(OSError, ValueError):  # no such file, or `max`
            limit, used, stat = ((CGROUP / name).read_text() for name in names)
            of = dict(line.split() for line in stat.splitlines())
            used = int(used) - int(of.get("inactive_file", 0))
            if int(limit) < found.total:
                found = Memory(int(limit), max(0, min(found.available, int(limit) - used)))
    return found
