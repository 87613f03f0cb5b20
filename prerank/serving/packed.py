"""Packed inputs: all numbers of a side as one matrix, and all ids, in place of an input a feature.

Shapes: N candidates of one request, D numbers and n ids of a side.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from prerank.logs.schema import Feature

NUMBERS, IDS = "numbers", "ids"


def pack_name(of_request: bool, holds: str) -> str:
    """`/request/numbers`, `/request/ids`, `/item/numbers` or `/item/ids`: no feature's name begins with a slash."""
    return f"/{'request' if of_request else 'item'}/{holds}"


def single_first(features: Iterable[Feature]) -> list[Feature]:
    """The numbers among the features as they are joined: single ones before vectors."""
    return sorted((feature for feature in features if not feature.dim), key=lambda feature: feature.size > 1)


def packs_of(features: Iterable[Feature]) -> dict[str, list[Feature]]:
    """By packed input the features that it holds, in order; lists of ids are not packed, and stand for themselves."""
    packs: dict[str, list[Feature]] = {}
    features = list(features)
    for of_request in (True, False):
        here = [feature for feature in features if feature.of_request is of_request]
        ids = [feature for feature in here if feature.kind == "id"]
        for holds, chosen in ((NUMBERS, single_first(here)), (IDS, ids)):
            if chosen:
                packs[pack_name(of_request, holds)] = chosen
    return packs


def pack(feed: Mapping[str, np.ndarray], features: Iterable[Feature]) -> dict[str, np.ndarray]:
    """A feed of named inputs, as a graph with packed inputs takes it.

    Numbers of the request are float32 [1, D]; those of items float32 [D, N], a row a number; ids int64 [n, 1] and
    [n, N], a row a feature.
    """
    features = list(features)
    packed = {feature.name: feed[feature.name] for feature in features if feature.kind == "ids"}
    for name, held in packs_of(features).items():
        joined = np.concatenate([feed[feature.name] for feature in held], axis=1)
        packed[name] = joined if name == pack_name(True, NUMBERS) else np.ascontiguousarray(joined.T)
    return packed
