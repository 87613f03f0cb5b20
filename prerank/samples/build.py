"""Samples: from rows of the logs to one row a request, with labels, pool and pairs.

    rows, impressions -> to_requests -> draw | undrawn -> attach_features -> one Parquet file

works on whole requests, so any part of the logs can be built by itself; what it counts is summed by `merge`. Ids are
compared by their 64-bit hashes (`hash_ids`). R requests, N rows, M impressions.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa

from prerank.core.arrow import between
from prerank.core.config import Count, Positive
from prerank.core.counts import Built, Checked, OfFeatures, count, merge
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids, keyed_uniform
from prerank.core.nested import flat_numpy, nest, offsets_of
from prerank.logs.encoding import encode
from prerank.logs.folder import DAY, Logs, TableName, overlaps, read_groups
from prerank.logs.outliers import Sample, sample
from prerank.logs.requests import is_in, to_requests
from prerank.logs.schema import Schema
from prerank.logs.statistics import Ends, Moments, ends, moments
from prerank.logs.varying import varying
from prerank.samples.draw import DrawConfig, draw, undrawn
from prerank.samples.features import VARIES, elements
from prerank.samples.files import write_tables
from prerank.samples.starts import Starts

NEEDED = "a validation day stops the training and chooses its best epoch, and the test day must not"


@dataclass(frozen=True)
class Split:
    """Days by the clock of the logs: the last for the test, those before for validation, the rest for training."""

    val_days: Positive = 1
    test_days: Count = 1

    def bounds(self, logs: Logs) -> tuple[np.datetime64, np.datetime64]:
        """First instants of validation and test; raises InputError where no day is left to train or validate on."""
        first, last = logs.days
        if self.val_days < 1:
            raise InputError(f"split.val_days {self.val_days}: expected 1 or more; {NEEDED}")
        test_from = last + DAY - self.test_days * DAY
        val_from = test_from - self.val_days * DAY
        if self.test_days < 0 or val_from <= first:
            raise InputError(
                f"{logs.folder}: logs of {first} to {last} leave no day to train on after split.val_days "
                f"{self.val_days} and split.test_days {self.test_days}; bring more days, or lower these"
            )
        return val_from.astype("datetime64[us]"), test_from.astype("datetime64[us]")


@dataclass(frozen=True)
class Recipe:
    """What every part of a build shares."""

    schema: Schema
    draw: DrawConfig
    strategies: tuple[str, ...]
    seed: int
    val_from: np.datetime64
    test_from: np.datetime64
    val_key: float
    """Validation requests are those whose keyed number is at most this: see `val_key`."""
    val_table: TableName
    """`candidates`, or `fine_lists` where the logs have none of the validation days: see `validation`."""
    folder: Path
    sampled: float = 1.0
    """Training items whose keyed number is below this are looked at for absurd values: see `prerank.logs.outliers`."""

    def facts(self) -> dict[str, object]:
        """For the manifest: what it takes to draw again, and where the days were split."""
        days = {"val_from": str(self.val_from), "test_from": str(self.test_from)}
        drawn = {"draw": asdict(self.draw), "strategies": list(self.strategies), "seed": self.seed}
        return {"split": days, "val_table": self.val_table, **drawn}


@dataclass(frozen=True)
class Part:
    """What came of some whole requests of the fine lists; `merge` adds up the `vars` of several."""

    counts: Built
    moments: dict[str, Moments]
    """Of the training rows, by feature."""
    sample: dict[str, Sample]
    """Of the same."""
    files: dict[str, int]
    """Requests by the name of the file that was written."""
    ends: dict[str, Ends]
    """Of the ids of the same."""
    starts: dict[str, Starts]
    """By table, of the requests that `validation_requests` takes, whatever their days."""
    inside: dict[str, Moments] = field(default_factory=dict)
    """Of features that have absurd values, without these."""


def validation(
    logs: Logs, since: np.datetime64, until: np.datetime64, *, requests: int, seed: int
) -> tuple[TableName, float]:
    """The table to validate on and the `val_key` of its requests; raises InputError where there are none."""
    if requests < 1:
        raise InputError(f"--val-requests {requests}: expected 1 or more; {NEEDED}")
    tables: tuple[TableName, ...] = ("candidates", "fine_lists")
    for table in tables:
        if table in logs.tables:
            key = val_key(logs, table, since, until, requests=requests, seed=seed)
            if key >= 0:
                return table, key
    raise no_validation(logs, since, until)


def no_validation(logs: Logs, since: np.datetime64, until: np.datetime64) -> InputError:
    return InputError(
        f"{logs.folder}: no usable request of {since.astype('datetime64[m]')} until {until.astype('datetime64[m]')}, "
        f"the validation days, in candidates/ or fine_lists/; {NEEDED}: raise split.val_days until they hold requests, "
        "or bring logs of these days"
    )


def val_key(
    logs: Logs, table: str, since: np.datetime64, until: np.datetime64 | None, *, requests: int, seed: int
) -> float:
    """The keyed number that the given count of requests of since <= ts < until do not exceed; two columns are read."""
    lowest = np.empty(0)
    for group in logs.tables[table].groups:
        if overlaps(group, since, until):
            rows = read_groups(logs.tables[table], (group,), ["request_id", "ts"])
            ids = rows["request_id"].filter(between(rows["ts"], since, until)).drop_null().unique()
            lowest = np.unique(np.concatenate([lowest, number_of(ids, seed)]))[:requests]
    return float(lowest[-1]) if len(lowest) else -1.0


def number_of(request_id: pa.Array | pa.ChunkedArray, seed: int) -> np.ndarray:
    """float64 [N] in [0, 1): the keyed number that decides whether a request is drawn to validate or evaluate on."""
    return keyed_uniform(seed, "validation", hash_ids(request_id))


def attach_features(requests: pa.Table, rows: pa.Table, schema: Schema) -> tuple[pa.Table, dict[str, dict[str, int]]]:
    """Replaces `row` by the encoded features of those rows of the logs, and counts what `encode` found.

    A feature of the request is taken from its first item.
    """
    offsets, row = offsets_of(requests["row"]), flat_numpy(requests["row"])
    of_request = Schema(tuple(f for f in schema.features if f.of_request), {})
    of_item = Schema(tuple(f for f in schema.features if not f.of_request), {})
    once, found = encode(_take(rows, of_request.names, row[offsets[:-1]]), of_request)
    many, more = encode(_take(rows, of_item.names, row), of_item)
    out = requests.drop_columns("row")
    for feature in schema.features:
        column = once[feature.name] if feature.of_request else nest(many[feature.name].combine_chunks(), offsets)
        out = out.append_column(feature.name, column)
    total: dict[str, dict[str, int]] = {}
    return out, merge(merge(total, found), more)


def _take(rows: pa.Table, names: tuple[str, ...], row: np.ndarray) -> pa.Table:
    indices = pa.array(row)
    return pa.table({name: rows[name].combine_chunks().take(indices) for name in names})


def build_fine_lists(rows: pa.Table, impressions: pa.Table, recipe: Recipe) -> Part:
    """Writes the training requests (and validation, without candidates) of some whole requests."""
    requests, checked = to_requests(rows, impressions, labels=recipe.schema.labels)
    ts = requests["ts"].to_numpy()
    validation, test = (ts >= recipe.val_from) & (ts < recipe.test_from), ts >= recipe.test_from
    for name, inside in (("validation_day", validation), ("test_day", test)):
        count(checked["noted"], name, _items(requests, inside), int(inside.sum()))
    whole = requests.filter(pa.array(ts < recipe.val_from))
    train, drawn = draw(whole, recipe.schema, recipe.draw, recipe.strategies, seed=recipe.seed)
    train, features = attach_features(train, rows, recipe.schema)
    features[VARIES] = varying(whole, rows, recipe.schema)
    files = write_part(train, recipe.folder / "train")
    merge(checked["dropped"], drawn["dropped"])
    merge(checked["noted"], drawn["noted"])
    dropped, noted = checked["dropped"], checked["noted"]
    counts: Built = {
        **checked, **drawn, "dropped": dropped, "noted": noted,
        "features": features, "elements": elements(train, recipe.schema),
    }  # fmt: skip
    if recipe.val_table == "fine_lists":
        counts["validation"], of_val = _write_val(requests, rows, recipe)
        files |= of_val
    sums, ids = moments(train, recipe.schema), ends(train, recipe.schema)
    starts = {"fine_lists": Starts.of(requests.filter(pa.array(validation_requests(requests, recipe))))}
    return Part(counts, sums, sample(train, recipe.schema, recipe.sampled), files, ids, starts)


class Validated(TypedDict):
    """What came of some whole requests of the candidates, for `merge`."""

    counts: "ValidatedCounts"
    files: dict[str, int]
    starts: dict[str, Starts]


class ValidatedCounts(TypedDict):
    candidates: Checked
    validation: OfFeatures


def build_candidates(rows: pa.Table, impressions: pa.Table, recipe: Recipe) -> Validated:
    """Writes those of `validation_requests` among some whole requests of the candidates."""
    rows, impressions = _of_validation_days(rows, impressions, recipe)
    requests, counts = to_requests(rows, impressions, sampled=True, labels=recipe.schema.labels)
    found, files = _write_val(requests, rows, recipe)
    starts = {"candidates": Starts.of(requests)}
    return {"counts": {"candidates": counts, "validation": found}, "files": files, "starts": starts}


def _of_validation_days(rows: pa.Table, impressions: pa.Table, recipe: Recipe) -> tuple[pa.Table, pa.Table]:
    """A part may reach into the days before and after: what lies there is neither read nor counted."""
    ids, code = np.unique(hash_ids(rows["request_id"]), return_inverse=True)
    ts = np.full(len(ids), np.datetime64("NaT", "us"))
    np.fmin.at(ts, code, rows["ts"].to_numpy().astype("datetime64[us]"))
    inside = (ts >= recipe.val_from) & (ts < recipe.test_from)
    shown = is_in(hash_ids(impressions["request_id"]), ids[inside])
    return rows.filter(pa.array(inside[code])), impressions.filter(pa.array(shown))


def _write_val(requests: pa.Table, rows: pa.Table, recipe: Recipe) -> tuple[OfFeatures, dict[str, int]]:
    ts = requests["ts"].to_numpy()
    inside = (ts >= recipe.val_from) & (ts < recipe.test_from) & validation_requests(requests, recipe)
    whole = requests.filter(pa.array(inside))
    val, features = attach_features(undrawn(whole), rows, recipe.schema)
    features[VARIES] = varying(whole, rows, recipe.schema)
    found: OfFeatures = {
        "features": features, "elements": elements(val, recipe.schema), "requests": val.num_rows
    }  # fmt: skip
    return found, write_part(val, recipe.folder / "val")


def validation_requests(table: pa.Table, recipe: Recipe) -> np.ndarray:
    """bool [N]: whether a row is of the requests that `val_key` chose, if it is of their days."""
    return number_of(table["request_id"], recipe.seed) <= recipe.val_key


def _items(requests: pa.Table, inside: np.ndarray) -> int:
    return int(np.diff(offsets_of(requests["item_id"]))[inside].sum())


def write_part(table: pa.Table, folder: Path) -> dict[str, int]:
    """Writes request rows under a name made of their ids, so that a repeated task replaces its file: `{file: rows}`."""
    if not table.num_rows:
        return {}
    name = hashlib.sha256(np.sort(hash_ids(table["request_id"])).tobytes()).hexdigest()[:16]
    return {f"{folder.name}/{name}.parquet": write_tables([table], folder / f"{name}.parquet")}
