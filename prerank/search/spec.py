"""One search: what it is told, and what is said of the architecture that it comes to."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from prerank.core.config import names, widths
from prerank.core.errors import InputError
from prerank.latency.formula import latency_us, times_us
from prerank.latency.options import Latency
from prerank.latency.table import Table
from prerank.logs.schema import Feature, Schema
from prerank.models.arch import Arch
from prerank.models.options import Arm
from prerank.search.options import Search


class Predicted(TypedDict):
    """What arch.json says beside features and widths: predicted times of a request, and by which table."""

    fetch_us: float
    inference_us: float
    latency_us: float
    budget_us: float
    candidates: int
    threads: int
    latency_table: str


class FoundArch(Predicted):
    """An arch.json that a search wrote."""

    features: list[str]
    widths: list[int]


@dataclass(frozen=True)
class Spec:
    """One search: `arm` has the features to choose from, the widths to fall back on, the losses and the seed."""

    arm: Arm
    search: Search
    latency: Latency
    table: Table
    budget_us: float

    @property
    def candidates(self) -> tuple[int, ...]:
        """The widths that a layer may be derived with; a rival has the arm's own alone."""
        return widths(self.search.widths) if self.searches_widths else tuple(sorted(set(self.arm.widths)))

    @property
    def budgets_us(self) -> list[float]:
        """Its own, then the others of the front."""
        return [self.budget_us, *(float(share) * self.budget_us for share in names(self.search.front))]

    @property
    def searches_widths(self) -> bool:
        return self.confirms or self.search.method == "autofas"

    @property
    def confirms(self) -> bool:
        """Whether short trainings choose among several sets."""
        return self.search.method == "propose" or self.search.method.endswith("_free")

    def fixed_log_p(self) -> list[list[float]]:
        """log p [slot][candidate] that allows the arm's own widths alone."""
        return [[0.0 if c == width else -math.inf for c in self.candidates] for width in self.arm.widths]

    def features(self, schema: Schema) -> tuple[Feature, ...]:
        """To choose from, in the schema's order."""
        return schema.select(self.arm.features, where=self.arm.name)


def hand_picked_us(schema: Schema, table: Table, chosen: tuple[int, ...], *, samples: Path) -> float:
    """What the schema's hand_picked features cost with the chosen widths; raises InputError where it has none."""
    if not schema.hand_picked:
        raise InputError(f"{samples}/schema.json: no hand_picked to take the budget from; give --budget-us")
    return latency_us(table, schema.select(schema.hand_picked, where="hand_picked"), schema.fetch, chosen)


def predicted(spec: Spec, arch: Arch, schema: Schema) -> Predicted:
    """What arch.json says beside features and widths."""
    times = times_us(spec.table, schema.select(arch.features, where="arch.json"), schema.fetch, arch.widths)
    return {
        "fetch_us": times["fetch_us"],
        "inference_us": times["inference_us"],
        "latency_us": times["latency_us"],
        "budget_us": spec.budget_us,
        "candidates": spec.table.candidates,
        "threads": spec.table.threads,
        "latency_table": spec.table.fingerprint,
    }
