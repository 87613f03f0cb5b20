"""Configuration: frozen dataclasses, named by dotted keys on the command line, in YAML, in sweeps and in MLflow."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args, get_type_hints

from prerank.core.errors import InputError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


LARGEST = 2**31 - 1
"""Of what numbers and sizes arrays are indexed with."""


@dataclass(frozen=True)
class Within:
    """Beside the type of a number that is configured, the values that make sense: `Annotated[int, Within(1)]`."""

    least: float = -math.inf
    most: float = math.inf
    """Finite ones alone where this is infinite."""
    above: bool = False
    """`least` itself makes no sense."""

    def fault(self, value: object) -> str:
        """What was expected instead of the number; empty where it makes sense, or is none."""
        if not isinstance(value, int | float):
            return ""
        if (self.least < value if self.above else self.least <= value) and value <= self.most and value < math.inf:
            return ""
        if self.most < LARGEST:
            return f"{f'above {self.least}, at most' if self.above else f'{self.least} to'} {self.most}"
        if value > self.most:
            return f"{self.most} at most"
        if self.least == -math.inf:
            return "a finite number"
        return f"a number above {self.least}" if self.above else f"{self.least} or more"


@dataclass(frozen=True)
class Numbers:
    """Beside the type of a text of numbers with commas, the values that make sense."""

    each: Within
    whole: bool = True

    def fault(self, value: object) -> str:
        """What was expected instead of the text; empty where it makes sense, or is none."""
        if not isinstance(value, str):
            return ""
        said = f"{'whole ' * self.whole}numbers with commas, such as {'64,32' if self.whole else '0.5,1'}"
        for part in names(value):
            try:
                fault = self.each.fault(int(part) if self.whole else float(part))
            except ValueError:
                return said
            if fault:
                return f"{said}, each {fault}"
        return ""


Positive = Annotated[int, Within(1, LARGEST)]
Count = Annotated[int, Within(0, LARGEST)]
Weight = Annotated[float, Within(0)]
Above0 = Annotated[float, Within(0, above=True)]
Share = Annotated[float, Within(0, 1)]
Seed = Annotated[int, Within(0, 2**63 - 1)]
"""What torch and NumPy take."""
Widths = Annotated[str, Numbers(Within(0, 1 << 20))]


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
    from pydantic import TypeAdapter, ValidationError  # late: training by itself needs none of it

    annotation = get_type_hints(type(config))[head]
    try:
        return replace(config, **{head: TypeAdapter(annotation).validate_python(value)})
    except ValidationError as error:
        raise InputError(f"{where}: {error.errors()[0]['msg']}, got {value!r}") from error


def check(config: "DataclassInstance", where: str = "") -> None:
    """Raises InputError for the first number that its `Within` or `Numbers` does not let in.

    `where`: what stands before the key in the line, `--` for a flag.
    """
    for key, value, annotation in _annotated(config, ""):
        for limit in get_args(annotation):
            fault = limit.fault(value) if isinstance(limit, Within | Numbers) else ""
            if fault:
                said = key.replace("_", "-") if where == "--" else key
                raise InputError(f"{where}{said} {value}: expected {fault}")


def _annotated(config: "DataclassInstance", prefix: str) -> Iterator[tuple[str, object, object]]:
    """Dotted key, value and type of each leaf."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value: object = getattr(config, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            yield from _annotated(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value, hints[field.name]


def widths(value: str) -> tuple[int, ...]:
    """`"64,32"` as widths of hidden layers; raises InputError for what is no whole number."""
    try:
        return tuple(int(width) for width in names(value))
    except ValueError as error:
        raise InputError(f"widths {value!r}: expected whole numbers with commas, such as 64,32") from error


def names(value: str) -> tuple[str, ...]:
    """`"a,b,c"` as a tuple: lists are written with commas on the command line."""
    return tuple(part.strip() for part in value.split(",") if part.strip())
