"""A student from Python: trained on a folder of samples, and its scores for rows as they are logged.

    from prerank.training.student import Distill, train

    student = train("runs/demo/taught", "runs/student", distill=Distill(score=1.0))
    scores = student.score(table)

`table` is a pyarrow Table with request_id, item_id and the student's features, a row an item.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import pyarrow as pa

from prerank.core.cluster.start import start_ray
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.core.nested import nest, offsets_from
from prerank.core.storage import place
from prerank.evaluation.scores import scores_of
from prerank.logs.columns import agreed, checked, requirements
from prerank.logs.schema import Schema
from prerank.logs.types import converted
from prerank.models.arch import ModelName
from prerank.models.checkpoint import Model, load_model
from prerank.models.options import Distill, Hard, Optim, Positions
from prerank.samples.build import attach_features
from prerank.tracking.runs import Run
from prerank.training.arms import student_arm
from prerank.training.finished import finished_models, fit_here
from prerank.training.group import train_models
from prerank.training.options import Compute
from prerank.training.worker import Job

__all__ = ["Compute", "Distill", "Optim", "Student", "load_student", "train"]


class Options(TypedDict, total=False):
    """As `prerank.training.arms.student_arm` takes them."""

    arch: Path | None
    features: tuple[str, ...]
    widths: tuple[int, ...]
    strategies: tuple[str, ...]
    hard: Hard
    positions: Positions
    distill: Distill
    optim: Optim
    seed: int
    model: ModelName
    crosses: tuple[str, ...]
    unexposed_ratio: float
    fusion: str


@dataclass(frozen=True)
class Student:
    """A finished student."""

    folder: Path
    model: Model

    def score(self, table: pa.Table) -> np.ndarray:
        """float32 [N]: the score of each row, in the order of the rows; within a request, the higher the better.

        `table` [N] has the columns that logs have (`request_id`, `item_id` and the student's features, raw), the rows
        of any number of requests in any order. Missing numbers and unknown ids are taken as in the training. A feature
        of the request is taken from its first item by ascending hash of `item_id`, as in samples and evaluations.
        Raises InputError naming the column that is missing or of another type.
        """
        schema = Schema(self.model.schema.select(self.model.arch.features, where=str(self.folder)), {})
        rows = _columns(table, schema)
        if not rows.num_rows:
            return np.empty(0, np.float32)
        request, item = hash_ids(rows["request_id"]), hash_ids(rows["item_id"])
        order = np.lexsort((item, request))
        ids, code = np.unique(request[order], return_inverse=True)
        offsets = offsets_from(code, len(ids))
        ordered = nest(rows["item_id"].combine_chunks().take(pa.array(order)), offsets)
        requests, _ = attach_features(pa.table({"item_id": ordered, "row": nest(order, offsets)}), rows, schema)
        out = np.empty(table.num_rows, np.float32)
        out[order] = scores_of(requests, self.model)
        return out


def train(
    samples: Path | str,
    out: Path | str,
    *,
    k: int = 150,
    compute: Compute | None = None,
    cluster: bool = False,
    parent: Run | None = None,
    **options: Unpack[Options],
) -> Student:
    """Trains a student into the folder `out`, or takes the one that is there already if it is the same.

    `options` are those of `prerank.training.arms.student_arm`; `k` is the cut-off of the validation metrics. One worker
    trains in this process; several, or one if `cluster` is set, on Ray Train, where a training that was killed goes on
    from its last checkpoint. It is logged to MLflow, as all trainings are. Raises InputError where the samples lack
    what the student needs, or `out` holds something else.
    """
    samples, out, compute = place(samples).resolve(), place(out).resolve(), compute or Compute()
    compute.check()
    arms = {out: student_arm(samples, **options)}
    work = out.parent / f".{out.name}.work"
    if cluster or compute.workers > 1:
        start_ray()
        train_models(arms, samples, kind="student", work=work, compute=compute, k=k, parent=parent)
    else:
        finished_models(arms, Job(samples, compute, k), kind="student", work=work, fit=fit_here, parent=parent)
    return load_student(out)


def load_student(folder: Path | str) -> Student:
    """A student that was trained before; raises InputError where the folder holds none."""
    folder = place(folder).resolve()
    return Student(folder, load_model(folder, kind="student"))


def _columns(table: pa.Table, schema: Schema) -> pa.Table:
    """The columns that scoring reads, in the types in which logs are read."""
    where = Path("table")  # as the messages of `checked` have it
    needs = {name: need for name, need in requirements("candidates", schema).items() if name != "ts"}
    wanted = agreed(where, {"candidates": checked(where, table.schema, needs)}, schema)["candidates"]
    for name in ("request_id", "item_id"):
        if table[name].null_count:
            raise InputError(f"{where}: column {name!r} is null in {table[name].null_count} rows; expected an id a row")
    try:
        return pa.table([converted(table[field.name], field.type) for field in wanted], schema=wanted)
    except pa.ArrowException as error:
        raise InputError(f"{where}: {error}; expected the columns of the logs that the student learned from") from error
