"""Numbers of a row of results, read and put into words: percent, microseconds, a change and how sure it is."""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

Edges = Sequence[float | None]
"""`[lo, hi]` of a mean, or `[difference, lo, hi]`; None where no request defines it."""


def number(row: Mapping[str, object], name: str) -> float | None:
    """A metric of the row, such as `recall_at_150`; None where it has none."""
    value = row.get(name)
    return value if isinstance(value, int | float) else None


def edges(row: Mapping[str, object], name: str) -> tuple[float, float] | None:
    """The interval that stands beside a metric as `<name>_ci`; None where there is none."""
    interval = row.get(f"{name}_ci")
    if isinstance(interval, list | tuple) and is_whole(interval):
        lo, hi = interval
        return lo, hi
    return None


def is_whole(interval: Edges | None) -> TypeGuard[Sequence[float]]:
    return bool(interval) and all(value is not None for value in interval)


def excludes_zero(interval: Sequence[float]) -> bool:
    return interval[1] > 0 or interval[2] < 0


def label(name: str) -> str:
    return name.replace("_", " ")


def micros(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def decimals(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def change(interval: Sequence[float]) -> str:
    points = f"{100 * interval[0]:+.1f} points (95% interval {100 * interval[1]:+.1f} to {100 * interval[2]:+.1f})"
    return points if excludes_zero(interval) else f"{points}, which these requests cannot tell from nothing"


def plus_minus(row: Mapping[str, object], name: str) -> str:
    """A share in percent, and half the width of its interval."""
    interval = edges(row, name)
    half = 50 * (interval[1] - interval[0]) if interval else 0
    return percent(number(row, name)) + (f" ±{half:.1f}" if half else "")


def points(interval: Sequence[float]) -> str:
    """A difference of shares in points, and half the width of its interval."""
    return f"{100 * interval[0]:+.1f} ±{50 * (interval[2] - interval[1]):.1f}"
