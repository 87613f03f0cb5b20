"""Bootstrap and influence against the analytic interval or scikit-learn's answer, and the row of results."""

import numpy as np
import pytest
from metrics_fixture import draw
from sklearn.metrics import roc_auc_score

from prerank.evaluation import intervals
from prerank.evaluation.intervals import bootstrap_interval, curve_means, paired_interval, pooled_auc, summary
from prerank.evaluation.metrics import Candidates, per_request, pooled_aucs


@pytest.mark.slow
def test_bootstrap_of_normal_values_is_the_analytic_interval():
    values = np.random.default_rng(0).normal(3, 2, 4000)
    lo, hi = bootstrap_interval(values, seed=1, replicates=4000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert lo == pytest.approx(values.mean() - half, abs=0.08 * half)
    assert hi == pytest.approx(values.mean() + half, abs=0.08 * half)


@pytest.mark.slow
def test_bootstrap_of_a_weighted_mean_is_the_delta_method():
    rng = np.random.default_rng(0)
    values, weights = rng.random(4000), rng.integers(1, 50, 4000).astype(float)
    mean = np.average(values, weights=weights)
    half = 1.96 * np.sqrt(np.sum((weights * (values - mean)) ** 2)) / weights.sum()
    lo, hi = bootstrap_interval(values, weights, replicates=4000)
    assert (hi - lo) / 2 == pytest.approx(half, rel=0.06)
    assert (hi + lo) / 2 == pytest.approx(mean, abs=0.08 * half)


def test_bootstrap_leaves_out_undefined_requests_and_does_not_depend_on_the_chunk(monkeypatch):
    values = np.random.default_rng(0).normal(size=300)
    values[::3] = np.nan
    whole = bootstrap_interval(values, replicates=500)
    lo, hi = bootstrap_interval(values[~np.isnan(values)], replicates=500)
    assert whole == pytest.approx((lo, hi), abs=0.03)
    monkeypatch.setattr(intervals, "DRAWS_AT_ONCE", 700)
    assert bootstrap_interval(values, replicates=500) == pytest.approx(whole, rel=1e-12)
    assert np.isnan(bootstrap_interval(np.full(5, np.nan))).all()
    assert np.isnan(bootstrap_interval(np.empty(0))).all()
    assert bootstrap_interval(np.array([1.0, np.nan])) == (1.0, 1.0)  # some replicates draw no defined one


def test_pairing_removes_what_two_arms_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 5, 2000)
    a, b = shared + rng.normal(0.1, 0.5, 2000), shared + rng.normal(0, 0.5, 2000)
    a[0] = b[1] = np.nan
    difference, lo, hi = paired_interval(a, b)
    assert difference == pytest.approx(np.nanmean(a - b))
    half = 1.96 * np.nanstd(a - b) / np.sqrt(1998)
    assert (lo, hi) == pytest.approx((difference - half, difference + half), abs=0.15 * half)
    assert hi - lo < 0.2 * np.subtract(*bootstrap_interval(a)[::-1])


@pytest.mark.slow
def test_influence_bootstraps_to_the_interval_of_the_recomputed_auc():
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 30, 250)
    request = np.repeat(np.arange(250), sizes)
    effect = rng.normal(0, 0.8, 250)[request]  # requests differ: taking candidates as independent would be too narrow
    labels = rng.random(len(request)) < 1 / (1 + np.exp(1.5 - effect))
    scores = np.round(0.7 * labels + effect + rng.normal(size=len(request)), 1)
    auc, influence = pooled_auc(scores, labels, request, np.ones_like(labels), 250)
    assert auc == pytest.approx(roc_auc_score(labels, scores))
    assert influence.mean() == pytest.approx(0, abs=1e-12)

    rows = np.split(np.arange(len(request)), np.cumsum(sizes)[:-1])
    direct = []
    for _ in range(400):
        drawn = np.concatenate([rows[r] for r in rng.integers(0, 250, 250)])
        direct.append(roc_auc_score(labels[drawn], scores[drawn]))
    lo, hi = bootstrap_interval(auc + influence)
    direct_lo, direct_hi = np.percentile(direct, [2.5, 97.5])
    assert hi - lo == pytest.approx(direct_hi - direct_lo, rel=0.15)
    assert (lo, hi) == pytest.approx((direct_lo, direct_hi), abs=0.15 * (direct_hi - direct_lo))
    assert np.std(influence) / np.sqrt(250) == pytest.approx(np.std(direct), rel=0.1)


def test_pooled_auc_is_undefined_with_one_label_only():
    auc, influence = pooled_auc(np.arange(4.0), np.zeros(4, bool), np.array([0, 0, 1, 1]), np.ones(4, bool), 2)
    assert np.isnan(auc) and np.isnan(influence).all()


def test_summary_is_the_means_with_intervals_and_no_nan():
    candidates, teacher, student = draw(1, requests=60)
    columns = per_request(candidates, teacher, student, k=5)
    row = summary(columns, k=5, pooled=pooled_aucs(candidates, student), seed=4)
    assert row["requests"] == 60 and row["requests_with_click"] == np.sum(columns["clicks"] > 0)
    assert row["recall_at_5"] == pytest.approx(np.nanmean(columns["recall"]))
    assert row["random_recall_at_5"] == pytest.approx(np.nanmean(columns["random_recall"]))
    assert row["slices"]["unexposed"]["recall_at_5"] == pytest.approx(np.nanmean(columns["recall_unexposed"]))
    defined = ~np.isnan(columns["auc"])
    assert row["gauc"] == pytest.approx(np.average(columns["auc"][defined], weights=columns["n"][defined]))
    assert row["auc"] == pytest.approx(roc_auc_score(candidates.clicked, student))
    assert row["slices"]["exposed"]["auc"] == pytest.approx(
        roc_auc_score(candidates.clicked[candidates.exposed], student[candidates.exposed])
    )
    assert row["hit_rate_at_5_ci"] == pytest.approx(bootstrap_interval(columns["hit_rate"], seed=4), rel=1e-9)
    exposed, unexposed = row["slices"]["exposed"], row["slices"]["unexposed"]
    assert unexposed["ndcg_at_10"] == pytest.approx(np.nanmean(columns["ndcg_at_10_unexposed"]))
    assert exposed["hit_rate_at_5"] == row["hit_rate_at_5"]  # a click is on an exposed item,
    assert unexposed.pop("hit_rate_at_5") is None and unexposed.pop("hit_rate_at_5_ci") is None  # never on another
    for where in (row, exposed, unexposed):
        for name in [name for name in where if f"{name}_ci" in where]:
            assert where[f"{name}_ci"][0] <= where[name] <= where[f"{name}_ci"][1], name
    assert {"true_hit_rate_at_5", "ctr", "hit_rate_converted_at_5", "ndcg_at_10_ci"} <= set(row)


def test_summary_says_none_where_nothing_is_defined():
    candidates = Candidates(np.array([0, 3]), *(np.zeros(3, bool) for _ in range(3)))
    columns = per_request(candidates, np.arange(3.0), np.arange(3.0), k=2)
    row = summary(columns, k=2, pooled=pooled_aucs(candidates, np.arange(3.0)))
    assert row["recall_at_2"] == 1 and row["recall_at_2_ci"] == [1, 1]
    assert row["hit_rate_at_2"] is None and row["hit_rate_at_2_ci"] is None
    assert row["auc"] is None and row["gauc"] is None and "ctr" not in row


def test_curve_means_are_in_order_of_k():
    candidates, teacher, student = draw(1)
    columns = per_request(candidates, teacher, student, k=5, curve=(20, 3, 10))
    curve = curve_means(columns)
    assert curve["k"] == [3, 10, 20]
    assert curve["recall"][1] == pytest.approx(np.nanmean(columns["recall_at_10"]))
    assert curve["hit_rate"] == sorted(curve["hit_rate"])
