"""The teacher runs once: Ray Data scores every sample, and the score and representation become columns.

Lists without fine-ranking positions get them here, from the teacher's scores; then the strategies draw from them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict, cast

import numpy as np
import pyarrow as pa
import ray.data
import torch

from prerank.core.cluster.tasks import retried
from prerank.core.counts import Built, Drawn, merge
from prerank.core.nested import flat_numpy, nest, offsets_of, rank_within, segment_of
from prerank.core.outputs import publish, read_manifest
from prerank.core.storage import parquet, place
from prerank.logs.schema import CLICK, Schema, load_schema
from prerank.models.checkpoint import Model, known_model, load_model, require_same_features
from prerank.models.ranker import Ranker
from prerank.models.trees import Boosted
from prerank.samples.batches import scoring_batch
from prerank.samples.draw import draw
from prerank.samples.files import ROW_GROUP, SamplesManifest, files_of, samples_manifest, write_tables
from prerank.samples.fitting import check_built, drawn_by
from prerank.samples.heads import teacher_of


class File(TypedDict):
    """Of the samples, as Ray Data deals them to its tasks."""

    split: Literal["train", "val"]
    file: str
    """Its path."""


class Said(TypedDict):
    """Of a task when it has taught a file."""

    counts: str
    """JSON: its rows, and what was drawn."""


@dataclass(frozen=True)
class Teaching:
    """What all tasks share."""

    teacher: Path
    fingerprint: str
    """Of the teacher."""
    manifest: SamplesManifest
    """Of the samples that are taught."""
    staging: Path
    """Where they are written to."""
    gpu: bool = False


def teach(samples: Path, teacher: Path, out: Path, *, gpu: bool = False) -> SamplesManifest:
    """Writes the samples again with `teacher_score` and (training rows) `teacher_repr`; returns the new manifest.

    Files and row groups stay as they are, so training deals the same batches; where the strategies draw only now,
    requests that none of them can use are left out. Raises InputError where the teacher does not fit the samples.
    """
    manifest, schema = samples_manifest(samples), load_schema(samples)
    model = load_model(teacher, kind="teacher")
    require_same_features(model, schema, folder=teacher, where=samples)
    inputs = inputs_of(samples, teacher)
    with publish(out, kind="samples", config={}, inputs=inputs) as (staging, facts):
        teaching = Teaching(teacher, inputs["teacher"], manifest, staging, gpu)
        files = jobs(samples)
        tasks = ray.data.from_items(files, override_num_blocks=len(files))
        task = retried(partial(teach_file, teaching=teaching))
        gpus = 1 if gpu else None
        done = tasks.map(task, num_gpus=gpus)  # pyright: ignore[reportArgumentType]  # rows are any dict to Ray Data
        facts |= finish(cast(list[Said], done.take_all()), manifest, samples, staging)
    return samples_manifest(out)


def inputs_of(samples: Path, teacher: Path) -> dict[str, str]:
    """What taught samples follow from, by fingerprint."""
    folders = {"samples": samples, "teacher": teacher}
    return {kind: read_manifest(folder, kind=kind)["fingerprint"] for kind, folder in folders.items()}


def jobs(samples: Path) -> list[File]:
    """One job a file of samples."""
    return [File(split=split, file=str(path)) for split in ("train", "val") for path in files_of(samples, split)]


def finish(done: list[Said], manifest: SamplesManifest, samples: Path, staging: Path) -> dict[str, object]:
    """What the manifest of the taught samples says, from the words of all tasks; copies what stays as it is."""
    total: dict[str, object] = {}
    for part in done:
        merge(total, json.loads(part["counts"]))
    rows, counts = total.pop("rows"), manifest["counts"]
    if not manifest["positions"]:
        drawn = cast(Drawn, total)
        dropped = counts["dropped"] | drawn.get("dropped", {})
        noted = counts["noted"] | drawn.get("noted", {})
        counts: Built = {**counts, **drawn, "dropped": dropped, "noted": noted}
        check_built(counts, tuple(manifest["strategies"]), positions=True)
    for name in ("schema.json", "stats.json"):
        (staging / name).write_bytes((samples / name).read_bytes())
    facts = {key: manifest[key] for key in ("split", "strategies", "draw", "seed", "val_table")}
    return {**facts, "counts": counts, "rows": rows, "taught": True, "positions": True}


def teach_file(row: File, teaching: Teaching) -> Said:
    """Writes one file of samples as the teacher sees it, a row group at a time; returns its counts."""
    path, split, manifest = place(row["file"]), row["split"], teaching.manifest
    model = known_model(teaching.teacher, teaching.fingerprint, "teacher")
    device = torch.device("cuda" if teaching.gpu else "cpu")
    model.ranker.to(device)
    schema = load_schema(path.parents[1])
    counts: dict[str, object] = {}

    def taught() -> Iterator[pa.Table]:
        with parquet(path) as file:
            for batch in file.iter_batches(ROW_GROUP):
                table = _score(pa.Table.from_batches([batch]), model, device, keep_repr=split == "train")
                if split == "train" and not manifest["positions"]:
                    table, drawn = redraw(table, schema, manifest)
                    merge(counts, drawn)
                yield table

    name = f"{split}/{path.name}"
    rows = write_tables(taught(), teaching.staging / name)
    return {"counts": json.dumps(counts | {"rows": {name: rows}})}


def _score(table: pa.Table, model: Model, device: torch.device, *, keep_repr: bool) -> pa.Table:
    features = model.schema.select(model.arch.features, where="teacher")
    batch = scoring_batch(table, features).to(device)
    with torch.inference_mode():
        score_I, repr_ID = model.ranker(batch.features, batch.request_I)
        heads = model.arch.fusion.heads
        head_IH = cast(Ranker, model.ranker).heads(batch.features, batch.request_I)[0] if heads else None
    offsets = offsets_of(table["item_id"])
    table = table.append_column("teacher_score", nest(score_I.float().cpu().numpy(), offsets))
    for at, head in enumerate(heads):
        if head != CLICK and head_IH is not None:
            table = table.append_column(teacher_of(head), nest(head_IH[:, at].float().cpu().numpy(), offsets))
    if not keep_repr or isinstance(model.ranker, Boosted):  # of trees there is no last hidden layer
        return table
    halves = repr_ID.float().cpu().numpy().astype(np.float16)
    values = pa.FixedSizeListArray.from_arrays(pa.array(halves.ravel()), halves.shape[1])
    return table.append_column("teacher_repr", nest(values, offsets))


def redraw(table: pa.Table, schema: Schema, manifest: SamplesManifest) -> tuple[pa.Table, Drawn]:
    """Gives whole lists the positions of the teacher's order (ties in canonical order) and draws from them."""
    offsets = offsets_of(table["item_id"])
    position = rank_within(segment_of(offsets), -flat_numpy(table["teacher_score"]).astype(np.float64))
    table = table.set_column(table.column_names.index("position"), "position", nest(position.astype(np.int32), offsets))
    table = table.drop_columns(["drawn", "bin", "pair_hi", "pair_lo", "pair_strategy"])
    return draw(table, schema, drawn_by(manifest["draw"]), tuple(manifest["strategies"]), seed=manifest["seed"])
