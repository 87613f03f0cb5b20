"""Whether what a user would pick instead is there to be measured."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from prerank.benchmarks.rows import Left, Row

INSTALL = "pip install '.[bench]'"


@dataclass(frozen=True)
class Peer:
    """One of them, and what it needs to be there."""

    name: str
    packages: tuple[str, ...] = ()
    program: str = ""
    """On the path."""
    install: str = INSTALL

    @property
    def lacking(self) -> str:
        """What to do before it can be measured; empty where nothing is."""
        absent = [name for name in self.packages if find_spec(name) is None]
        if absent:
            return f"{', '.join(absent)} not installed: {self.install}"
        if self.program and not shutil.which(self.program) and not os.environ.get("JAVA_HOME"):
            return f"{self.program} is not on the path"
        return ""


def where_there(row: str, peer: Peer, measure: Callable[[], Sequence[Row]]) -> Sequence[Row | Left]:
    """What is measured against a peer, or why it is left out."""
    return [Left(row, f"{peer.name}: {peer.lacking}")] if peer.lacking else measure()
