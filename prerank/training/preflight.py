"""Whether the samples have what arms are to learn from, before any is trained."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from prerank.core.errors import InputError
from prerank.core.nested import flat_numpy, offsets_of, segment_of
from prerank.logs.schema import load_schema
from prerank.models.options import Arm
from prerank.models.place import bucket
from prerank.samples.draw import NEED_POSITIONS, UNIFORM, DrawConfig
from prerank.samples.files import files_of, samples_manifest
from prerank.samples.fitting import drawn_by
from prerank.samples.heads import teacher_of
from prerank.samples.reader import sequential
from prerank.samples.taught import columns_in, teacher_column
from prerank.training import boosted


def check(arms: list[Arm], samples: Path, *, taught: bool = True) -> None:
    """Raises InputError where an arm needs what the samples do not have; `taught`: its teacher is in their columns."""
    manifest, schema = samples_manifest(samples), load_schema(samples)
    teacher_score, present = teacher_column(samples), columns_in(samples, "train").names
    built, counts = manifest["strategies"], manifest["counts"]
    for arm in arms:
        arm.check()
        if all(feature.of_request for feature in schema.select(arm.features, where=arm.name)):
            raise InputError(
                f"{arm.name}: no feature of an item or cross side: nothing tells one candidate from another"
            )
        if arm.model in ("two_tower_gbdt", "gbdt"):
            boosted.check_memory(samples, schema.select(arm.features, where=arm.name), arm)
        if taught and arm.distill.active and teacher_score is None:
            raise InputError(f"{samples}: no teacher_score and no fine_score to distil from; run workflows.teach first")
        if taught and arm.distill.reads_representation and "teacher_repr" not in present:
            name = "contrast" if arm.distill.contrast else "relations"
            if manifest.get("taught"):
                raise InputError(
                    f"{samples}: the teacher is one of trees, which has no last hidden layer that --distill.{name} "
                    "could hold the student's against; leave it out, or train a teacher with --model mlp"
                )
            raise InputError(f"{samples}: no teacher_repr for --distill.{name}; run workflows.teach first")
        if taught and arm.by_strategy:
            _check_heads(arm, samples, present, teacher_score or "teacher_score")
        missing = [name for name in arm.strategies if name not in built]
        if arm.by_strategy and missing:
            raise InputError(
                f"{samples}: built with strategies {', '.join(built)}; {arm.name} needs {', '.join(missing)}"
            )
        if not manifest["positions"]:
            _check_positions(arm, samples)
        if arm.by_place:
            _check_places(samples, present)
        if not arm.by_strategy:
            _check_negatives(arm, samples, drawn_by(manifest["draw"]))
            if counts.get("requests_with_click") == 0:
                raise InputError(f"{samples}: no training request has a click, which {arm.name} learns from")


def _check_heads(arm: Arm, samples: Path, present: list[str], teacher_score: str) -> None:
    """Raises InputError where a head has no teacher."""
    for head in arm.heads:
        if teacher_of(head, teacher_score) not in present:
            raise InputError(
                f"{samples}: no teacher's score of {head!r}, which --fusion {arm.fusion.said()} learns from; train the "
                "teacher with --model mlp on samples whose schema.json has it among the 'labels', and run "
                "workflows.teach"
            )


def _check_positions(arm: Arm, samples: Path) -> None:
    """Raises InputError where the arm learns from positions, which the samples do not have."""
    asking = [f"--strategy {name}" for name in arm.strategies if arm.by_strategy and name in NEED_POSITIONS]
    if arm.distill.contrast and arm.distill.positives == "bin":
        asking.append("--distill.positives bin")
    if asking:
        raise InputError(
            f"{samples}: built from logs without fine_position, which {arm.name} needs for {', '.join(asking)}; run "
            "workflows.teach, which gives positions by the teacher's scores, or build from logs with fine_position "
            "(0 for the highest fine_score), or give --strategy exposed and --distill.positives item"
        )


def _check_places(samples: Path, present: list[str]) -> None:
    """Raises InputError where no request had items at different places, as far as anybody knows."""
    if "shown_position" not in present:
        raise InputError(
            f"{samples}: built before samples held shown_position, which learn.shown_position needs; delete the folder "
            "and run workflows.build_samples again"
        )
    tables = sequential(files_of(samples, "train"), ("shown_position",))
    if not any(_differ(table["shown_position"]) for table in tables):
        raise InputError(
            f"{samples}: no request has items of different shown_position (0 for the first place), which "
            "learn.shown_position learns from; leave it out"
        )


def _differ(places: pa.ChunkedArray) -> bool:
    """Whether a request has items of different known places."""
    request_I, place_I = segment_of(offsets_of(places)), bucket(flat_numpy(places))
    request_I, place_I = request_I[place_I >= 0], place_I[place_I >= 0]
    return bool(((np.diff(request_I) == 0) & (np.diff(place_I) != 0)).any())


def _check_negatives(arm: Arm, samples: Path, draw: DrawConfig) -> None:
    """Raises InputError where samples were built with fewer unexposed items than the arm asks for, on average.

    A request of which all unexposed items were drawn has what there is, and none is asked of it.
    """
    first = next(sequential(files_of(samples, "train"), ("exposed", "drawn")))
    exposed_I, request_I = flat_numpy(first["exposed"]).astype(bool), segment_of(offsets_of(first["exposed"]))
    drawn_I = ~exposed_I & (flat_numpy(first["drawn"]) & UNIFORM > 0)
    exposures_R, held_R = (np.bincount(request_I[of], minlength=len(first)) for of in (exposed_I, drawn_I))
    limited_R = held_R >= draw.uniform_of(exposures_R)
    if not limited_R.any():
        return
    wanted, held = np.round(arm.unexposed_ratio * exposures_R[limited_R]).mean(), held_R[limited_R].mean()
    if wanted > held:
        raise InputError(
            f"{samples}: holds {held:.0f} unexposed items a request (draw.uniform_items, draw.uniform_ratio), but an "
            f"unexposed_ratio of {arm.unexposed_ratio:g} asks for {wanted:.0f}; lower it, or build samples with more"
        )
