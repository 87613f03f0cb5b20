"""A space by its name: what each of a trial's keys is drawn from."""

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

from prerank.core.errors import InputError, nearest

if TYPE_CHECKING:
    from prerank.core.cluster.private import Domain

Space: TypeAlias = "Mapping[str, Domain]"
"""By dotted key."""
SEARCHING = ("search.", "latency.")


def named_space(name: str, package: ModuleType, keys: list[str]) -> "dict[str, Domain]":
    """`SPACE` of a module of the package; keys: what a trial can be told.

    Raises InputError where there is no such module, or where it has another key.
    """
    there = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    if name not in there:
        found = f"{nearest(name, there)}; there are {', '.join(there)}"
        raise InputError(f"--space {name}: no such file in {package.__name__}{found}")
    space = importlib.import_module(f"{package.__name__}.{name}").SPACE
    for key in space:
        if key not in keys:
            raise InputError(f"{package.__name__}/{name}.py: unknown key {key!r}{nearest(key, keys)}")
    return dict(space)


def searches(space: Space) -> bool:
    """Whether a trial of the space is a search and the training of what it finds, rather than a training alone."""
    return any(key.startswith(SEARCHING) for key in space)
