"""The draws of build_samples in DuckDB's SQL: as `polars_build`, which says what is drawn.

    python -m prerank.benchmarks.peers.duckdb_build LOGS OUT

Items are drawn among the narrow columns and joined to their features afterwards, and the order of insertion is given
up, as DuckDB's guide to performance advises; it may spill to disk.
"""

import sys
from pathlib import Path

import duckdb  # pyright: ignore[reportMissingImports]: of the extra `bench`

from prerank.benchmarks.peers.drawn import BINS, OF_BIN, PAIRS, RANK, TAIL, UNIFORM


def build(logs: Path, out: Path) -> None:
    out.mkdir(parents=True)
    lists, shown = f"read_parquet('{logs}/fine_lists/*.parquet')", f"read_parquet('{logs}/impressions/*.parquet')"
    with duckdb.connect() as base:
        base.execute("SET preserve_insertion_order = false")
        base.execute("CREATE TEMP MACRO keyed(item, request, seed) AS hash(item + seed * 100000000, request)")
        base.execute(f"SET temp_directory = '{out}/spilled'")
        base.execute(f"""
            CREATE TEMP TABLE drawn AS
            WITH placed AS (
                SELECT request_id, item_id, fine_position, coalesce(s.clicked, false) AS clicked,
                    s.item_id IS NOT NULL AS exposed,
                    fine_position * {BINS} // count(*) OVER of AS bin,
                    fine_position >= count(*) OVER of // 2 AS tail
                FROM {lists} l LEFT JOIN {shown} s USING (request_id, item_id)
                WHERE l.ts::DATE < (SELECT max(ts)::DATE FROM {lists})
                WINDOW of AS (PARTITION BY request_id)
            )
            SELECT * FROM placed QUALIFY exposed
                OR row_number() OVER (PARTITION BY request_id ORDER BY keyed(item_id, request_id, 1)) <= {RANK}
                OR row_number() OVER (PARTITION BY request_id, bin ORDER BY keyed(item_id, request_id, 2)) <= {OF_BIN}
                OR row_number() OVER (PARTITION BY request_id, exposed ORDER BY keyed(item_id, request_id, 3))
                    <= {UNIFORM}
                OR tail AND row_number() OVER (PARTITION BY request_id, tail ORDER BY keyed(item_id, request_id, 4))
                    <= {TAIL}
        """)
        base.execute(f"""
            COPY (
                WITH pairs AS (
                    SELECT a.request_id, a.fine_position AS hi, b.fine_position AS lo
                    FROM drawn a JOIN drawn b USING (request_id)
                    WHERE a.clicked AND b.exposed AND NOT b.clicked OR a.bin < b.bin
                    QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY hash(request_id, hi, lo, 5)) <= {PAIRS}
                ),
                listed AS (SELECT request_id, list(hi) AS hi, list(lo) AS lo FROM pairs GROUP BY request_id),
                samples AS (
                    SELECT request_id, list(COLUMNS(* EXCLUDE (request_id)) ORDER BY fine_position)
                    FROM {lists} l JOIN (SELECT request_id, item_id, clicked, exposed, bin FROM drawn)
                        USING (request_id, item_id)
                    GROUP BY request_id
                )
                SELECT * FROM samples LEFT JOIN listed USING (request_id)
            ) TO '{out}/samples.parquet' (FORMAT parquet)
        """)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
