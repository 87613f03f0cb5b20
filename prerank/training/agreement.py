"""How far a teacher agrees with the logs' own fine ranking and, where it is known, with the truth.

Of the validation requests: rank correlations (Spearman, mean over requests) within the fine list and outside it, where
no click can ever be, and what the first K of the teacher hold of the truly best K. N candidates of all requests.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from prerank.core.arrow import is_in
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.core.nested import flat, offsets_of, segment_of
from prerank.evaluation.metrics import Candidates, Validation
from prerank.evaluation.truth import has_truth, truth_of
from prerank.logs.folder import Logs, overlaps, read_groups
from prerank.logs.schema import load_schema
from prerank.models.scorers import scorer_of
from prerank.models.stats import load_stats
from prerank.samples.batches import scoring_batch
from prerank.samples.files import files_of, samples_manifest
from prerank.samples.reader import sequential
from prerank.samples.taught import scored_columns
from prerank.training.worker import Trained


def agreement(teacher: Trained, samples: Path, logs: Logs, k: int) -> dict[str, float]:
    """`fine_score`: with the logged scores, where there are some; `in_list`, `outside` and `kept`: with the truth of a
    simulator or a random exposure. A number that no request defines is left out.

    `logs`: those that the samples were built from; of the fine lists of the validation days four columns are read.
    """
    features = load_schema(samples).select(teacher.arm.features, where=teacher.arm.name)
    ranker = scorer_of(teacher.arm.arch, features, load_stats(samples))
    ranker.load_state_dict(teacher.best)
    ranker.eval()
    logged, parts = _logged(samples, logs), []
    for table in sequential(files_of(samples, "val"), ("request_id", *scored_columns(features, None))):
        batch = scoring_batch(table, features)
        with torch.inference_mode():
            score_N = ranker(batch.features, batch.request_I)[0].float().cpu().numpy()
        parts.append(_of_requests(table, score_N, logged, logs, k))
    each = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: float(np.nanmean(each_R)) for name, each_R in each.items() if not np.isnan(each_R).all()}


def rank_correlation(request_N: np.ndarray, a_N: np.ndarray, b_N: np.ndarray) -> np.ndarray:
    """float64 [R]: Spearman's within each request 0..R-1, ties sharing their ranks; NaN where one side says nothing.

    >>> rank_correlation(np.array([0, 0, 0, 1]), np.array([1.0, 2.0, 3.0, 1.0]), np.array([1.0, 3.0, 2.0, 1.0]))
    array([0.5, nan])
    """
    count_R = np.bincount(request_N)

    def centred(value_N: np.ndarray) -> np.ndarray:
        order = np.lexsort((value_N, request_N))
        request, value = request_N[order], value_N[order]
        new = np.r_[True, (request[1:] != request[:-1]) | (value[1:] != value[:-1])]
        tie, place = np.cumsum(new) - 1, np.arange(len(order), dtype=float)
        rank_N = np.empty(len(order))
        rank_N[order] = (np.bincount(tie, place) / np.bincount(tie))[tie]
        return rank_N - (np.bincount(request_N, rank_N) / np.maximum(count_R, 1))[request_N]

    if not len(request_N):
        return np.full(len(count_R), np.nan)
    x_N, y_N = centred(a_N), centred(b_N)
    of_R = [np.bincount(request_N, product_N) for product_N in (x_N * y_N, x_N * x_N, y_N * y_N)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(of_R[1] * of_R[2] > 0, of_R[0] / np.sqrt(of_R[1] * of_R[2]), np.nan)


def _of_requests(
    table: pa.Table, score_N: np.ndarray, logged: pa.Table | None, logs: Logs, k: int
) -> dict[str, np.ndarray]:
    """The numbers of some requests, [R] or fewer where the last ones have none."""
    request_N, out = segment_of(offsets_of(table["item_id"])), {}
    fine_N = np.full(len(request_N), np.nan)
    if logged is not None:
        keys = {"request": hash_ids(table["request_id"])[request_N], "item": hash_ids(flat(table["item_id"]))}
        at = pa.table({**keys, "at": np.arange(len(request_N))})
        joined = at.join(logged, ["request", "item"], join_type="inner")
        fine_N[joined["at"].to_numpy()] = joined["fine_score"].to_numpy()
        here_N = ~np.isnan(fine_N)
        out["fine_score"] = rank_correlation(request_N[here_N], score_N[here_N], fine_N[here_N])
    truth_N = _truth(table, logs)
    if truth_N is not None:
        if logged is not None:
            for name, here_N in (("in_list", ~np.isnan(fine_N)), ("outside", np.isnan(fine_N))):
                out[name] = rank_correlation(request_N[here_N], score_N[here_N], truth_N[here_N])
        out["kept"] = Validation(Candidates.of(table), truth_N, k=k)(score_N)["recall"]
    return out


def _truth(table: pa.Table, logs: Logs) -> np.ndarray | None:
    """[N], or None where there is none of these days: an evaluation needs it of the test days alone."""
    if not has_truth(logs):
        return None
    try:
        return truth_of(table, logs.folder / "truth")
    except InputError:
        return None


def _logged(samples: Path, logs: Logs) -> pa.Table | None:
    """request and item as hashes, and fine_score, of the fine lists of the validation requests; None without scores."""
    if not logs.has_scores:
        return None
    days, table = samples_manifest(samples)["split"], logs.tables["fine_lists"]
    since, until = np.datetime64(days["val_from"]), np.datetime64(days["test_from"])
    ids = pa.concat_tables(sequential(files_of(samples, "val"), ("request_id",)))["request_id"].combine_chunks()
    parts: list[pa.Table] = []
    for group in table.groups:
        if overlaps(group, since, until):
            rows = read_groups(table, (group,), ["request_id", "item_id", "fine_score"])
            rows = rows.filter(is_in(rows["request_id"], ids))
            keys = {"request": hash_ids(rows["request_id"]), "item": hash_ids(rows["item_id"])}
            parts.append(pa.table({**keys, "fine_score": rows["fine_score"].cast(pa.float64()).combine_chunks()}))
    if not parts:
        return None
    once = pa.concat_tables(parts).group_by(["request", "item"]).aggregate([("fine_score", "max")])
    return once.rename_columns({"fine_score_max": "fine_score"})
