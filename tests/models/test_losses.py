"""Every loss against the formula written out in loops, over each request and each pair; and its example, which runs."""

import doctest
import inspect
import math

import numpy as np
import pytest
import torch

from prerank.models import hard, losses
from prerank.models.losses import Segments

SIZES = (4, 1, 3)
HARD = ("pointwise", "top_k", "list_likelihood")
LOSSES = (
    "pairwise",
    "listwise",
    "score_mse",
    "centred_mse",
    "uncorrelated",
    "softmax_mse",
    "kl",
    "info_nce",
    "relations",
)


@pytest.fixture
def requests():
    generator = torch.Generator().manual_seed(0)
    request_I = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))
    student, teacher = torch.randn(2, len(request_I), generator=generator, dtype=torch.float64)
    return student.float(), teacher.float(), Segments(request_I, len(SIZES))


def by_request(segments, *values):
    return [tuple(v[segments.of_X == r].tolist() for v in values) for r in range(len(SIZES))]


def softmax(scores):
    total = sum(math.exp(s) for s in scores)
    return [math.exp(s) / total for s in scores]


@pytest.mark.parametrize(("module", "name"), [(losses, name) for name in LOSSES] + [(hard, name) for name in HARD])
def test_the_example_of_every_loss_runs(module, name):
    loss = getattr(module, name)
    [example] = doctest.DocTestFinder(recurse=False).find(loss, name, globs=vars(module))
    assert example.examples, f"{name}: its docstring has no example"
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize(("module", "names"), [(losses, LOSSES), (hard, HARD)])
def test_every_loss_has_one_signature(module, names):
    """What the student says, what it is held against, which request an element is of; and options by name."""
    public = {name for name, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__}
    helpers = {"mean_by", "log_softmax", "place_in_request", "standardised", "_ordered", "means"}
    helpers |= {"swaps", "_descending"}
    assert public - helpers == set(names)
    for name in names:
        first, second, third, *options = inspect.signature(getattr(module, name)).parameters.values()
        assert [p.name.partition("_")[0] for p in (first, second, third)] == ["student", "target", "segment"]
        assert all(option.kind == option.KEYWORD_ONLY and option.default is not option.empty for option in options)


def test_pairwise_by_hand():
    score = torch.tensor([1.0, 0.0, 2.0])
    # Group 0 has the pairs (0, 1) and (2, 0), group 1 has (1, 2), group 2 has none.
    hi, lo = torch.tensor([0, 2, 1]), torch.tensor([1, 0, 2])
    loss = losses.pairwise(score, (hi, lo), Segments(torch.tensor([0, 0, 1]), 3))
    expected = (math.log1p(math.exp(-1.0)) + math.log1p(math.exp(2.0))) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_pairwise_without_pairs_is_zero_and_has_a_gradient():
    score = torch.zeros(2, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    loss = losses.pairwise(score, (none, none), Segments(none, 2))
    loss.backward()
    assert loss.item() == 0 and score.grad.tolist() == [0, 0]


def test_pairs_weigh_what_dcg_would_lose_if_they_changed_places(requests):
    """By sorting each request and swapping two of its items: DCG before less DCG after, of any gains."""
    student, _, segments = requests
    gain = torch.tensor([0.1, 0.7, 0.3, 1.0, 0.2, 0.0, 0.9, 0.5])
    pairs = [(1, 0), (3, 2), (3, 0), (6, 5), (7, 5)]
    hi, lo = torch.tensor(pairs).T

    def dcg(order):
        return sum(gain[i].item() / math.log2(2 + rank) for rank, i in enumerate(order))

    lost = []
    for a, b in pairs:
        order = sorted((i for i in range(8) if segments.of_X[i] == segments.of_X[a]), key=lambda i: -student[i].item())
        swapped = [{a: b, b: a}.get(i, i) for i in order]
        lost.append(abs(dcg(order) - dcg(swapped)))
    found = hard.swaps(student, (hi, lo), segments, gain_P=gain[hi] - gain[lo])
    assert found.tolist() == pytest.approx(lost, rel=1e-5)

    groups = Segments(torch.tensor([0, 0, 0, 1, 1]), 3)
    terms = [math.log1p(math.exp(student[b] - student[a])) for a, b in pairs]
    expected = sum(w * t for w, t in zip(lost[:3], terms[:3], strict=True)) / sum(lost[:3])
    expected += sum(w * t for w, t in zip(lost[3:], terms[3:], strict=True)) / sum(lost[3:])
    loss = losses.pairwise(student, (hi, lo), groups, weight_P=found)
    assert loss.item() == pytest.approx(expected / 3, rel=1e-5)
    assert losses.pairwise(student, (hi, lo), groups, weight_P=torch.zeros(5)).item() == 0


def test_pointwise(requests):
    student, _, segments = requests
    target = torch.tensor([True, False, True, False, False, False, True, False])
    expected = 0.0
    for scores, targets in by_request(segments, student, target):
        expected += sum(math.log1p(math.exp(-s if t else s)) for s, t in zip(scores, targets, strict=True)) / len(
            scores
        )
    assert hard.pointwise(student, target, segments).item() == pytest.approx(expected / 3, rel=1e-5)


def test_top_k(requests):
    """By sorting each request; the one of a single item, which are all or none, has no term."""
    student, _, segments = requests
    target = torch.tensor([True, False, True, False, True, False, True, False])
    expected = 0.0
    for scores, targets in by_request(segments, student, target):
        k = sum(targets)
        if k < len(scores):
            best = sorted(scores, reverse=True)
            logits = [(s - (best[k - 1] + best[k]) / 2) / 0.5 for s in scores]
            expected += sum(math.log1p(math.exp(-x if t else x)) for x, t in zip(logits, targets, strict=True)) / len(
                scores
            )
    loss = hard.top_k(student, target, segments, temperature=0.5)
    assert loss.item() == pytest.approx(expected / 3, rel=1e-5)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    shuffled = hard.top_k(student[order], target[order], Segments(segments.of_X[order], 3), temperature=0.5)
    assert shuffled.item() == pytest.approx(expected / 3, rel=1e-5)


def test_the_threshold_of_top_k_moves_with_the_scores():
    """It has its gradient: one and the same added to all scores changes nothing, which a fixed threshold would see."""
    score = torch.tensor([0.3, -1.0, 2.0, 0.5], requires_grad=True)
    target = torch.tensor([False, False, True, True])
    hard.top_k(score, target, Segments(torch.zeros(4, dtype=torch.long), 1)).backward()
    assert score.grad.sum().item() == pytest.approx(0, abs=1e-6) and score.grad.abs().max() > 0.05


@pytest.mark.parametrize("places", [[2, 0, 1, 3, 0, 1, 0, 2], [1, 0, 1, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 2, 2, 2]])
def test_list_likelihood(requests, places):
    student, _, segments = requests
    expected = 0.0
    for scores, place in by_request(segments, student, torch.tensor(places)):
        terms = [
            math.log(sum(math.exp(s) for s, q in zip(scores, place, strict=True) if q >= p)) - mine
            for mine, p in zip(scores, place, strict=True)
            if p < max(place)
        ]
        expected += sum(terms) / len(terms) if terms else 0.0
    loss = hard.list_likelihood(student, torch.tensor(places), segments)
    assert loss.item() == pytest.approx(expected / 3, rel=1e-5)


def test_of_two_places_the_likelihood_of_a_list_is_the_softmax_of_the_better(requests):
    student, _, segments = requests
    better = torch.tensor([True, False, True, False, False, False, True, False])
    likelihood = hard.list_likelihood(student, (~better).long(), segments)
    assert likelihood.item() == pytest.approx(losses.listwise(student, better, segments).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["pointwise", "top_k", "list_likelihood"])
def test_lists_that_are_empty_or_far_apart_have_a_finite_gradient(name):
    loss_of, target = getattr(hard, name), torch.tensor([True, False, True, False])
    target = target.long() if name == "list_likelihood" else target
    score = torch.tensor([-80.0, 80.0, 0.0, 0.0], requires_grad=True)
    loss = loss_of(score, target, Segments(torch.tensor([0, 0, 2, 2]), 4))
    loss += loss_of(score[:0], target[:0], Segments(torch.zeros(0, dtype=torch.long), 4))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(score.grad).all()


def test_listwise(requests):
    student, _, segments = requests
    target = torch.tensor([True, False, True, False, False, False, True, False])
    expected = 0.0
    for scores, targets in by_request(segments, student, target):
        terms = [-math.log(p) for p, t in zip(softmax(scores), targets, strict=True) if t]
        expected += sum(terms) / len(terms) if terms else 0.0
    assert losses.listwise(student, target, segments).item() == pytest.approx(expected / 3, rel=1e-5)


def test_scores_and_kl(requests):
    student, teacher, segments = requests
    mse = centred = soft = kl = 0.0
    for s, t in by_request(segments, student, teacher):
        shift = sum(t) / len(t) - sum(s) / len(s)
        centred += sum((a + shift - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)
        mse += sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)
        soft += sum((a - b) ** 2 for a, b in zip(softmax(s), softmax(t), strict=True))
        p, r = softmax([x / 2 for x in s]), softmax([x / 2 for x in t])
        kl += 4 * sum(b * math.log(b / a) for a, b in zip(p, r, strict=True))
    assert losses.score_mse(student, teacher, segments).item() == pytest.approx(mse / 3, rel=1e-5)
    assert losses.centred_mse(student, teacher, segments).item() == pytest.approx(centred / 3, rel=1e-5)
    moved = teacher + torch.tensor([5.0, -3.0, 1.0])[segments.of_X]
    assert losses.centred_mse(student, moved, segments).item() == pytest.approx(centred / 3, rel=1e-4)
    assert losses.softmax_mse(student, teacher, segments).item() == pytest.approx(soft / 3, rel=1e-5)
    assert losses.kl(student, teacher, segments, temperature=2.0).item() == pytest.approx(kl / 3, rel=1e-5)


def normalised(seed, *shape):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


LABELS = [0, 0, 1, 1, 0, 2, 3, 1]


@pytest.mark.parametrize("labels", [LABELS, list(range(8)), None])
@pytest.mark.parametrize(("of_label", "ordered"), [(1.0, False), (0.3, False), (1.0, True), (0.3, True), (0.0, True)])
def test_info_nce(requests, labels, of_label, ordered):
    """By loops over i, j and k; of exact numbers in double precision."""
    _, _, segments = requests
    student, teacher = normalised(1, 2, 8, 5)
    if not labels:
        of_label = 0.0
    whole = 0.0
    for r in range(3):
        items = [i for i in range(8) if segments.of_X[i] == r]
        total = 0.0
        for i in items:
            logit = {k: (student[i] @ teacher[k]).item() / 0.3 for k in items}
            apart = {k: abs(labels[k] - labels[i]) if labels else 0 for k in items}

            def log_p(j, rivals, logit=logit):
                return logit[j] - math.log(sum(math.exp(logit[k]) for k in rivals))

            if of_label and ordered:
                terms = [log_p(j, [k for k in items if apart[k] >= apart[j]]) for j in items]
                total += of_label * sum(terms) / len(terms)
            elif of_label:
                terms = [log_p(j, items) for j in items if apart[j] == 0]
                total += of_label * sum(terms) / len(terms)
            total += (1 - of_label) * log_p(i, items)
        whole -= total / len(items)
    loss = losses.info_nce(
        student,
        teacher,
        segments,
        label_I=torch.tensor(labels) if labels else None,
        of_label=of_label,
        ordered=ordered,
        temperature=0.3,
    )
    assert loss.item() == pytest.approx(whole / 3, rel=1e-5)


def test_relations(requests):
    _, _, segments = requests
    student, teacher = normalised(1, 8, 5), normalised(2, 8, 3)
    whole = 0.0
    for r in range(3):
        items = [i for i in range(8) if segments.of_X[i] == r]
        terms = [(student[i] @ student[j] - teacher[i] @ teacher[j]).item() ** 2 for i in items for j in items]
        whole += sum(terms) / len(terms)
    assert losses.relations(student, teacher, segments).item() == pytest.approx(whole / 3, rel=1e-5)


def test_losses_survive_a_request_whose_items_were_left_out():
    segments = Segments(torch.tensor([0, 0, 2, 2]), 3)
    h = torch.nn.functional.normalize(torch.randn(4, 3), dim=1).requires_grad_()
    loss = losses.info_nce(h, h.detach(), segments, temperature=0.1)
    label = torch.tensor([0, 1, 0, 0])
    loss += losses.info_nce(h, h.detach(), segments, label_I=label, ordered=True, temperature=0.01)
    loss += losses.relations(h, h.detach(), segments)
    loss += losses.kl(h[:, 0], h.detach()[:, 1], segments, temperature=2.0)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(h.grad).all()


@pytest.mark.parametrize("name", HARD)
def test_two_shares_of_lists_average_to_the_whole(name):
    """Equal numbers of groups, of which some have no item."""
    generator = torch.Generator().manual_seed(3)
    score, group = torch.randn(30, generator=generator), torch.arange(30) * 7 % 6
    group = torch.where(group == 4, 0, group)
    target = torch.randint(0, 2, (30,), generator=generator)
    target = target.bool() if name != "list_likelihood" else target
    whole, halves = getattr(hard, name)(score, target, Segments(group, 8)), 0.0
    for begin in (0, 4):
        mine = (group >= begin) & (group < begin + 4)
        halves += getattr(hard, name)(score[mine], target[mine], Segments(group[mine] - begin, 4)).item() / 2
    assert whole.item() == pytest.approx(halves, rel=1e-5)


def test_two_shares_average_to_the_whole(requests):
    """What makes the loss on N workers the loss on one: equal numbers of requests, one of them without a pair."""
    score = torch.tensor([0.3, -1.0, 2.0, 0.5])
    hi, lo, group = torch.tensor([0, 1, 0]), torch.tensor([1, 0, 1]), torch.tensor([0, 0, 0])
    whole = losses.pairwise(score, (hi, lo), Segments(group, 2))
    none = torch.zeros(0, dtype=torch.long)
    first = losses.pairwise(score[:2], (hi, lo), Segments(group, 1))
    halves = first, losses.pairwise(score[2:], (none, none), Segments(none, 1))
    assert whole.item() == pytest.approx(sum(halves).item() / 2, rel=1e-6)


def test_a_correlation_is_numpys_and_flat_requests_have_no_gradient():
    rng = np.random.default_rng(3)
    request, student, target = np.repeat([0, 1, 2, 3], [6, 9, 1, 4]), rng.normal(size=20), rng.normal(size=20)
    target[request == 3] = 2.0
    score = torch.tensor(student, requires_grad=True)
    loss = losses.uncorrelated(score, torch.tensor(1000 * target), Segments(torch.tensor(request), 4))
    r = [np.corrcoef(student[request == g], target[request == g])[0, 1] for g in (0, 1)]
    assert loss.item() == pytest.approx(1 - sum(r) / 4, abs=1e-5)
    loss.backward()
    assert score.grad.isfinite().all() and not score.grad[request >= 2].any() and score.grad[request < 2].all()
    flat = torch.zeros(4, requires_grad=True)
    losses.uncorrelated(flat, torch.arange(4.0), Segments(torch.zeros(4, dtype=torch.long), 1)).backward()
    assert flat.grad.isfinite().all()
