"""Trains a student on taught samples, with any mix of strategies and distillation.

python -m workflows.train_student --samples runs/taught --out runs/student --distill.score 0.1 --distill.contrast 0.5
python -m workflows.train_student --samples runs/taught --out runs/towers --model two_tower --distill.score 1

`--model` is what pre-ranking has been, the MLP by default.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from prerank.core import cli
from prerank.core.config import Positive, Seed, Weight, Widths, Within, names, widths
from prerank.core.errors import InputError
from prerank.latency.options import Latency
from prerank.models.arch import ModelName
from prerank.models.options import Arm, Distill, Hard, Optim, Positions
from prerank.search.options import Search
from prerank.tracking.runs import Run
from prerank.training.arms import left_out, student_arm
from prerank.training.options import Compute
from prerank.training.student import Options, train

Student = Literal["mlp", "linear", "logistic", "two_tower", "two_tower_gbdt", "cold"]


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
    model: Student = "mlp"
    """What it is: a linear combination of fixed weights (2016), a logistic regression on clicks (2017), two towers
    (2018), their score and the cross features in boosted trees (2019), an MLP (2020), or one whose features COLD's
    squeeze and excitation has chosen within `budget_us`."""
    crosses: str = ""
    """Of logistic: pairs of ids, with commas, that have a weight for each pair of their values, such as user*item."""
    unexposed_ratio: Weight = 0.0
    """Of logistic: unexposed negatives for each exposed item; 0: it learns from exposures alone."""
    fusion: str = ""
    """Objectives with their weights in the score, such as click=1,converted=0.5 (`labels` of the logs' schema.json);
    empty: clicks alone. Each has a head, which learns in that proportion."""
    latency_table: Path | None = None
    """Of cold: the latency.json of workflows.profile_latency."""
    budget_us: Annotated[float | None, Within(0, above=True)] = None
    """Of cold: limit of fetch and inference; by default what the schema's hand_picked features cost with `widths`."""
    latency: Latency = Latency()
    """Of cold: the setting of the latency table."""


def main(config: TrainStudent, parent: Run | None = None) -> dict[str, float]:
    """Returns the metrics of the best epoch on the validation day."""
    if config.model == "cold":
        config = replace(config, model="mlp", arch=chosen_by_cold(config, parent))
    options = options_of(config)
    if lacking := left_out(model_of(config), config.samples.resolve(), config.arch, names(config.features)):
        print(f"note: {config.model}: leaves out what it cannot read: {', '.join(lacking)}")
    student = train(
        config.samples, config.out, k=config.k, compute=config.compute, cluster=True, parent=parent, **options
    )
    best = student.model.manifest["best"]
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in best.items() if name.startswith("val/"))
    print(f"{student.folder}: {metrics}")
    return best


def model_of(config: TrainStudent) -> ModelName:
    """What is trained in the end."""
    return "mlp" if config.model == "cold" else config.model


def chosen_by_cold(config: TrainStudent, parent: Run | None) -> Path:
    """The arch.json of the features that squeeze and excitation values most within the budget, beside the student."""
    from workflows import search_arch  # late: of the other models none searches, and it draws figures

    if config.latency_table is None:
        raise InputError("--model cold needs --latency-table, the latency.json of workflows.profile_latency")
    if config.arch or config.features:
        raise InputError("--model cold chooses the features itself: leave out --arch and --features")
    shared = {name: getattr(config, name) for name in ("widths", "strategy", "k", "seed", "distill", "optim")}
    shared |= {name: getattr(config, name) for name in ("latency", "compute", "budget_us")}
    out = config.out.with_name(f"{config.out.name}.cold")
    search = Search(method="squeeze_excite")
    search_arch.main(search_arch.SearchArch(config.samples, config.latency_table, out, search=search, **shared), parent)
    return out / "arch.json"


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
        "model": model_of(config),
        "crosses": names(config.crosses),
        "unexposed_ratio": config.unexposed_ratio,
        "fusion": config.fusion,
    }


def arm_of(config: TrainStudent) -> Arm:
    """The student that the configuration describes."""
    return student_arm(config.samples.resolve(), **options_of(config))


if __name__ == "__main__":
    cli.run(main, TrainStudent)
