"""What is to be measured: settings, layers, and whole networks to check the sum against."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from prerank.core import config
from prerank.core.errors import InputError
from prerank.latency.file import Runtime
from prerank.latency.formula import item_width
from prerank.latency.pieces import PIECES, Setting
from prerank.logs.schema import Feature
from prerank.models.stats import Stat, Stats
from prerank.serving.timing import TURNS

PUT_IN = 0.8
"""Of the features, as many are put in one by one: the more there are, the dearer is one more, and with the last fifth
sets of half of them, such as a search keeps, would be predicted 5 to 15% too dear."""

Network = tuple[tuple[str, ...], tuple[int, ...]]
"""Names of features, hidden widths."""


@dataclass(frozen=True)
class Plan:
    """What is measured in every setting."""

    features: tuple[Feature, ...]
    stats: Stats
    widths: tuple[int, ...]
    """Hidden, ascending."""
    repeats: int
    """Runs of each piece."""
    networks: int
    """Random whole networks of the check."""
    orders: int
    """Random orders in which the features are put in one by one."""
    list_length: int
    """Values in a row of a multi-valued id."""
    seed: int

    def check(self) -> None:
        """Raises InputError naming the flag whose value cannot be measured."""
        for flag in ("repeats", "networks", "orders", "list_length"):
            if getattr(self, flag) < 1:
                raise InputError(f"--{flag.replace('_', '-')} must be 1 or more, got {getattr(self, flag)}")

    @property
    def all_stats(self) -> Stats:
        """Numbers without have mean 0 and deviation 1, which costs the same."""
        plain: dict[str, Stat] = {
            f.name: {"mean": [0.0] * f.size, "std": [1.0] * f.size, "missing": 0.0} for f in self.features if not f.dim
        }
        return {**plain, **self.stats}

    @property
    def layers(self) -> list[tuple[int, int]]:
        return grid(self.widths, item_width(self.features))

    @property
    def put_in(self) -> int:
        """How many features are put in of an order; all where there is one alone, whose reverse would have the rest."""
        return len(self.features) if self.orders == 1 else math.ceil(PUT_IN * len(self.features))

    @property
    def ticks(self) -> int:
        """How often `profile` calls `tick` in a setting."""
        return TURNS * (self.orders * (self.put_in + 1) + 1 + len(self.layers) + self.networks)


def settings_of(runtimes: str, candidates: str, threads: str) -> list[Setting]:
    """Each of the runtimes with each of the numbers; raises InputError naming the flag that makes no sense."""
    known: dict[str, Runtime] = {runtime: runtime for runtime in PIECES}
    chosen = config.names(runtimes)
    if not chosen or any(name not in known for name in chosen):
        raise InputError(f"--runtimes {runtimes!r}: expected some of {', '.join(known)}, with commas")
    numbers = _numbers("candidates", candidates), _numbers("threads", threads)
    return [Setting(known[name], n, t) for name, n, t in itertools.product(chosen, *numbers)]


def hidden_widths(said: str) -> tuple[int, ...]:
    """Ascending and without 0, the skipped layer, which needs no measuring."""
    return tuple(sorted({width for width in config.widths(said) if width}))


def check_widths(said: str) -> None:
    """Raises InputError where there is nothing to measure."""
    _refuse_below_1("widths", said, hidden_widths(said))


def _numbers(flag: str, said: str) -> tuple[int, ...]:
    values = config.widths(said)
    _refuse_below_1(flag, said, values)
    return values


def _refuse_below_1(flag: str, said: str, values: tuple[int, ...]) -> None:
    if not values or min(values) < 1:
        raise InputError(f"--{flag} {said!r}: expected numbers of 1 or more, with commas")


def random_networks(features: Sequence[Feature], widths: Sequence[int], *, networks: int, seed: int) -> list[Network]:
    """Any share of the features, one of an item at least, and 0 to 3 hidden layers."""
    rng = np.random.default_rng(seed)
    of_items = [index for index, feature in enumerate(features) if not feature.of_request]
    out = []
    for _ in range(networks):
        kept = rng.random(len(features)) < rng.random()
        kept[rng.choice(of_items)] = True
        names = tuple(feature.name for feature, keep in zip(features, kept, strict=True) if keep)
        out.append((names, tuple(int(width) for width in rng.choice(widths, rng.integers(0, 4)))))
    return out


def grid(widths: Iterable[int], most: int) -> list[tuple[int, int]]:
    """The layers to measure: [in, out] of the candidate widths and the head, each from each.

    The first layer may take any number of inputs up to `most`, so `in` is also 1, 2, 4, ... and the middles between.
    """
    between = [size for power in range(20) for size in (2**power, 3 * 2**power // 2)]
    ins = {size for size in between if size < most and (size < 4 or size % 4 == 0)} | {most, *widths}
    return list(itertools.product(sorted(ins), sorted({1, *widths})))
