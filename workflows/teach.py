"""Scores every sample with the teacher, once: its score and representation become columns.

python -m workflows.teach --samples runs/samples --teacher runs/teacher --out runs/taught
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.outputs import is_done
from prerank.evaluation.preflight import check_told_apart
from prerank.models.checkpoint import model_manifest
from prerank.samples.files import SamplesManifest, samples_manifest
from prerank.training.options import check_gpus
from prerank.training.teach import inputs_of, teach


@dataclass(frozen=True)
class Teach:
    """Write the samples again with the teacher's score and representation."""

    samples: Path
    """A folder made by workflows.build_samples."""
    teacher: Path
    """A folder made by workflows.train_teacher."""
    out: Path
    gpu: bool = False
    """Score on GPUs, one a task."""


def main(config: Teach) -> SamplesManifest:
    """Returns the manifest of the taught samples; warns loudly where the teacher has not proved itself.

    Raises InputError where it gives all items one score: no student could learn from it, or be held against it.
    """
    samples, teacher, out = (path.resolve() for path in (config.samples, config.teacher, config.out))
    if config.gpu:
        check_gpus()
    warn_of(teacher)
    if is_done(out, kind="samples", config={}, inputs=inputs_of(samples, teacher)):
        print(f"{out}: already done")
        warn_of_ties(out, teacher)
        return samples_manifest(out)
    start_ray()
    manifest = teach(samples, teacher, out, gpu=config.gpu)
    print(f"{out}: {sum(manifest['rows'].values()):,} requests taught")
    warn_of_ties(out, teacher)
    return manifest


def warn_of(teacher: Path) -> None:
    """Warns where a single group of features finds more clicked items than the teacher does."""
    proof = model_manifest(teacher, kind="teacher").get("proof", {})
    best = max((name for name in proof if name != "teacher"), key=lambda name: proof[name]["hit_rate"], default=None)
    if best and proof[best]["hit_rate"] > proof["teacher"]["hit_rate"]:
        print(
            f"WARNING: {teacher}: the teacher finds {proof['teacher']['hit_rate']:.3f} of the clicked items, fewer "
            f"than a small model on the {best} features alone ({proof[best]['hit_rate']:.3f}). A student that copies "
            "it learns its mistakes, and Recall@K rewards that. Train it with more unexposed negatives "
            "(--unexposed-ratio).",
            file=sys.stderr,
        )


def warn_of_ties(taught: Path, teacher: Path) -> None:
    """Warns where the teacher gives all items of most requests one score."""
    said = check_told_apart(taught, teacher)
    if said:
        print(said, file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, Teach)
