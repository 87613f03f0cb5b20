"""Where there is little to learn from: how the samples are dealt then, and what is said of it."""

from collections.abc import Sequence
from pathlib import Path

from prerank.core.errors import InputError
from prerank.models.options import Arm, Optim
from prerank.samples.files import SamplesManifest, sample_files, samples_manifest
from prerank.samples.reader import Dealt, Reader, deal
from prerank.training.options import Compute

FEW = 100
"""Requests. What is measured on fewer is known to ±10 points at best: of a share near one half over n requests the 95%
interval is ±0.98 / √n. So wide is what a model of as few requests with a click or pairs has learned, what the
validation chooses its epoch by, and what a test says."""


def points_of(requests: int) -> float:
    """Half the 95% interval, in points, of a share near one half over so many requests."""
    return 98 / max(requests, 1) ** 0.5


def dealt_of(arm: Arm, samples: Path, compute: Compute, *, fold: int = 0) -> Dealt:
    """How the training samples are dealt to the arm; raises InputError where they cannot be, as `Reader` does, and for
    a batch of more than all of them that somebody asked for: the default fits itself to few samples.

    fold: of a search, whose weights learn from what it does not hold out.
    """
    files = sample_files(samples, "train")
    rows, batch, lanes = sum(n for _, n in files), arm.optim.batch, compute.lanes
    divided = batch % lanes == lanes % compute.workers == 0
    if divided and rows >= 2 * arm.optim.epoch_steps * batch:
        return deal(rows, batch, lanes, arm.optim.epoch_steps)  # as asked for, whatever is held out: no footer is read
    read = Reader(tuple(path for path, _ in files), (), batch, lanes, world=compute.workers, fold=fold)
    if read.rows < batch > Optim.batch:
        raise InputError(
            f"{samples}: optim.batch {batch} is more than the {read.rows} training requests that a student here learns "
            f"from; lower it to {max(read.rows, Optim.batch)} or less (which becomes what fills some batches)"
        )
    return deal(read.rows, batch, lanes, arm.optim.epoch_steps)


def facts_of(dealt: Dealt) -> dict[str, int]:
    """For manifests and MLflow: what `optim.batch`, `compute.lanes` and an epoch came to."""
    return {"batch": dealt.batch, "lanes": dealt.lanes, "passes": dealt.passes}


def tags_of(dealt: Dealt) -> dict[str, str]:
    return {f"dealt.{name}": str(value) for name, value in facts_of(dealt).items()}


def said_of_few(what: str, arms: Sequence[Arm], samples: Path, compute: Compute, *, fold: int = 0) -> list[str]:
    """A line where the arms have few requests to learn from or to be chosen by, and where they are dealt otherwise
    than asked for; none where there are enough. `what` is trained."""
    few = too_few(arms, samples_manifest(samples))
    lines: list[str] = []
    for dealt, arm in {dealt_of(arm, samples, compute, fold=fold): arm for arm in arms}.items():
        done: list[str] = []
        if dealt.batch < arm.optim.batch:
            done.append(f"batches of {dealt.batch} requests in place of {arm.optim.batch}")
        if dealt.lanes < compute.lanes:
            done.append(f"{dealt.lanes} lanes in place of {compute.lanes}")
        if dealt.passes > 1:
            done.append(f"an epoch is {dealt.passes} passes over the samples ({dealt.steps} steps)")
        parts = ([f"little to learn from: {few}"] if few else []) + ([", ".join(done)] if done else [])
        if parts:
            lines.append(f"note: {what}: {'; '.join(parts)}")
    return lines


def too_few(arms: Sequence[Arm], manifest: SamplesManifest) -> str:
    """What the arms have fewer than `FEW` of, and how wide the intervals of the validation are; or nothing."""
    counts, found = manifest["counts"], {}
    if any(not arm.by_strategy for arm in arms):
        found["training requests with a click"] = counts.get("requests_with_click", FEW)
    paired = counts["requests_with_pairs"]
    strategies = dict.fromkeys(name for arm in arms if arm.by_strategy for name in arm.strategies)
    few = {name: paired[name] for name in strategies if paired.get(name, FEW) < FEW}
    if few and len(set(few.values())) == 1 and len(few) == len(strategies):
        found["training requests with pairs"] = next(iter(few.values()))
    else:
        found |= {f"training requests with {name} pairs": n for name, n in few.items()}
    validation = sum(n for name, n in manifest["rows"].items() if name.startswith("val/"))
    found["validation requests"] = validation
    said = [f"{n} {name}" for name, n in found.items() if n < FEW]
    if validation < FEW:
        said[-1] += f" (a share over them is known to ±{points_of(validation):.0f} points)"
    return ", ".join(said)
