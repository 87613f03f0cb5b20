"""What latency.json says, for the terminal, and the figure of its self-check."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from prerank.latency.file import Checked, Entry, Errors, Measurements
from prerank.latency.pieces import Setting
from prerank.reports.drawing import MUTED
from prerank.serving.watch import said


def figure(check: Sequence[Checked]) -> Figure:
    """Predicted against measured time of the networks of the self-check."""
    figure = Figure(figsize=(4.3, 3.6), dpi=200, layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="predicted, µs", ylabel="measured, µs")
    for runtime in sorted({row["runtime"] for row in check}):
        rows = [row for row in check if row["runtime"] == runtime]
        axes.plot([r["predicted_us"] for r in rows], [r["measured_us"]["p5"] for r in rows], "o", ms=4, label=runtime)
    ends = [min(r["predicted_us"] for r in check), max(r["predicted_us"] for r in check)]
    axes.plot(ends, ends, color=MUTED, linewidth=1, zorder=0)
    axes.legend(frameon=False)
    return figure


def show(result: Measurements, out: Path, console: Console) -> None:
    """The layers of one setting (the first runtime and number of threads, the middle number of candidates), and how far
    the predictions of each are off."""
    first = result["settings"][0]
    alike = [s for s in result["settings"] if (s["runtime"], s["threads"]) == (first["runtime"], first["threads"])]
    shown = sorted(alike, key=lambda s: s["candidates"])[len(alike) // 2]
    console.print(f"A layer, µs: {_setting(shown)}", highlight=False)
    console.print(_layers(shown))
    inputs = [times["p5"] for times in shown["inputs_us"].values()]
    empty = f"An empty run {shown['overhead_us']['p5']:.1f} µs"
    if "numbers_us" in shown:
        empty += f", numbers {shown['numbers_us']['p5']:.1f} µs"
    console.print(f"{empty}, the inputs of all {len(inputs)} features {sum(inputs):,.0f} µs", highlight=False)
    for entry in result["settings"]:
        if "error" in entry:
            console.print(_told(str(_setting(entry)), entry["error"]), highlight=False, soft_wrap=True)
        if "meanwhile" in entry:
            console.print(f"  meanwhile {said(entry['meanwhile'])}", highlight=False, soft_wrap=True)
    console.print(_told(str(out), result["error"]), highlight=False, soft_wrap=True)


def _layers(entry: Entry) -> Table:
    layers = {(layer["in"], layer["out"]): layer["p5"] for layer in entry["layers_us"]}
    ins, outs = (sorted(set(widths)) for widths in zip(*layers, strict=True))
    table = Table()
    table.add_column("in \\ out", justify="right")
    for width in outs:
        table.add_column(str(width), justify="right")
    for width_in in ins:
        table.add_row(str(width_in), *(f"{layers[width_in, width]:,.1f}" for width in outs))
    return table


def _setting(entry: Entry) -> Setting:
    return Setting(entry["runtime"], entry["candidates"], entry["threads"])


def _told(name: str, error: Errors) -> str:
    return (
        f"{name}: {error['networks']} networks, measured against predicted: median error {error['median_abs']:.1%}, "
        f"90% within {error['p90_abs']:.1%}, worst {error['worst']:.1%}"
    )
