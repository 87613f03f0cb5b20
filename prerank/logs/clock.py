"""`ts`: by which clock the times of a file go, and what they are on that clock, in microseconds without a zone.

A time without a zone is read as it stands, one with a zone as the clock on the wall of that zone shows it: days begin
at that midnight. A date is its midnight. Whole numbers are seconds, milliseconds, microseconds or nanoseconds since
1970 in UTC, whichever puts them between the years 2000 and 2100: the four do not overlap. All files go by one clock.
"""

from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prerank.core.arrow import Column, bounds
from prerank.core.errors import InputError
from prerank.logs.files import read_columns
from prerank.logs.types import decoded, plain

TS = pa.timestamp("us")
WORDS = "timestamps (of a zone that is known here), dates, or whole s, ms, us or ns since 1970"

UTC = "UTC"
SAME = ("Etc/UTC", "Etc/GMT", "GMT", "Z", "+00:00", UTC, None)
"""Zones, and none, that show what UTC does."""

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
FIRST, LAST = 946_684_800, 4_102_444_800
"""Seconds since 1970 of the years 2000 and 2100."""

YEARS = np.datetime64("1990", "us"), np.datetime64("2100", "us")
"""Times outside are stand-ins, as 1970 or 9999 are: they would decide which day is the last one, for the test."""

Days = tuple[np.datetime64, np.datetime64]


def fits(type_: pa.DataType) -> bool:
    """Whether a plain type can hold times."""
    if pa.types.is_timestamp(type_):
        return zone(type_) == UTC or _is_known(type_.tz)
    return pa.types.is_date(type_) or pa.types.is_integer(type_) or pa.types.is_null(type_)


def zone(type_: pa.DataType) -> str:
    return UTC if not pa.types.is_timestamp(type_) or type_.tz in SAME else type_.tz


def words(clock: str) -> str:
    """As a message names it."""
    return f"whole {clock} since 1970" if clock in UNITS else f"the clock of {clock}"


@lru_cache
def _is_known(name: str) -> bool:
    try:
        _local(pa.array([0], pa.timestamp("us", name)))
    except pa.ArrowInvalid:
        return False
    return True


def _local(times: Column) -> Column:
    return pc.call_function("local_timestamp", [times])


def wall(column: pa.ChunkedArray, clock: str) -> pa.ChunkedArray:
    """What a file has for `ts`, as `TS`; `clock` is that of `first_and_last`."""
    column = decoded(column)
    if pa.types.is_integer(column.type):
        column = column.cast(pa.int64(), safe=False).cast(pa.timestamp(clock))
    elif zone(column.type) != UTC:
        column = _local(column)
    return column.cast(TS, safe=False)


def first_and_last(path: Path, group: int, type_: pa.DataType, chunk: pq.ColumnChunkMetaData) -> tuple[Days, str]:
    """The bounds of `ts` in a row group, and its clock: a zone, or a unit of whole numbers.

    From the footer where it tells (Spark's INT96 it does not), otherwise from the column. Raises InputError where there
    are no times, or such as are none: whole numbers of no unit, years outside `YEARS`.
    """
    days, clock = _first_and_last(path, group, type_, chunk)
    if not (YEARS[0] <= days[0] and days[1] < YEARS[1]):
        first, last = (str(day.astype("datetime64[s]")) for day in days)
        raise InputError(
            f"{path}: column 'ts' holds times from {first} to {last} in row group {group}, expected the years 1990 to "
            "2099; correct them, and write null where there is none"
        )
    return days, clock


def _first_and_last(path: Path, group: int, type_: pa.DataType, chunk: pq.ColumnChunkMetaData) -> tuple[Days, str]:
    kind = plain(type_)
    if pa.types.is_null(kind):
        raise _nothing(path, group)
    found = bounds_of(chunk)
    if pa.types.is_integer(kind):
        low, high = found or bounds(decoded(_column(path, group)))
        clock = _unit(path, group, low, high)
        return (_moment(low, clock), _moment(high, clock)), clock
    clock = zone(kind)
    if found is None:
        return _scanned(path, group, clock), clock
    utc = _moment(found[0]), _moment(found[1])
    if clock == UTC:
        return utc, clock
    first, last = _local(pa.array(np.array(utc)).cast(pa.timestamp("us", clock))).to_numpy()
    if last - first != utc[1] - utc[0]:  # put forward or back: the last moment may not show the latest time
        return _scanned(path, group, clock), clock
    return (first, last), clock


def bounds_of(chunk: pq.ColumnChunkMetaData) -> tuple[Any, Any] | None:
    """Of the column's own type; None where the footer has none, or such as Python cannot hold."""
    statistics = chunk.statistics
    if statistics is None or not statistics.has_min_max:
        return None
    try:
        return statistics.min, statistics.max
    except (OverflowError, ValueError):  # a year beyond 9999; text that is cut within a letter
        return None


def _moment(value: Any, unit: str = "us") -> np.datetime64:
    """Of a whole number, or of a date or time of Python, which is of UTC."""
    if isinstance(value, datetime):
        value = value.replace(tzinfo=None)
    return np.datetime64(value, unit).astype("datetime64[us]")


def _unit(path: Path, group: int, low: Any, high: Any) -> str:
    if low is None:
        raise _nothing(path, group)
    for unit, scale in UNITS.items():
        if FIRST * scale <= low and high < LAST * scale:
            return unit
    raise InputError(
        f"{path}: column 'ts' holds whole numbers from {low} to {high}, expected s, ms, us or ns since 1970 between "
        "the years 2000 and 2100; write timestamps, and null where there is none"
    )


def _scanned(path: Path, group: int, clock: str) -> Days:
    times = wall(_column(path, group), clock).drop_null().to_numpy()
    if not len(times):
        raise _nothing(path, group)
    return times.min(), times.max()


def _column(path: Path, group: int) -> pa.ChunkedArray:
    return read_columns(path, [group], ["ts"])["ts"]


def _nothing(path: Path, group: int) -> InputError:
    return InputError(f"{path}: column 'ts' holds nothing but nulls in row group {group}; expected timestamps")
