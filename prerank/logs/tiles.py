"""The logs cut into parts of whole requests that can be read where they lie.

A `Tile` is an interval of request ids with the row groups that can hold them. Tiles cover the whole key space, so every
row is in exactly one. Where the row groups are clustered by request, each is read about once and no shuffle is needed;
`cut` proves that from the footers' statistics, or returns None.
"""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa

from prerank.core.arrow import between
from prerank.logs.folder import Logs, read_groups
from prerank.logs.table import Key, RowGroup, Table, TableName

OVERREAD = 1.5
"""Reading clustered tiles may touch this many times the bytes of the logs; beyond it a shuffle is cheaper."""


@dataclass(frozen=True)
class Tile:
    """The requests with lo <= request_id < hi (None: no bound)."""

    lo: Key | None
    hi: Key | None
    groups: tuple[RowGroup, ...]
    impressions: tuple[RowGroup, ...]

    @property
    def bytes(self) -> int:
        """Of all that is read for it."""
        return sum(group.bytes for group in (*self.groups, *self.impressions))


def cut(logs: Logs, name: TableName, *, tiles: int | None = None, tile_bytes: int = 64 << 20) -> list[Tile] | None:
    """Tiles of about `tile_bytes` (or about `tiles` of them), or None where only a shuffle brings requests together.

    A tile starts where a row group does, so a row group is never read in pieces smaller than itself.
    """
    table, impressions = logs.tables[name], logs.tables["impressions"]
    target = table.bytes / tiles if tiles else tile_bytes
    if table.bytes <= target:
        return [Tile(None, None, table.groups, impressions.groups)]
    if any(group.keys is None for group in (*table.groups, *impressions.groups)):
        return None
    starts = _starts(table, target)
    of_list, of_impressions = _Overlaps(table.groups), _Overlaps(impressions.groups)
    left = OVERREAD * (table.bytes + impressions.bytes)
    largest = max(group.bytes for group in table.groups)
    made = []
    for lo, hi in zip([None, *starts], [*starts, None], strict=True):
        tile = Tile(lo, hi, of_list.within(lo, hi), of_impressions.within(lo, hi))
        size = sum(group.bytes for group in tile.groups)
        left -= size + sum(group.bytes for group in tile.impressions)
        if left < 0 or size > 2 * (target + largest):
            return None
        made.append(tile)
    return made


class _Overlaps:
    """Row groups by the interval of keys that they overlap."""

    def __init__(self, groups: tuple[RowGroup, ...]):
        self.groups = sorted(groups, key=lambda group: group.span)
        self.lows = [group.span[0] for group in self.groups]
        self.highs = list(accumulate((group.span[1] for group in self.groups), max))
        self.nulls = [group for group in groups if group.nulls]

    def within(self, lo: Key | None, hi: Key | None) -> tuple[RowGroup, ...]:
        first = 0 if lo is None else bisect_left(self.highs, lo)
        last = len(self.lows) if hi is None else bisect_left(self.lows, hi)
        inside = [group for group in self.groups[first:last] if lo is None or group.span[1] >= lo]
        if lo is None:  # where `read_tile` counts the rows without a key
            inside += [group for group in self.nulls if group not in inside]
        return tuple(inside)


def _starts(table: Table, target: float) -> list[Key]:
    """Lowest keys of the row groups at which a new tile starts."""
    starts: list[Key] = []
    filled = 0
    for group in sorted(table.groups, key=lambda group: group.span):
        if filled + group.bytes / 2 >= target and group.span[0] != (starts[-1] if starts else None):
            starts.append(group.span[0])
            filled = 0
        filled += group.bytes
    return starts


def read_tile(logs: Logs, name: TableName, tile: Tile) -> tuple[pa.Table, pa.Table]:
    """Rows of `name` and impressions of the tile's requests."""
    table, impressions = logs.tables[name], logs.tables["impressions"]
    rows, shown = read_groups(table, tile.groups), read_groups(impressions, tile.impressions)
    return _filter(rows, tile, table.unsigned), _filter(shown, tile, table.unsigned)


def _filter(rows: pa.Table, tile: Tile, unsigned: bool) -> pa.Table:
    """Rows without a request id, which are in no interval, belong to the first tile, so that they are counted once."""
    if tile.lo is None and tile.hi is None:
        return rows
    ids = rows["request_id"].cast(pa.uint64(), safe=False) if unsigned else rows["request_id"]
    return rows.filter(between(ids, tile.lo, tile.hi).fill_null(tile.lo is None))
