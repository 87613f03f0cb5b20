"""Trains the teacher on all features, from exposures and unexposed negatives, and has it prove itself.

    python -m workflows.train_teacher --samples runs/samples --out runs/teacher

Beside it, a small ranker is trained on each single group of features (those of the items, those across request and
item): a teacher that finds fewer clicked items than the best of them is not worth imitating.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import names, widths
from prerank.logs.schema import load_schema
from prerank.models.options import Arm, Optim
from prerank.tracking.runs import Run
from prerank.training.group import train_models
from prerank.training.options import Compute
from prerank.training.worker import Trained


@dataclass(frozen=True)
class TrainTeacher:
    """Train the teacher from samples."""

    samples: Path
    """A folder made by workflows.build_samples."""
    out: Path
    features: str = ""
    """Names, with commas; empty: all of the schema."""
    widths: str = "256,128,64"
    """Hidden widths, with commas."""
    unexposed_ratio: float = 3.0
    """Unexposed negatives for each exposed item; 0 trains on exposures alone: sample selection bias."""
    k: int = 150
    """Cut-off of the hit-rate."""
    seed: int = 0
    optim: Optim = Optim()
    compute: Compute = Compute()


def main(config: TrainTeacher, parent: Run | None = None) -> dict:
    """Returns the validation hit-rates and AUCs of the teacher and of the single groups."""
    samples, out = config.samples.resolve(), config.out.resolve()
    teacher, *groups = arms_of(config)
    start_ray()
    manifest = train_models(
        {out: teacher},
        samples,
        kind="teacher",
        work=out.parent / f".{out.name}.work",
        compute=config.compute,
        k=config.k,
        beside=tuple(groups),
        extra=lambda trained: {"proof": {name: _proof(arm, config.k) for name, arm in trained.items()}},
        parent=parent,
    )["teacher"]
    show(manifest["proof"], config.k)
    return manifest["proof"]


def arms_of(config: TrainTeacher) -> list[Arm]:
    """The teacher, and the small models on a single group of its features that it has to beat."""
    schema = load_schema(config.samples)
    chosen = schema.select(names(config.features) or schema.names, where="--features")
    teacher = Arm(
        name="teacher",
        features=tuple(feature.name for feature in chosen),
        widths=widths(config.widths),
        hard="listwise",
        unexposed_ratio=config.unexposed_ratio,
        select_by="auc",
        optim=config.optim,
        seed=config.seed,
    )
    groups = {side: tuple(feature.name for feature in chosen if feature.side == side) for side in ("item", "cross")}
    small = [replace(teacher, name=side, features=group, widths=(64, 32)) for side, group in groups.items() if group]
    return [teacher, *small]


def _proof(trained: Trained, k: int) -> dict[str, float]:
    best = trained.state.history[trained.state.best_epoch]
    return {"hit_rate": best[f"val/hit_rate_at_{k}"], "auc": best["val/auc"]}


def show(proof: dict, k: int) -> None:
    """The teacher beside the single groups, on the clicked items of the validation day's full candidates."""
    table = Table(title="Does the teacher find what was clicked? (validation day, all candidates)")
    for column in ("trained on", f"hit-rate@{k}", "AUC within the request"):
        table.add_column(column)
    for name, values in proof.items():
        label = "all features (the teacher)" if name == "teacher" else f"{name} features alone"
        table.add_row(label, f"{values['hit_rate']:.3f}", f"{values['auc']:.3f}")
    Console().print(table)


if __name__ == "__main__":
    cli.run(main, TrainTeacher)
