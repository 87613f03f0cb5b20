"""What a tie comes to: against all ways to break it, one by one; and that without ties nothing is as much as a bit off.

The enumeration shares no code with the product: every order that the scores allow, and on each the plain definition.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from metrics_fixture import draw

from prerank.evaluation import replay
from prerank.evaluation.metrics import Candidates, Comparison, Validation, per_request
from prerank.evaluation.ranking import Ranking

MOST_ORDERS = 150


def orders(score):
    """Every order of the places by descending score; places that are tied in every order."""
    groups = [[i for i in range(len(score)) if score[i] == value] for value in sorted(set(score), reverse=True)]
    return [[i for group in ways for i in group] for ways in itertools.product(*map(itertools.permutations, groups))]


def n_orders(score):
    return math.prod(math.factorial(list(score).count(value)) for value in set(score))


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def by_enumeration(labels, teacher, student, truth, *, k, m, curve):
    """Every column of one request, a mean over all orders of the student, the teacher and the truth."""
    exposed, clicked, converted = ({i for i, on in enumerate(flags) if on} for flags in labels)
    everything, n = set(range(len(student))), len(student)
    students, teachers, top = orders(student), orders(teacher), m or k

    def recall(k, m):
        return mean(len({*s[:k]} & {*t[:m]}) / min(m, n) for s in students for t in teachers)

    def recall_of(part):
        kept = mean(len({*s[:k]} & {*t[:top]} & part) for s in students for t in teachers)
        there = mean(len({*t[:top]} & part) for t in teachers)
        return kept / there if there else math.nan

    def hit_rate(k, of):
        return mean(len({*s[:k]} & of) / len(of) for s in students) if of else math.nan

    def ctr(s, t):
        kept = {*s[:k]}
        return mean([truth[i] for i in t if i in kept][:10])

    def ndcg(among, gains):
        if not gains:
            return math.nan
        ideal = sum(1 / math.log2(p + 2) for p in range(min(10, len(gains))))
        ranked = ([i for i in s if i in among][:10] for s in students)
        return mean(sum(1 / math.log2(p + 2) for p, i in enumerate(r) if i in gains) for r in ranked) / ideal

    def auc(positive, negative):
        if not positive or not negative:
            return math.nan
        return mean(mean(s.index(i) < s.index(j) for i in positive for j in negative) for s in students)

    return {
        "n": n,
        "n_exposed": len(exposed),
        "clicks": len(clicked),
        "random_recall": min(1, k / n),
        "recall": recall(k, top),
        "recall_exposed": recall_of(exposed),
        "recall_unexposed": recall_of(everything - exposed),
        "hit_rate": hit_rate(k, clicked),
        "hit_rate_converted": hit_rate(k, converted),
        "true_hit_rate": mean(len({*s[:k]} & {*p[:10]}) / min(10, n) for s in students for p in orders(truth)),
        "ctr": mean(ctr(s, t) for s in students for t in teachers),
        "ndcg_at_10": ndcg(everything, clicked),
        "ndcg_at_10_exposed": ndcg(exposed, clicked & exposed),
        "ndcg_at_10_unexposed": ndcg(clicked | (everything - exposed), clicked),
        "auc": auc(clicked, everything - clicked),
        "auc_exposed": auc(clicked, exposed - clicked),
        "auc_unexposed": auc(clicked, everything - exposed),
        **{f"recall_at_{c}": recall(c, m or c) for c in curve},
        **{f"hit_rate_at_{c}": hit_rate(c, clicked) for c in curve},
    }


@st.composite
def requests(draw):
    """Labels and the scores of teacher, student and truth of one to three requests of 1 to 13 candidates."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(1, 13))
        flags = [draw(st.lists(st.booleans(), min_size=n, max_size=n)) for _ in range(3)]
        exposed = flags[0]
        clicked = [a and b for a, b in zip(exposed, flags[1], strict=True)]
        converted = [a and b for a, b in zip(clicked, flags[2], strict=True)]
        scores = []
        for _ in range(3):
            levels = draw(st.integers(1, n))
            score = draw(st.lists(st.integers(0, levels), min_size=n, max_size=n))
            assume(n_orders(score) <= MOST_ORDERS)
            scores.append(score)
        found.append(((exposed, clicked, converted), *scores[:2], [value / 13 for value in scores[2]]))
    return found


def candidates_of(found):
    """The requests as the product takes them, and the scores of teacher and student."""
    sizes = [len(student) for _, _, student, _ in found]
    labels = [np.concatenate([np.array(of[0][i], bool) for of in found]) for i in range(3)]
    teacher, student, truth = (np.concatenate([np.array(of[i], float) for of in found]) for i in (1, 2, 3))
    return Candidates(np.concatenate([[0], np.cumsum(sizes)]), *labels, truth), teacher, student


@pytest.mark.slow
@settings(max_examples=150)
@given(requests(), st.integers(1, 14), st.one_of(st.none(), st.integers(1, 14)))
def test_every_column_is_the_mean_over_all_ways_to_break_the_ties(found, k, m):
    candidates, teacher, student = candidates_of(found)
    columns = per_request(candidates, teacher, student, k=k, m=m, curve=(1, 4))
    for r, (labels, by_teacher, by_student, truth) in enumerate(found):
        expected = by_enumeration(labels, by_teacher, by_student, truth, k=k, m=m, curve=(1, 4))
        assert set(columns) == set(expected)
        for name, value in expected.items():
            assert columns[name][r] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    validated = Validation(candidates, teacher, k=k, m=m)(student)
    tells = columns["n"] > k
    np.testing.assert_array_equal(validated["recall"][tells], columns["recall"][tells])
    for name in ("hit_rate", "auc"):
        np.testing.assert_array_equal(validated[name], columns[name])


@pytest.mark.parametrize("at_once", [1, 7, 2_000_000])
def test_the_replay_in_pieces_is_the_replay(at_once, monkeypatch):
    candidates, teacher, student = draw(3, requests=20)
    whole = per_request(candidates, teacher, student, k=7)["ctr"]
    monkeypatch.setattr(replay, "AT_ONCE", at_once)
    np.testing.assert_allclose(per_request(candidates, teacher, student, k=7)["ctr"], whole, rtol=1e-12)


@pytest.mark.slow
def test_the_replay_of_long_lists_against_draws():
    """Where there are too many orders to go through: the mean of many random ones."""
    rng = np.random.default_rng(0)
    n, k, draws = 400, 60, 4000
    truth, teacher, student = rng.random(n), rng.integers(0, 25, n).astype(float), rng.integers(0, 3, n).astype(float)
    one = Candidates(np.array([0, n]), *(np.zeros(n, bool) for _ in range(3)), truth)
    for score in (student, np.zeros(n)):
        found = []
        for _ in range(draws):
            kept = np.lexsort((rng.random(n), -score))[:k]
            found.append(truth[kept[np.lexsort((rng.random(k), -teacher[kept]))[:10]]].mean())
        error = np.std(found) / np.sqrt(draws)
        assert per_request(one, teacher, score, k=k)["ctr"][0] == pytest.approx(np.mean(found), abs=4 * error)


def test_no_order_of_the_candidates_shows():
    """Ties were once broken by the order of the candidates, of teacher and student alike."""
    rng = np.random.default_rng(0)
    candidates, teacher, student = draw(5, requests=1, sizes=[40])
    shuffled = rng.permutation(40)
    labels = (getattr(candidates, name)[shuffled] for name in ("exposed", "clicked", "converted", "click_probability"))
    other = per_request(Candidates(candidates.offsets, *labels), teacher[shuffled], student[shuffled], k=9, curve=(3,))
    for name, values in per_request(candidates, teacher, student, k=9, curve=(3,)).items():
        assert other[name] == pytest.approx(values, rel=1e-12, nan_ok=True), name


def test_a_student_and_a_teacher_that_know_nothing_come_to_a_blind_draw():
    candidates, teacher, _ = draw(0, requests=30, levels=None)
    blind = np.zeros(len(teacher))
    for a, b in ((teacher, blind), (blind, teacher), (blind, blind)):
        columns = per_request(candidates, a, b, k=5)
        np.testing.assert_allclose(columns["recall"], columns["random_recall"], rtol=1e-12)
    ignorant = per_request(candidates, teacher, blind, k=5)
    clicked = ignorant["clicks"] > 0
    np.testing.assert_allclose(ignorant["hit_rate"][clicked], ignorant["random_recall"][clicked], rtol=1e-12)
    there = ignorant["n"] > 0
    sizes = np.diff(candidates.offsets)[there]
    means = np.add.reduceat(candidates.click_probability, candidates.offsets[:-1][there]) / sizes
    np.testing.assert_allclose(per_request(candidates, blind, blind, k=5)["ctr"][there], means, rtol=1e-9)


def test_whose_top_a_tie_decides():
    candidates = Candidates(np.array([0, 3, 6, 9, 9]), *(np.zeros(9, bool) for _ in range(3)))
    ranking = Ranking("teacher", np.array([3.0, 2, 1, 2, 2, 1, 2, 1, 1]), candidates)
    assert ranking.tied(1).tolist() == [False, True, False, False]
    assert ranking.tied(2).tolist() == [False, False, True, False]
    assert not ranking.tied(3).any()
    assert ranking.top(2).of_all(9).tolist() == [1, 1, 0, 1, 1, 0, 1, 0.5, 0.5]


def as_it_was(candidates, teacher, student, *, k, curve):
    """The columns that ties can move, as they were reckoned while the order of the candidates broke them."""
    offsets, request = (
        candidates.offsets,
        np.repeat(np.arange(len(candidates.offsets) - 1), np.diff(candidates.offsets)),
    )
    n_requests, position = len(offsets) - 1, np.arange(len(request)) - offsets[request]
    discount = 1 / np.log2(np.arange(10) + 2)

    def ratio(a, b):
        return np.divide(a, b, out=np.full(n_requests, np.nan), where=b != 0)

    def count(rows):
        return np.bincount(request[rows], minlength=n_requests)

    def order(score):
        return np.lexsort((-np.asarray(score, float), request))

    def first(score, k):
        mask = np.zeros(len(request), bool)
        mask[order(score)[position < k]] = True
        return mask

    def within(mask, score):
        rows = order(score)
        rows = rows[mask[rows]]
        sizes = np.bincount(request[rows], minlength=n_requests)
        return rows, np.arange(len(rows)) - (np.cumsum(sizes) - sizes)[request[rows]]

    def share(kept, of):
        return ratio(count(kept & of), count(of))

    def ndcg(gain, mask):
        rows, place = within(mask, student)
        hit = np.flatnonzero(gain[rows])
        top = hit[place[hit] < 10]
        dcg = np.bincount(request[rows][top], weights=discount[place[top]], minlength=n_requests)
        gains = np.bincount(request[rows][hit], minlength=n_requests)
        return ratio(dcg, np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(gains, 10)])

    kept, relevant = first(student, k), first(teacher, k)
    exposed, clicked, truth = candidates.exposed, candidates.clicked, candidates.click_probability
    rows, place = within(kept, teacher)
    shown = rows[place < 10]
    out = {
        "recall": share(kept, relevant),
        "recall_exposed": share(kept, relevant & exposed),
        "recall_unexposed": share(kept, relevant & ~exposed),
        "hit_rate": share(kept, clicked),
        "hit_rate_converted": share(kept, candidates.converted),
        "true_hit_rate": share(kept, first(truth, 10)),
        "ctr": ratio(np.bincount(request[shown], weights=truth[shown], minlength=n_requests), count(shown)),
        "ndcg_at_10": ndcg(clicked, np.ones(len(request), bool)),
        "ndcg_at_10_exposed": ndcg(clicked & exposed, exposed),
        "ndcg_at_10_unexposed": ndcg(clicked, clicked | ~exposed),
    }
    for c in curve:
        out[f"recall_at_{c}"] = share(first(student, c), first(teacher, c))
        out[f"hit_rate_at_{c}"] = share(first(student, c), clicked)
    return out


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from([np.float32, np.float64]))
def test_without_ties_every_bit_is_what_it_was(seed, k, dtype):
    rng = np.random.default_rng(seed)
    candidates, _, _ = draw(seed, requests=15, levels=None)
    n = len(candidates.exposed)
    labels = candidates.exposed, candidates.clicked, candidates.converted
    candidates = Candidates(candidates.offsets, *labels, rng.permutation(n) / n)
    teacher, student = (rng.permutation(n).astype(dtype) - n // 2 for _ in range(2))
    if dtype == np.float64:
        teacher, student = teacher / 3, student / 3  # not to be had in single precision
    columns = Comparison(candidates, teacher, k=k, curve=(3, 12))(student)
    for name, expected in as_it_was(candidates, teacher, student, k=k, curve=(3, 12)).items():
        assert columns[name].tobytes() == expected.tobytes(), name


def test_of_some_requests_with_ties_the_others_are_what_they_were():
    candidates, teacher, student = draw(1, requests=30, levels=None)
    some = np.repeat(np.arange(30) % 3 == 0, np.diff(candidates.offsets))
    plain = Candidates(
        candidates.offsets, candidates.exposed, candidates.clicked, candidates.converted, np.arange(len(some)) / 1000
    )
    tied = np.where(some, np.round(student), student)
    a, b = (per_request(plain, teacher, score, k=6) for score in (student, tied))
    others = np.arange(30) % 3 > 0
    for name in a:
        assert a[name][others].tobytes() == b[name][others].tobytes(), name
    assert (a["recall"][~others] != b["recall"][~others]).any()
