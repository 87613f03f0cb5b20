"""Samples and teachers for tests, made in this process without Ray."""

import json
from pathlib import Path
from unittest import mock

import pyarrow.parquet as pq
import torch

from prerank.core.outputs import publish, read_manifest
from prerank.core.storage import staged
from prerank.logs.folder import overlaps
from prerank.logs.parts import _only
from prerank.logs.schema import load_schema
from prerank.logs.tiles import cut, read_tile
from prerank.models import checkpoint
from prerank.models.arch import Arch
from prerank.models.ranker import Ranker
from prerank.samples import job
from prerank.samples.files import sample_files
from prerank.training.teach import Teaching, finish, jobs, teach_file
from workflows import build_samples


def build(logs: Path, out: Path, **options) -> Path:
    """What workflows.build_samples writes."""
    local = {"whole_requests": here, "executed": lambda rows: rows, "tasks": lambda jobs, function: map(function, jobs)}
    with mock.patch.multiple(job, **local), mock.patch.object(build_samples, "start_ray"):
        build_samples.main(build_samples.BuildSamples(logs, out, **options))
    return out


def here(logs, table, function, *, blocks=None, wanted=None, since=None, until=None):
    rows = []
    for tile in cut(logs, table, tiles=blocks):
        if any(overlaps(group, since, until) for group in tile.groups):
            rows.append(function(*(_only(part, wanted) for part in read_tile(logs, table, tile))))
    return rows


def random_teacher(
    samples: Path, out: Path, *, kind: str = "teacher", features=None, widths=(16, 8), seed: int = 0
) -> Path:
    """A finished model with random weights."""
    schema = load_schema(samples)
    arch = Arch(tuple(features or schema.names), widths)
    stats = json.loads((samples / "stats.json").read_text())
    torch.manual_seed(seed)
    ranker = Ranker(schema.select(arch.features, where="test"), widths, stats)
    with publish(out, kind=kind, config={}, inputs={}) as (final, facts), staged(final) as staging:
        checkpoint.write_model(staging, arch=arch, schema=schema, stats=stats, best=checkpoint.weights(ranker))
        facts["split"] = read_manifest(samples, kind="samples")["split"]
        facts["proof"] = {"teacher": {"hit_rate": 0.5, "auc": 0.7}, "item": {"hit_rate": 0.4, "auc": 0.6}}
    return out


def random_models(samples: Path, folder: Path) -> tuple[Path, Path]:
    """A teacher, and a student of three features."""
    teacher = random_teacher(samples, folder / "teacher", seed=0)
    return teacher, random_teacher(
        samples, folder / "student", kind="student", features=("price", "brand", "match"), seed=1
    )


def teach_here(samples: Path, teacher: Path, out: Path) -> Path:
    """What workflows.teach writes."""
    manifest = read_manifest(samples, kind="samples")
    with publish(out, kind="samples", config={}, inputs={}) as (staging, facts):
        teaching = Teaching(teacher, "", manifest, staging)
        facts |= finish([teach_file(file, teaching) for file in jobs(samples)], manifest, samples, staging)
    return out


def rows_of(folder: Path, split: str) -> list[dict]:
    """The sample rows as Python objects."""

    return [row for path, _ in sample_files(folder, split) for row in pq.read_table(path).to_pylist()]


def made_up_latency(path: Path, samples: Path, *, candidates: int, widths=(4, 8)) -> Path:
    """A latency.json: 2 µs an input, a tenth of in · out for a layer."""
    stat = {"count": 1, "mean": 2.0, "p5": 2.0, "p50": 2.0, "p99": 2.0}
    setting = {
        "runtime": "onnxruntime",
        "candidates": candidates,
        "threads": 1,
        "overhead_us": stat,
        "inputs_us": {feature.name: stat for feature in load_schema(samples).features},
        "layers_us": [{"in": i, "out": o, **stat, "p5": i * o / 10} for i in (1, 64) for o in (1, *widths)],
    }
    path.write_text(json.dumps({"settings": [setting]}))
    return path
