"""Trains a student on taught samples, with any mix of strategies and distillation.

python -m workflows.train_student --samples runs/taught --out runs/student --distill.score 0.1 --distill.contrast 0.5
"""

from dataclasses import dataclass
from pathlib import Path

from prerank.core import cli
from prerank.core.config import Positive, Seed, Widths, names, widths
from prerank.models.options import Arm, Distill, Hard, Optim, Positions
from prerank.tracking.runs import Run
from prerank.training.arms import student_arm
from prerank.training.options import Compute
from prerank.training.student import Options, train


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
    hard: Hard = "pairwise"
    """The loss of these pairs: pairwise (RankNet); lambda: pairwise, weighted by what DCG would lose if the two changed
    places (COPR); or of the list that each strategy's pairs are of, where the clicked, or the first K to its scale, are
    pointwise: told from the others one by one; softmax: more probable than the others; topk: above the student's own
    K-th score (DFTopK); list: in their order (ListMLE)."""
    positions: Positions = "teacher"
    """Whose order of the fine lists the strategies and rank bins follow: the teacher's, or the one that was logged."""
    k: Positive = 150
    """Cut-off of the validation metrics."""
    seed: Seed = 0
    distill: Distill = Distill()
    optim: Optim = Optim()
    compute: Compute = Compute()


def main(config: TrainStudent, parent: Run | None = None) -> dict[str, float]:
    """Returns the metrics of the best epoch on the validation day."""
    options = options_of(config)
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
        "hard": config.hard,
        "positions": config.positions,
        "distill": config.distill,
        "optim": config.optim,
        "seed": config.seed,
    }


def arm_of(config: TrainStudent) -> Arm:
    """The student that the configuration describes."""
    return student_arm(config.samples.resolve(), **options_of(config))


if __name__ == "__main__":
    cli.run(main, TrainStudent)
