"""Every metric of a request against a loop that follows its definition, scikit-learn's answer, or a case by hand."""

import numpy as np
import pytest
from metrics_fixture import draw
from sklearn.metrics import ndcg_score, roc_auc_score

from prerank.evaluation.metrics import Candidates, Comparison, Validation, per_request, pooled_aucs


def brute_force(candidates: Candidates, teacher, student, *, k: int, m: int, depth: int = 10) -> dict[str, list[float]]:
    """Every column by its definition; `ctr` only where no tie decides it (`test_ties` has the others)."""
    rows: list[dict[str, float]] = []
    for begin, end in zip(candidates.offsets[:-1], candidates.offsets[1:], strict=True):
        items = range(begin, end)
        by_student = sorted(items, key=lambda i: -student[i])
        by_teacher = sorted(items, key=lambda i: -teacher[i])
        exposed = {i for i in items if candidates.exposed[i]}
        clicked = {i for i in items if candidates.clicked[i]}
        converted = {i for i in items if candidates.converted[i]}
        kept, relevant = chances(student, items, k), chances(teacher, items, m)
        best = chances(candidates.click_probability, items, depth)
        shown = [i for i in by_teacher if kept[i]][:depth]
        rows.append(
            {
                "n": len(items),
                "n_exposed": len(exposed),
                "clicks": len(clicked),
                "random_recall": min(1, k / len(items)) if items else np.nan,
                "recall": share(kept, relevant, items),
                "recall_exposed": share(kept, relevant, exposed),
                "recall_unexposed": share(kept, relevant, set(items) - exposed),
                "hit_rate": share(kept, dict.fromkeys(items, 1), clicked),
                "hit_rate_converted": share(kept, dict.fromkeys(items, 1), converted),
                "true_hit_rate": share(kept, best, items),
                "ctr": np.mean([candidates.click_probability[i] for i in shown]) if shown else np.nan,
                "ndcg_at_10": ndcg(by_student, student, clicked),
                "ndcg_at_10_exposed": ndcg([i for i in by_student if i in exposed], student, clicked),
                "ndcg_at_10_unexposed": ndcg(
                    [i for i in by_student if i in clicked or i not in exposed], student, clicked
                ),
                "auc": pairs_right(student, clicked, set(items) - clicked),
                "auc_exposed": pairs_right(student, clicked, exposed - clicked),
                "auc_unexposed": pairs_right(student, clicked, set(items) - exposed),
            }
        )
    return {name: [row[name] for row in rows] for name in rows[0]}


def chances(score, items, k: int) -> dict[int, float]:
    """Of each item the chance to be among the first k where ties are broken at random."""
    out = {}
    for i in items:
        above, equal = sum(score[j] > score[i] for j in items), sum(score[j] == score[i] for j in items)
        out[i] = min(1, max(0, (k - above) / equal))
    return out


def share(kept: dict, relevant: dict, of) -> float:
    whole = sum(relevant[i] for i in of)
    return sum(kept[i] * relevant[i] for i in of) / whole if whole else np.nan


def ndcg(ranking: list[int], score, gains: set) -> float:
    """A tie's items have the mean of their gains."""
    mean = {i: np.mean([j in gains for j in ranking if score[j] == score[i]]) for i in ranking}
    dcg = sum(mean[i] / np.log2(p + 2) for p, i in enumerate(ranking[:10]))
    ideal = sum(1 / np.log2(p + 2) for p in range(min(10, len(gains))))
    return dcg / ideal if gains else np.nan


def pairs_right(score, positive: set, negative: set) -> float:
    pairs = [(score[i] > score[j]) + 0.5 * (score[i] == score[j]) for i in positive for j in negative]
    return float(np.mean(pairs)) if pairs else np.nan


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("levels", [6, None])
@pytest.mark.parametrize(("k", "m"), [(5, None), (3, 8), (12, 4), (100, None)])
def test_every_column_is_its_definition(seed, levels, k, m):
    candidates, teacher, student = draw(seed, levels=levels)
    columns = per_request(candidates, teacher, student, k=k, m=m, curve=(1, 7))
    expected = brute_force(candidates, teacher, student, k=k, m=m or k)
    for c in (1, 7):
        at_c = brute_force(candidates, teacher, student, k=c, m=m or c)
        expected |= {f"recall_at_{c}": at_c["recall"], f"hit_rate_at_{c}": at_c["hit_rate"]}
    assert set(columns) == set(expected)
    if levels:
        expected.pop("ctr")
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
    assert columns["ndcg_at_10_unexposed"][0] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3)))
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
    untied = teacher + np.linspace(0, 0.5, len(teacher))
    columns = per_request(candidates, untied, untied, k=7)
    assert np.all(columns["recall"][columns["n"] > 0] == 1)
    tied = per_request(candidates, teacher, teacher, k=7)["recall"]  # what any student comes to at most
    assert np.nanmin(tied) < 1
    np.testing.assert_allclose(per_request(candidates, teacher, untied, k=7)["recall"], tied)
    perfect = per_request(candidates, teacher, candidates.clicked.astype(float), k=30)
    for name in ("ndcg_at_10", "auc", "hit_rate", "ndcg_at_10_exposed"):
        defined = perfect[name][~np.isnan(perfect[name])]
        assert len(defined) and np.all(defined == 1), name


def test_a_student_that_scores_all_alike_is_a_blind_draw():
    candidates = Candidates(np.array([0, 4]), *(np.array([0, 0, 1, 1], bool) for _ in range(3)))
    columns = per_request(candidates, np.array([4.0, 3, 2, 1]), np.zeros(4), k=2)
    assert [columns[name].item() for name in ("recall", "hit_rate", "auc", "random_recall")] == [0.5] * 4
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


@pytest.mark.parametrize("seed", range(5))
def test_a_validation_and_a_comparison_are_the_columns_of_each_request(seed):
    candidates, teacher, first = draw(seed)
    compare = Comparison(candidates, teacher, k=5, m=8, curve=(3,))
    validate, blind = Validation(candidates, teacher, k=5), Validation(candidates, None, k=5)
    for student in (first, -first, teacher):
        expected = per_request(candidates, teacher, student, k=5)
        expected["recall"][expected["n"] <= 5] = np.nan  # where the student has no choice
        assert list(validate(student)) == ["recall", "hit_rate", "auc"] and list(blind(student)) == ["hit_rate", "auc"]
        for found in (validate(student), blind(student)):
            for name, column in found.items():
                np.testing.assert_array_equal(column, expected[name], err_msg=name)
        expected = per_request(candidates, teacher, student, k=5, m=8, curve=(3,))
        found = compare(student)
        assert set(found) == set(expected)
        for name, column in found.items():
            np.testing.assert_array_equal(column, expected[name], err_msg=name)
    with pytest.raises(ValueError, match=r"student.*NaN"):
        validate(np.full(len(first), np.nan))
    with pytest.raises(ValueError, match=r"teacher.*NaN"):
        Validation(candidates, np.full(len(first), np.nan), k=5)


@pytest.mark.parametrize("seed", range(5))
def test_scores_of_single_and_of_double_precision_rank_alike(seed):
    """Single precision is sorted as whole numbers, double precision is not; signs, zeros, infinities are traps."""
    candidates, _, _ = draw(seed)
    rng = np.random.default_rng(seed)
    values = [
        -np.inf,
        -3e38,
        -1.5,
        -1e-40,
        -0.0,
        0.0,
        1e-45,
        1e-40,
        1.5,
        np.nextafter(np.float32(1.5), 2),
        3e38,
        np.inf,
    ]
    single = rng.choice(np.array(values, np.float32), len(candidates.exposed))
    ascending = {value: place for place, value in enumerate(sorted(set(single.tolist())))}  # -0 is 0 in a set
    exact = np.array([ascending[value] + 1 / 3 for value in single.tolist()])  # a third is not a single
    assert not np.array_equal(exact.astype(np.float32), exact)
    a, b = (per_request(candidates, scores, scores, k=4, curve=(2,)) for scores in (single, exact))
    direct = brute_force(candidates, single, single, k=4, m=4)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
        if name in direct and name != "ctr":
            np.testing.assert_allclose(a[name], direct[name], err_msg=name)


def test_one_request_and_none():
    one = Candidates(np.array([0, 3]), *(np.array([0, 1, 0], bool) for _ in range(3)))
    assert Validation(one, np.arange(3.0), k=1)(np.array([1.0, 3.0, 2.0]))["auc"].tolist() == [1]
    none = Candidates(np.array([0]), *(np.zeros(0, bool) for _ in range(3)))
    columns = per_request(none, np.zeros(0), np.zeros(0), k=1, curve=(2,))
    assert all(column.shape == (0,) for column in columns.values())
