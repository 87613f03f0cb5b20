"""What each strategy's pairs say of their items: the list that they order, and who is at its top.

R requests, N items of their pools, P pairs, L items listed by strategy; a group is a (request, strategy).
"""

import numpy as np

from prerank.core.nested import rank_within
from prerank.samples.anew import Grouped
from prerank.samples.draw import BY_PLACE, Lists


def gain_of(lists: Lists, pairs: Grouped, strategies: tuple[str, ...]) -> np.ndarray:
    """float32 [P]: how much better the better one is: 1 of a click, of places the share of the list between them."""
    better, worse, group = pairs
    apart = (lists.position[worse] - lists.position[better]) / np.maximum(lists.length[better], 1)
    by_place = np.array([name in BY_PLACE for name in strategies])
    return np.where(by_place[group % len(strategies)], apart, 1.0).astype(np.float32)


def listed(lists: Lists, pairs: Grouped, strategies: tuple[str, ...], share: float) -> dict[str, np.ndarray]:
    """`listed_L`, `group_L`, `place_L` and `top_L` of `prerank.models.batch.Batch`, indices of items over the pools.

    share: K's of the candidates. The K of a group is that share of its items, but one at least, and not all.
    """
    better, worse, group = pairs
    here = np.zeros((len(strategies), len(lists.request)), bool)
    slot = group % len(strategies)
    here[slot, better] = here[slot, worse] = True
    slot_L, listed_L = np.nonzero(here)
    group_L = lists.request[listed_L] * len(strategies) + slot_L
    top_L = lists.clicked[listed_L].copy()
    place_L = 1 - top_L.astype(np.int64)
    by_place_L = np.array([name in BY_PLACE for name in strategies])[slot_L]
    placed_L, of = listed_L[by_place_L], group_L[by_place_L]
    count = np.bincount(of)[of]
    place_L[by_place_L] = rank_within(of, lists.position[placed_L])
    top_L[by_place_L] = place_L[by_place_L] < np.clip(np.rint(share * count), 1, count - 1)
    return {"listed_L": listed_L, "group_L": group_L, "place_L": place_L, "top_L": top_L}
