import numpy as np
import pytest
import torch

from prerank.models.batch import Batch
from prerank.models.distill import Distiller
from prerank.models.losses import Segments, listwise
from prerank.models.options import Arm
from prerank.models.place import BUCKETS, FASTER, PlaceBias, bucket


def test_buckets_are_one_a_place_and_then_wider():
    of = bucket(np.arange(-1, 5000))
    assert of[0] == -1 and (of[1:17] == np.arange(16)).all()
    assert (np.diff(of[1:]) >= 0).all() and set(np.diff(of[1:]).tolist()) == {0, 1}
    assert bucket(np.array([2**31 - 1]))[0] < BUCKETS


def test_the_biases_of_what_was_shown_add_up_to_nothing():
    torch.manual_seed(0)
    place = PlaceBias()
    torch.nn.init.normal_(place.bias)
    request = torch.tensor([0, 0, 0, 2, 2, 3])
    shown = torch.tensor([1, -1, 17, 0, 3, -1])  # nothing of the fourth request was shown, and the second is empty
    moved = (place(torch.zeros(6), shown, Segments(request, 4))).tolist()
    b = (FASTER * place.bias).tolist()
    by_hand = [b[1] - (b[1] + b[17]) / 2, 0, b[17] - (b[1] + b[17]) / 2, (b[0] - b[3]) / 2, (b[3] - b[0]) / 2, 0]
    assert moved == pytest.approx(by_hand, rel=1e-6, abs=1e-6)


def test_places_and_worth_are_told_apart():
    """Users look at the p-th place with 1/(1+p), and places are drawn with regard to worth, but not by it alone."""
    rng = np.random.default_rng(0)
    requests, items, shown = 12_000, 30, 6
    worth = np.log(rng.uniform(0.02, 0.25, items))
    offered = np.stack([rng.permutation(items)[:shown] for _ in range(requests)])
    order = np.argsort(-(worth[offered] + rng.gumbel(size=offered.shape)), axis=1)
    offered = np.take_along_axis(offered, order, 1)
    clicked = rng.random(offered.shape) < np.exp(worth[offered]) / (1 + np.arange(shown))
    some = clicked.any(1)
    item_I, clicked_I = torch.from_numpy(offered[some].ravel()), torch.from_numpy(clicked[some].ravel())
    place_I = torch.arange(shown).repeat(int(some.sum()))
    segments = Segments(torch.arange(int(some.sum())).repeat_interleave(shown), int(some.sum()))

    def learned(place: PlaceBias | None) -> np.ndarray:
        score = torch.nn.Parameter(torch.zeros(items))
        groups = [{"params": [score], "lr": 0.1}, {"params": place.parameters() if place else [], "lr": 0.1 / FASTER}]
        optim = torch.optim.Adam(groups)
        for _ in range(250):
            optim.zero_grad()
            s_I = score[item_I]
            listwise(place(s_I, place_I, segments) if place else s_I, clicked_I, segments).backward()
            optim.step()
        return (score - score.mean()).detach().numpy()

    place = PlaceBias()
    free, blind = learned(place), learned(None)
    true = worth - worth.mean()
    assert np.abs(free - true).mean() < 0.5 * np.abs(blind - true).mean()
    bias = FASTER * place.bias.detach().numpy()[:shown]
    assert np.abs((bias - bias[0]) + np.log1p(np.arange(shown))).max() < 0.25


def test_clicks_are_explained_by_the_places_too_and_their_gradient_is_left_as_it_is():
    model = Distiller(torch.nn.Identity(), Arm("teacher", ("x",), (), hard="listwise", by_place=True))
    with torch.no_grad():
        model.place.bias[:2] = torch.tensor([3.0, -6.0]) / FASTER  # of the two that were shown, 4.5 and -4.5
    request_I, clicked_I = torch.zeros(3, dtype=torch.long), torch.tensor([True, False, False])
    batch = Batch({}, request_I, 1, target_I=clicked_I, shown_I=torch.tensor([0, 1, -1]))
    score_I = torch.zeros(3, requires_grad=True)
    loss = model.hard(score_I, batch)
    e = np.exp([4.5, -4.5, 0.0])
    assert loss.item() == pytest.approx(-np.log(e[0] / e.sum()), rel=1e-5)
    loss.backward()
    slope_I = score_I.grad.numpy()
    half = (slope_I[0] - slope_I[1]) / 2  # of a bias less the mean of both
    assert model.place.bias.grad[:3].tolist() == pytest.approx([half, -half, 0.0], rel=1e-5)
