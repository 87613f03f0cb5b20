"""Configuration: frozen dataclasses, named by dotted keys on the command line, in YAML, in sweeps and in MLflow."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from prerank.core.errors import InputError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True)
class Within:
    """Beside the type of a number that is configured, the values that make sense: `Annotated[int, Within(1)]`."""

    least: float = -math.inf
    most: float = math.inf
    """Finite ones alone where this is infinite."""
    above: bool = False
    """`least` itself makes no sense."""

    def lets_in(self, value: float) -> bool:
        inside = self.least < value if self.above else self.least <= value
        return inside and value <= self.most and value < math.inf  # NaN is not

    def __str__(self) -> str:
        if self.most < math.inf:
            return f"above {self.least}, at most {self.most}" if self.above else f"{self.least} to {self.most}"
        if self.least == -math.inf:
            return "a finite number"
        return f"above {self.least}" if self.above else f"{self.least} or more"


Positive = Annotated[int, Within(1)]
Count = Annotated[int, Within(0)]
Share = Annotated[float, Within(0, 1)]
Seed = Annotated[int, Within(0, 2**63 - 1)]
"""What torch and NumPy take."""


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
    sections = {key.rpartition(".")[0] for key in known} - {""}
    for key, value in changes.items():
        if key in sections and value is None:
            continue  # a section with nothing in it
        if key in sections:
            raise InputError(f"{where}: {key} is a section, got {value!r}; write its keys below it, or {key}.KEY")
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


def check(config: "DataclassInstance", where: str = "") -> None:
    """Raises InputError for the first number that is outside of what its `Within` lets in.

    `where`: what stands before the key in the line, `--` for a flag.
    """
    for key, value, within in _limited(config, ""):
        if not within.lets_in(value):
            raise InputError(f"{where}{key.replace('_', '-') if where == '--' else key} {value}: expected {within}")


def _limited(config: "DataclassInstance", prefix: str) -> Iterator[tuple[str, float, "Within"]]:
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value: object = getattr(config, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            yield from _limited(value, f"{prefix}{field.name}.")
        elif isinstance(value, int | float):
            for within in get_args(hints[field.name]):
                if isinstance(within, Within):
                    yield f"{prefix}{field.name}", value, within


def widths(value: str) -> tuple[int, ...]:
    """`"64,32"` as widths of hidden layers; raises InputError for what is no whole number."""
    try:
        return tuple(int(width) for width in names(value))
    except ValueError as error:
        raise InputError(f"widths {value!r}: expected whole numbers with commas, such as 64,32") from error


def names(value: str) -> tuple[str, ...]:
    """`"a,b,c"` as a tuple: lists are written with commas on the command line."""
    return tuple(part.strip() for part in value.split(",") if part.strip())
