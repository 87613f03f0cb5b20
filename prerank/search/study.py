"""What a study found, as its study.json has it: a row a rung, its tries, its seeds, what it costs, and in which order.

Shapes: S seeds, R test requests.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

import numpy as np
import pyarrow as pa

from prerank.core.outputs import fingerprint
from prerank.evaluation.plan import Plan, plan
from prerank.evaluation.summed import Evaluation, Facts
from prerank.latency.served import Cost, serving_costs
from prerank.logs.folder import Logs
from prerank.search.equal_budget import Difference, difference, two_way_interval
from prerank.training.rungs import YEARS
from prerank.training.study import Studied, differs

Metric = Literal["recall", "hit_rate", "ctr"]
METRICS: tuple[Metric, ...] = ("recall", "hit_rate", "ctr")


class Over(TypedDict):
    """A metric over requests and seeds."""

    mean: float
    lo: float
    """And `hi`: the 95% interval of the pigeonhole bootstrap over both (Owen 2007)."""
    hi: float
    seeds: list[float]
    """The mean of each."""


class Try(TypedDict):
    options: dict[str, object]
    """In which the tries differ."""
    value: float
    """By the validation day."""


class Row(TypedDict):
    """A rung."""

    name: str
    describes: str
    article: str
    tries: list[Try]
    chosen: int
    features: list[str]
    students: list[str]
    """Folders of the best, by seed."""
    recall: Over
    hit_rate: Over
    ctr: NotRequired[Over]
    """Where the truth is known."""
    fetch_us: float
    inference_us: float
    latency_us: float
    vs_base: NotRequired[Difference]
    """Of recall, to the study's base."""
    vs_before: NotRequired[Difference]
    """Of recall, to the rung before it in the article's order."""


class Results(TypedDict):
    study: str
    base: str
    seeds: int
    candidates: int
    logs: Facts
    rows: list[Row]
    said: list[str]
    """Of each rung that is out of the article's order, or could have been trained for longer."""
    mlflow: str
    key: str


def name_of(rung: str, number: int) -> str:
    """Of a student in the evaluation."""
    return f"{rung}/{number}"


@dataclass(frozen=True)
class Asked:
    """What the results follow from."""

    study: str
    done: list[Studied]
    plan: Plan

    @property
    def base(self) -> str:
        """What the rungs are held against."""
        base = {"distill": "base", "search": "hand_picked"}.get(self.study, "mlp")
        names = [one.rung.name for one in self.done]
        return base if base in names else names[-1]

    @property
    def key(self) -> str:
        return fingerprint([self.plan.key, [[one.rung.name, one.at] for one in self.done]])

    def results(self, measured: Evaluation, *, candidates: int, threads: int, mlflow: str) -> Results:
        """The rows of what was measured on the test days, and times of the best of each rung on this host."""
        timed = {one.rung.name: (one.folders[0], "student") for one in self.done}
        costs = serving_costs(timed, candidates=candidates, threads=threads)
        rows = rows_of(self.done, measured.per_request, costs, base=self.base)
        return {
            "study": self.study,
            "base": self.base,
            "seeds": len(self.done[0].folders),
            "candidates": candidates,
            "logs": measured.facts,
            "rows": rows,
            "said": out_of_order(rows) + unfinished(self.done),
            "mlflow": mlflow,
            "key": self.key,
        }


def plan_of(study: str, done: list[Studied], logs: Logs, teacher: str, *, k: int, m: int | None) -> Asked:
    """All students of a study, to be evaluated together; raises InputError as `prerank.evaluation.plan.plan`."""
    students = {name_of(one.rung.name, number): path for one in done for number, path in enumerate(one.folders)}
    return Asked(study, done, plan(logs, teacher, students, k=k, m=m))


def rows_of(done: Sequence[Studied], per_request: pa.Table, costs: Mapping[str, Cost], *, base: str) -> list[Row]:
    """`per_request`: the evaluation's, of students by `name_of`."""

    def values(one: Studied, metric: Metric) -> np.ndarray:
        """[S, R]"""
        columns = [f"{name_of(one.rung.name, number)}.{metric}" for number in range(len(one.folders))]
        return np.stack([per_request[column].to_numpy() for column in columns])

    known: list[Metric] = [
        name for name in METRICS if f"{name_of(done[0].rung.name, 0)}.{name}" in per_request.column_names
    ]
    of_base = next((one for one in done if one.rung.name == base), None)
    rows: list[Row] = []
    before: Studied | None = None
    for one in done:
        cost, rung = costs[one.rung.name], one.rung
        row: Row = {
            "name": rung.name,
            "describes": rung.describes,
            "article": rung.article,
            "tries": [
                {"options": differs(arm, rung.tries), "value": value}
                for arm, value in zip(rung.tries, one.values, strict=True)
            ],
            "chosen": one.at,
            "features": list(one.best.features),
            "students": [str(folder) for folder in one.folders],
            **{name: _over(values(one, name)) for name in known},
            "fetch_us": cost["fetch_us"],
            "inference_us": cost["inference_us"],
            "latency_us": cost["latency_us"],
        }  # pyright: ignore[reportAssignmentType]  # its metrics are of a loop
        if of_base and one is not of_base:
            row["vs_base"] = difference(values(one, "recall"), values(of_base, "recall"))
        if before and before.rung.name in YEARS and rung.name in YEARS and rung.name != "cold":
            row["vs_before"] = difference(values(one, "recall"), values(before, "recall"))
        before = one
        rows.append(row)
    return rows


def _over(value_SR: np.ndarray) -> Over:
    lo, hi = two_way_interval(value_SR, np.zeros_like(value_SR))
    seeds = [float(mean) for mean in np.nanmean(value_SR, axis=1)]
    return {"mean": float(np.mean(seeds)), "lo": lo, "hi": hi, "seeds": seeds}


def unfinished(done: Sequence[Studied]) -> list[str]:
    """A sentence for each rung that more epochs might have made better."""
    return [
        f"{one.rung.name} was still rising with {one.rising} of {len(one.folders)} seeds when optim.epochs "
        f"({one.best.optim.epochs}) ended the training: more may keep more"
        for one in done
        if one.rising
    ]


def out_of_order(rows: Sequence[Row]) -> list[str]:
    """A sentence for each rung that keeps less than the one before it, with what of the features it does not read."""
    said: list[str] = []
    for before, row in itertools.pairwise(rows):
        gap = row.get("vs_before")
        if not gap or gap["mean"] >= 0:
            continue
        unread = [name for name in before["features"] if name not in row["features"]]
        why = f"; it does not read {', '.join(unread)}" if unread else ", though it reads all of its features"
        sure = "" if gap["hi"] < 0 else ", which these requests and seeds cannot tell from nothing"
        said.append(
            f"{row['name']} ({row['article']}) keeps {-100 * gap['mean']:.1f} points less than {before['name']} "
            f"({before['article']}), 95% interval {100 * gap['lo']:+.1f} to {100 * gap['hi']:+.1f}{sure}: out of the "
            f"article's order{why}"
        )
    return said
