"""A contest at equal latency budgets: methods x budgets x seeds, each searched, derived, and trained like the others.

The budgets are shares of what the reference costs: the schema's hand_picked features with the base widths. A method
that values features once has one search for all budgets; AutoFAS searches within each.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TypedDict, cast

from prerank.core.config import names, widths
from prerank.core.errors import InputError
from prerank.core.outputs import fingerprint, write_json
from prerank.core.storage import rmtree
from prerank.evaluation.summed import Evaluation, Facts
from prerank.latency.formula import times_us
from prerank.logs.schema import Schema
from prerank.models.arch import Arch
from prerank.models.options import Arm
from prerank.search.confirmed import Confirmed, SavedConfirmed
from prerank.search.equal_budget import BestRival, Entry, Row, best_rivals, rows_of
from prerank.search.found import Found, Saved, found_from
from prerank.search.group import check_spec, key_of, search_all
from prerank.search.options import MethodName, Search
from prerank.search.spec import Spec
from prerank.training.worker import Job

AUTOFAS = ("autofas_fixed_widths", "autofas")
"""Those that search within the budget: one search a budget, for both; the former derives with the base widths alone."""
OURS = "propose"
"""One search for all budgets."""
FIXED = ("hand_picked", "random", "gradient", "permutation", "squeeze_excite", "fscd", "shuffle_gate")
"""Rivals of fixed widths: one search for all budgets."""
FREE = (*(f"{method}_free" for method in FIXED), "cegb_free", "autofas_free")
"""Rivals with the freedom of ours: widths, a search a budget, and as many short trainings."""
METHODS = (*FIXED, *FREE, *AUTOFAS, OURS)
ALL = "all_features"
"""Beside them: the student of all features, which no budget binds."""


class Reference(TypedDict):
    latency_us: float
    widths: list[int]
    table: str
    """Fingerprint of the latency table."""


class Ground(Facts):
    path: str


class Results(TypedDict):
    """What results.json says."""

    key: str
    """What it follows from."""
    logs: Ground
    """What was evaluated on."""
    seeds: int
    reference: Reference
    interval: str
    rows: list[Row]
    best_rivals: list[BestRival]
    mlflow: str


def methods_of(said: str) -> tuple[str, ...]:
    """The methods in the order of `METHODS`; raises InputError where there is one that is not."""
    methods = tuple(method for method in METHODS if method in names(said))
    if set(names(said)) - set(METHODS) or not methods:
        raise InputError(f"--methods {said}: expected some of {', '.join(METHODS)}")
    return methods


def factors_of(said: str, seeds: int) -> tuple[float, ...]:
    """The budgets as shares of the reference's, ascending; raises InputError where they make no sense."""
    try:
        factors = tuple(sorted({float(factor) for factor in names(said)}))
    except ValueError as error:
        raise InputError(f"--budgets {said}: expected numbers with commas, such as 0.5,1,2") from error
    if not factors or not all(0 < factor < math.inf for factor in factors) or seeds < 1:
        raise InputError(f"--budgets {said} --seeds {seeds}: both must be above 0")
    return factors


def check_widths(said: str, search: Search) -> None:
    """Raises InputError where the base widths are not among those that AutoFAS chooses from."""
    base = widths(said)
    if set(base) - set(widths(search.widths)) or len(base) != search.layers:
        raise InputError(
            f"--widths {said}: to fix them, AutoFAS must have them to choose from: expected "
            f"{search.layers} (search.layers) of search.widths {search.widths}"
        )


@dataclass(frozen=True)
class Contest:
    base: Spec
    """The reference: its budget is what the hand_picked features cost with the base widths, which are its arm's."""
    methods: tuple[str, ...]
    factors: tuple[float, ...]
    seeds: int

    def check(self, samples: Path, schema: Schema) -> None:
        """Raises InputError where nothing fits a budget, or the samples lack something."""
        for factor in self.factors:
            check_spec(replace(self.base, budget_us=factor * self.base.budget_us), samples, schema)

    def specs(self) -> dict[str, Spec]:
        """Every search that the methods derive from, by name."""
        specs: dict[str, Spec] = {}
        for seed, method, factor in product(range(self.seeds), self.methods, self.factors):
            name, searched = self._name(method, factor, seed), cast(MethodName, _searched(method))
            specs.setdefault(
                name,
                replace(
                    self.base,
                    arm=replace(self.base.arm, name=name, seed=seed),
                    search=replace(self.base.search, method=searched, front=self._front() if method == OURS else ""),
                    budget_us=self.base.budget_us * (factor if method in (*AUTOFAS, *FREE) else 1.0),
                ),
            )
        return specs

    def entries(self, found: dict[str, Found | Confirmed], schema: Schema) -> list[Entry]:
        """By budget, method and seed the best that fits, and last the student of all features."""
        entries = []
        for factor, method, seed in product(self.factors, self.methods, range(self.seeds)):
            searched, budget_us = found[self._name(method, factor, seed)], factor * self.base.budget_us
            if method == "autofas_fixed_widths" and isinstance(searched, Found):
                searched = searched.with_fixed_widths()
            arch = searched.derive(schema, budget_us)
            entries.append(Entry(method, seed, factor, budget_us, arch, self._times(arch, schema)))
        all_ = Arch(self.base.arm.features, self.base.arm.widths)
        times = self._times(all_, schema)
        return entries + [Entry(ALL, seed, None, None, all_, times) for seed in range(self.seeds)]

    def student(self, entry: Entry) -> Arm:
        """What is trained of an entry; entries that came to the same with one seed share it."""
        arch = entry.arch
        return replace(self.base.arm, name=entry.student, features=arch.features, widths=arch.widths, seed=entry.seed)

    def results(self, entries: list[Entry], measured: Evaluation, *, key: str, logs: Path, mlflow: str) -> Results:
        return {
            "key": key,
            "logs": {"path": str(logs), **measured.facts},
            "seeds": self.seeds,
            "reference": {
                "latency_us": self.base.budget_us,
                "widths": list(self.base.arm.widths),
                "table": self.base.table.fingerprint,
            },
            "interval": "95%, paired by request and seed, of the pigeonhole bootstrap over both (Owen 2007)",
            "rows": rows_of(entries, measured.per_request),
            "best_rivals": best_rivals(entries, measured.per_request, of=self.ours, apart_from=self.no_rivals),
            "mlflow": mlflow,
        }

    @property
    def ours(self) -> str:
        """Which method the rivals are held against: ours, and without it the paper's."""
        return OURS if OURS in self.methods else "autofas"

    @property
    def no_rivals(self) -> tuple[str, ...]:
        """Of the paper's search its other forms."""
        return () if self.ours == OURS else (*AUTOFAS, "autofas_free")

    def _front(self) -> str:
        """The other budgets, as shares of the reference's."""
        return ",".join(f"{factor:g}" for factor in self.factors if factor != 1)

    def _name(self, method: str, factor: float, seed: int) -> str:
        """Of the search that the method derives from."""
        apart = method in (*AUTOFAS, *FREE)
        return f"{_searched(method)}-x{factor:g}-s{seed}" if apart else f"{_searched(method)}-s{seed}"

    def _times(self, arch: Arch, schema: Schema) -> dict[str, float]:
        features = schema.select(arch.features, where="arch.json")
        return times_us(self.base.table, features, schema.fetch, arch.widths)


def _searched(method: str) -> str:
    return "autofas" if method in AUTOFAS else method


def searched(specs: dict[str, Spec], job: Job, out: Path) -> dict[str, Found | Confirmed]:
    """What the searches found, by name, from `out/searches` where they are done; those that are not are run."""
    keys = {name: key_of([spec], job.samples, job.k, job.compute.lanes) for name, spec in specs.items()}
    files = {name: out / "searches" / f"{name}.json" for name in specs}
    saved = {name: cast(Saved | SavedConfirmed | None, known(path, keys[name])) for name, path in files.items()}
    missing = [specs[name] for name in specs if saved[name] is None]
    if missing:
        work = out / ".searches.work"
        for name, found in search_all(missing, job.samples, work, compute=job.compute, k=job.k, runs={}).items():
            saved[name] = found.to_json(keys[name])
            write_json(files[name], saved[name])
        rmtree(work)
    return {name: found_from(specs[name], raw) for name, raw in saved.items() if raw}


def known(path: Path, key: str) -> object | None:
    """What the file holds if it follows from the same."""
    raw = json.loads(path.read_text()) if path.is_file() else {}
    return raw if raw.get("key") == key else None


def key_of_results(plan: str, contest: Contest, entries: list[Entry]) -> str:
    """What they follow from: the evaluation's own key, who is held against whom, and who came to which student."""
    came = [[e.factor, e.budget_us, e.method, e.seed, e.student] for e in entries]
    return fingerprint([plan, contest.ours, contest.no_rivals, came])


def metrics_of(results: Results) -> Iterator[dict[str, float | None]]:
    """Of each row what MLflow shows, such as `fscd/x2/recall_at_150`."""
    k = results["logs"]["k"]
    for row in results["rows"]:
        prefix = f"{row['method']}/x{row['factor']:g}" if row["factor"] else row["method"]
        yield {
            f"{prefix}/recall_at_{k}": row["recall"]["mean"],
            f"{prefix}/hit_rate_at_{k}": row["hit_rate"]["mean"],
            f"{prefix}/recall_at_{k}_std": row["recall"]["std"],
            f"{prefix}/fetch_us": row["fetch_us"],
            f"{prefix}/inference_us": row["inference_us"],
            f"{prefix}/latency_us": row["latency_us"],
        }
