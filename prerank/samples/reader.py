"""Which samples make which batch: the same for any number of workers, and after any interruption.

The order of an epoch is a function of (seed, epoch) alone: row groups are permuted, the sequence is cut into `lanes`
equal lanes, each lane is shuffled in windows, and global batch t takes the t-th slice of every lane. Worker r of W
reads lanes r, r+W, ...; so any W that divides `lanes` gives the same batches, each worker reads only its share of the
files, and a restart goes straight to step t. (Ray Data's `streaming_split` promises none of the three, so it feeds
everything but the training loop. The lanes are those of MosaicML Streaming's elastic determinism.)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prerank.core.errors import InputError
from prerank.core.storage import parquet

WINDOW = 1024
"""Requests of a lane that are shuffled among each other, at least one batch: what a worker holds in memory."""


@dataclass(frozen=True)
class Reader:
    """One worker's share of the samples."""

    files: tuple[Path, ...]
    columns: tuple[str, ...]
    batch: int
    """Requests in a global batch, over all workers."""
    lanes: int = 8
    rank: int = 0
    world: int = 1
    seed: int = 0
    fold: int = 0
    """Keep every `fold`-th row group out of the batches (0: none), or `held_out`: make batches of those alone. Of fewer
    than `fold` row groups it is every `fold`-th row."""
    held_out: bool = False
    tables: Mapping[tuple[Path, int], pa.Table] = field(default_factory=dict)
    """Row groups by file and number that are in memory already; the others are read from the files."""

    def __post_init__(self) -> None:
        if self.batch % self.lanes or self.lanes % self.world:
            raise InputError(
                f"a batch of {self.batch} requests in {self.lanes} lanes for {self.world} workers: "
                "lanes must divide the batch, and the number of workers must divide the lanes"
            )
        if self.steps < 1:
            kept = f" ({'held out' if self.held_out else 'left'} by search.fold {self.fold})" if self.fold else ""
            raise InputError(
                f"{self.rows} samples{kept} do not fill a batch of {self.batch} requests; lower optim.batch"
            )

    @cached_property
    def groups(self) -> list[tuple[Path, int, int]]:
        """(file, row group, rows) of every row group."""
        groups = [(path, index, rows) for path in self.files for index, rows in enumerate(row_counts(path))]
        if not self.fold:
            return groups
        if self._by_row:
            return [(path, index, len(self._mine(rows))) for path, index, rows in groups]
        return [groups[i] for i in self._mine(len(groups))]

    @property
    def _by_row(self) -> bool:
        return sum(len(row_counts(path)) for path in self.files) < self.fold

    def _mine(self, n: int) -> np.ndarray:
        """Which of n row groups, or of a group's n rows, this reader's side of the fold has."""
        return np.flatnonzero((np.arange(n) % self.fold == self.fold - 1) == self.held_out)

    @cached_property
    def rows(self) -> int:
        return sum(rows for _, _, rows in self.groups)

    @cached_property
    def steps(self) -> int:
        """Global batches in an epoch; up to `batch` + `lanes` requests, others each epoch, are left out."""
        return (self.rows // self.lanes) // (self.batch // self.lanes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[pa.Table]:
        """This worker's part of the global batches from step `start` on."""
        groups = self.groups
        order = np.random.default_rng((self.seed, epoch)).permutation(len(groups))
        ends = np.cumsum([groups[g][2] for g in order])
        mine = [self._lane(lane, epoch, start, order, ends) for lane in range(self.rank, self.lanes, self.world)]
        for parts in zip(*mine, strict=True):
            yield pa.concat_tables(parts)

    def _lane(self, lane: int, epoch: int, start: int, order: np.ndarray, ends: np.ndarray) -> Iterator[pa.Table]:
        slice_rows = self.batch // self.lanes
        per_window = max(1, WINDOW // slice_rows)
        first = lane * (self.rows // self.lanes)
        for step in range(start - start % per_window, self.steps, per_window):
            steps = min(per_window, self.steps - step)
            window = self._read(first + step * slice_rows, steps * slice_rows, order, ends)
            rng = np.random.default_rng((self.seed, epoch, lane, step))
            window = window.take(rng.permutation(len(window)))
            for i in range(max(0, start - step), steps):
                yield window.slice(i * slice_rows, slice_rows)

    def _read(self, start: int, rows: int, order: np.ndarray, ends: np.ndarray) -> pa.Table:
        """Rows start..start+rows of the permuted row groups."""
        begin, end = np.searchsorted(ends, (start, start + rows - 1), side="right")
        parts = []
        for position in range(begin, end + 1):
            path, index, count = self.groups[order[position]]
            offset = ends[position] - count
            low, high = max(start - offset, 0), min(start + rows - offset, count)
            held = self.tables.get((path, index))
            names = list(self.columns)
            table = open_file(path).read_row_group(index, columns=names) if held is None else held.select(names)
            if self.fold and self._by_row:
                table = table.take(self._mine(len(table)))
            parts.append(table.slice(low, high - low))
        return pa.concat_tables(parts)


def sequential(files: tuple[Path, ...], columns: tuple[str, ...], rank: int = 0, world: int = 1) -> Iterator[pa.Table]:
    """Every row once, in order, in tables of a row group; whole row groups are dealt to the workers, none is lost."""
    groups = [(path, index) for path in files for index in range(len(row_counts(path)))]
    for path, index in groups[rank::world]:
        yield open_file(path).read_row_group(index, columns=list(columns))


@lru_cache(maxsize=256)
def open_file(path: Path) -> pq.ParquetFile:
    return parquet(path, kept=True)


@lru_cache(maxsize=65536)
def row_counts(path: Path) -> tuple[int, ...]:
    with parquet(path) as file:
        metadata = file.metadata
    return tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
