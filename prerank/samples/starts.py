"""When the requests of the validation began, by the candidates and by the fine lists: a request has one time.

Where the two tables go by other clocks, the candidates of a validation day are those of requests that are trained on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from prerank.core.counts import Checked
from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.logs.requests import LONGEST


@dataclass
class Starts:
    """Of R requests, in any order; `merge` adds them up."""

    request: np.ndarray
    """uint64 [R], hashes of the ids."""
    ts: np.ndarray
    """datetime64[us] [R]."""

    @classmethod
    def of(cls, requests: pa.Table) -> "Starts":
        return cls(hash_ids(requests["request_id"]), requests["ts"].to_numpy().astype("datetime64[us]"))

    def __add__(self, other: "Starts") -> "Starts":
        return Starts(np.concatenate([self.request, other.request]), np.concatenate([self.ts, other.ts]))


def check_starts(starts: Mapping[str, Starts], candidates: Checked | None, most: float) -> None:
    """Raises InputError where more than this share of the requests that both tables have began at other times.

    That is, as far apart as rows of one request may not lie. So it does where they have none in common, and none of the
    candidates (`candidates`: what was counted of them) was clicked.
    """
    if candidates is None or not len(starts["candidates"].request):
        return
    mine, others = starts["candidates"], starts["fine_lists"]
    _, lists, of_candidates = np.intersect1d(others.request, mine.request, return_indices=True)
    if not len(lists) and candidates["noted"].get("without_click", {"requests": 0})["requests"] == len(mine.request):
        raise InputError(
            f"candidates: none of {len(mine.request):,} requests of the validation days is in fine_lists/, and none of "
            "their candidates was clicked; write request_id alike in all tables"
        )
    apart = mine.ts[of_candidates] - others.ts[lists]
    far = np.abs(apart) >= LONGEST
    if far.sum() > most * len(far):
        hours = float(np.median(apart[far]) / np.timedelta64(1, "h"))
        raise InputError(
            f"candidates: ts of {far.sum():,} of {len(far):,} requests is 6 hours or more from that in fine_lists "
            f"({hours:+.1f} h, their median); the candidates of a validation day must be those of its requests: write "
            "ts by one clock in both tables"
        )
