"""The arms that stand for the trained models: a student of given options, and the teacher with what it has to beat."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from prerank.core.errors import InputError
from prerank.logs.schema import load_schema
from prerank.models.arch import Arch, ModelName, load_arch
from prerank.models.checkpoint import Proof
from prerank.models.fusion import parse_fusion
from prerank.models.logistic import Cross
from prerank.models.options import Arm, Distill, Hard, Optim, Positions
from prerank.models.scorers import readable
from prerank.samples.files import samples_manifest
from prerank.samples.taught import teacher_column
from prerank.training.variants import Learn, check_learn, learning
from prerank.training.worker import Trained

TEACHER = Optim(lr=1e-3, epochs=10, patience=2, average=0.0)
"""How a teacher learns from clicks. At the students' rate it soon knows the shown items by heart: on the simulated logs
the AUC of the logged clicks rises, and the share of the truly best items that it finds falls."""

TeacherName = Literal["mlp", "gbdt"]


def student_arm(
    samples: Path,
    *,
    arch: Path | None = None,
    features: tuple[str, ...] = (),
    widths: tuple[int, ...] = (64, 32),
    strategies: tuple[str, ...] = (),
    hard: Hard = "pairwise",
    positions: Positions = "teacher",
    distill: Distill | None = None,
    optim: Optim | None = None,
    seed: int = 0,
    model: ModelName = "mlp",
    crosses: tuple[str, ...] = (),
    unexposed_ratio: float = 0.0,
    fusion: str = "",
) -> Arm:
    """A student of these samples.

    `arch`: an arch.json, whose features and widths count instead of `features` (by default the schema's hand_picked, or
    all that are not teacher_only) and `widths`. It learns from the pairs of the `strategies`, by default of all that
    the samples were built with. `model`: of the named features those are left out that it cannot read (`left_out`); a
    logistic regression learns from clicks, by themselves, whatever the strategies are, and has a weight for each pair
    of the ids in `crosses`. `unexposed_ratio` is that of its negatives. `fusion`: the weights of its
    objectives, as `parse_fusion` takes them; by default it learns and ranks by clicks alone. Raises InputError for an
    unknown feature or objective or a feature that is the teacher's alone, and where the model can read too few.
    """
    manifest, schema = samples_manifest(samples), load_schema(samples)
    chosen = load_arch(arch) if arch else Arch(features or schema.student_features, widths)
    where = str(arch or ("--features" if features else "schema.json: hand_picked"))
    selected = readable(model, schema.select(chosen.features, where=where), where=where)
    for feature in selected:
        if feature.teacher_only:
            raise InputError(f"{where}: {feature.name!r} is teacher_only: not to be had when pre-ranking serves")
    if crosses and model != "logistic":
        raise InputError(f"--crosses {','.join(crosses)}: of --model logistic alone, and this is {model}; leave it out")
    for name in crosses:
        Cross(name, selected)
    fused = parse_fusion(fusion, schema.objectives)
    return Arm(
        name="student",
        features=tuple(feature.name for feature in selected),
        widths=() if model in ("linear", "logistic") else chosen.widths,
        strategies=strategies or tuple(manifest["strategies"]),
        hard="clicks" if model == "logistic" else hard,
        positions=positions,
        select_by="recall" if teacher_column(samples, "val") else "auc",
        distill=distill or Distill(),
        optim=optim or Optim(),
        seed=seed,
        unexposed_ratio=unexposed_ratio,
        model=model,
        crosses=crosses,
        heads=fused.heads,
        shares=fused.shares,
    )


def left_out(model: ModelName, samples: Path, arch: Path | None, features: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the features of `student_arm` that the model cannot read."""
    schema = load_schema(samples)
    chosen = load_arch(arch).features if arch else features or schema.student_features
    selected = schema.select(chosen, where="--features")
    kept = readable(model, selected, where="--features")
    return tuple(feature.name for feature in selected if feature not in kept)


def teacher_arms(
    samples: Path,
    *,
    features: tuple[str, ...] = (),
    widths: tuple[int, ...] = (256, 128, 64),
    unexposed_ratio: float = 3.0,
    optim: Optim | None = None,
    seed: int = 0,
    model: TeacherName = "mlp",
    learn: Learn | None = None,
) -> list[Arm]:
    """The teacher, on all features unless some are named, and the small models on a single group of them.

    Where the schema has labels, a teacher that is a network has a head for each objective, and learns all of them
    alike; its score is that of the clicks. A teacher that finds fewer clicked items than the best of the small ones
    (features of the items, features across request and item) is not worth imitating. `unexposed_ratio`: as in `Arm`. A
    `gbdt` has no widths and no rate, and learns from the clicks alone; the small models too, as what the teacher finds
    is to be its features' doing. Raises InputError as `check_learn` does.
    """
    schema = load_schema(samples)
    chosen = schema.select(features or schema.names, where="--features")
    teacher = Arm(
        name="teacher",
        features=tuple(feature.name for feature in chosen),
        widths=widths,
        hard="listwise",
        unexposed_ratio=unexposed_ratio,
        select_by="auc",
        optim=optim or TEACHER,
        seed=seed,
    )
    groups = {side: tuple(feature.name for feature in chosen if feature.side == side) for side in ("item", "cross")}
    small = [replace(teacher, name=side, features=group, widths=(64, 32)) for side, group in groups.items() if group]
    learn = learn or Learn()
    check_learn(learn, model, schema.labels)
    if model != "mlp":
        return [replace(teacher, model=model, widths=()), *small]
    teacher = learning(teacher, samples, learn)
    if schema.labels:
        heads, others = schema.objectives, len(schema.labels)
        alike = (1 / len(heads),) * len(heads)
        teacher = replace(teacher, heads=heads, shares=(1.0, *(0.0,) * others), learned=alike)
    return [teacher, *small]


def proof_of(trained: Mapping[str, Trained], k: int) -> dict[str, dict[str, Proof]]:
    """For the teacher's manifest: the `proof`, what each of `teacher_arms` finds in its best epoch."""

    def found(arm: Trained) -> Proof:
        best = arm.state.numbers(arm.state.best_epoch)
        return {"hit_rate": best[f"val/hit_rate_at_{k}"], "auc": best["val/auc"]}

    return {"proof": {name: found(arm) for name, arm in trained.items()}}
