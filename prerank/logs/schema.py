"""`schema.json`: what each feature of the logs is, where it comes from and what it costs to fetch."""

import json
import sys
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeGuard, cast, get_args

from prerank.core.documents import load_json
from prerank.core.errors import InputError, nearest

Side = Literal["user", "query", "item", "context", "cross"]
Kind = Literal["dense", "id", "ids", "embedding"]

REQUEST_SIDES = ("user", "query", "context")

RESERVED = frozenset(
    (
        *("request_id", "item_id", "ts", "fine_position", "fine_score", "shown_position", "clicked", "converted"),
        *("click_probability", "position", "exposed", "stage", "drawn", "bin", "pair_hi", "pair_lo", "pair_strategy"),
        *("teacher_score", "teacher_repr", "row", "score"),
    )
)
"""Columns of the logs and of the samples, on their way and on disk, and the served network's output: no feature may
take their names. All else that we name ourselves beside features begins with a slash, as no feature may."""

CLICK = "click"
"""The objective that all logs have, of the column `clicked`; further ones are named after their `labels`."""

MOST_IDS = 2**31 - 2
"""The largest `size`: samples hold ids as int32, and one row more is for the unknown."""

MOST_FLOAT32 = (2 - 2**-23) * 2.0**127
MOST_FLOAT64 = sys.float_info.max
"""JSON has integers of any size, which no float may hold."""

UNSEEN = {
    "Cc": "control character",
    "Cs": "half of a surrogate pair",
    "Zl": "line separator",
    "Zp": "paragraph separator",
}
"""Kinds of characters that no name may hold: they would break lines, or cannot be written as UTF-8."""


@dataclass(frozen=True)
class Feature:
    name: str
    side: Side
    """Features of the sides user, query and context have one value a request; item and cross one a candidate."""
    kind: Kind
    source: str
    """The fetch group, a key of `fetch`: sources are fetched in parallel, so the slowest one counts."""
    fetch_us: float
    """Time to fetch this feature for the candidates of one request, microseconds."""
    size: int = 1
    """Length of a dense or embedding vector; for ids the vocabulary: values 0..size-1, one more row for the unknown."""
    dim: int = 0
    """Width of the learned embedding of an id."""
    teacher_only: bool = False
    """Too dear or not to be had when pre-ranking serves."""
    missing: tuple[float | int | str, ...] = ()
    """Values of the logs that stand for a missing one, such as -999. Numbers are compared as float32, element by
    element, and become NaN; ids, integers by their 64 bits and texts, become the unknown."""
    hash: bool = False
    """Integer ids of any size, hashed to 0..size-1 as text is; without it those outside 0..size-1 are the unknown."""

    @property
    def of_request(self) -> bool:
        return self.side in REQUEST_SIDES

    @property
    def width(self) -> int:
        """Number of inputs that the feature gives to a network."""
        return self.dim if self.kind in ("id", "ids") else self.size

    def to_json(self) -> dict[str, object]:
        """As `schema.json` has it; what says nothing is left out, so that the fingerprints of older schemas stay."""
        out = asdict(self)
        out["missing"] = list(self.missing)
        return {key: value for key, value in out.items() if value or key not in ("missing", "hash")}


@dataclass(frozen=True)
class Schema:
    features: tuple[Feature, ...]
    fetch: dict[str, dict[str, float]]
    """Per source `{"per_feature_us": β}`: what each fetched feature adds, microseconds."""
    hand_picked: tuple[str, ...] = ()
    """The student's features where none are named; empty: all that are not `teacher_only`."""
    labels: tuple[str, ...] = ()
    """Columns of the impressions, true or false, that are objectives beside the click: orders, likes, long views."""

    @cached_property
    def by_name(self) -> dict[str, Feature]:
        return {feature.name: feature for feature in self.features}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def student_features(self) -> tuple[str, ...]:
        return self.hand_picked or tuple(f.name for f in self.features if not f.teacher_only)

    def select(self, names: tuple[str, ...], *, where: str) -> tuple[Feature, ...]:
        """The named features in the order of the schema, so that an order of naming changes nothing.

        Raises InputError for an unknown name, with the nearest known one; `where` says who named it.
        """
        for name in names:
            if name not in self.by_name:
                raise InputError(f"{where}: unknown feature {name!r}{nearest(name, self.names)}")
        return tuple(feature for feature in self.features if feature.name in set(names))

    @property
    def objectives(self) -> tuple[str, ...]:
        """What a model can have a head for."""
        return (CLICK, *self.labels)

    def to_json(self) -> dict[str, object]:
        out: dict[str, object] = {"features": [f.to_json() for f in self.features], "fetch": self.fetch}
        named = {"hand_picked": list(self.hand_picked), "labels": list(self.labels)}
        return out | {key: value for key, value in named.items() if value}

    def save(self, folder: Path) -> None:
        (folder / "schema.json").write_text(json.dumps(self.to_json(), indent=1) + "\n")


def load_schema(folder: Path) -> Schema:
    """Reads and checks `schema.json` of a folder of logs, samples or a checkpoint.

    Raises InputError naming the file, the feature and the key at fault.
    """
    path = folder / "schema.json"
    if not path.is_file():
        raise InputError(
            f"{path}: missing; it declares the features of the logs (see the README, 'Bring your own logs')"
        )
    return parse_schema(load_json(path), str(path))


def parse_schema(raw: object, where: str) -> Schema:
    if not isinstance(raw, dict):
        raise InputError(f"{where}: expected an object with 'features' and 'fetch'")
    _refuse_unknown(raw, ("features", "fetch", "hand_picked", "labels"), where)
    fetch = raw.get("fetch")
    if not isinstance(fetch, dict) or not fetch:
        raise InputError(f"{where}: 'fetch' must give {{source: {{'per_feature_us': microseconds}}}}")
    for source, cost in fetch.items():
        if not isinstance(cost, dict) or set(cost) != {"per_feature_us"} or not _is_time(cost["per_feature_us"]):
            raise InputError(
                f"{where}: fetch source {source!r} must be {{'per_feature_us': microseconds >= 0}}, got {cost!r:.80}"
            )
    if not isinstance(raw.get("features"), list) or not raw["features"]:
        raise InputError(f"{where}: 'features' must be a list with at least one feature")
    features = tuple(_parse_feature(entry, index, fetch, where) for index, entry in enumerate(raw["features"]))
    names = [feature.name for feature in features]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: feature {name!r} is declared {names.count(name)} times")
    if all(feature.of_request for feature in features):
        raise InputError(f"{where}: no feature of the side item or cross: nothing tells one candidate from another")
    hand_picked, labels = _names(raw, "hand_picked", "features", where), _names(raw, "labels", "columns", where)
    for name in labels:
        _check_label(name, names, where)
    schema = Schema(features, fetch, hand_picked, labels)
    schema.select(schema.hand_picked, where=f"{where}: hand_picked")
    return schema


def _names(raw: Mapping[str, object], key: str, what: str, where: str) -> tuple[str, ...]:
    names = raw.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: {key!r} must be a list of names of {what}, got {names!r}")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: {key} names {name!r} {names.count(name)} times; keep one of them")
    return tuple(names)


def _check_label(name: str, features: Collection[str], where: str) -> None:
    """`converted` has always been a column of the impressions, and may be a label; click is the first objective."""
    where = f"{where}: label {name!r}"
    if name in (CLICK, "clicked"):
        raise InputError(f"{where}: clicks are the first objective of any logs; leave it out of 'labels'")
    if name in features:
        raise InputError(f"{where}: a feature has this name; rename one of the two, in the logs and here")
    if CLICK in features:
        raise InputError(
            f"{where}: a feature is named {CLICK!r}, as the network's output of the clicks is where there are labels; "
            "rename the feature, in the logs and here"
        )
    for mark in ("=", "*"):
        if mark in name:
            raise InputError(f"{where}: a label has no {mark}, which --fusion reads; rename it, in the logs and here")
    if name != "converted":
        _check_name(name, where, "label")


def _parse_feature(entry: object, index: int, fetch: Collection[str], where: str) -> Feature:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InputError(f"{where}: features[{index}] must be an object with a 'name'")
    where = f"{where}: feature {entry['name']!r}"
    _check_name(entry["name"], where)
    _refuse_unknown(entry, tuple(f.name for f in fields(Feature)), where)
    for key in ("side", "kind", "source", "fetch_us"):
        if key not in entry:
            raise InputError(f"{where}: {key!r} is missing")
    for key, allowed in (("side", get_args(Side)), ("kind", get_args(Kind)), ("source", tuple(fetch))):
        if entry[key] not in allowed:
            raise InputError(f"{where}: {key} must be one of {', '.join(allowed)}, got {entry[key]!r}")
    if not _is_time(entry["fetch_us"]):
        raise InputError(f"{where}: fetch_us must be microseconds >= 0, got {entry['fetch_us']!r:.80}")
    for key in ("teacher_only", "hash"):
        if not isinstance(entry.get(key, False), bool):
            raise InputError(f"{where}: {key} must be true or false")
    for key, least in (("size", 1), ("dim", 0)):
        if key in entry and not _is_whole(entry[key], least):
            raise InputError(f"{where}: {key} must be a whole number >= {least}, got {entry[key]!r}")
    feature = Feature(**{**entry, "missing": tuple(_missing(entry, where))})
    if feature.size > MOST_IDS:
        raise InputError(
            f"{where}: size must be at most 2^31 - 2 = {MOST_IDS}, got {feature.size}; for ids of a larger space set "
            '"hash": true with as many rows as the model is to have'
        )
    if feature.kind in ("id", "ids") and (feature.dim < 1 or "size" not in entry):
        raise InputError(
            f"{where}: kind {feature.kind!r} needs 'size' (the vocabulary) and 'dim' (the embedding's width)"
        )
    for key in ("dim", "hash"):
        if feature.kind in ("dense", "embedding") and getattr(feature, key):
            raise InputError(f"{where}: {key!r} is for ids; kind {feature.kind!r} has a 'size'")
    return feature


def _check_name(name: str, where: str, what: str = "feature") -> None:
    """Any name goes through to the served network, but for those that a list, a line or the samples cannot hold."""
    faults = {
        "the name is empty": not name,
        "a name has no comma, which parts the names of --features": "," in name,
        "a name begins and ends with no blank": name != name.strip(),
        "a name does not begin with a slash": name.startswith("/"),
        "the name is a column of the logs or samples, or the served network's output": name in RESERVED,
    }
    faults |= {f"a name has no {UNSEEN[kind]}": True for kind in map(unicodedata.category, name) if kind in UNSEEN}
    for fault, found in faults.items():
        if found:
            raise InputError(f"{where}: {fault}; rename the {what}, in the logs and here")


def _missing(entry: Mapping[str, object], where: str) -> list[float | int | str]:
    """`missing` of a feature, checked."""
    values = entry.get("missing", [])
    of_ids = entry["kind"] in ("id", "ids")
    fits, words = _is_float32, "numbers that float32 holds"
    if of_ids:
        text = isinstance(values, list) and isinstance((values or [0])[0], str) and not entry.get("hash")
        fits = _is_text if text else _is_key
        words = "integers of 64 bits" + ("" if entry.get("hash") else ", or of texts")
    if not isinstance(values, list) or not all(map(fits, values)):
        raise InputError(f"{where}: missing must be a list of {words}, such as [-999], got {values!r}")
    return cast("list[float | int | str]", values)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_key(value: object) -> bool:
    return _is_whole(value, -(2**63)) and value < 2**64


def _is_float32(value: object) -> bool:
    return _is_number(value) and abs(value) <= MOST_FLOAT32


def _refuse_unknown(entry: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{nearest(key, known)}")


def _is_whole(value: object, least: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MOST_FLOAT64


def _is_time(value: object) -> bool:
    return _is_number(value) and 0 <= value <= MOST_FLOAT32
