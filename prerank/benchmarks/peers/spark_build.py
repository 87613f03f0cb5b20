"""The draws of build_samples in PySpark on all local cores: as `polars_build`, which says what is drawn.

    python -m prerank.benchmarks.peers.spark_build LOGS OUT

Columns only, no Python function in the workers; two shuffle partitions a core, and 8 GiB for its JVM.
"""

import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession, Window  # pyright: ignore[reportMissingImports]: of the extra `bench`
from pyspark.sql import functions as f  # pyright: ignore[reportMissingImports]

from prerank.benchmarks.peers.drawn import BINS, KEY, OF_BIN, PAIRS, RANK, TAIL, UNIFORM


def build(logs: Path, out: Path) -> None:
    named = SparkSession.builder.master("local[*]").config("spark.driver.memory", "8g")
    named = named.config("spark.sql.shuffle.partitions", 2 * (os.cpu_count() or 1))
    named = named.config("spark.sql.session.timeZone", "UTC").config("spark.ui.enabled", False)
    spark = named.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    lists = spark.read.parquet(str(logs / "fine_lists"))
    shown = spark.read.parquet(str(logs / "impressions")).select(*KEY, "clicked")
    until = lists.agg(f.to_date(f.max("ts"))).first()[0]
    rows = lists.where(f.to_date("ts") < f.lit(until)).join(shown, KEY, "left")
    rows = rows.withColumn("exposed", f.col("clicked").isNotNull())
    rows = rows.withColumn("clicked", f.coalesce("clicked", f.lit(False)))
    length = f.count("*").over(Window.partitionBy("request_id"))
    rows = rows.withColumn("bin", (f.col("fine_position") * BINS / length).cast("int"))
    rows = rows.withColumn("tail", f.col("fine_position") >= (length / 2).cast("int"))

    def among(seed: int, *cell: str) -> object:
        return f.row_number().over(Window.partitionBy(*cell).orderBy(f.xxhash64(*KEY, f.lit(seed))))

    ranks = {
        "a": (among(1, "request_id"), RANK),
        "b": (among(2, "request_id", "bin"), OF_BIN),
        "c": (among(3, "request_id", "exposed"), UNIFORM),
        "d": (among(4, "request_id", "tail"), TAIL),
    }
    for name, (rank, _) in ranks.items():
        rows = rows.withColumn(f"_{name}", rank)
    chosen = [f.col(f"_{name}") <= most for name, (_, most) in ranks.items()]
    drawn = rows.where(f.col("exposed") | chosen[0] | chosen[1] | chosen[2] | (f.col("tail") & chosen[3]))
    drawn = drawn.drop(*(f"_{name}" for name in ranks)).persist()
    side = drawn.select("request_id", "fine_position", "bin", "clicked", "exposed")
    a, b = side.alias("a"), side.alias("b")
    better = f.col("a.clicked") & f.col("b.exposed") & ~f.col("b.clicked") | (f.col("a.bin") < f.col("b.bin"))
    pairs = a.join(b, (f.col("a.request_id") == f.col("b.request_id")) & better).select(
        f.col("a.request_id"), f.col("a.fine_position").alias("hi"), f.col("b.fine_position").alias("lo")
    )
    number = f.row_number().over(Window.partitionBy("request_id").orderBy(f.xxhash64("request_id", "hi", "lo")))
    pairs = pairs.withColumn("number", number).where(f.col("number") <= PAIRS)
    listed = pairs.groupBy("request_id").agg(f.collect_list("hi").alias("hi"), f.collect_list("lo").alias("lo"))
    names = ["fine_position", *(name for name in drawn.columns if name not in ("request_id", "fine_position"))]
    items = drawn.groupBy("request_id").agg(f.array_sort(f.collect_list(f.struct(*names))).alias("items"))
    samples = items.select("request_id", *(f.col(f"items.{name}").alias(name) for name in names))
    samples.join(listed, "request_id", "left").write.parquet(str(out))
    spark.stop()


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
