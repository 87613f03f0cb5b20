"""What a benchmark says: each row two things on the same work, in turns in one run, and their ratio."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, TypedDict

import numpy as np
import psutil
from rich.table import Table
from rich.text import Text

from prerank.serving.timing import Machine, machine

SCHEMA = 1
"""Of the JSON; another number where a field changes its meaning."""
LIBRARIES = (
    *("ray", "torch", "pyarrow", "numpy", "polars", "onnxruntime", "lightgbm", "mlflow", "optuna"),
    *("duckdb", "pyspark", "fuxictr", "torch-rechub", "treelite", "tl2cgen", "nni"),
)
"""Ours, and the peers."""


@dataclass(frozen=True)
class Row:
    """One figure, and what it should reach."""

    name: str
    what: str
    """Ours, and against what."""
    value: float
    unit: Literal["times", "share", "s", "τ"]
    """`times`: ours as a multiple of the other; τ: Kendall's."""
    most: float | None = None
    """The value should not be above it."""
    least: float | None = None
    """Or not below it."""
    detail: str = ""
    """The two times behind it."""

    @property
    def reached(self) -> bool:
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    @property
    def target(self) -> str:
        bound = self.most if self.least is None else self.least
        return "" if bound is None else f"{'≤' if self.least is None else '≥'} {self._said(bound, 'g')}"

    def __str__(self) -> str:
        """The value with its unit."""
        return self._said(self.value, ".3g" if self.unit == "share" else ".2f")

    def _said(self, value: float, form: str) -> str:
        scale, sign = {"share": (100, "%"), "s": (1, " s"), "times": (1, "x"), "τ": (1, "")}[self.unit]
        return f"{scale * value:{form}}{sign}"


@dataclass(frozen=True)
class Left:
    """A row that is left out."""

    name: str
    why: str
    """And what to do about it."""


class Report(TypedDict):
    """As JSON."""

    schema: int
    machine: Machine
    versions: Mapping[str, str]
    """Of the libraries that are measured, by their names on PyPI; those that are not installed are not here."""
    load: float
    """Processes that wanted to run in the minute before; above the number of cores the figures are worth less."""
    quick: bool
    rows: Sequence[Mapping[str, object]]
    """The fields of `Row`, and whether its target is `reached`."""
    left_out: Sequence[Mapping[str, str]]
    """The fields of `Left`."""


def report(found: Sequence[Row | Left], *, quick: bool, load: float) -> Report:
    rows = [asdict(row) | {"reached": row.reached} for row in found if isinstance(row, Row)]
    left = [asdict(row) for row in found if isinstance(row, Left)]
    return {
        "schema": SCHEMA,
        "machine": machine(),
        "versions": versions(),
        "load": load,
        "quick": quick,
        "rows": rows,
        "left_out": left,
    }


def versions() -> dict[str, str]:
    """Of `LIBRARIES` that are installed."""
    out = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            out[name] = version(name)
    return out


def load_now() -> float:
    return psutil.getloadavg()[0]


def in_turns(turns: Mapping[str, Callable[[], object]], rounds: int, *, warm: int = 1) -> dict[str, np.ndarray]:
    """Seconds of each, float64 [rounds], after `warm` rounds that are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(warm + rounds):
        for name, turn in turns.items():
            begun = time.perf_counter()
            turn()
            seconds[name].append(time.perf_counter() - begun)
    return {name: np.array(of[warm:]) for name, of in seconds.items()}


def medians(seconds: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.median(of)) for name, of in seconds.items()}


def terminal_table(rows: Sequence[Row | Left], load: float) -> Table:
    about = machine()
    title = f"{about['cpu']}, {about['cores']} cores, load {load:.1f}; torch {about['torch']}, ONNX Runtime "
    table = Table(title=title + about["onnxruntime"], title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("row", "what", "", "target", "reached", "behind it"):
        table.add_column(heading, justify="right" if heading in ("", "target") else "left")
    for row in rows:
        if isinstance(row, Left):
            table.add_row(Text(row.name), Text(f"left out: {row.why}"))
            continue
        said = "" if not row.target else "yes" if row.reached else "no"
        cells = (row.name, row.what, str(row), row.target, said, row.detail)
        table.add_row(*(Text(cell, style="bold" if cell == "no" else "") for cell in cells))
    return table
