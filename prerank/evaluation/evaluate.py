"""Scores the candidates of the test days with teacher and students, on Ray Data, and sums up what each keeps.

A part of the logs holds whole requests, so every metric is exact whatever the number of parts and workers. What is left
out is counted: rows for faults of the logs and, of fine lists, the requests beyond `MOST_REQUESTS`. So is where scores
are tied; no order of items decides a tie (see `ranking`). The scores are as exact as a network's sums of floats are in
batches of any size.
"""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import pyarrow as pa

from prerank.core.arrow import between, is_in
from prerank.core.cluster.tasks import executed
from prerank.core.counts import Number, count, merge
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.core.nested import flat, flat_numpy, nest, offsets_of, segment_of
from prerank.core.outputs import fingerprint
from prerank.core.storage import place
from prerank.evaluation.intervals import Row, curve_means, paired_interval, summary
from prerank.evaluation.metrics import LABELS, Candidates, Comparison, pooled_aucs
from prerank.evaluation.objectives import Objectives
from prerank.evaluation.preflight import LOGGED, ROUNDED, check_lists, one_score, space_of
from prerank.evaluation.scores import head_scores_of, scores_of
from prerank.evaluation.truth import has_truth, truth_of
from prerank.logs.folder import DAY, Logs, overlaps
from prerank.logs.parts import slim, whole_requests
from prerank.logs.requests import to_requests
from prerank.logs.table import TableName
from prerank.models.checkpoint import known_model, load_model, require_same_features
from prerank.models.fusion import ONE_HEAD, Fusion
from prerank.samples.build import attach_features, number_of, val_key

MOST_REQUESTS = 20_000
"""At most so many are evaluated over the fine lists, which are logged of every request: drawn by a hash of request_id,
the same for all models. Candidates are logged of a sampled share already."""
POOLED = 20_000_000
"""Candidates, about, whose scores the driver gathers, 4 bytes a model, for the AUC over all requests: of more, those of
a share of the requests, drawn by another hash of request_id."""


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


class Noted(TypedDict):
    dropped: dict[str, Number]
    noted: dict[str, Number]


class Counted(Noted):
    """Of a part of the logs; as JSON on its way to the driver."""

    tied_top: int
    one_score: dict[str, int]
    """By model the requests of two items at least that it gives one score."""
    several: int
    """Requests of two items at least."""


class Ties(TypedDict):
    """Requests in which scores say less than it seems."""

    teachers_top: int
    """A tie decides who is among the teacher's top M."""
    one_score: dict[str, int]
    """By model: it gives all items, two at least, one score; models without such a request are left out."""


class Facts(Noted):
    """What was evaluated on."""

    space: TableName
    test_from: str
    requests: int
    candidates: float
    """Of a request, their mean."""
    requests_at_most_k: int
    k: int
    m: int
    has_truth: bool
    """Whether the click probabilities of all candidates are known."""
    pooled: NotRequired[int]
    """Requests that `auc` is over, where it is not all of them."""
    ties: NotRequired[Ties]
    """Results of earlier versions do not say."""
    fusion: NotRequired[str]
    """By which the teacher ranked, where it was not by clicks alone."""


@dataclass(frozen=True)
class Evaluation:
    rows: dict[str, Row]
    """The summary of each student, and of `teacher`."""
    per_request: pa.Table
    """One row a request, columns `<model>.<metric>`: what paired comparisons need."""
    facts: Facts

    def against(self, name: str, base: str, metric: str) -> list[float | None]:
        """[difference, lo, hi] of a per-request metric, paired over the requests; None where no request defines it."""
        a, b = (self.per_request[f"{model}.{metric}"].to_numpy() for model in (name, base))
        return [None if np.isnan(x) else x for x in paired_interval(a, b)]


def plan(
    logs: Logs, teacher: str, students: dict[str, Path], *, k: int, m: int | None = None, curve: tuple[int, ...] = ()
) -> Plan:
    """Checks that the models fit the logs and were kept from the same test days, and that there is something to choose
    among; raises InputError otherwise."""
    folders = students if teacher == LOGGED else {**students, "teacher": place(teacher)}
    models = {name: load_model(folder, kind=_kind(name)) for name, folder in folders.items()}
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


def evaluate(plan: Plan, *, blocks: int | None = None, seed: int = 0) -> Evaluation:
    """Runs the plan on the cluster and sums up, with 95% bootstrap intervals over the requests.

    The driver gathers the metrics of each request, and the scores of `POOLED` candidates for the AUC over all requests.
    """
    few, at_most = replace(plan, logs=slim(plan.logs)), share_of(plan, plan.test_from)
    there = sum(group.rows for group in plan.logs.tables[plan.table].groups if overlaps(group, plan.test_from, None))
    pooled_share = min(1.0, POOLED / max(1, round(there * min(1.0, at_most))))
    task = partial(score, plan=few, at_most=at_most, pooled_share=pooled_share)
    parts = executed(whole_requests(plan.logs, plan.table, task, blocks=blocks, since=plan.test_from))
    counts: Counted = {"dropped": {}, "noted": {}, "tied_top": 0, "one_score": {}, "several": 0}
    for said in (text for part in parts if part.num_rows for text in part["counts"].drop_null().to_pylist()):
        merge(counts, json.loads(said))
    parts = [part.drop_columns("counts") for part in parts if "request_id" in part.column_names and part.num_rows]
    if not parts:
        raise InputError(
            f"{plan.logs.folder}/{plan.table}: no request since {plan.test_from}, the first day of the test"
        )
    table = pa.concat_tables(parts)
    table = table.take(pa.array(np.argsort(hash_ids(table["request_id"]), kind="stable")))
    sizes, same = table["teacher.n"].to_numpy(), counts["one_score"]
    if counts["several"] and same["teacher"] == counts["several"]:
        raise InputError(
            f"{plan.teacher}: gives all items of each of the {len(sizes):,} requests of the test one score, so no "
            "student can be held against it; train the teacher on features that differ from item to item, or bring a "
            "fine_score that does"
        )
    pooled_R = np.diff(offsets_of(table["teacher.score"])) > 0
    gathered = table.filter(pa.array(pooled_R))
    candidates = Candidates.of(gathered)
    if plan.m:
        count(counts["noted"], "at_most_m", int(sizes[sizes <= plan.m].sum()), int((sizes <= plan.m).sum()))
    rows: dict[str, Row] = {}
    lists: set[str] = {*LABELS}
    for name in [*plan.students, "teacher"]:
        prefix = f"{name}."
        lists.add(f"{prefix}score")
        columns = {
            column.removeprefix(prefix): table[column].to_numpy()
            for column in table.column_names
            if column.startswith(prefix) and column not in lists
        }
        pooled = {
            of: (auc, _spread(influence_R, pooled_R))
            for of, (auc, influence_R) in pooled_aucs(candidates, flat_numpy(gathered[f"{name}.score"])).items()
        }
        rows[name] = summary(columns, k=plan.k, pooled=pooled, seed=seed) | {"curve": curve_means(columns)}
    facts: Facts = {
        "space": plan.table,
        "test_from": str(plan.test_from.astype("datetime64[D]")),
        "requests": len(sizes),
        "candidates": float(sizes.mean()),
        "requests_at_most_k": int((sizes <= plan.k).sum()),
        "k": plan.k,
        "m": plan.m or plan.k,
        "has_truth": "ctr" in rows["teacher"],
        "dropped": counts["dropped"],
        "noted": counts["noted"],
        "ties": {"teachers_top": counts["tied_top"], "one_score": {name: n for name, n in same.items() if n}},
    }
    if plan.fusion.heads:
        facts["fusion"] = plan.fusion.said()
    if not pooled_R.all():
        facts["pooled"] = int(pooled_R.sum())
    return Evaluation(rows, table.drop_columns(sorted(lists)), facts)


def _spread(values: np.ndarray, chosen_R: np.ndarray) -> np.ndarray:
    """float64 [R]: the values of the chosen ones, NaN of the others."""
    out = np.full(len(chosen_R), np.nan)
    out[chosen_R] = values
    return out


def score(rows: pa.Table, shown: pa.Table, plan: Plan, at_most: float, pooled_share: float = 1.0) -> pa.Table:
    """The test requests of a part of the logs: every model's metrics, one row a request, and of that share of the
    requests labels and scores, empty lists of the others.

    Those whose `number_of` is above `at_most` are only counted.
    """
    table, noted = tested(rows, shown, plan, plan.test_from, at_most)
    counted: Counted = {**noted, "tied_top": 0, "one_score": {}, "several": 0}
    if not table.num_rows:
        return pa.table({"counts": [json.dumps(counted)]})
    offsets = offsets_of(table["item_id"])
    candidates, scores, heads = scored(table, plan)
    objectives = Objectives(table, candidates, heads, plan.logs.schema.labels, k=plan.k)
    pooled_R = number_of(table["request_id"], 1) <= pooled_share
    pooled_N, pooled_offsets = pooled_R[segment_of(offsets)], np.append(0, np.cumsum(np.diff(offsets) * pooled_R))
    out = {"request_id": table["request_id"]}
    out |= {name: nest(flat(table[name]).filter(pa.array(pooled_N)), pooled_offsets) for name in LABELS}
    compare = Comparison(candidates, scores["teacher"], k=plan.k, m=plan.m, curve=plan.curve)
    for name, score_N in scores.items():
        columns = compare(score_N) | objectives(score_N) | (objectives.of_heads(heads) if name == "teacher" else {})
        within = ROUNDED if name in plan.models else 0.0  # what was logged is taken as it is
        counted["one_score"][name], counted["several"] = one_score(score_N, offsets, within=within)
        out[f"{name}.score"] = nest(score_N[pooled_N], pooled_offsets)
        out |= {f"{name}.{metric}": pa.array(values) for metric, values in columns.items()}
    counted["tied_top"] = int(compare.teacher.tied(plan.m or plan.k).sum())
    out["counts"] = pa.array([json.dumps(counted)] + [None] * (table.num_rows - 1), pa.string())
    return pa.table(out)


def tested(rows: pa.Table, shown: pa.Table, plan: Plan, since: np.datetime64, at_most: float) -> tuple[pa.Table, Noted]:
    """The requests of a part of the logs since then with encoded features, one row a request, and what was counted.

    Those whose `number_of` is above `at_most` are only counted.
    """
    late = rows["request_id"].filter(between(rows["ts"], since, None)).combine_chunks()
    rows, shown = (part.filter(is_in(part["request_id"], late)) for part in (rows, shown))
    labels = plan.logs.schema.labels
    requests, counts = to_requests(rows, shown, sampled=plan.table == "candidates", labels=labels)
    requests = requests.filter(between(requests["ts"], since, None))
    drawn = number_of(requests["request_id"], 0) <= at_most
    others = requests.filter(pa.array(~drawn))
    count(counts["noted"], "not_drawn", len(flat(others["item_id"])), others.num_rows)
    requests = requests.filter(pa.array(drawn))
    noted: Noted = {"dropped": counts["dropped"], "noted": counts["noted"]}
    return (attach_features(requests, rows, plan.logs.schema)[0] if requests.num_rows else requests), noted


def scored(table: pa.Table, plan: Plan) -> tuple[Candidates, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The candidates of request rows, with their truth where there is one, the scores [N] of every model, and those of
    the teacher's heads, where it has several."""
    true = plan.table == "candidates" and has_truth(plan.logs)
    candidates = Candidates.of(table, truth_of(table, plan.logs.folder / "truth") if true else None)
    models = {name: known_model(*known, _kind(name)) for name, known in plan.models.items()}
    teacher = models.pop("teacher", None)
    scores = {name: scores_of(table, model) for name, model in models.items()}
    heads = head_scores_of(table, teacher) if teacher else {}
    if teacher and heads:
        fusion = plan.fusion if plan.fusion.heads else teacher.arch.fusion
        scores["teacher"] = fusion.of(heads).astype(np.float32)
    else:
        scores["teacher"] = scores_of(table, teacher) if teacher else flat_numpy(table["fine_score"])
    for name, score_N in scores.items():
        _refuse_nan(score_N, table, plan.models[name][0] if name in plan.models else plan.teacher)
    return candidates, scores, heads


def share_of(plan: Plan, since: np.datetime64) -> float:
    """The `at_most` of `tested`: all candidates, which are logged of a sample, and of fine lists `MOST_REQUESTS`."""
    if plan.table != "fine_lists":
        return 1.0
    until = (plan.logs.days[1] + DAY).astype("datetime64[us]")
    return val_key(plan.logs, plan.table, since, until, requests=MOST_REQUESTS, seed=0)


def _refuse_nan(score_N: np.ndarray, table: pa.Table, who: Path | str) -> None:
    if np.isnan(score_N).any():
        bad = table["request_id"][int(segment_of(offsets_of(table["item_id"]))[np.isnan(score_N)][0])]
        raise InputError(f"{who}: the score of an item of request {bad} is not a number; train the model again")


def _kind(name: str) -> str:
    return "teacher" if name == "teacher" else "student"
