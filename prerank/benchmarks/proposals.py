"""What the short trainings of a search are worth, and what a search costs: beside whole trainings of the same students.

All in one process and one thread after the other, so that seconds are those of the processor.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import kendalltau

from prerank.benchmarks.rows import Row
from prerank.core.documents import load_json
from prerank.core.outputs import write_json
from prerank.latency.options import Latency
from prerank.latency.table import Table, load_table
from prerank.logs.schema import load_schema
from prerank.models import checkpoint
from prerank.models.arch import Arch
from prerank.models.options import Arm, Distill
from prerank.search.confirm import SEEDS
from prerank.search.confirmed import LAST, LONGER
from prerank.search.confirmed import Row as Proposal
from prerank.search.found import read_found_arch
from prerank.search.group import proposed_here
from prerank.search.options import Search
from prerank.search.short import hold, trained
from prerank.search.spec import Spec
from prerank.training.arms import student_arm
from prerank.training.options import Compute
from prerank.training.worker import Job, alone, train_arm


@dataclass(frozen=True)
class Made:
    """What a search has left, and what it went by."""

    samples: Path
    search: Path
    """The folder with arch.json and proposals.json."""
    latency_table: Path

    def job(self, k: int) -> Job:
        return Job(self.samples, Compute(), k)

    @property
    def arm(self) -> Arm:
        """With all features to choose from, as `workflows.search_arch` makes it."""
        schema = load_schema(self.samples)
        chosen = tuple(feature.name for feature in schema.features if not feature.teacher_only)
        return student_arm(self.samples, features=chosen, distill=Distill(score=1.0))


def order(made: Made, *, k: int, number: int) -> list[Row]:
    """Kendall's τ between proposals by the validation's metric after each rung's training, and after a whole one.

    `number` proposals, evenly from the worst to the best as the search has put them.
    """
    archs, job, base = _some(made.search, number), made.job(k), made.arm
    whole_P, whole_s = _whole(archs, base, job)
    held, rows = hold(base, job), list[Row]()
    for rung in range(LAST):
        begun, steps, seed = time.process_time(), LONGER[rung] * Search().steps, SEEDS[rung][0]
        short_P = [float(np.nanmean(trained(arch, held, steps, seed)[1])) for arch in archs]
        each_s = (time.process_time() - begun) / len(archs)
        first, best = whole_P[int(np.argmax(short_P))], whole_P.max()
        said = f"{len(archs)} proposals; its first keeps {100 * first:.1f} after a whole one, the best {100 * best:.1f}"
        what = "Kendall's τ of short and whole trainings"
        tau, _ = cast(tuple[float, float], kendalltau(short_P, whole_P))
        detail = f"{said}; {each_s:.1f} s and {whole_s:.1f} s"
        rows.append(Row(f"proposals, {steps} steps", what, tau, "τ", detail=detail))
    return rows


def cost(made: Made, *, k: int, times: Sequence[int]) -> list[Row]:
    """Of a whole search as its options are by default, in trainings of the student that it finds; then with every
    feature so many `times`, at the same price each, in trainings of the first."""
    found, rows, whole_s = read_found_arch(made.search), list[Row](), 0.0
    latency = Latency(candidates=found["candidates"], threads=found["threads"])
    table = load_table(made.latency_table, candidates=latency.candidates, threads=latency.threads)
    for often in times:
        with _grown(made, table, often) as (grown, wider):
            schema, job = load_schema(grown.samples), grown.job(k)
            begun = time.process_time()
            confirmed = proposed_here(Spec(grown.arm, Search(), latency, wider, found["budget_us"]), job)
            search_s = time.process_time() - begun
            if not whole_s:
                _, whole_s = _whole([confirmed.derive(schema)], grown.arm, job)
        name = f"search, {len(schema.features)} features"
        detail = f"{search_s:.0f} and {whole_s:.1f} s of one core"
        rows.append(
            Row(name, "a whole search, of the training of its student", search_s / whole_s, "times", detail=detail)
        )
    return rows


@contextmanager
def _grown(made: Made, table: Table, times: int) -> Iterator[tuple[Made, Table]]:
    """Samples in which every feature stands so many times, and a table that knows them all."""
    if times == 1:
        yield made, table
        return
    raw, stats = (cast(dict[str, Any], load_json(made.samples / name)) for name in ("schema.json", "stats.json"))
    names = {feature["name"]: [f"{feature['name']}_{copy}" for copy in range(1, times)] for feature in raw["features"]}
    raw["features"] += [{**f, "name": copy} for f in raw["features"] for copy in names[f["name"]]]
    stats |= {copy: stats[name] for name, copies in names.items() if name in stats for copy in copies}
    with TemporaryDirectory() as folder:
        shutil.copy(made.samples / "manifest.json", folder)
        write_json(Path(folder, "schema.json"), raw)
        write_json(Path(folder, "stats.json"), stats)
        for path in sorted(made.samples.glob("*/*.parquet")):
            file = pq.ParquetFile(path)
            out = Path(folder, path.relative_to(made.samples))
            out.parent.mkdir(exist_ok=True)
            with pq.ParquetWriter(out, _with_copies(file.schema_arrow.empty_table(), names).schema) as writer:
                for group in range(file.num_row_groups):
                    writer.write_table(_with_copies(file.read_row_group(group), names), row_group_size=1 << 30)
        # Layers are read up to the widest input that was measured: what is wider costs in proportion.
        ins, last = (*table.ins, times * table.ins[-1]), table.layer_us[-1]
        inputs = {copy: us for name, us in table.inputs_us.items() for copy in (name, *names.get(name, []))}
        layers = (*table.layer_us, tuple(times * us for us in last))
        yield replace(made, samples=Path(folder)), replace(table, ins=ins, inputs_us=inputs, layer_us=layers)


def _with_copies(table: pa.Table, names: dict[str, list[str]]) -> pa.Table:
    for name, copies in names.items():
        for copy in copies:
            table = table.append_column(copy, table[name])
    return table


def _some(search: Path, number: int) -> list[Arch]:
    rows = cast(list[Proposal], load_json(search / "proposals.json"))
    rows.sort(key=lambda row: (row["rung"], row["metric"]))
    rows = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, number).round().astype(int))]
    return [Arch(tuple(row["features"]), tuple(row["widths"])) for row in rows]


def _whole(archs: Sequence[Arch], base: Arm, job: Job) -> tuple[np.ndarray, float]:
    """float64 [P], what each keeps on the validation at its best epoch; seconds of one training, on average."""
    begun, kept = time.process_time(), list[float]()
    with alone(job.compute, {}, lambda *_, **__: None) as worker:
        for number, arch in enumerate(archs):
            arm = replace(base, name=f"whole-{number}", features=arch.features, widths=arch.widths)
            train_arm(arm, job, worker)
            kept.append(checkpoint.load_best(worker.done, arm.name)[0].best or 0.0)
    return np.array(kept), (time.process_time() - begun) / len(archs)
