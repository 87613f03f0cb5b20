"""The draws of build_samples as a loop over requests, as training scripts do: as `polars_build`, which says what.

    python -m prerank.benchmarks.peers.loop_build LOGS OUT

All rows are in memory; pandas joins and groups them, and each request is then a dictionary of lists.
"""

import random
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from prerank.benchmarks.peers.drawn import BINS, KEY, OF_BIN, PAIRS, RANK, TAIL, UNIFORM

Request = dict[str, list[object]]


def build(logs: Path, out: Path) -> None:
    rows = pd.read_parquet(logs / "fine_lists")
    shown = pd.read_parquet(logs / "impressions", columns=[*KEY, "clicked"])
    days = rows["ts"].dt.date
    rows = rows[days < days.max()].merge(shown, on=KEY, how="left")
    rows["exposed"] = rows["clicked"].notna()
    rows["clicked"] = rows["clicked"].eq(True)
    made = [sample(str(of), group.sort_values("fine_position").to_dict("list")) for of, group in rows.groupby(KEY[0])]
    out.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(made), out / "samples.parquet")


def sample(request: str, row: Request) -> Request:
    """The row of a request: its drawn items and their pairs."""
    rng, length, exposed = random.Random(request), len(row["item_id"]), row["exposed"]
    bins = [position * BINS // length for position in range(length)]
    chosen = {at for at in range(length) if exposed[at]} | {*rng.sample(range(length), min(RANK, length))}
    cells = [[at for at in range(length) if bins[at] == of] for of in range(BINS)]
    cells += [[at for at in range(length) if bool(exposed[at]) is shown] for shown in (False, True)]
    cells += [[at for at in range(length) if at >= length // 2]]
    for cell, most in zip(cells, (*[OF_BIN] * BINS, UNIFORM, UNIFORM, TAIL), strict=True):
        chosen |= {*rng.sample(cell, min(most, len(cell)))}
    keep = sorted(chosen)
    pairs = []
    for a in keep:
        for b in keep:
            if (row["clicked"][a] and exposed[b] and not row["clicked"][b]) or bins[a] < bins[b]:
                pairs.append((a, b))
    pairs = rng.sample(pairs, min(PAIRS, len(pairs)))
    out: Request = {name: [values[at] for at in keep] for name, values in row.items()}
    out |= {"bin": [bins[at] for at in keep], "hi": [a for a, _ in pairs], "lo": [b for _, b in pairs]}
    return out | {"request_id": row["request_id"][0]}  # pyright: ignore[reportReturnType]: one a request


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
