"""What is evaluated on what: the logs, the models, and that they fit."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prerank.core.errors import InputError
from prerank.core.outputs import fingerprint
from prerank.core.storage import place
from prerank.evaluation.preflight import LOGGED, check_lists, space_of
from prerank.logs.folder import Logs
from prerank.logs.table import TableName
from prerank.models.checkpoint import load_model, require_same_features
from prerank.models.fusion import ONE_HEAD, Fusion


@dataclass(frozen=True)
class Plan:
    """What every part of an evaluation shares."""

    logs: Logs
    table: TableName
    """`candidates`, or `fine_lists` where the logs have none."""
    models: dict[str, tuple[Path, str]]
    """Folder and fingerprint of each student and, unless its scores were logged, of `teacher`."""
    test_from: np.datetime64
    k: int
    m: int | None
    curve: tuple[int, ...]
    fusion: Fusion = ONE_HEAD
    """By which a teacher of several heads ranks: that of the students, where it is one."""

    @property
    def students(self) -> list[str]:
        return [name for name in self.models if name != "teacher"]

    @property
    def teacher(self) -> str:
        """What to call it in a message."""
        fine_score = self.logs.folder / "fine_lists: fine_score"
        return str(self.models["teacher"][0] if "teacher" in self.models else fine_score)

    @property
    def key(self) -> str:
        """What the result follows from: the same key, the same result."""
        models = {name: known for name, (_, known) in self.models.items()}
        facts = [self.logs.fingerprint, self.table, models, str(self.test_from), self.k, self.m, self.curve]
        return fingerprint(facts)


def plan(
    logs: Logs, teacher: str, students: dict[str, Path], *, k: int, m: int | None = None, curve: tuple[int, ...] = ()
) -> Plan:
    """Checks that the models fit the logs and were kept from the same test days, and that there is something to choose
    among; raises InputError otherwise."""
    folders = students if teacher == LOGGED else {**students, "teacher": place(teacher)}
    models = {name: load_model(folder, kind=kind_of(name)) for name, folder in folders.items()}
    for name, model in models.items():
        require_same_features(model, logs.schema, folder=folders[name], where=logs.folder)
    days = {name: model.manifest["split"]["test_from"] for name, model in models.items()}
    if len(set(days.values())) > 1:
        found = ", ".join(f"{name}: {day}" for name, day in days.items())
        raise InputError(f"the models were kept from different test days ({found}); train them from the same samples")
    if teacher == LOGGED and not logs.has_scores:
        raise InputError(
            f"{logs.folder}/fine_lists: no fine_score, which --teacher {LOGGED} reads; name a teacher's folder"
        )
    test_from = np.datetime64(next(iter(days.values())))
    table = space_of(logs, test_from, logged=teacher == LOGGED)
    check_lists(logs, test_from, None, k=k, m=None, days="test", tables=(table,))
    known = {name: (folders[name], model.manifest["fingerprint"]) for name, model in models.items()}
    fusions = {model.arch.fusion for name, model in models.items() if name != "teacher"}
    fusion = fusions.pop() if len(fusions) == 1 else ONE_HEAD
    there = models["teacher"].arch.fusion.heads if "teacher" in models else ()
    return Plan(logs, table, known, test_from, k, m, curve, fusion if {*fusion.heads} <= {*there} else ONE_HEAD)


def kind_of(name: str) -> str:
    """As its folder says."""
    return "teacher" if name == "teacher" else "student"
