"""Compares AutoFAS with other ways to choose a student's features, at equal latency budgets and over several seeds.

    python -m workflows.rivals --logs runs/logs --samples runs/demo/taught --teacher runs/demo/teacher \
        --latency-table runs/latency.json --out runs/rivals

The budgets are shares of what the schema's hand_picked set takes with the base widths. Every student that is derived is
trained from scratch with the same distillation, and all are evaluated together on the test days. The same command goes
on where it was stopped; with more seeds, budgets or methods it adds to what is there.
"""

import json
import math
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import names, plain, widths
from prerank.core.errors import InputError
from prerank.core.outputs import fingerprint, write_json
from prerank.core.storage import rmtree, write_parquet
from prerank.evaluation.evaluate import evaluate, plan
from prerank.latency.options import Latency
from prerank.logs.folder import open_logs
from prerank.logs.schema import Schema, load_schema
from prerank.models.arch import Arch
from prerank.models.options import Arm, Distill, Optim
from prerank.reports.search.rivals import recall_against_latency, terminal_table
from prerank.search.equal_budget import Entry, best_rivals, rows_of
from prerank.search.group import Found, Spec, check_spec, key_of, search_all
from prerank.search.options import Method, Search
from prerank.tracking.runs import Run, run
from prerank.training.group import train_models
from prerank.training.options import Compute
from workflows import search_arch
from workflows.evaluate import warn_of

OURS = ("autofas_fixed_widths", "autofas")
METHODS = ("hand_picked", "random", "gradient", "permutation", "squeeze_excite", "fscd", *OURS)
OF_BUDGET = OURS
"""Those that search within the budget: one search a budget; of the others one for all budgets."""
ALL = "all_features"
"""Beside them: the student of all features, which no budget binds."""


@dataclass(frozen=True)
class Rivals:
    """Compare searched students with rivals of equal latency."""

    logs: Path
    samples: Path
    """A folder made by workflows.teach."""
    teacher: Path
    latency_table: Path
    """The latency.json of workflows.profile_latency."""
    out: Path
    budgets: str = "0.5,1,2"
    """Shares of the latency of the hand_picked set with the base widths, with commas."""
    seeds: int = 5
    """Of search and training both: 0, 1, ..."""
    methods: str = ",".join(METHODS)
    """With commas."""
    widths: str = "64,32"
    """Base widths, which rivals keep."""
    k: int = 150
    """Items that pre-ranking keeps."""
    search: Search = Search()
    latency: Latency = Latency()
    distill: Distill = Distill(score=1.0, contrast=0.5)
    optim: Optim = Optim()
    compute: Compute = Compute()


def main(config: Rivals) -> dict[str, Any]:
    """Returns what stands in results.json."""
    methods, factors = _checked(config)
    logs, out = open_logs(config.logs.resolve()), config.out.resolve()
    samples, schema = config.samples.resolve(), load_schema(config.samples)
    base = search_arch.spec_of(_search_config(config))
    for factor in factors:
        check_spec(replace(base, budget_us=factor * base.budget_us), samples, schema)
    start_ray()
    with run("rivals", out=out, state=out / "run.json", params=plain(config)) as parent:
        found = _searched(_specs(config, base, methods, factors), samples, out, config)
        entries = _derived(base, found, schema, methods, factors, range(config.seeds))
        arms = {out / "students" / e.student: _student(base.arm, e) for e in entries}
        train_models(
            arms,
            samples,
            kind="student",
            work=out / ".students.work",
            compute=config.compute,
            k=config.k,
            parent=parent,
        )
        students = {folder.name: folder for folder in arms}
        planned = plan(logs, str(config.teacher.resolve()), students, k=config.k)
        key = fingerprint([planned.key, [[e.factor, e.budget_us, e.method, e.seed, e.student] for e in entries]])
        results = _known(out / "results.json", key)
        if results is None:
            measured = evaluate(planned)
            write_parquet(measured.per_request, out / "requests.parquet")
            results = {
                "key": key,
                "logs": {"path": str(config.logs), **measured.facts},
                "seeds": config.seeds,
                "reference": {
                    "latency_us": base.budget_us,
                    "widths": list(base.arm.widths),
                    "table": base.table.fingerprint,
                },
                "interval": "95%, paired by request and seed, of the pigeonhole bootstrap over both (Owen 2007)",
                "rows": rows_of(entries, measured.per_request),
                "best_rivals": best_rivals(entries, measured.per_request, of="autofas", apart_from=OURS),
                "mlflow": parent.uri,
            }
            _log(results, out, parent)
            write_json(out / "results.json", results)
    Console(width=max(Console().width, 130)).print(terminal_table(results))
    for best in results["best_rivals"]:
        said = {key: 100 * value for key, value in best["recall"].items()}
        print(
            f"{best['factor']:g}x: autofas against {best['rival']}, the best rival: {said['mean']:+.1f} points "
            f"[{said['lo']:+.1f}, {said['hi']:+.1f}], seeds {said['seeds_lo']:+.1f} to {said['seeds_hi']:+.1f}"
        )
    warn_of(results["logs"])
    print(f"{out}/results.json\nmlflow ui --backend-store-uri {parent.uri}   (run {parent.run_id})")
    return results


def _checked(config: Rivals) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Methods and budgets; raises InputError where they make no sense."""
    methods = tuple(method for method in METHODS if method in names(config.methods))
    unknown = set(names(config.methods)) - set(METHODS)
    if unknown or not methods:
        raise InputError(f"--methods {config.methods}: expected some of {', '.join(METHODS)}")
    try:
        factors = tuple(sorted({float(factor) for factor in names(config.budgets)}))
    except ValueError as error:
        raise InputError(f"--budgets {config.budgets}: expected numbers with commas, such as 0.5,1,2") from error
    if not factors or not all(0 < factor < math.inf for factor in factors) or config.seeds < 1:
        raise InputError(f"--budgets {config.budgets} --seeds {config.seeds}: both must be above 0")
    base, candidates = widths(config.widths), widths(config.search.widths)
    if set(base) - set(candidates) or len(base) != config.search.layers:
        raise InputError(
            f"--widths {config.widths}: to fix them, AutoFAS must have them to choose from: expected "
            f"{config.search.layers} (search.layers) of search.widths {config.search.widths}"
        )
    return methods, factors


def _search_config(config: Rivals, method: Method = "hand_picked", **options: Any) -> search_arch.SearchArch:
    """One of the searches, as workflows.search_arch would run it; by default with the reference as its budget."""
    shared = ("samples", "latency_table", "out", "widths", "k", "latency", "distill", "optim", "compute")
    options |= {name: getattr(config, name) for name in shared}
    return search_arch.SearchArch(**options, search=replace(config.search, method=method))


def _name(method: str, factor: float, seed: int) -> str:
    """Of the search that the method derives from."""
    searched = "autofas" if method in OURS else method
    return f"{searched}-x{factor:g}-s{seed}" if method in OF_BUDGET else f"{searched}-s{seed}"


def _specs(config: Rivals, base: Spec, methods: tuple[str, ...], factors: tuple[float, ...]) -> dict[str, Spec]:
    """Every search that the methods derive from, by name."""
    specs = {}
    for seed, method, factor in product(range(config.seeds), methods, factors):
        name = _name(method, factor, seed)
        if name not in specs:
            searched = "autofas" if method in OURS else method
            budget_us = base.budget_us * (factor if method in OF_BUDGET else 1.0)
            options = _search_config(config, method=searched, budget_us=budget_us, seed=seed)
            specs[name] = search_arch.spec_of(options, name)
    return specs


def _searched(specs: dict[str, Spec], samples: Path, out: Path, config: Rivals) -> dict[str, Found]:
    """What the searches found, from `out/searches` where they are done."""
    keys = {name: key_of([spec], samples, config.k, config.compute.lanes) for name, spec in specs.items()}
    files = {name: out / "searches" / f"{name}.json" for name in specs}
    saved = {name: _known(path, keys[name]) for name, path in files.items()}
    missing = [specs[name] for name in specs if saved[name] is None]
    if missing:
        work = out / ".searches.work"
        for name, found in search_all(missing, samples, work, compute=config.compute, k=config.k, runs={}).items():
            # JSON has no infinity
            log_p = [[None if p == -math.inf else p for p in slot] for slot in found.log_p]
            values = dict(zip(found.spec.arm.features, found.values, strict=True))
            saved[name] = {"key": keys[name], "values": values, "log_p": log_p, "history": found.history}
            write_json(files[name], saved[name])
        rmtree(work)
    return {name: _found(specs[name], raw) for name, raw in saved.items()}


def _found(spec: Spec, raw: dict[str, Any]) -> Found:
    log_p = tuple(tuple(-math.inf if p is None else p for p in slot) for slot in raw["log_p"])
    return Found(spec, raw["history"], tuple(raw["values"][name] for name in spec.arm.features), log_p)


def _known(path: Path, key: str) -> dict[str, Any] | None:
    """What the file holds if it follows from the same."""
    raw = json.loads(path.read_text()) if path.is_file() else {}
    return raw if raw.get("key") == key else None


def _derived(
    base: Spec,
    found: dict[str, Found],
    schema: Schema,
    methods: tuple[str, ...],
    factors: tuple[float, ...],
    seeds: range,
) -> list[Entry]:
    """By budget, method and seed the best that fits, and last the student of all features."""
    entries = []
    for factor, method, seed in product(factors, methods, seeds):
        searched, budget_us = found[_name(method, factor, seed)], factor * base.budget_us
        if method == "autofas_fixed_widths":
            searched = _fixed(searched)
        arch = searched.derive(schema, budget_us)
        entries.append(Entry(method, seed, factor, budget_us, arch, _times(base, arch, schema)))
    everything = Arch(base.arm.features, base.arm.widths)
    return entries + [Entry(ALL, seed, None, None, everything, _times(base, everything, schema)) for seed in seeds]


def _fixed(found: Found) -> Found:
    """With the base widths alone to derive from."""
    candidates = widths(found.spec.search.widths)
    log_p = tuple(tuple(0.0 if c == width else -math.inf for c in candidates) for width in found.spec.arm.widths)
    return replace(found, log_p=log_p)


def _times(base: Spec, arch: Arch, schema: Schema) -> dict[str, float]:
    said = search_arch.predicted(base, arch, schema)
    return {key: float(said[key]) for key in ("fetch_us", "inference_us", "latency_us")}


def _student(base: Arm, entry: Entry) -> Arm:
    return replace(base, name=entry.student, features=entry.arch.features, widths=entry.arch.widths, seed=entry.seed)


def _log(results: dict[str, Any], out: Path, parent: Run) -> None:
    """The results where people look."""
    for row in results["rows"]:
        prefix = f"{row['method']}/x{row['factor']:g}" if row["factor"] else row["method"]
        k = results["logs"]["k"]
        said = {f"recall_at_{k}": row["recall"]["mean"], f"hit_rate_at_{k}": row["hit_rate"]["mean"]}
        said |= {f"recall_at_{k}_std": row["recall"]["std"]}
        said |= {key: row[key] for key in ("fetch_us", "inference_us", "latency_us")}
        parent.metrics({f"{prefix}/{key}": value for key, value in said.items()})
    parent.artifact(out / "requests.parquet")
    parent.figures({"recall_against_latency": recall_against_latency(results)})


if __name__ == "__main__":
    cli.run(main, Rivals)
