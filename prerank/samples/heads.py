"""What the heads of a network are of in the samples: their labels' columns, and their teacher's."""

import numpy as np
import pyarrow as pa

from prerank.core.nested import flat_numpy
from prerank.logs.schema import CLICK
from prerank.models.fusion import Fusion


def label_of(head: str) -> str:
    """The column of a head's label."""
    return "clicked" if head == CLICK else head


def teacher_of(head: str, teacher_score: str = "teacher_score") -> str:
    """The column of the teacher's score of a head; `teacher_score` is that of the clicks."""
    return teacher_score if head == CLICK else f"/teacher/{head}"


def of_label(table: pa.Table, head: str) -> pa.Table:
    """Request rows with a head's label in the place of the clicks."""
    label = label_of(head)
    if label == "clicked":
        return table
    if "clicked" not in table.column_names:
        return table.append_column("clicked", table[label])
    return table.set_column(table.column_names.index("clicked"), "clicked", table[label])


def fused_teacher(table: pa.Table, fusion: Fusion, teacher_score: str) -> np.ndarray:
    """[N]: the score by which the teacher ranks for a student of that fusion."""
    if not fusion.heads:
        return flat_numpy(table[teacher_score])
    return fusion.of({head: flat_numpy(table[teacher_of(head, teacher_score)]) for head in fusion.heads})
