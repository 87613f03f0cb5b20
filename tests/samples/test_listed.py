"""The lists that the strategies' pairs are of, against loops over the pairs."""

from dataclasses import replace

import numpy as np
import pytest
from test_anew import SMALL, pools

from prerank.samples.anew import Redraw, pairs_anew, pool_of, positions_of
from prerank.samples.draw import CODES
from prerank.samples.listed import gain_of, listed

STRATEGIES = tuple(CODES)


@pytest.fixture(scope="module")
def drawn():
    table = pools(requests=30)
    lists = pool_of(table, positions_of(table, "teacher_score"), seed=0, number=0)
    return lists, pairs_anew(lists, STRATEGIES, Redraw(replace(SMALL, max_pairs=30)))


def groups_of(pairs):
    found = {}
    for better, worse, group in zip(*(x.tolist() for x in pairs), strict=True):
        found.setdefault(group, set()).update((better, worse))
    return found


@pytest.mark.parametrize("share", [0.001, 0.3, 1.0])
def test_a_group_lists_each_item_of_its_pairs_once_and_marks_its_top(drawn, share):
    lists, pairs = drawn
    found = listed(lists, pairs, STRATEGIES, share)
    rows = list(zip(*(found[name].tolist() for name in ("group_L", "listed_L", "place_L", "top_L")), strict=True))
    expected = groups_of(pairs)
    assert sorted((g, i) for g, i, _, _ in rows) == sorted((g, i) for g, items in expected.items() for i in items)
    for group, items in expected.items():
        of_group = {i: (place, top) for g, i, place, top in rows if g == group}
        if STRATEGIES[group % 4] in ("exposed", "low_rank_negatives"):
            assert of_group == {i: (int(not lists.clicked[i]), bool(lists.clicked[i])) for i in items}
            continue
        order = sorted(items, key=lambda i: lists.position[i])
        k = min(max(round(share * len(items)), 1), len(items) - 1)
        assert of_group == {i: (place, place < k) for place, i in enumerate(order)}


def test_of_every_pair_the_better_one_has_the_better_place(drawn):
    lists, pairs = drawn
    found = listed(lists, pairs, STRATEGIES, 0.3)
    rows = zip(*(found[name].tolist() for name in ("group_L", "listed_L", "place_L")), strict=True)
    place = {(group, item): place for group, item, place in rows}
    assert all(place[g, hi] < place[g, lo] for hi, lo, g in zip(*(x.tolist() for x in pairs), strict=True))


def test_the_gain_of_a_pair(drawn):
    lists, pairs = drawn
    for gain, better, worse, group in zip(gain_of(lists, pairs, STRATEGIES), *pairs, strict=True):
        by_click = STRATEGIES[group % 4] in ("exposed", "low_rank_negatives")
        share = (lists.position[worse] - lists.position[better]) / lists.length[better]
        assert gain == pytest.approx(1.0 if by_click else share) and 0 < gain <= 1


def test_without_pairs_there_is_no_list(drawn):
    lists, _ = drawn
    none = np.empty(0, np.int64)
    assert not len(gain_of(lists, (none, none, none), STRATEGIES))
    assert not any(len(values) for values in listed(lists, (none, none, none), STRATEGIES, 0.3).values())
