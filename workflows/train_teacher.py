"""Trains the teacher on all features, from exposures and unexposed negatives, and has it prove itself.

    python -m workflows.train_teacher --samples runs/samples --out runs/teacher

Beside it, a small ranker is trained on each single group of features (those of the items, those across request and
item): a teacher that finds fewer clicked items than the best of them is not worth imitating. `--model gbdt`
trains boosted trees, as many a fine-ranker is. Where the logs hold `fine_score`, it may learn from that
too (`--learn`).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import Positive, Seed, Weight, Widths, names, widths
from prerank.core.errors import InputError
from prerank.logs.folder import open_logs
from prerank.models.checkpoint import Proof
from prerank.models.options import Arm, Optim
from prerank.reports.teacher import show, told
from prerank.tracking.runs import Run
from prerank.training.agreement import agreement
from prerank.training.arms import TEACHER, TeacherName, proof_of, teacher_arms
from prerank.training.finished import Beside
from prerank.training.group import train_models
from prerank.training.options import Compute
from prerank.training.variants import Learn, best_of, found, variants_of
from prerank.training.worker import Trained


@dataclass(frozen=True)
class TrainTeacher:
    """Train the teacher from samples."""

    samples: Path
    """A folder made by workflows.build_samples."""
    out: Path
    features: str = ""
    """Names, with commas; empty: all of the schema."""
    widths: Widths = "256,128,64"
    """Hidden widths, with commas."""
    unexposed_ratio: Weight = 3.0
    """Unexposed negatives for each exposed item; 0 trains on exposures alone: sample selection bias."""
    k: Positive = 150
    """Cut-off of the hit-rate."""
    seed: Seed = 0
    optim: Optim = TEACHER
    compute: Compute = Compute()
    model: TeacherName = "mlp"
    """gbdt: LightGBM's lambdarank on the clicks. Its scores can be distilled; it has no representation to contrast."""
    learn: Learn = Learn()
    """Of an mlp."""
    logs: Path | None = None
    """Those of the samples: says how far the teacher agrees with their fine_score and with a simulator's truth."""


def main(config: TrainTeacher, parent: Run | None = None) -> dict[str, Proof]:
    """Returns the validation hit-rates and AUCs of the teacher and of the single groups."""
    logs = open_logs(config.logs.resolve()) if config.logs else None
    samples, out = config.samples.resolve(), config.out.resolve()
    config.compute.check()
    teacher, *groups = arms_of(config)
    others = variants_of(teacher) if config.learn.variants else {}
    if config.learn.variants and not others:
        raise InputError(
            "--learn.variants: nothing to leave out: give --learn.fine-score (of logs that have it) or "
            "--learn.id-dropout (of large tables), such as 100 and 0.8"
        )
    said = {"learn.variants": True} if others else {}

    def facts(trained: dict[str, Trained]) -> dict[str, object]:
        proof = proof_of({arm.name: trained[arm.name] for arm in (teacher, *groups)}, config.k)
        tried = {name: found(trained[f"teacher_{name}"]) for name in ("all", *others)} if others else {}
        agrees = agreement(trained["teacher"], samples, logs, config.k) if logs else {}
        return {**proof, "variants": tried, "agreement": agrees}

    start_ray()
    manifest = train_models(
        {out: teacher},
        samples,
        kind="teacher",
        work=out.parent / f".{out.name}.work",
        compute=config.compute,
        k=config.k,
        beside=Beside((*groups, *others.values()), facts, partial(best_of, teacher="teacher", others=others), said),
        parent=parent,
    )["teacher"]
    proof = manifest.get("proof", {})
    show(proof, config.k)
    for line in told(manifest, config.k):
        print(line)
    return proof


def arms_of(config: TrainTeacher) -> list[Arm]:
    """The teacher, and the small models on a single group of its features that it has to beat."""
    return teacher_arms(
        config.samples,
        features=names(config.features),
        widths=widths(config.widths),
        unexposed_ratio=config.unexposed_ratio,
        optim=config.optim,
        seed=config.seed,
        model=config.model,
        learn=config.learn,
    )


if __name__ == "__main__":
    cli.run(main, TrainTeacher)
