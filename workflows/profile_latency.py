"""Measures what features and layers cost to serve on this host, for the search, and checks the sum on whole networks.

    python -m workflows.profile_latency --schema runs/demo/samples --out runs/latency.json

The pieces are those of the graph that workflows.export writes. Run it on the host that serves, with nothing else
running: where other programs take the cores, the check says how far off the table is.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnxruntime
from rich.console import Console
from rich.progress import Progress

from prerank.core import cli, config
from prerank.core.config import Positive, Seed, Widths
from prerank.core.outputs import fingerprint, write_json
from prerank.latency import profiler
from prerank.latency.file import Checked, Entry, Measurements, finished, metrics_of
from prerank.latency.plan import Plan, check_widths, hidden_widths, settings_of
from prerank.logs.schema import load_schema
from prerank.models.stats import load_stats
from prerank.reports.latency import figure, show
from prerank.serving import timing
from prerank.tracking import runs


@dataclass(frozen=True)
class ProfileLatency:
    """Measure the serving time of input paths and layers on this host."""

    schema: Path
    """A folder with schema.json: logs, samples or a model."""
    out: Path
    """The latency.json to write."""
    widths: Widths = "1024,512,256,128,64,32,16"
    """Candidate hidden widths, with commas; 0, the skipped layer, needs no measuring."""
    candidates: str = "200,500,1000,2000"
    """Numbers of candidates of a request, with commas."""
    threads: str = "1,2"
    """Numbers of threads that compute one request, with commas."""
    runtimes: str = "onnxruntime,torch"
    repeats: Positive = 200
    """Runs of each piece; dear ones get half a second."""
    networks: Positive = 12
    """Random whole networks of the check, for each setting."""
    orders: Positive = 2
    """Random orders in which the features are put in one by one."""
    list_length: Positive = 8
    """Values in a row of a multi-valued id."""
    seed: Seed = 0
    packed: bool = False
    """Of ONNX Runtime: time networks as workflows.export --packed writes them."""


def main(settings: ProfileLatency, parent: runs.Run | None = None, *, any_host: bool = False) -> Measurements:
    """Returns what latency.json holds; with `any_host`, also where another host has measured it."""
    out, machine = settings.out.resolve(), timing.machine()
    schema = load_schema(settings.schema)
    of_schema = fingerprint(schema.to_json())
    key = {name: value for name, value in config.plain(settings).items() if name not in ("schema", "out")}
    if not settings.packed:
        del key["packed"]  # files from before there was a choice are of named inputs
    asked = {"config": key, "schema": of_schema} | ({} if any_host else {"machine": machine})
    done = finished(out, asked)
    if done:
        runs.send_unsent(out)
        if done["machine"] != machine:
            print(f"{out}: measured on another host ({done['machine']['cpu']}, {done['machine']['system']})")
        print(f"{out}: already done")
        return done
    todo = settings_of(settings.runtimes, settings.candidates, settings.threads, packed=settings.packed)
    check_widths(settings.widths)
    plan = Plan(
        features=tuple(feature for feature in schema.features if not feature.teacher_only),
        stats=load_stats(settings.schema) if (settings.schema / "stats.json").is_file() else {},
        widths=hidden_widths(settings.widths),
        repeats=settings.repeats,
        networks=settings.networks,
        orders=settings.orders,
        list_length=settings.list_length,
        seed=settings.seed,
    )
    plan.check()
    onnxruntime.set_default_logger_severity(3)  # it warns of machines without a GPU, a graph at a time
    entries: list[Entry] = []
    check: list[Checked] = []
    state = out.parent / f".{out.name}.run.json"
    with (
        runs.run("profile_latency", out=out, state=state, params=config.plain(settings), parent=parent) as run,
        Progress(transient=True) as progress,
    ):
        for number, setting in enumerate(todo):
            task = progress.add_task(str(setting), total=plan.ticks)
            entry, rows = profiler.measured(plan, setting, number, partial(progress.advance, task))
            entries.append(entry)
            check += rows
            name = f"{setting.runtime}/{setting.candidates}/threads_{setting.threads}"
            run.metrics(metrics_of(profiler.errors(rows), f"{name}/"))
        error = profiler.errors([row for row in check if row["runtime"] == todo[0].runtime])
        result: Measurements = {
            "machine": machine, "schema": of_schema, "config": key, "settings": entries, "check": check, "error": error
        }  # fmt: skip
        run.metrics(metrics_of(error))
        write_json(out, result)
        run.artifact(out)
        run.figures({"predicted_against_measured": figure(check)})
    show(result, out, Console())
    return result


if __name__ == "__main__":
    cli.run(main, ProfileLatency)
