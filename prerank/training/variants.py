"""What a teacher learns beside clicks, and which of its variants tells the validation day's clicks apart best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from prerank.core.config import Weight, Within
from prerank.core.errors import InputError
from prerank.logs.schema import load_schema
from prerank.models.options import Arm, Distill
from prerank.samples.dropout import large
from prerank.samples.taught import teacher_column
from prerank.training.worker import Trained

WITHOUT = {"clicks": ("fine_score", "id_dropout"), "fine_score": ("id_dropout",), "id_dropout": ("fine_score",)}
"""The variants of a teacher that learns from all, and what each is without."""


@dataclass(frozen=True)
class Learn:
    """Beside the clicks; neither by default, for what it does to students (prerank/training/README.md)."""

    fine_score: Weight = 0.0
    """Weight of 1 less the correlation with the logs' fine_score within a request, where they have one; 100: much."""
    id_dropout: Annotated[float, Within(0, 0.99)] = 0.0
    """Share of the ids of large tables that are the unknown in a step, so that none is learned by heart; 0.8: much."""
    shown_position: bool = False
    """Learn what the place at which an item was shown does to its clicks beside what it is worth, and score without it.
    The logged clicks cannot tell which of the two is the better ranker, so it is no variant."""
    variants: bool = False
    """Train it without the one, the other and both as well (three trainings more), and keep the best on the validation
    day, by the AUC of its clicks."""


def check_learn(learn: Learn, model: str, labels: Sequence[str]) -> None:
    """Raises InputError where the teacher's model, or the labels of the logs, leave no room for what it is to learn."""
    if model != "mlp" and learn != Learn():
        raise InputError(f"learn: of a teacher of --model mlp, and this is a {model}, which learns from clicks alone")
    for name, asked in (("fine_score", learn.fine_score), ("shown_position", learn.shown_position)):
        if asked and labels:
            raise InputError(
                f"learn.{name}: of a teacher of clicks alone, and schema.json has the labels {', '.join(labels)}, each "
                "with a head; leave one of the two out"
            )


def learning(teacher: Arm, samples: Path, learn: Learn) -> Arm:
    """The teacher with what these samples have to learn from."""
    logged = teacher_column(samples) == "fine_score"
    features = load_schema(samples).select(teacher.features, where=teacher.name)
    distill = Distill(score=learn.fine_score, on="correlation") if logged and learn.fine_score else Distill()
    dropout = learn.id_dropout if large(features) else 0.0
    return replace(teacher, distill=distill, id_dropout=dropout, by_place=learn.shown_position)


def variants_of(teacher: Arm) -> dict[str, Arm]:
    """The others, by what they learn beside clicks, each named after the teacher; none that is like one before."""
    out: dict[str, Arm] = {}
    for name, without in WITHOUT.items():
        changed = {"id_dropout": 0.0} if "id_dropout" in without else {}
        distill = Distill() if "fine_score" in without else teacher.distill
        arm = replace(teacher, distill=distill, **changed)
        if arm != teacher and all(replace(arm, name=other.name) != other for other in out.values()):
            out[name] = replace(arm, name=f"{teacher.name}_{name}")
    return out


def found(trained: Trained) -> float:
    """The AUC of the validation day's clicks in the best epoch."""
    return trained.state.numbers(trained.state.best_epoch)["val/auc"]


def best_of(trained: Mapping[str, Trained], teacher: str, others: Mapping[str, Arm]) -> dict[str, Trained]:
    """All that was trained, with the best of the variants in the teacher's place, and it as `..._all`; of equal ones it
    stays where it is."""
    best = max([teacher, *(arm.name for arm in others.values())], key=lambda name: found(trained[name]))
    kept = trained[best]
    return {
        **trained,
        f"{teacher}_all": trained[teacher],
        teacher: Trained(replace(kept.arm, name=teacher), kept.state, kept.best),
    }
