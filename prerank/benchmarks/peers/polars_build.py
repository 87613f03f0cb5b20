"""The draws of build_samples as a Polars user would write them: the peer of the benchmark `build`, not of the product.

    python -m prerank.benchmarks.peers.polars_build LOGS OUT

Impressions joined to fine lists, the last day for the test; of each request the exposed items and random ones of the
list, of its bins and of its tail by a hash of the ids, their pairs, capped, and the items as lists. Nothing is checked
or counted, no id is encoded, and memory is what it takes.
"""

import sys
from pathlib import Path

import polars as pl

from prerank.benchmarks.peers.drawn import BINS, KEY, OF_BIN, PAIRS, RANK, TAIL, UNIFORM


def build(logs: Path, out: Path) -> None:
    rows = pl.scan_parquet(logs / "fine_lists" / "*.parquet")
    shown = pl.scan_parquet(logs / "impressions" / "*.parquet").select(*KEY, "clicked")
    day, last = pl.col("ts").dt.date(), pl.scan_parquet(logs / "fine_lists" / "*.parquet").select(pl.col("ts").max())
    until = last.collect().item().date()
    rows = rows.join(shown, on=KEY, how="left").with_columns(exposed=pl.col("clicked").is_not_null(), day=day)
    rows = rows.filter(pl.col("day") < until).with_columns(pl.col("clicked").fill_null(False))
    length, position = pl.len().over("request_id"), pl.col("fine_position")
    rows = rows.with_columns(bin=position * BINS // length, tail=position >= length // 2)

    def among(seed: int, *cell: str) -> pl.Expr:
        return pl.struct(KEY).hash(seed).rank("ordinal").over(*cell)

    drawn = rows.filter(
        pl.col("exposed")
        | (among(1, "request_id") <= RANK)
        | (among(2, "request_id", "bin") <= OF_BIN)
        | (among(3, "request_id", "exposed") <= UNIFORM)
        | (pl.col("tail") & (among(4, "request_id", "tail") <= TAIL))
    ).collect()
    side = drawn.select("request_id", "fine_position", "bin", "clicked", "exposed")
    better = (pl.col("clicked") & pl.col("exposed_b") & ~pl.col("clicked_b")) | (pl.col("bin") < pl.col("bin_b"))
    pairs = side.lazy().join(side.lazy(), on="request_id", suffix="_b").filter(better).collect()
    number = pl.struct("request_id", "fine_position", "fine_position_b").hash(5).rank("ordinal").over("request_id")
    listed = pairs.filter(number <= PAIRS).group_by("request_id").agg(hi="fine_position", lo="fine_position_b")
    out.mkdir(parents=True)
    samples = drawn.sort("request_id", "fine_position").group_by("request_id", maintain_order=True).agg(pl.all())
    samples.join(listed, on="request_id", how="left").write_parquet(out / "samples.parquet")


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
