"""Every metric against a loop that follows its definition, scikit-learn's answer, or a case worked by hand."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from prerank import metrics
from prerank.metrics import (
    Candidates,
    bootstrap_interval,
    paired_interval,
    per_request,
    pooled_auc,
    pooled_aucs,
    summary,
)


def draw(seed: int, *, requests: int = 12, most: int = 30, levels: int | None = 6, sizes=None):
    """Random candidates whose scores take few levels, so that ties are common; some requests are empty or unclicked."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, most, requests) if sizes is None else np.asarray(sizes)
    n = int(sizes.sum())
    exposed = rng.random(n) < 0.4
    clicked = exposed & (rng.random(n) < 0.4)
    candidates = Candidates(
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        exposed=exposed,
        clicked=clicked,
        converted=clicked & (rng.random(n) < 0.5),
        click_probability=np.round(rng.random(n), 1),
    )
    teacher, student = (rng.integers(0, levels, n).astype(float) if levels else rng.normal(size=n) for _ in range(2))
    return candidates, teacher, student


def brute_force(candidates: Candidates, teacher, student, *, k: int, m: int, depth: int = 10) -> dict[str, list[float]]:
    rows: list[dict[str, float]] = []
    for begin, end in zip(candidates.offsets[:-1], candidates.offsets[1:], strict=True):
        items = range(begin, end)
        by_student = sorted(items, key=lambda i: -student[i])  # sorted is stable: ties stay in canonical order
        by_teacher = sorted(items, key=lambda i: -teacher[i])
        by_truth = sorted(items, key=lambda i: -candidates.click_probability[i])
        exposed = {i for i in items if candidates.exposed[i]}
        clicked = {i for i in items if candidates.clicked[i]}
        converted = {i for i in items if candidates.converted[i]}
        kept, relevant = set(by_student[:k]), set(by_teacher[:m])
        shown = [i for i in by_teacher if i in kept][:depth]
        rows.append(
            {
                "n": len(items),
                "n_exposed": len(exposed),
                "clicks": len(clicked),
                "random_recall": min(1, k / len(items)) if items else np.nan,
                "recall": share(kept & relevant, set(by_teacher[: min(m, len(items))])),
                "recall_exposed": share(kept & relevant & exposed, relevant & exposed),
                "recall_unexposed": share(kept & relevant - exposed, relevant - exposed),
                "hit_rate": share(kept & clicked, clicked),
                "hit_rate_converted": share(kept & converted, converted),
                "true_hit_rate": share(kept & set(by_truth[:depth]), set(by_truth[:depth])),
                "ctr": np.mean([candidates.click_probability[i] for i in shown]) if shown else np.nan,
                "ndcg_at_10": ndcg(by_student, clicked),
                "ndcg_at_10_exposed": ndcg([i for i in by_student if i in exposed], clicked),
                "auc": pairs_right(student, clicked, set(items) - clicked),
                "auc_exposed": pairs_right(student, clicked, exposed - clicked),
                "auc_unexposed": pairs_right(student, clicked, set(items) - exposed),
            }
        )
    return {name: [row[name] for row in rows] for name in rows[0]}


def share(part: set, whole: set) -> float:
    return len(part) / len(whole) if whole else np.nan


def ndcg(ranking: list[int], gains: set) -> float:
    dcg = sum(1 / np.log2(p + 2) for p, i in enumerate(ranking[:10]) if i in gains)
    ideal = sum(1 / np.log2(p + 2) for p in range(min(10, len(gains))))
    return dcg / ideal if gains else np.nan


def pairs_right(score, positive: set, negative: set) -> float:
    pairs = [(score[i] > score[j]) + 0.5 * (score[i] == score[j]) for i in positive for j in negative]
    return float(np.mean(pairs)) if pairs else np.nan


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(("k", "m"), [(5, None), (3, 8), (12, 4), (100, None)])
def test_every_column_is_its_definition(seed, k, m):
    candidates, teacher, student = draw(seed)
    columns = per_request(candidates, teacher, student, k=k, m=m, curve=(1, 7))
    expected = brute_force(candidates, teacher, student, k=k, m=m or k)
    for c in (1, 7):
        at_c = brute_force(candidates, teacher, student, k=c, m=m or c)
        expected |= {f"recall_at_{c}": at_c["recall"], f"hit_rate_at_{c}": at_c["hit_rate"]}
    assert set(columns) == set(expected)
    for name, values in expected.items():
        assert columns[name].dtype == np.float64
        np.testing.assert_allclose(columns[name], values, rtol=1e-12, err_msg=name)


def test_a_case_by_hand():
    # request 0: scores descend a b c d e; request 1: one candidate, nothing clicked
    candidates = Candidates(
        offsets=np.array([0, 5, 6]),
        exposed=np.array([1, 0, 1, 0, 1, 1], bool),
        clicked=np.array([0, 0, 1, 0, 1, 0], bool),
        converted=np.array([0, 0, 0, 0, 1, 0], bool),
        click_probability=np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    )
    student = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    teacher = np.array([5.0, 1.0, 3.0, 4.0, 2.0, 0.0])  # a d c e b
    columns = per_request(candidates, teacher, student, k=3)
    assert columns["recall"][0] == 2 / 3  # {a b c} and {a d c}
    assert columns["recall_exposed"][0] == 1  # {a c} of {a c}
    assert columns["recall_unexposed"][0] == 0  # d was not kept
    assert columns["hit_rate"][0] == 0.5  # c of {c e}
    assert columns["hit_rate_converted"][0] == 0
    assert columns["random_recall"].tolist() == [0.6, 1]
    assert columns["ctr"][0] == pytest.approx(0.2)  # a c b are shown
    assert columns["auc"][0] == pytest.approx(1 / 6)  # of c>a c>b c>d e>a e>b e>d only c>d
    assert columns["auc_exposed"][0] == 0  # a is above both
    assert columns["ndcg_at_10"][0] == pytest.approx((1 / 2 + 1 / np.log2(6)) / (1 + 1 / np.log2(3)))
    assert columns["recall"][1] == 1 and np.isnan(columns["hit_rate"][1]) and np.isnan(columns["auc"][1])


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_scikit_learn(seed):
    candidates, teacher, student = draw(seed, levels=None)
    tied = np.round(student, 0)
    columns, columns_tied = (per_request(candidates, teacher, s, k=5) for s in (student, tied))
    for r, (begin, end) in enumerate(zip(candidates.offsets[:-1], candidates.offsets[1:], strict=True)):
        label = candidates.clicked[begin:end]
        if 0 < label.sum() < len(label):
            assert columns["ndcg_at_10"][r] == pytest.approx(ndcg_score([label], [student[begin:end]], k=10))
            assert columns_tied["auc"][r] == pytest.approx(roc_auc_score(label, tied[begin:end]))
    for name, mask in (("auc", np.ones_like(candidates.clicked)), ("auc_exposed", candidates.exposed)):
        expected = roc_auc_score(candidates.clicked[mask], tied[mask])
        assert pooled_aucs(candidates, tied)[name][0] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_shards_give_the_same_to_the_last_bit(seed):
    candidates, teacher, student = draw(seed, requests=40, levels=None)
    whole = per_request(candidates, teacher, student, k=4, curve=(2,))
    cut = int(candidates.offsets[17])
    first = Candidates(
        candidates.offsets[:18],
        *(getattr(candidates, c)[:cut] for c in ("exposed", "clicked", "converted", "click_probability")),
    )
    second = Candidates(
        candidates.offsets[17:] - cut,
        *(getattr(candidates, c)[cut:] for c in ("exposed", "clicked", "converted", "click_probability")),
    )
    shards = [
        per_request(first, teacher[:cut], student[:cut], k=4, curve=(2,)),
        per_request(second, teacher[cut:], student[cut:], k=4, curve=(2,)),
    ]
    for name, column in whole.items():
        np.testing.assert_array_equal(column, np.concatenate([shard[name] for shard in shards]), err_msg=name)


def test_the_teacher_against_itself_and_a_perfect_student():
    candidates, teacher, _ = draw(3)
    columns = per_request(candidates, teacher, teacher, k=7)
    assert np.all(columns["recall"][columns["n"] > 0] == 1)
    perfect = per_request(candidates, teacher, candidates.clicked.astype(float), k=30)
    for name in ("ndcg_at_10", "auc", "hit_rate", "ndcg_at_10_exposed"):
        defined = perfect[name][~np.isnan(perfect[name])]
        assert len(defined) and np.all(defined == 1), name


def test_a_student_that_scores_all_alike_keeps_the_canonical_order_and_has_no_auc():
    candidates = Candidates(np.array([0, 4]), *(np.array([0, 0, 1, 1], bool) for _ in range(3)))
    columns = per_request(candidates, np.array([4.0, 3, 2, 1]), np.zeros(4), k=2)
    assert [columns[name].item() for name in ("recall", "hit_rate", "auc")] == [1, 0, 0.5]
    assert "ctr" not in columns and "true_hit_rate" not in columns


def test_faults_of_the_input_are_named():
    candidates, teacher, student = draw(0)
    broken = student.copy()
    broken[5] = np.nan
    with pytest.raises(ValueError, match=r"student.*candidate 5.*NaN"):
        per_request(candidates, teacher, broken, k=5)
    with pytest.raises(ValueError, match="teacher"):
        per_request(candidates, teacher[1:], student, k=5)
    with pytest.raises(ValueError, match="k="):
        per_request(candidates, teacher, student, k=0)
    with pytest.raises(ValueError, match="NaN"):
        pooled_aucs(candidates, broken)
    with pytest.raises(ValueError, match="offsets"):
        Candidates(np.array([0, 3]), *(np.zeros(4, bool) for _ in range(3)))
    with pytest.raises(ValueError, match="converted"):
        Candidates(np.array([0, 4]), np.zeros(4, bool), np.zeros(4, bool), np.zeros(3, bool))


def test_bootstrap_of_normal_values_is_the_analytic_interval():
    values = np.random.default_rng(0).normal(3, 2, 4000)
    lo, hi = bootstrap_interval(values, seed=1, replicates=4000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert lo == pytest.approx(values.mean() - half, abs=0.08 * half)
    assert hi == pytest.approx(values.mean() + half, abs=0.08 * half)


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
    monkeypatch.setattr(metrics, "DRAWS_AT_ONCE", 700)
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
    for where in (row, row["slices"]["exposed"], row["slices"]["unexposed"]):
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
    curve = metrics.curve_means(columns)
    assert curve["k"] == [3, 10, 20]
    assert curve["recall"][1] == pytest.approx(np.nanmean(columns["recall_at_10"]))
    assert curve["hit_rate"] == sorted(curve["hit_rate"])
