"""Trains a student on taught samples, with any mix of strategies and distillation.

python -m workflows.train_student --samples runs/taught --out runs/student --distill.score 0.1 --distill.contrast 0.5
python -m workflows.train_student --samples runs/taught --out runs/towers --model two_tower --distill.score 1

`--model` is what pre-ranking has been , the MLP by default.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prerank.core import cli
from prerank.core.config import Positive, Seed, Weight, Widths, names, widths
from prerank.models.options import Arm, Distill, Optim, Positions
from prerank.tracking.runs import Run
from prerank.training.arms import left_out, student_arm
from prerank.training.options import Compute
from prerank.training.student import Options, train

Student = Literal["mlp", "logistic", "two_tower"]


@dataclass(frozen=True)
class TrainStudent:
    """Train a pre-ranking model from taught samples (or from samples with the logs' own fine_score)."""

    samples: Path
    """A folder made by workflows.teach."""
    out: Path
    arch: Path | None = None
    """An arch.json: its features and widths, instead of the two below."""
    features: str = ""
    """Names, with commas; empty: the schema's hand_picked, or all that are not teacher_only."""
    widths: Widths = "64,32"
    """Hidden widths, with commas."""
    strategy: str = ""
    """Whose pairs to learn from, with commas; empty: every strategy in the samples."""
    positions: Positions = "teacher"
    """Whose order of the fine lists the strategies and rank bins follow: the teacher's, or the one that was logged."""
    k: Positive = 150
    """Cut-off of the validation metrics."""
    seed: Seed = 0
    distill: Distill = Distill()
    optim: Optim = Optim()
    compute: Compute = Compute()
    model: Student = "mlp"
    """What it is: a logistic regression on clicks (2017), two towers (2018), or an MLP (2020)."""
    crosses: str = ""
    """Of logistic: pairs of ids, with commas, that have a weight for each pair of their values, such as user*item."""
    unexposed_ratio: Weight = 0.0
    """Of logistic: unexposed negatives for each exposed item; 0: it learns from exposures alone."""


def main(config: TrainStudent, parent: Run | None = None) -> dict[str, float]:
    """Returns the metrics of the best epoch on the validation day."""
    options = options_of(config)
    if lacking := left_out(config.model, config.samples.resolve(), config.arch, names(config.features)):
        print(f"note: {config.model}: leaves out what it cannot read: {', '.join(lacking)}")
    student = train(
        config.samples, config.out, k=config.k, compute=config.compute, cluster=True, parent=parent, **options
    )
    best = student.model.manifest["best"]
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in best.items() if name.startswith("val/"))
    print(f"{student.folder}: {metrics}")
    return best


def options_of(config: TrainStudent) -> Options:
    return {
        "arch": config.arch,
        "features": names(config.features),
        "widths": widths(config.widths),
        "strategies": names(config.strategy),
        "positions": config.positions,
        "distill": config.distill,
        "optim": config.optim,
        "seed": config.seed,
        "model": config.model,
        "crosses": names(config.crosses),
        "unexposed_ratio": config.unexposed_ratio,
    }


def arm_of(config: TrainStudent) -> Arm:
    """The student that the configuration describes."""
    return student_arm(config.samples.resolve(), **options_of(config))


if __name__ == "__main__":
    cli.run(main, TrainStudent)
