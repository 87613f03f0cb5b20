"""What the trials of a sweep came to, and the best of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from prerank.core.errors import InputError


@dataclass(frozen=True)
class Outcome:
    """What a trial came to."""

    name: str
    trial_id: str
    begun: float
    """Seconds since 1970."""
    drawn: dict[str, object]
    """By dotted key."""
    status: Literal["finished", "stopped", "failed"]
    """stopped: by the scheduler, before its end."""
    epochs: int
    """Spent, over search and training."""
    value: float | None
    """The metric at the end; of a trial that was stopped, where it stood."""
    latency_us: float | None
    failures: int
    error: str | None
    """The last failure, whether or not the trial went on after it."""
    fault: str | None
    """Of the input, which ended the sweep."""


class Swept(TypedDict):
    """A sweep's `results.json`."""

    best: dict[str, object]
    """Its outcome."""
    epochs: int
    """Spent by all trials."""
    test: Mapping[str, object]
    """The best, trained once more, on the test days."""
    model: str
    """Its version in MLflow's registry."""


def read_outcomes(out: Path) -> list[Outcome]:
    """In the order in which the trials began."""
    return [Outcome(**row) for row in json.loads((out / "trials.json").read_text())]


def best_of(outcomes: Sequence[Outcome], out: Path) -> Outcome:
    """The best of those that came to their end; raises InputError where none did."""
    finished = [(one.value, one) for one in outcomes if one.status == "finished" and one.value is not None]
    if not finished:
        raise InputError(f"{out}: no trial came to its end; {out}/trials.json says what went wrong")
    return max(finished, key=lambda pair: pair[0])[1]


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """A line a trial that failed on the way or for good."""
    said = []
    for outcome in outcomes:
        if outcome.failures:
            last = (outcome.error or "").strip().splitlines()[-1:] or ["gone on with from its last epoch"]
            said.append(f"{outcome.name}: {outcome.status} after {outcome.failures} failures: {last[0]}")
    return said


def summary(outcomes: Sequence[Outcome], best: Outcome, test: Mapping[str, object], k: int) -> str:
    """In one line how many trials there were, and what the best keeps on the test days."""
    stopped = sum(outcome.status == "stopped" for outcome in outcomes)
    spent = sum(outcome.epochs for outcome in outcomes)
    shown = (f"recall_at_{k}", f"hit_rate_at_{k}")
    said = ", ".join(f"{key} {value:.4f}" for key in shown if isinstance(value := test.get(key), float))
    return (
        f"{len(outcomes)} trials, {stopped} of them stopped early, {spent} epochs; {best.name} on the test days: {said}"
    )
