"""Measures what features and layers cost to serve on this host, for the search, and checks the sum on whole networks.

    python -m workflows.profile_latency --schema runs/demo/samples --out runs/latency.json

The pieces are those of the graph that workflows.export writes. Run it on the host that serves, with nothing else
running: where other programs take the cores, the check says how far off the table is.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as Printed

from prerank.core import cli, config
from prerank.core.errors import InputError
from prerank.core.outputs import fingerprint, write_json
from prerank.latency import profiler
from prerank.latency.formula import inference_us, item_width
from prerank.latency.pieces import PIECES, Setting
from prerank.latency.table import load_table
from prerank.logs.schema import Feature, load_schema
from prerank.reports.latency import figure
from prerank.serving import timing
from prerank.tracking import runs


@dataclass(frozen=True)
class ProfileLatency:
    """Measure the serving time of input paths and layers on this host."""

    schema: Path
    """A folder with schema.json: logs, samples or a model."""
    out: Path
    """The latency.json to write."""
    widths: str = "1024,512,256,128,64,32,16"
    """Candidate hidden widths, with commas; 0, the skipped layer, needs no measuring."""
    candidates: str = "200,500,1000,2000"
    """Numbers of candidates of a request, with commas."""
    threads: str = "1,2"
    """Numbers of threads that compute one request, with commas."""
    runtimes: str = "onnxruntime,torch"
    repeats: int = 200
    """Runs of each piece; dear ones get half a second."""
    networks: int = 12
    """Random whole networks of the check, for each setting."""
    orders: int = 2
    """Random orders in which the features are put in one by one."""
    list_length: int = 8
    """Values in a row of a multi-valued id."""
    seed: int = 0


def main(settings: ProfileLatency, parent: runs.Run | None = None, *, any_host: bool = False) -> dict[str, Any]:
    """Returns what latency.json holds; with `any_host`, also where another host has measured it."""
    out = settings.out.resolve()
    schema = load_schema(settings.schema)
    features = tuple(feature for feature in schema.features if not feature.teacher_only)
    machine = timing.machine()
    key = {name: value for name, value in config.plain(settings).items() if name not in ("schema", "out")}
    asked = {"config": key, "schema": fingerprint(schema.to_json())} | ({} if any_host else {"machine": machine})
    done = _done(out, asked)
    if done:
        runs.send_unsent(out)
        if done["machine"] != machine:
            print(f"{out}: measured on another host ({done['machine']['cpu']}, {done['machine']['system']})")
        print(f"{out}: already done")
        return done
    widths = tuple(sorted({width for width in config.widths(settings.widths) if width}))
    todo = _settings(settings, widths)
    file = settings.schema / "stats.json"
    stats = json.loads(file.read_text()) if file.is_file() else {}
    layers = profiler.grid(widths, item_width(features))
    result: dict[str, Any] = {"machine": machine, "schema": fingerprint(schema.to_json()), "config": key}
    result |= {"settings": [], "check": []}
    onnxruntime.set_default_logger_severity(3)  # it warns of machines without a GPU, a graph at a time
    state = out.parent / f".{out.name}.run.json"
    with (
        runs.run("profile_latency", out=out, state=state, params=config.plain(settings), parent=parent) as run,
        Progress(transient=True) as progress,
    ):
        for number, setting in enumerate(todo):
            seed = settings.seed + number
            nets = profiler.random_networks(features, widths, networks=settings.networks, seed=seed)
            total = profiler.turns(features, layers, nets, settings.orders)
            task = progress.add_task(_named(setting), total=total)
            entry, measured = profiler.profile(
                setting, features, stats, layers=layers, networks=nets, list_length=settings.list_length,
                orders=settings.orders, repeats=settings.repeats, seed=seed, tick=lambda: progress.advance(task),  # noqa: B023
            )  # fmt: skip
            result["settings"].append(entry)
            rows = _check(result, setting, features, nets, measured)
            result["check"] += rows
            entry["error"] = profiler.errors(rows)
            name = f"{setting.runtime}/{setting.candidates}/threads_{setting.threads}"
            run.metrics({f"{name}/error_{key}": value for key, value in entry["error"].items()})
        served = [row for row in result["check"] if row["runtime"] == todo[0].runtime]
        result["error"] = profiler.errors(served)
        run.metrics({f"error_{key}": value for key, value in result["error"].items()})
        write_json(out, result)
        run.artifact(out)
        run.figures({"predicted_against_measured": figure(result["check"])})
    _print(result, out)
    return result


def _settings(settings: ProfileLatency, widths: tuple[int, ...]) -> list[Setting]:
    """Raises InputError naming the flag whose value cannot be measured."""
    runtimes = config.names(settings.runtimes)
    if not runtimes or any(runtime not in PIECES for runtime in runtimes):
        raise InputError(f"--runtimes {settings.runtimes!r}: expected some of {', '.join(PIECES)}, with commas")
    numbers = {"candidates": config.widths(settings.candidates), "threads": config.widths(settings.threads)}
    for flag, values in numbers.items() | {("widths", widths)}:
        if not values or min(values) < 1:
            raise InputError(f"--{flag} {getattr(settings, flag)!r}: expected numbers of 1 or more, with commas")
    for flag in ("repeats", "networks", "orders", "list_length"):
        if getattr(settings, flag) < 1:
            raise InputError(f"--{flag.replace('_', '-')} must be 1 or more, got {getattr(settings, flag)}")
    return [Setting(r, n, t) for r in runtimes for n in numbers["candidates"] for t in numbers["threads"]]


def _done(out: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """What `out` holds where it is of this run; raises InputError where it holds anything else."""
    if not out.exists():
        return None
    try:
        found = json.loads(out.read_text())
        there = {name: found[name] for name in key}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{out}: exists, and is no latency.json of this program; name another --out") from error
    if there == key:
        return found
    name = next(name for name in key if there[name] != key[name])
    was, now = there[name], key[name]
    if isinstance(now, dict):
        part = next((part for part in now if was.get(part) != now[part]), "")
        name, was, now = f"{name} {part}", was.get(part), now.get(part)
    raise InputError(f"{out}: holds other measurements: {name} was {was!r}, now {now!r}; name another --out")


def _check(
    result: dict[str, Any],
    setting: Setting,
    features: tuple[Feature, ...],
    networks: list[profiler.Network],
    measured: list[dict[str, float]],
) -> list[dict[str, Any]]:
    """The networks' measured times against what the table, read as the search reads it, predicts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latency.json"
        write_json(path, result)
        table = load_table(path, candidates=setting.candidates, threads=setting.threads, runtime=setting.runtime)
    rows = []
    for (names, widths), times in zip(networks, measured, strict=True):
        predicted = inference_us(table, [feature for feature in features if feature.name in names], widths)
        of = {"runtime": setting.runtime, "candidates": setting.candidates, "threads": setting.threads}
        of |= {"features": list(names), "widths": list(widths), "predicted_us": round(predicted, 3)}
        rows.append(of | {"measured_us": times, "error": round(times["p50"] / predicted - 1, 4)})
    return rows


def _named(setting: Setting) -> str:
    threads = "1 thread" if setting.threads == 1 else f"{setting.threads} threads"
    return f"{setting.runtime}, {setting.candidates} candidates, {threads}"


def _print(result: dict[str, Any], out: Path) -> None:
    """The layers of one setting (the first runtime and number of threads, the middle number of candidates)."""
    first = result["settings"][0]
    alike = [s for s in result["settings"] if all(s[key] == first[key] for key in ("runtime", "threads"))]
    shown = sorted(alike, key=lambda s: s["candidates"])[len(alike) // 2]
    layers = {(layer["in"], layer["out"]): layer["p50"] for layer in shown["layers_us"]}
    ins, outs = (sorted(set(widths)) for widths in zip(*layers, strict=True))
    printed = Printed()
    printed.add_column("in \\ out", justify="right")
    for width in outs:
        printed.add_column(str(width), justify="right")
    for width_in in ins:
        printed.add_row(str(width_in), *(f"{layers[width_in, width]:,.1f}" for width in outs))
    console = Console()
    title = _named(Setting(shown["runtime"], shown["candidates"], shown["threads"]))
    console.print(f"A layer, µs (median): {title}", highlight=False)
    console.print(printed)
    inputs = [times["p50"] for times in shown["inputs_us"].values()]
    empty = f"An empty run {shown['overhead_us']['p50']:.1f} µs"
    console.print(f"{empty}, the inputs of all {len(inputs)} features {sum(inputs):,.0f} µs", highlight=False)
    for entry in result["settings"]:
        name = _named(Setting(entry["runtime"], entry["candidates"], entry["threads"]))
        console.print(_told(name, entry["error"]), highlight=False, soft_wrap=True)
    console.print(_told(str(out), result["error"]), highlight=False, soft_wrap=True)


def _told(name: str, error: dict[str, float]) -> str:
    return (
        f"{name}: {error['networks']} networks, measured against predicted: median error {error['median_abs']:.1%}, "
        f"90% within {error['p90_abs']:.1%}, worst {error['worst']:.1%}"
    )


if __name__ == "__main__":
    cli.run(main, ProfileLatency)
