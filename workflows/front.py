"""Holds students of several objectives against each other on the test days: what each keeps of clicks, orders, likes.

    python -m workflows.front --sweep runs/objectives --logs runs/logs --teacher runs/teacher --out runs/front

`workflows.tune --space objectives` calls it on its trials. OUT then holds front.json, front.png and front.parquet, the
metrics request by request.
"""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import Positive, Seed, names
from prerank.core.errors import InputError
from prerank.core.outputs import write_json
from prerank.core.storage import place, whole, write_parquet
from prerank.evaluation.evaluate import evaluate
from prerank.evaluation.fronts import By, Front, front_of
from prerank.evaluation.plan import plan
from prerank.logs.folder import open_logs
from prerank.models.arch import load_arch
from prerank.models.fusion import Fusion
from prerank.reports.objectives import finding, front_figure, front_table


@dataclass(frozen=True)
class FrontOf:
    """Show which students no other one beats in all objectives, with those of one objective beside them."""

    logs: Path
    """Whose schema.json declares `labels`."""
    teacher: str
    """A folder made by workflows.train_teacher, or `logged`."""
    out: Path
    sweep: Path | None = None
    """A folder made by workflows.tune of a space with `fusion`: the students of its trials."""
    students: str = ""
    """Folders made by workflows.train_student, with commas, beside these."""
    by: By = "hit_rate"
    """What counts: of the items that have the label (hit_rate), or of the first K of the teacher's head (recall)."""
    k: Positive = 150
    seed: Seed = 0
    """Of the bootstrap."""


def main(config: FrontOf) -> Front:
    """Returns what stands in front.json."""
    logs = open_logs(config.logs.resolve())
    if not logs.schema.labels:
        raise InputError(
            f"{logs.folder}/schema.json: no 'labels' beside the click: there is one objective, and no front"
        )
    found = students_of(config)
    teacher = config.teacher if config.teacher == "logged" else str(place(config.teacher).resolve())
    planned = plan(logs, teacher, {name: folder for name, (folder, _) in found.items()}, k=config.k)
    start_ray()
    evaluation = evaluate(planned, seed=config.seed)
    named = {name: (str(folder), fusion) for name, (folder, fusion) in found.items()}
    front = front_of(evaluation, named, logs.schema.objectives, config.by)
    write_parquet(evaluation.per_request, config.out / "front.parquet")
    write_json(config.out / "front.json", front)
    with whole(config.out / "front.png") as file:
        front_figure(front).savefig(file, format="png", dpi=150)
    Console(width=max(150, Console().width)).print(front_table(front))
    print(finding(front), config.out / "front.json", sep="\n")
    return front


def students_of(config: FrontOf) -> dict[str, tuple[Path, Fusion]]:
    """Folder and fusion of each student by its fusion; raises InputError where there are none, or two of one."""
    folders = sorted(config.sweep.resolve().glob("trials/*/student/manifest.json")) if config.sweep else []
    folders = [path.parent for path in folders] + [Path(name).resolve() for name in names(config.students)]
    if not folders:
        where = f"{config.sweep}: no student of a trial" if config.sweep else "no student"
        raise InputError(f"{where}; name a sweep of a space with `fusion` by --sweep, or students by --students")
    out: dict[str, tuple[Path, Fusion]] = {}
    for folder in folders:
        fusion = load_arch(folder / "arch.json").fusion
        if fusion.said() in out:
            raise InputError(f"{folder}: of the same fusion as {out[fusion.said()][0]}, {fusion.said()}; leave one out")
        out[fusion.said()] = folder, fusion
    return out


if __name__ == "__main__":
    cli.run(main, FrontOf)
