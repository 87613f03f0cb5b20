"""What a student keeps for each objective of a schema with `labels`: of the teacher's head, and of the label itself.

R requests, N candidates of all of them.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from prerank.core.nested import flat_numpy
from prerank.evaluation.metrics import Candidates, Validation
from prerank.logs.schema import CLICK
from prerank.samples.heads import label_of


class Objectives:
    """Measures students on each objective; the teacher's heads are ranked once."""

    def __init__(
        self,
        table: pa.Table,
        candidates: Candidates,
        teacher: Mapping[str, np.ndarray],
        labels: tuple[str, ...],
        *,
        k: int,
    ) -> None:
        """`table`: the request rows of the candidates; `teacher`: `head_scores_of` them, none where it has no heads."""
        self.of = {
            name: Validation(replace(candidates, clicked=flat_numpy(table[label_of(name)])), teacher.get(name), k=k)
            for name in ((CLICK, *labels) if labels else ())
        }

    def of_heads(self, teacher: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`OBJECTIVE/own_hit_rate`: what each head of the teacher finds by itself of its label, float64 [R]."""
        return {f"{name}/own_hit_rate": self.of[name](teacher[name])["hit_rate"] for name in self.of if name in teacher}

    def __call__(self, student_N: np.ndarray) -> dict[str, np.ndarray]:
        """`OBJECTIVE/hit_rate` and, of a teacher's head, `OBJECTIVE/recall`, as in `Validation`: float64 [R]."""
        measured = {name: measure(student_N) for name, measure in self.of.items()}
        return {
            f"{name}/{metric}": values
            for name, columns in measured.items()
            for metric, values in columns.items()
            if metric != "auc"
        }
