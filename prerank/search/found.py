"""What a search found, and the architectures that follow from it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, cast

from prerank.core.outputs import write_json
from prerank.logs.schema import Schema
from prerank.models import checkpoint
from prerank.models.arch import Arch
from prerank.search.confirmed import Confirmed, SavedConfirmed
from prerank.search.derive import derive
from prerank.search.method import SearchEpoch
from prerank.search.spec import FoundArch, Spec, predicted


class Last(TypedDict):
    """The last entry of a finished search's history, after its epochs."""

    values: list[float]
    log_p: list[list[float]]


@dataclass(frozen=True)
class Found:
    spec: Spec
    history: list[SearchEpoch]
    values: Sequence[float]
    """What each of the arm's features is worth to `derive`."""
    log_p: Sequence[Sequence[float]]
    """Of the candidate widths, by layer."""

    def derive(self, schema: Schema, budget_us: float | None = None) -> Arch:
        """The best architecture that fits the budget, by default that of the search."""
        return derive(
            features=self.spec.features(schema),
            fetch=schema.fetch,
            table=self.spec.table,
            widths=self.spec.candidates,
            budget_us=self.spec.budget_us if budget_us is None else budget_us,
            value_M=self.values,
            log_p_SC=self.log_p,
        )

    def with_fixed_widths(self) -> "Found":
        """With the arm's own widths alone to derive from."""
        return replace(self, log_p=self.spec.fixed_log_p())

    def write(self, folder: Path, schema: Schema) -> Arch:
        """Writes `arch.json`, with what it is predicted to cost, and `history.json`; returns the former."""
        arch = self.derive(schema)
        arch.save(folder / "arch.json", **predicted(self.spec, arch, schema))
        write_json(folder / "history.json", self.history)
        return arch

    def to_json(self, key: str) -> "Saved":
        """`key`: what it followed from."""
        return {
            "key": key,
            "values": dict(zip(self.spec.arm.features, self.values, strict=True)),
            "log_p": [[None if p == -math.inf else p for p in slot] for slot in self.log_p],
            "history": self.history,
        }


class Saved(TypedDict):
    """A search that is done, as a file of JSON."""

    key: str
    values: dict[str, float]
    """By feature."""
    log_p: list[list[float | None]]
    """None for -inf, which JSON does not have."""
    history: list[SearchEpoch]


def found_from(spec: Spec, saved: Saved | SavedConfirmed) -> Found | Confirmed:
    if "confirmed" in saved:
        return Confirmed(spec, saved["confirmed"])
    log_p = [[-math.inf if p is None else p for p in slot] for slot in saved["log_p"]]
    return Found(spec, saved["history"], [saved["values"][name] for name in spec.arm.features], log_p)


def read_found_arch(folder: Path) -> FoundArch:
    """The arch.json of a search that is done."""
    return json.loads((folder / "arch.json").read_text())


def found_in(folder: Path, spec: Spec) -> Found:
    """What a finished search left in a worker's folder or in its last checkpoint."""
    state, _ = checkpoint.load_best(folder, spec.arm.name)
    *history, end = state.history
    last = cast(Last, end)
    return Found(spec, cast(list[SearchEpoch], history), last["values"], last["log_p"])
