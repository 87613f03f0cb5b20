"""Configuration: frozen dataclasses, named by dotted keys on the command line, in YAML, in sweeps and in MLflow."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from prerank.core.errors import InputError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def flatten(config: "DataclassInstance", prefix: str = "") -> dict[str, object]:
    """`{"distill.temperature": 0.07, ...}`: the leaves of nested dataclasses by their dotted keys."""
    out: dict[str, object] = {}
    for field in fields(config):
        value: object = getattr(config, field.name)
        key = f"{prefix}{field.name}"
        out |= flatten(value, f"{key}.") if is_dataclass(value) and not isinstance(value, type) else {key: value}
    return out


def plain(config: "DataclassInstance") -> dict[str, object]:
    """The dotted keys with values that JSON, YAML and MLflow hold."""
    return {
        k: str(v) if isinstance(v, PurePath) else list(v) if isinstance(v, tuple) else v
        for k, v in flatten(config).items()
    }


def apply(config: T, changes: Mapping[str, object], *, where: str) -> T:
    """A copy of `config` with dotted keys replaced, each checked against its type.

    Raises InputError naming the key, and the nearest known one where it is unknown.
    """
    known = flatten(config)
    for key, value in changes.items():
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{nearest(key, list(known))}")
        config = _replace(config, key.split("."), value, f"{where}: {key}")
    return config


def _replace(config: T, path: list[str], value: object, where: str) -> T:
    head, *rest = path
    if rest:
        return replace(config, **{head: _replace(getattr(config, head), rest, value, where)})
    annotation = get_type_hints(type(config))[head]
    try:
        return replace(config, **{head: TypeAdapter(annotation).validate_python(value)})
    except ValidationError as error:
        raise InputError(f"{where}: {error.errors()[0]['msg']}, got {value!r}") from error


def load_yaml(path: Path) -> dict[str, object]:
    """The dotted keys of a YAML file that may be nested, dotted, or both."""
    try:
        raw = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"--config {path}: {error}") from error
    if not isinstance(raw, dict):
        raise InputError(f"--config {path}: expected keys and values, got {type(raw).__name__}")
    return _dotted(raw)


def _dotted(raw: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    out: dict[str, object] = {}
    for key, value in raw.items():
        out |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def widths(value: str) -> tuple[int, ...]:
    """`"64,32"` as widths of hidden layers; raises InputError for what is no whole number."""
    try:
        return tuple(int(width) for width in names(value))
    except ValueError as error:
        raise InputError(f"widths {value!r}: expected whole numbers with commas, such as 64,32") from error


def names(value: str) -> tuple[str, ...]:
    """`"a,b,c"` as a tuple: lists are written with commas on the command line."""
    return tuple(part.strip() for part in value.split(",") if part.strip())
