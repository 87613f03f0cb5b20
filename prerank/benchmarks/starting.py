"""How long a command takes before it does anything: its imports, each in a process of its own."""

import subprocess
import sys

from prerank.benchmarks.rows import Row, in_turns, medians

IMPORTS_S = 2.0


def imports(modules: tuple[str, ...], *, rounds: int) -> list[Row]:
    """Seconds to import each, once the operating system has the files in its cache."""
    took = medians(in_turns({name: lambda name=name: _imported(name) for name in ("sys", *modules)}, rounds))
    python = took.pop("sys")
    what = "seconds to import, Python's own start left out"
    detail = f"Python alone {python:.2f} s"
    return [
        Row(f"start, {name}", what, max(0.0, seconds - python), "s", IMPORTS_S, detail=detail)
        for name, seconds in took.items()
    ]


def _imported(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
