"""Logs, samples and models of two objectives, the click and `converted`, made in this process without Ray."""

import json
import shutil
from pathlib import Path

import torch
from samples_fixture import build, teach_here

from prerank.core.outputs import publish, read_manifest
from prerank.core.storage import staged
from prerank.logs.schema import load_schema
from prerank.models import checkpoint
from prerank.models.arch import Arch
from prerank.models.fusion import Fusion
from prerank.models.scorers import scorer_of

HEADS = ("click", "converted")


def declare(logs: Path, folder: Path, labels: list[str]) -> Path:
    """A copy of logs whose schema.json declares the labels."""
    shutil.copytree(logs, folder)
    schema = json.loads((folder / "schema.json").read_text())
    (folder / "schema.json").write_text(json.dumps(schema | {"labels": labels}))
    return folder


def headed_model(
    samples: Path, out: Path, *, kind: str = "teacher", shares=(1.0, 0.0), features=None, widths=(16, 8), seed: int = 0
) -> Path:
    """A finished model of both heads, with random weights."""
    schema = load_schema(samples)
    arch = Arch(tuple(features or schema.names), widths, fusion=Fusion(HEADS, shares))
    stats = json.loads((samples / "stats.json").read_text())
    torch.manual_seed(seed)
    ranker = scorer_of(arch, schema.select(arch.features, where="test"), stats)
    with publish(out, kind=kind, config={}, inputs={}) as (final, facts), staged(final) as staging:
        checkpoint.write_model(staging, arch=arch, schema=schema, stats=stats, best=checkpoint.weights(ranker))
        facts["split"] = read_manifest(samples, kind="samples")["split"]
        facts["proof"] = {"teacher": {"hit_rate": 0.5, "auc": 0.7}, "item": {"hit_rate": 0.4, "auc": 0.6}}
    return out


def taught_of_both(logs: Path, folder: Path) -> tuple[Path, Path, Path, Path]:
    """The logs that declare `converted`, their samples, a teacher of both heads, and the samples that it taught."""
    labelled = declare(logs, folder / "logs", ["converted"])
    samples = build(labelled, folder / "samples")
    teacher = headed_model(samples, folder / "teacher")
    return labelled, samples, teacher, teach_here(samples, teacher, folder / "taught")
