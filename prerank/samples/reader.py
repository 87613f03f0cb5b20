"""Which samples make which batch: the same for any number of workers, and after any interruption.

The order of an epoch is a function of (seed, epoch) alone: row groups are permuted, the sequence is cut into `lanes`
equal lanes, each lane is shuffled in windows, and global batch t takes the t-th slice of every lane. Worker r of W
reads lanes r, r+W, ...; so any W that divides `lanes` gives the same batches, each worker reads only its share of the
files, and a restart goes straight to step t. Of few row groups, whose order alone would leave the same rows out of each
epoch, all rows are permuted. (Ray Data's `streaming_split` promises none of the three, so it feeds
everything but the training loop. The lanes are those of MosaicML Streaming's elastic determinism.)
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prerank.core.errors import InputError
from prerank.core.storage import parquet
from prerank.samples.kept import Kept

WINDOW = 1024
"""Requests of a lane that are shuffled among each other, at least one batch: what a worker holds in memory."""
FEW_STEPS = 4
"""Batches of a pass, at least, where there are too few requests for one batch of the size that was asked for."""
FEW_GROUPS = 4
"""Row groups of which there are too few orders (3! = 6) to leave other rows out of each pass: their rows are permuted,
and held in memory, all of them."""


@dataclass(frozen=True)
class Dealt:
    """How samples are dealt: as asked for where there are enough, and otherwise so that they can be learned from."""

    batch: int
    """Requests in a global batch."""
    lanes: int
    passes: int
    """Of an epoch over the samples."""
    batches: int
    """Of a pass; up to `batch` + `lanes` requests, others each time, are left out."""

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.passes * self.batches


def deal(rows: int, batch: int, lanes: int, epoch_steps: int = 1) -> Dealt:
    """How so many requests, one at least, are dealt into batches; `lanes` divides `batch`.

    Where they do not fill one batch, it becomes the largest multiple of `lanes` with which a pass has `FEW_STEPS`
    batches, or as many as there can be; of fewer requests than lanes, these become the largest divisor of their number
    that can be dealt one each. An epoch is one pass, or as many as it takes for `epoch_steps` steps.
    """
    if rows < lanes:
        lanes = batch = max(n for n in range(1, rows + 1) if lanes % n == 0)
    of_lane = rows // lanes
    if of_lane < batch // lanes:
        batch = max(1, of_lane // FEW_STEPS) * lanes
    batches = of_lane // (batch // lanes)
    return Dealt(batch, lanes, math.ceil(epoch_steps / batches), batches)


Read = Callable[[int, int], pa.Table]
"""So many rows from a place on, in the order of a pass: `read(start, rows)`."""


@dataclass(frozen=True)
class Reader:
    """One worker's share of the samples."""

    files: tuple[Path, ...]
    columns: tuple[str, ...]
    batch: int
    """Requests in a global batch, over all workers, where there are as many: see `deal`, as of lanes."""
    lanes: int = 8
    rank: int = 0
    world: int = 1
    seed: int = 0
    fold: int = 0
    """Keep every `fold`-th row group out of the batches (0: none), or `held_out`: make batches of those alone. Of fewer
    than `fold` row groups it is every `fold`-th row, and of fewer rows the last one."""
    held_out: bool = False
    epoch_steps: int = 1
    """An epoch passes over the samples as often as it takes for so many steps."""
    tables: Mapping[tuple[Path, int], pa.Table] = field(default_factory=dict)
    """Row groups by file and number that are in memory already; the others are read from the files."""
    kept: Kept = field(default_factory=Kept)
    """Keeps what is read, for the next pass and for other readers that have it."""

    def __post_init__(self) -> None:
        if self.batch % self.lanes or self.lanes % self.world:
            raise InputError(
                f"a batch of {self.batch} requests in {self.lanes} lanes for {self.world} workers: "
                "lanes must divide the batch, and the number of workers must divide the lanes"
            )
        if not self.rows:
            kept = f" {'held out' if self.held_out else 'left'} by search.fold {self.fold}" if self.fold else ""
            raise InputError(f"no training request{kept}: nothing to learn from; bring logs of more requests or days")
        if self.dealt.lanes % self.world:
            raise InputError(
                f"{self.rows} training requests make batches of {self.dealt.batch}, which {self.world} workers cannot "
                f"share evenly; lower compute.workers to a number that divides {self.dealt.lanes}"
            )

    @cached_property
    def dealt(self) -> Dealt:
        return deal(self.rows, self.batch, self.lanes, self.epoch_steps)

    @cached_property
    def groups(self) -> list[tuple[Path, int, int]]:
        """(file, row group, rows) of every row group."""
        groups = self._all_groups
        if not self.fold:
            return groups
        if self._rows_of:
            return [(path, index, len(self._rows_of[path, index])) for path, index, _ in groups]
        return [groups[i] for i in self._mine(len(groups))]

    @cached_property
    def _all_groups(self) -> list[tuple[Path, int, int]]:
        """Those of both sides of the fold."""
        return [(path, index, rows) for path in self.files for index, rows in enumerate(row_counts(path))]

    @cached_property
    def _opened(self) -> Callable[[Path], pq.ParquetFile]:
        """Files stay open as long as this reader, and no longer: at the same place others may stand then."""
        return lru_cache(maxsize=256)(open_file)

    @cached_property
    def _rows_of(self) -> dict[tuple[Path, int], np.ndarray]:
        """By row group the rows that are this reader's, where the fold is one of rows."""
        groups = self._all_groups
        if len(groups) >= self.fold:
            return {}
        ends = np.cumsum([rows for _, _, rows in groups], dtype=int)
        mine = self._mine(sum(rows for _, _, rows in groups))
        return {
            (path, index): mine[(mine >= end - rows) & (mine < end)] - (end - rows)
            for (path, index, rows), end in zip(groups, ends, strict=True)
        }

    def _mine(self, n: int) -> np.ndarray:
        """Which of n row groups, or of n rows, this reader's side of the fold has."""
        fold = max(2, min(self.fold, n))
        return np.flatnonzero((np.arange(n) % fold == fold - 1) == self.held_out)

    @cached_property
    def rows(self) -> int:
        return sum(rows for _, _, rows in self.groups)

    @property
    def steps(self) -> int:
        """Global batches in an epoch."""
        return self.dealt.steps

    def pass_of(self, step: int) -> int:
        """Which pass over the samples a step is in, over all epochs."""
        return step // self.dealt.batches

    def epoch(self, epoch: int, start: int = 0) -> Iterator[pa.Table]:
        """This worker's part of the global batches from step `start` on."""
        begun, first = divmod(start, self.dealt.batches)
        for number in range(begun, self.dealt.passes):
            yield from self._pass(epoch * self.dealt.passes + number, first if number == begun else 0)

    def _pass(self, number: int, start: int) -> Iterator[pa.Table]:
        read = self._permuted(number) if len(self.groups) < FEW_GROUPS else self._groups_permuted(number)
        lanes = range(self.rank, self.dealt.lanes, self.world)
        for parts in zip(*(self._lane(lane, number, start, read) for lane in lanes), strict=True):
            yield pa.concat_tables(parts)

    def _lane(self, lane: int, number: int, start: int, read: Read) -> Iterator[pa.Table]:
        slice_rows = self.dealt.batch // self.dealt.lanes
        per_window = max(1, WINDOW // slice_rows)
        first = lane * (self.rows // self.dealt.lanes)
        for step in range(start - start % per_window, self.dealt.batches, per_window):
            steps = min(per_window, self.dealt.batches - step)
            window = read(first + step * slice_rows, steps * slice_rows)
            rng = np.random.default_rng((self.seed, number, lane, step))
            window = window.take(rng.permutation(len(window)))
            for i in range(max(0, start - step), steps):
                yield window.slice(i * slice_rows, slice_rows)

    def _permuted(self, number: int) -> Read:
        """All rows, of few row groups."""
        table = pa.concat_tables(self._group(path, index) for path, index, _ in self.groups)
        order = np.random.default_rng((self.seed, number)).permutation(len(table))
        return table.take(order).slice

    def _groups_permuted(self, number: int) -> Read:
        order = np.random.default_rng((self.seed, number)).permutation(len(self.groups))
        ends = np.cumsum([self.groups[g][2] for g in order])

        def read(start: int, rows: int) -> pa.Table:
            begin, end = np.searchsorted(ends, (start, start + rows - 1), side="right")
            parts = []
            for position in range(begin, end + 1):
                path, index, count = self.groups[order[position]]
                offset = ends[position] - count
                low, high = max(start - offset, 0), min(start + rows - offset, count)
                parts.append(self._group(path, index).slice(low, high - low))
            return pa.concat_tables(parts)

        return read

    def _group(self, path: Path, index: int) -> pa.Table:
        """This reader's rows of a row group."""
        held, names = self.tables.get((path, index)), list(self.columns)
        if held is None:
            table = self.kept.columns(
                path, index, self.columns, lambda names: self._opened(path).read_row_group(index, columns=names)
            )
        else:
            table = held.select(names)
        return table.take(self._rows_of[path, index]) if self._rows_of else table


def sequential(files: tuple[Path, ...], columns: tuple[str, ...], rank: int = 0, world: int = 1) -> Iterator[pa.Table]:
    """Every row once, in order, in tables of a row group; whole row groups are dealt to the workers, none is lost."""
    groups = [(path, index) for path in files for index in range(len(row_counts(path)))]
    opened = lru_cache(maxsize=1)(open_file)
    for path, index in groups[rank::world]:
        yield opened(path).read_row_group(index, columns=list(columns))


def open_file(path: Path) -> pq.ParquetFile:
    return parquet(path, kept=True)


def row_counts(path: Path) -> tuple[int, ...]:
    """Of each row group."""
    with parquet(path) as file:
        metadata = file.metadata
    return tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
