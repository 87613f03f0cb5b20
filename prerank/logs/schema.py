"""`schema.json`: what each feature of the logs is, where it comes from and what it costs to fetch."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeGuard, get_args

from prerank.core.errors import InputError, nearest

Side = Literal["user", "query", "item", "context", "cross"]
Kind = Literal["dense", "id", "ids", "embedding"]

REQUEST_SIDES = ("user", "query", "context")

# Columns of the logs and of the samples: no feature may take their names.
RESERVED = frozenset(
    (
        *("request_id", "item_id", "ts", "fine_position", "fine_score", "shown_position", "clicked", "converted"),
        *("click_probability", "position", "exposed", "stage", "drawn", "bin", "pair_hi", "pair_lo", "pair_strategy"),
        *("teacher_score", "teacher_repr"),
    )
)


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

    @property
    def of_request(self) -> bool:
        return self.side in REQUEST_SIDES

    @property
    def width(self) -> int:
        """Number of inputs that the feature gives to a network."""
        return self.dim if self.kind in ("id", "ids") else self.size


@dataclass(frozen=True)
class Schema:
    features: tuple[Feature, ...]
    fetch: dict[str, dict[str, float]]
    """Per source `{"per_feature_us": β}`: what each fetched feature adds, microseconds."""
    hand_picked: tuple[str, ...] = ()
    """The student's features where none are named; empty: all that are not `teacher_only`."""

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

    def to_json(self) -> dict[str, object]:
        out: dict[str, object] = {"features": [asdict(f) for f in self.features], "fetch": self.fetch}
        return out | {"hand_picked": list(self.hand_picked)} if self.hand_picked else out

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
    try:
        raw = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    return parse_schema(raw, str(path))


def parse_schema(raw: object, where: str) -> Schema:
    if not isinstance(raw, dict):
        raise InputError(f"{where}: expected an object with 'features' and 'fetch'")
    _refuse_unknown(raw, ("features", "fetch", "hand_picked"), where)
    fetch = raw.get("fetch")
    if not isinstance(fetch, dict) or not fetch:
        raise InputError(f"{where}: 'fetch' must give {{source: {{'per_feature_us': microseconds}}}}")
    for source, cost in fetch.items():
        if not isinstance(cost, dict) or set(cost) != {"per_feature_us"} or not _is_number(cost["per_feature_us"]):
            raise InputError(
                f"{where}: fetch source {source!r} must be {{'per_feature_us': microseconds}}, got {cost!r}"
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
    schema = Schema(features, fetch, tuple(raw.get("hand_picked", ())))
    schema.select(schema.hand_picked, where=f"{where}: hand_picked")
    return schema


def _parse_feature(entry: object, index: int, fetch: Collection[str], where: str) -> Feature:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InputError(f"{where}: features[{index}] must be an object with a 'name'")
    where = f"{where}: feature {entry['name']!r}"
    _refuse_unknown(entry, tuple(f.name for f in fields(Feature)), where)
    for key in ("side", "kind", "source", "fetch_us"):
        if key not in entry:
            raise InputError(f"{where}: {key!r} is missing")
    for key, allowed in (("side", get_args(Side)), ("kind", get_args(Kind)), ("source", tuple(fetch))):
        if entry[key] not in allowed:
            raise InputError(f"{where}: {key} must be one of {', '.join(allowed)}, got {entry[key]!r}")
    if entry["name"] in RESERVED:
        raise InputError(f"{where}: the name is a column of the logs or samples; rename the feature")
    if not _is_number(entry["fetch_us"]) or entry["fetch_us"] < 0:
        raise InputError(f"{where}: fetch_us must be microseconds >= 0, got {entry['fetch_us']!r}")
    if not isinstance(entry.get("teacher_only", False), bool):
        raise InputError(f"{where}: teacher_only must be true or false")
    for key, least in (("size", 1), ("dim", 0)):
        if key in entry and (isinstance(entry[key], bool) or not isinstance(entry[key], int) or entry[key] < least):
            raise InputError(f"{where}: {key} must be a whole number >= {least}, got {entry[key]!r}")
    feature = Feature(**entry)
    if feature.kind in ("id", "ids") and (feature.dim < 1 or "size" not in entry):
        raise InputError(
            f"{where}: kind {feature.kind!r} needs 'size' (the vocabulary) and 'dim' (the embedding's width)"
        )
    if feature.kind in ("dense", "embedding") and feature.dim:
        raise InputError(f"{where}: 'dim' is for ids; kind {feature.kind!r} has a 'size'")
    return feature


def _refuse_unknown(entry: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{nearest(key, known)}")


def _is_number(value: object) -> TypeGuard[float]:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and value == value
        and abs(value) != float("inf")
    )
