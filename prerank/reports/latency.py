"""The figure of a latency table's self-check."""

from collections.abc import Sequence
from typing import TypedDict

from matplotlib.figure import Figure

from prerank.reports.drawing import MUTED


class Measured(TypedDict):
    """Microseconds."""

    p50: float


class Check(TypedDict):
    """What is read of a network of the self-check."""

    runtime: str
    predicted_us: float
    measured_us: Measured


def figure(check: Sequence[Check]) -> Figure:
    """Predicted against measured time of the networks of the self-check."""
    figure = Figure(figsize=(4.3, 3.6), dpi=200, layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="predicted, µs", ylabel="measured, µs")
    for runtime in sorted({row["runtime"] for row in check}):
        rows = [row for row in check if row["runtime"] == runtime]
        axes.plot([r["predicted_us"] for r in rows], [r["measured_us"]["p50"] for r in rows], "o", ms=4, label=runtime)
    ends = [min(r["predicted_us"] for r in check), max(r["predicted_us"] for r in check)]
    axes.plot(ends, ends, color=MUTED, linewidth=1, zorder=0)
    axes.legend(frameon=False)
    return figure
