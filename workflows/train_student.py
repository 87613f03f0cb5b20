"""Trains a student on taught samples, with any mix of strategies and distillation.

python -m workflows.train_student --samples runs/taught --out runs/student --distill.score 0.1 --distill.contrast 0.5
"""

from dataclasses import dataclass
from pathlib import Path

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import names, widths
from prerank.logs.schema import load_schema
from prerank.models.arch import Arch, load_arch
from prerank.models.options import Arm, Distill, Optim
from prerank.samples.files import samples_manifest
from prerank.tracking.runs import Run
from prerank.training.group import train_models
from prerank.training.options import Compute
from prerank.training.worker import teacher_column


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
    widths: str = "64,32"
    """Hidden widths, with commas."""
    strategy: str = ""
    """Whose pairs to learn from, with commas; empty: every strategy in the samples."""
    k: int = 150
    """Cut-off of the validation metrics."""
    seed: int = 0
    distill: Distill = Distill()
    optim: Optim = Optim()
    compute: Compute = Compute()


def main(config: TrainStudent, parent: Run | None = None) -> dict:
    """Returns the metrics of the best epoch on the validation day."""
    samples, out, student = config.samples.resolve(), config.out.resolve(), arm_of(config)
    start_ray()
    work = out.parent / f".{out.name}.work"
    best = train_models(
        {out: student}, samples, kind="student", work=work, compute=config.compute, k=config.k, parent=parent
    )["student"]["best"]
    print(f"{out}: {', '.join(f'{name} {value:.4f}' for name, value in best.items() if name.startswith('val/'))}")
    return best


def arm_of(config: TrainStudent) -> Arm:
    """The student that the configuration describes."""
    samples = config.samples.resolve()
    manifest, schema = samples_manifest(samples), load_schema(samples)
    if config.arch:
        arch = load_arch(config.arch)
    else:
        arch = Arch(names(config.features) or schema.student_features, widths(config.widths))
    features = schema.select(arch.features, where=str(config.arch or "--features"))
    return Arm(
        name="student",
        features=tuple(feature.name for feature in features),
        widths=arch.widths,
        strategies=names(config.strategy) or tuple(manifest["strategies"]),
        select_by="recall" if teacher_column(samples, "val") else "auc",
        distill=config.distill,
        optim=config.optim,
        seed=config.seed,
    )


if __name__ == "__main__":
    cli.run(main, TrainStudent)
