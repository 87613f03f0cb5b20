"""The truth that only a simulator or a random exposure knows: `truth/` beside the tables of the logs.

A row a candidate: request_id and item_id as in candidates/, and click_probability, what the item is clicked with once
it is seen. Files are found and types are read as those of the tables are.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prerank.core.arrow import bounds, is_in
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.core.nested import flat, offsets_of, segment_of
from prerank.logs.files import Footer, Found, read_columns, read_footer, table_files
from prerank.logs.folder import Logs
from prerank.logs.types import converted, key, number, plain

COLUMNS = ["request_id", "item_id", "click_probability"]


def has_truth(logs: Logs) -> bool:
    return "candidates" in logs.tables and (logs.folder / "truth").is_dir()


def check_truth(logs: Logs) -> None:
    """Raises InputError naming file and column where one is missing or its type does not fit, by the footers alone."""
    files, _ = table_files(logs.folder / "truth")
    if not files:
        raise InputError(
            f"{logs.folder}/truth: no *.parquet files; expected {', '.join(COLUMNS)} of each candidate, or no folder"
        )
    keys = logs.tables["candidates"].columns
    for file in files:
        _check(file, read_footer(file), keys)


def _check(file: Found, footer: Footer, keys: pa.Schema) -> None:
    for name in COLUMNS:
        if name not in footer.columns.names:
            there = ", ".join(sorted(footer.columns.names)[:30])
            raise InputError(
                f"{file.path}: column {name!r} is missing; expected {', '.join(COLUMNS)}, found {there}; rename it, or "
                "remove truth/, without which all but ctr and the true hit-rate is measured"
            )
        found = plain(footer.columns.field(name).type)
        if name == "click_probability":
            fits, expected = pa.types.is_floating(number(found)), "floating-point numbers from 0 to 1"
        else:
            type_ = keys.field(name).type
            fits, expected = key(found) == type_, f"{type_}, as in candidates/"
        if not fits and not pa.types.is_null(found):
            raise InputError(f"{file.path}: column {name!r} has type {found}, expected {expected}")


def truth_of(table: pa.Table, folder: Path) -> np.ndarray:
    """click_probability of every candidate of request rows, float64 [N]; raises InputError where one has none."""
    request_N = hash_ids(table["request_id"])[segment_of(offsets_of(table["item_id"]))]
    wanted = pa.table({"request": request_N, "item": hash_ids(flat(table["item_id"])), "at": np.arange(len(request_N))})
    known = _known(table["request_id"].combine_chunks(), flat(table["item_id"]).type, folder)
    joined = wanted.join(known, ["request", "item"])
    if joined.num_rows != len(request_N):
        joined = wanted.join(_once(known, folder), ["request", "item"])
    p_N = joined.sort_by("at")["p"]
    low, high = bounds(table["request_id"])
    if p_N.null_count:
        raise InputError(
            f"{folder}: {p_N.null_count:,} of {len(p_N):,} candidates of requests {low} to {high} have no "
            "click_probability; write one of each candidate, or remove truth/"
        )
    probability_N = p_N.to_numpy()
    wrong_N = ~((probability_N >= 0) & (probability_N <= 1))
    if wrong_N.any():
        raise InputError(
            f"{folder}: click_probability is {probability_N[wrong_N][0]:g} for one of {wrong_N.sum():,} candidates of "
            f"requests {low} to {high} where it is no probability; expected 0 to 1"
        )
    return probability_N


def _known(ids: pa.Array, item_type: pa.DataType, folder: Path) -> pa.Table:
    """What truth/ says of these requests: hashes of request and item, and p."""
    low, high = bounds(ids)
    parts: list[pa.Table] = []
    for file in table_files(folder)[0]:
        footer = read_footer(file)
        groups = [i for i in range(footer.metadata.num_row_groups) if _may_hold(footer, i, low, high)]
        if not groups:
            continue
        raw = read_columns(file.path, groups, COLUMNS)
        request_ids = converted(raw["request_id"], ids.type)
        mine = is_in(request_ids, ids)
        items = converted(raw["item_id"], item_type).filter(mine)
        p = converted(raw["click_probability"], pa.float64()).filter(mine)
        parts.append(pa.table({"request": hash_ids(request_ids.filter(mine)), "item": hash_ids(items), "p": p}))
    none = pa.schema([("request", pa.uint64()), ("item", pa.uint64()), ("p", pa.float64())])
    return pa.concat_tables([none.empty_table(), *parts])


def _may_hold(footer: Footer, group: int, low: object, high: object) -> bool:
    """Whether a row group may hold requests of low to high, as far as its statistics are of the same kind."""
    at = next(i for i, column in enumerate(footer.metadata.schema) if column.path.split(".")[0] == "request_id")
    statistics = footer.metadata.row_group(group).column(at).statistics
    if statistics is None or not statistics.has_min_max or pa.types.is_uint64(footer.columns.field("request_id").type):
        return True
    least, most = statistics.min, statistics.max
    if not all(isinstance(value, type(low)) for value in (least, most)):
        return True
    return bool(least <= high and most >= low)


def _once(known: pa.Table, folder: Path) -> pa.Table:
    """Each candidate once; raises InputError where two rows of one differ."""
    groups = known.group_by(["request", "item"]).aggregate([("p", "min"), ("p", "max"), ("p", "count")])
    differ = pc.call_function("not_equal", [groups["p_min"], groups["p_max"]])
    n = pc.call_function("sum", [differ]).as_py() or 0
    if n:
        raise InputError(f"{folder}: {n:,} candidates have two different click_probability; write one of each")
    return pa.table({"request": groups["request"], "item": groups["item"], "p": groups["p_min"]})
