"""The draw held against the logs: fitted to them before they are read, and looked at afterwards."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from prerank.core.counts import Built, check_labels
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids, keyed_uniform
from prerank.logs.folder import Logs, read_groups
from prerank.samples.draw import NEED_POSITIONS, DrawConfig

SAMPLED = 4096
"""Requests whose exposures are counted; their mean is within some hundredths of that of all."""


def fitted(config: DrawConfig, logs: Logs) -> DrawConfig:
    """The draw for these logs: `uniform_ratio` is 0 where the floor of `uniform_items` does for the average request.

    A rule of the whole logs rather than of each request, as the teacher's ratio of negatives is one of averages: a few
    long requests among short ones need no more negatives, and are drawn as if there were no ratio.
    """
    if config.uniform_ratio and config.uniform_ratio * mean_exposures(logs) <= config.uniform_items:
        return replace(config, uniform_ratio=0.0)
    return config


def drawn_by(manifest_draw: Mapping[str, object]) -> DrawConfig:
    """The draw that samples were built by; those of versions without a `uniform_ratio` had none."""
    return replace(DrawConfig(uniform_ratio=0.0), **manifest_draw)


def mean_exposures(logs: Logs) -> float:
    """Rows of impressions a request, over the requests of the lowest keyed numbers: the same in any order of the rows.

    One column of the smallest table is read, and `SAMPLED` requests are kept at a time. 0 where nothing was shown.
    """
    lowest, rows = np.empty(0), np.empty(0)
    for group in logs.tables["impressions"].groups:
        ids = read_groups(logs.tables["impressions"], (group,), ["request_id"])["request_id"].drop_null()
        number = keyed_uniform(0, "exposures", hash_ids(ids))
        if len(lowest) == SAMPLED:
            number = number[number <= lowest[-1]]
        lowest, at = np.unique(np.concatenate([lowest, number]), return_inverse=True)
        rows = np.bincount(at, np.concatenate([rows, np.ones(len(number))]), minlength=len(lowest))
        lowest, rows = lowest[:SAMPLED], rows[:SAMPLED]
    return float(rows.mean()) if len(rows) else 0.0


def check_built(counts: Built, strategies: tuple[str, ...], *, positions: bool) -> None:
    """Raises InputError where a chosen strategy has no pair in the whole dataset, with what was dropped and why; and
    for a label that says nothing.

    `low_rank_negatives` may have none, beside others: where the whole list is shown, no item of its tail is left over.
    """
    check_labels(counts)
    for name in strategies:
        if counts.get("pairs", {}).get(name, 0) or (name in NEED_POSITIONS and not positions):
            continue
        if name in all_shown(counts, strategies):
            continue
        reasons = {**counts.get("dropped", {}), **counts.get("noted", {})}
        found = ", ".join(f"{reason} {n['requests']} requests" for reason, n in reasons.items()) or "nothing dropped"
        raise InputError(
            f"strategy {name!r} built no pair from {counts['read']['requests']} requests ({found}); "
            "check clicked in impressions/, fine_position in fine_lists/ and the draw options, or leave it out"
        )


def all_shown(counts: Built, strategies: tuple[str, ...]) -> tuple[str, ...]:
    """`low_rank_negatives`, where it was to draw and has no pair although there are clicks, and others have pairs."""
    pairs, name = counts.get("pairs", {}), "low_rank_negatives"
    if name in strategies and not pairs.get(name, 1) and any(pairs.values()) and counts.get("requests_with_click"):
        return (name,)
    return ()


def said_of_draw(draw: DrawConfig, counts: Built, strategies: tuple[str, ...]) -> list[str]:
    """A line for each thing that the draw met in these logs, and what it did."""
    said: list[str] = []
    short, clicked = counts.get("noted", {}).get("fewer_unexposed_than_asked"), counts.get("requests_with_click", 0)
    if short and clicked:
        each = f"{draw.uniform_ratio:g} times their exposures" if draw.uniform_ratio else f"{draw.uniform_items}"
        said.append(
            f"note: {short['requests']:,} of {clicked:,} requests with a click have fewer unexposed items than the "
            f"{each} that the teacher's negatives are drawn from: all they have are taken"
        )
    for name in all_shown(counts, strategies):
        said.append(f"note: {name}: no item of a fine list's tail was left unexposed: it adds no pairs")
    return said
