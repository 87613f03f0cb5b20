"""Row groups that were read stay in memory where there is room: a shard that fits is read once, whatever the epochs."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from prerank.core.memory import memory

LEFT = 0.5
"""Of the memory of the machine, that stays free of them, whatever the number of processes that keep some."""


class Kept:
    """Columns of row groups, each in memory once for all that is trained in this process.

    Made anew where it is sent to another process.
    """

    def __init__(self) -> None:
        self.groups: dict[tuple[Path, int], dict[str, pa.ChunkedArray]] = {}

    def __reduce__(self) -> tuple[type["Kept"], tuple[()]]:
        return Kept, ()

    def columns(
        self, path: Path, index: int, names: tuple[str, ...], read: Callable[[list[str]], pa.Table]
    ) -> pa.Table:
        """Those of a row group; `read` reads the ones that are not here."""
        here = self.groups.get((path, index), {})
        missing = [name for name in names if name not in here]
        if missing:
            table = read(missing)
            new = {name: table[name] for name in missing}
            of = memory()
            if of.available - table.nbytes > LEFT * of.total:
                self.groups[path, index] = {**here, **new}
            here = {**here, **new}
        return pa.table({name: here[name] for name in names})
