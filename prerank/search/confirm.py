"""Propose, confirm, refine: which sets are trained for how long, and which of them is handed over.

Nothing here trains: it asks, in rounds, for trainings that may run side by side, and what it asks for next hangs on the
answers alone. So the same answers lead to the same end, on however many workers and after however many interruptions;
and as no decision looks at how many trainings are left, a search of more trainings begins with those of a search of
fewer, but for those of its end, and keeps the best of a larger number.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np

from prerank.models.arch import Arch
from prerank.search.confirmed import FITS, LAST, LONGER, TIE, Row, best_of
from prerank.search.propose import Space, Values, neighbours, proposals

SEEDS = ((0,), (1,), (2,), (3, 4))
"""Of a rung's trainings, beside the search's own; the last rung counts that of the rung before as well."""
PRICE = (1, 3, 9, 18)
"""Of a rung, in trainings of the first."""
KEPT = 3
"""One in so many goes on to the next rung."""
FIRST, NEXT = 48, 24
"""Proposals that begin in the first round and in each later one: at the start nobody knows whom to believe."""
MOST = 8
"""Longer trainings of one round."""
TRIES = 5
"""Features that a refinement tries to put in for each valuer, and to leave out."""
NOISE = 0.0005
"""Of the metric: what another feature would add by no more than that is nothing."""
BASES = 3
"""Sets that are refined at the end, where nothing near the best of them is new."""


@dataclass(frozen=True)
class Task:
    """A question that a worker answers by training: the same question has the same answer."""

    kind: str
    """train: what a student keeps; near: what its features are worth to it and what others may add; else a valuer."""
    arch: Arch
    steps: int
    seeds: tuple[int, ...] = (0,)
    budget_us: float = 0.0
    """Of a valuer that searches within it, or holds prices against it."""


class Told(TypedDict):
    """The answer."""

    metric: list[float | None]
    """Of the requests, the mean over the seeds; None where a request has none."""
    values: list[dict[str, float]]
    """Of a valuer."""


Ask = Callable[[Sequence[Task]], Sequence[Told]]


@dataclass
class Confirm:
    """The trainings of one search so far, over all of its budgets."""

    space: Space
    ask: Ask
    say: Callable[[str], None] = lambda said: None
    seed: int = 0
    steps: int = 60
    """Of a training of the first rung."""
    refines: bool = True
    """Whether what stands near the best is tried beside what was proposed."""
    told: dict[tuple[Arch, int], np.ndarray] = field(default_factory=dict)
    """[R] by set and rung."""
    spent: int = 0

    def valuer(self, kind: str, arch: Arch, rung: int, budget_us: float = 0.0) -> Task:
        """On the features and widths, after a training as long as the rung's."""
        return Task(kind, arch, LONGER[rung] * self.steps, (self.seed,), budget_us)

    def valued(self, asked: Sequence[Task]) -> list[list[Values]]:
        """What each of the valuers says."""
        return [[dict(values) for values in one["values"]] for one in self.ask(asked)]

    def look(self, archs: Sequence[Arch]) -> None:
        """Trains sets for the front alone."""
        self._train([(arch, 2) for arch in dict.fromkeys(archs)])

    def search(self, budget_us: float, valued: Sequence[Values], sure: Sequence[Arch], trainings: int) -> Arch | None:
        """Confirms and refines within the budget; returns the best, or None where nothing fits.

        `sure`: sets that go on to the last rung whatever they come to, beside the `trainings`; so may those that
        another budget's search has brought there, what leads when the trainings are over, and the best without what is
        idle in it.
        """
        sure = list(dict.fromkeys(arch for arch in sure if self._fits(arch, budget_us)))
        self._train_out(sure)
        mine = {arch: None for arch, rung in self.told if rung >= 2 and self._fits(arch, budget_us)}
        refined: set[Arch] = set()
        left = trainings

        def ask(asked: Sequence[tuple[Arch, int]]) -> bool:
            """Trains what there is room for; False where that is not all, and the search is over."""
            nonlocal left
            if not asked:
                return True
            paid = np.cumsum([PRICE[rung] for _, rung in asked], dtype=int)
            room = int((paid <= left).sum())
            left -= int(paid[:room].max(initial=0))
            self._train(asked[:room])
            mine.update({arch: None for arch, _ in asked[:room]})
            best = self.best(budget_us)
            reached = f", best {100 * self.mean(best):.1f}" if best else ""
            self.say(f"{budget_us:.0f} µs: {trainings - left} of {trainings} trainings, {len(mine)} proposals{reached}")
            return room == len(asked)

        # Each valuer is heard once, on the base network; then, in the order of what those sets keep, on all networks:
        # a bad one costs one training.
        spoken = [sets for sets in proposals(self.space, valued, budget_us) if sets]
        heard = [arch for arch in dict.fromkeys(sets[0] for sets in spoken) if arch not in mine]
        going = ask([(arch, 0) for arch in heard])
        spoken.sort(key=lambda sets: -self.mean(sets[0], 0) if (sets[0], 0) in self.told else math.inf)
        queue = [arch for arch in dict.fromkeys(itertools.chain(*spoken)) if arch not in mine]
        beside = max(0, FIRST - len(heard))
        going = going and ask([(arch, 0) for arch in queue[:beside]])
        queue, near = queue[beside:], True
        while going:
            asked = self._promoted(list(mine))
            if not asked:
                # Proposals and refinements take turns: what valuers say of all features, and of the best set so far.
                found = (
                    self._near(list(mine), refined, valued, budget_us) if self.refines and (near or not queue) else []
                )
                near = not near
                if found:
                    queue = [*found, *(arch for arch in queue if arch not in found)]
                asked = [(arch, 0) for arch in queue[:NEXT]]
                queue = queue[NEXT:]
            going = bool(asked) and ask(asked)
        self._end(budget_us, [arch for arch in mine if arch not in sure])
        return self.best(budget_us)

    def best(self, budget_us: float) -> Arch | None:
        """Of those at the last rung the best within the budget; of those within a `TIE` of it, the cheapest."""
        last = [arch for arch, rung in self.told if rung == LAST and self._fits(arch, budget_us)]
        if not last:
            return None
        return last[best_of([(self.mean(arch), self.space.latency_us(arch)) for arch in last])]

    def rung(self, arch: Arch) -> int:
        return max(rung for of, rung in self.told if of == arch)

    def mean(self, arch: Arch, rung: int | None = None) -> float:
        return float(np.nanmean(self.told[arch, self.rung(arch) if rung is None else rung]))

    def rows(self) -> list[Row]:
        """All that was trained, by what it takes."""
        archs = sorted(dict.fromkeys(arch for arch, _ in self.told), key=lambda a: (self.space.latency_us(a), str(a)))
        return [
            {
                "features": list(arch.features),
                "widths": list(arch.widths),
                "latency_us": self.space.latency_us(arch),
                "rung": self.rung(arch),
                "metric": self.mean(arch),
                "requests": self._requests(arch),
            }
            for arch in archs
        ]

    def _requests(self, arch: Arch) -> list[float | None]:
        metric_R = self.told.get((arch, LAST), np.zeros(0))
        return [None if np.isnan(x) else round(float(x), 6) for x in metric_R]

    def _fits(self, arch: Arch, budget_us: float) -> bool:
        return self.space.latency_us(arch) <= budget_us * FITS

    def _train_out(self, archs: Sequence[Arch]) -> None:
        """On the last rung, which counts the one before it."""
        self._train([(arch, rung) for rung in (LAST - 1, LAST) for arch in archs])

    def _train(self, asked: Sequence[tuple[Arch, int]]) -> None:
        new = [(arch, rung) for arch, rung in asked if (arch, rung) not in self.told]
        seeds = [tuple(self.seed * 1000 + seed for seed in SEEDS[rung]) for _, rung in new]
        tasks = [
            Task("train", arch, LONGER[rung] * self.steps, of) for (arch, rung), of in zip(new, seeds, strict=True)
        ]
        for (arch, rung), told in zip(new, self.ask(tasks) if tasks else [], strict=True):
            metric_R = np.array([np.nan if x is None else x for x in told["metric"]], float)
            if rung == LAST and (arch, rung - 1) in self.told:
                seeds = len(SEEDS[rung])
                metric_R = (seeds * metric_R + self.told[arch, rung - 1]) / (seeds + 1)
            self.told[arch, rung] = metric_R
            self.spent += PRICE[rung]

    def _promoted(self, mine: list[Arch]) -> list[tuple[Arch, int]]:
        """Of those that belong to the best of their rung and have not gone on, the best few, whatever their rung; to
        the last goes what keeps more than all there.

        A longer training seldom keeps less: what is ahead of the finalists before its end is dealt with before they
        are, and makes some of their trainings needless.
        """
        asked: list[tuple[float, float, Arch, int]] = []
        for rung in range(LAST):
            here = [(-self.mean(arch, rung), self.space.latency_us(arch), arch, rung + 1) for arch in mine
                    if (arch, rung) in self.told]  # fmt: skip
            here.sort(key=lambda one: one[:2])
            best = here[: math.ceil(len(here) / KEPT)] if rung < LAST - 1 else here[:1]
            asked += [one for one in best if (one[2], rung + 1) not in self.told]
        asked.sort(key=lambda one: one[:2])
        return [(arch, rung) for _, _, arch, rung in asked[:MOST]]

    def _end(self, budget_us: float, tried: Sequence[Arch]) -> None:
        """Trains out what leads and was not, as the trainings were over, and the best without what is idle in it.

        A few times, where the next leads once the leader is trained out; where none has come to the rung before the
        last, what leads on the highest, or all of the trainings were for nothing.
        """
        for _ in range(KEPT if tried else 0):
            leader = max(
                tried,
                key=lambda arch: (min(self.rung(arch), LAST - 1), self.mean(arch), -self.space.latency_us(arch)),
            )
            if self.rung(leader) == LAST:
                break
            self._train_out([leader])
        if self.refines:
            self._leave_idle(budget_us)

    def _leave_idle(self, budget_us: float) -> None:
        """Trains out the best without what is idle in it, or without half of that where it keeps less, and so on.

        Where room is left, what is worth nothing and costs little is in the best set by chance; `best` takes the
        cheaper of two that are level. Idle is what shuffling costs, all together, no more than a tie; but of two that
        say the same each looks idle beside the other.
        """
        best = self.best(budget_us)
        if best is None:
            return
        ((lost, _),) = self.valued([self.valuer("near", best, 1)])
        features = sorted(best.features, key=lambda name: lost[name])
        idle = int((np.cumsum([max(lost[name], 0.0) for name in features]) <= TIE).sum())
        while idle:
            kept = set(features[idle:])
            lean = Arch(tuple(name for name in best.features if name in kept), best.widths)
            if self.space.scores(lean):
                self._train_out([lean])
                if self.best(budget_us) == lean:
                    return
            idle //= 2

    def _near(self, mine: list[Arch], refined: set[Arch], valued: Sequence[Values], budget_us: float) -> list[Arch]:
        """Proposals near the best, or near one of the next best where nothing near it is new."""
        confirmed = [arch for arch in mine if self.rung(arch) >= 1]
        confirmed.sort(key=lambda arch: (-self.mean(arch), self.space.latency_us(arch)))
        for arch in confirmed[:BASES]:
            if arch in refined:
                continue
            refined.add(arch)
            ((lost, gained),) = self.valued([self.valuer("near", arch, 1)])
            others = [
                {name: value for name, value in values.items() if name not in lost and value > NOISE}
                for values in (gained, *valued[:1])
            ]
            near = neighbours(self.space, arch, [{**lost, **other} for other in others], budget_us, TRIES)
            near = [other for other in near if (other, 0) not in self.told and other not in mine]
            if near:
                return near
        return []
