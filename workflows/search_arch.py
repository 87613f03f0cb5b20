"""Searches the features and widths of a student under a latency budget, and writes arch.json.

    python -m workflows.search_arch --samples runs/taught --latency-table runs/latency.json --out runs/search
    python -m workflows.train_student --samples runs/taught --arch runs/search/arch.json --out runs/searched

Beside it stands front.json, the best that was found for each latency; with `--search.method autofas`, the paper's own
search, the history of its gates and widths. The second command trains what was found from scratch.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, cast

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import Positive, Seed, Widths, Within, names, plain, widths
from prerank.core.outputs import is_done, publish
from prerank.core.storage import rmtree, staged
from prerank.latency.options import Latency
from prerank.latency.table import load_table
from prerank.logs.schema import load_schema
from prerank.models.options import Arm, Distill, Optim
from prerank.models.stats import load_stats
from prerank.reports.search.figures import search_figures
from prerank.reports.search.front import front_figure
from prerank.samples.files import samples_manifest
from prerank.samples.taught import teacher_column
from prerank.search.confirmed import Confirmed, read_front
from prerank.search.found import read_found_arch
from prerank.search.group import search_all
from prerank.search.measured import Clock, within_budget
from prerank.search.options import Search
from prerank.search.spec import FoundArch, Spec, hand_picked_us
from prerank.tracking.runs import Run, run, send_unsent
from prerank.training.group import refuse_local_store
from prerank.training.options import Compute


@dataclass(frozen=True)
class SearchArch:
    """Search which features a student reads and how wide its layers are, within a latency budget."""

    samples: Path
    """A folder made by workflows.teach; with --search.joint, workflows.build_samples is enough where the logs have
    fine_position."""
    latency_table: Path
    """The latency.json of workflows.profile_latency."""
    out: Path
    budget_us: Annotated[float | None, Within(0, above=True)] = None
    """Hard limit of fetch and inference together, microseconds a request; by default what the schema's hand_picked
    features cost with `widths`."""
    features: str = ""
    """To choose from, with commas; empty: all that are not teacher_only."""
    widths: Widths = "64,32"
    """Hidden widths that the default budget is reckoned with, and that rivals keep, with commas."""
    strategy: str = ""
    """Whose pairs to learn from, with commas; empty: every strategy in the samples."""
    k: Positive = 150
    """Cut-off of the validation metrics."""
    seed: Seed = 0
    search: Search = Search()
    latency: Latency = Latency()
    distill: Distill = Distill(score=1.0)
    optim: Optim = Optim()
    compute: Compute = Compute()


def main(config: SearchArch, parent: Run | None = None) -> FoundArch:
    """Returns what stands in arch.json."""
    config.compute.check()
    spec, out = spec_of(config), config.out.resolve()
    samples, schema = config.samples.resolve(), load_schema(config.samples)
    inputs = {"samples": samples_manifest(samples)["fingerprint"], "latency": spec.table.fingerprint}
    settings = {key: value for key, value in plain(config).items() if key not in ("samples", "latency_table", "out")}
    done, work = is_done(out, kind="search", config=settings, inputs=inputs), out.parent / f".{out.name}.work"
    if done:
        send_unsent(out)
    if not done or (work / "run.json").is_file():  # what was published may be of a run that did not come to its end
        with run("search", out=out, state=work / "run.json", params=settings, tags=inputs, parent=parent) as tracked:
            if not done:
                start_ray()
                refuse_local_store({"search": tracked})
                runs = {spec.arm.name: tracked}
                search = partial(search_all, samples=samples, work=work, compute=config.compute, k=config.k, runs=runs)
                found = search([spec])[spec.arm.name]
                if isinstance(found, Confirmed):

                    def within(limit_us: float) -> Confirmed:
                        return cast(Confirmed, search([replace(spec, budget_us=limit_us)])[spec.arm.name])

                    found, measured = within_budget(found, Clock(spec, schema, load_stats(samples)), within)
                    print(f"{found.choice(schema).said(spec.arm.select_by)}\n{measured}")
                with publish(out, kind="search", config=settings, inputs=inputs) as (final, _), staged(final) as folder:
                    arch, features = found.write(folder, schema), spec.features(schema)
                    choices = widths(config.search.widths)
                    drawn = search_figures(
                        found.history, arch=arch, features=features, widths=choices, budget_us=spec.budget_us
                    )
                    if isinstance(found, Confirmed):
                        front = read_front(folder)
                        drawn["front"] = front_figure(front, spec.budget_us)
                        tracked.metrics({"search/front_area": front["area"]})
                    for name, figure in drawn.items():
                        figure.savefig(folder / f"{name}.png", dpi=110)
            tracked.metrics({key: value for key, value in read_found_arch(out).items() if isinstance(value, float)})
            for path in sorted(out.glob("*.*")):
                tracked.artifact(path)
        rmtree(work)
    said = read_found_arch(out)
    times = f"{said['fetch_us']:.0f} µs to fetch + {said['inference_us']:.0f} µs of inference"
    print(
        f"{out}/arch.json: {len(said['features'])} features, widths {said['widths']}: {times} = "
        f"{said['latency_us']:.0f} of {said['budget_us']:.0f} µs"
    )
    return said


def spec_of(config: SearchArch, name: str = "search") -> Spec:
    """The search that the configuration describes; raises InputError where it needs a budget or a teacher."""
    samples = config.samples.resolve()
    schema, base = load_schema(samples), widths(config.widths)
    table = load_table(config.latency_table, candidates=config.latency.candidates, threads=config.latency.threads)
    chosen = names(config.features) or tuple(f.name for f in schema.features if not f.teacher_only)
    budget_us = config.budget_us
    if budget_us is None:
        budget_us = hand_picked_us(schema, table, base, samples=samples)
    arm = Arm(
        name=name,
        features=tuple(feature.name for feature in schema.select(chosen, where="--features")),
        widths=base,
        strategies=names(config.strategy) or tuple(samples_manifest(samples)["strategies"]),
        select_by="recall" if teacher_column(samples, "val") else "auc",
        distill=config.distill,
        optim=config.optim,
        seed=config.seed,
    )
    return Spec(arm, config.search, config.latency, table, budget_us)


if __name__ == "__main__":
    cli.run(main, SearchArch)
