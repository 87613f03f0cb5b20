"""build_samples as a whole command, its start and its checks included, against the same draws written in Polars."""

import tempfile
from pathlib import Path

from prerank.benchmarks.memory import ITEMS, watch, write_logs
from prerank.benchmarks.rows import Row

ORDERS = {"clustered": 3.0, "shuffled": 3.0}
"""Of the files; and how many times Polars' time the whole command may take on few rows."""


def build(rows: int, *, rounds: int) -> list[Row]:
    """Of made-up logs with so many rows of fine lists."""
    out = []
    for order, most in ORDERS.items():
        with tempfile.TemporaryDirectory() as folder:
            logs, taken = Path(folder) / "logs", dict[str, list[tuple[float, float]]](ours=[], polars=[])
            write_logs(logs, rows // ITEMS, order == "shuffled")
            for turn in range(rounds):
                samples, theirs = f"{folder}/ours-{turn}", f"{folder}/polars-{turn}"
                flags = ["--logs", str(logs), "--out", samples]
                taken["ours"].append(watch("workflows.build_samples", flags))
                taken["polars"].append(watch("prerank.benchmarks.polars_build", [str(logs), theirs]))
        ours, polars = (sorted(taken[name])[rounds // 2] for name in ("ours", "polars"))
        detail = f"{ours[0]:.1f} and {polars[0]:.1f} s, peak {ours[1]:,.0f} and {polars[1]:,.0f} MiB"
        what = f"{rows:,} rows, whole command, of Polars' time"
        out.append(Row(f"build, {order}", what, ours[0] / polars[0], "times", most, detail=detail))
    return out
