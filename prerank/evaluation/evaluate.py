"""Scores the candidates of the test days with teacher and students, on Ray Data, and sums up what each keeps.

A part of the logs holds whole requests, so every metric is exact whatever the number of parts and workers. What is left
out is counted: rows for faults of the logs and the requests beyond `MOST_REQUESTS`. So is where scores are tied; no
order of items decides a tie (see `ranking`). The scores are as exact as a network's sums of floats are in
batches of any size.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from prerank.core.arrow import between, is_in
from prerank.core.cluster.tasks import executed
from prerank.core.counts import count
from prerank.core.errors import InputError
from prerank.core.nested import flat, flat_numpy, nest, offsets_of, segment_of
from prerank.evaluation.metrics import LABELS, Candidates, Comparison
from prerank.evaluation.objectives import Objectives
from prerank.evaluation.plan import Plan, kind_of
from prerank.evaluation.preflight import ROUNDED, one_score
from prerank.evaluation.scores import head_scores_of, scores_of
from prerank.evaluation.summed import Counted, Evaluation, Noted, summed
from prerank.evaluation.truth import has_truth, truth_of
from prerank.logs.folder import overlaps
from prerank.logs.parts import slim, whole_requests
from prerank.logs.requests import to_requests
from prerank.models.checkpoint import known_model
from prerank.samples.build import attach_features, number_of, val_key

MOST_REQUESTS = 20_000
"""At most so many are evaluated: drawn by a hash of request_id, the same for all models. Of so many an interval of a
Recall is some tenths of a point wide; what the driver holds of them grows no more with the logs, of which it reads ids
and days."""
POOLED = 20_000_000
"""Candidates, about, whose scores the driver gathers, 4 bytes a model, for the AUC over all requests: of more, those of
a share of the requests, drawn by another hash of request_id."""


def evaluate(plan: Plan, *, blocks: int | None = None, seed: int = 0) -> Evaluation:
    """Runs the plan on the cluster and sums up, with 95% bootstrap intervals over the requests.

    The driver gathers the metrics of each request, and the scores of `POOLED` candidates for the AUC over all requests.
    """
    few, at_most = replace(plan, logs=slim(plan.logs)), share_of(plan, plan.test_from)
    there = sum(group.rows for group in plan.logs.tables[plan.table].groups if overlaps(group, plan.test_from, None))
    pooled_share = min(1.0, POOLED / max(1, round(there * min(1.0, at_most))))
    task = partial(score, plan=few, at_most=at_most, pooled_share=pooled_share)
    parts = executed(whole_requests(plan.logs, plan.table, task, blocks=blocks, since=plan.test_from))
    return summed(plan, parts, seed=seed)


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
    models = {name: known_model(*known, kind_of(name)) for name, known in plan.models.items()}
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
    """The `at_most` of `tested`: that of `MOST_REQUESTS`, or of all where there are fewer."""
    return val_key(plan.logs, plan.table, since, None, requests=MOST_REQUESTS, seed=0)


def _refuse_nan(score_N: np.ndarray, table: pa.Table, who: Path | str) -> None:
    if np.isnan(score_N).any():
        bad = table["request_id"][int(segment_of(offsets_of(table["item_id"]))[np.isnan(score_N)][0])]
        raise InputError(f"{who}: the score of an item of request {bad} is not a number; train the model again")
