"""The winner of a search, measured on this host: where it overruns the budget, the budget shrinks by as much."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from prerank.latency.formula import fetch_us, inference_us
from prerank.latency.pieces import OnnxPieces, Setting
from prerank.logs.schema import Schema
from prerank.models.arch import Arch
from prerank.models.stats import Stats
from prerank.search.confirmed import Confirmed, incumbent_of
from prerank.search.propose import space_of
from prerank.search.spec import Spec
from prerank.serving.timing import machine, stat, timed
from prerank.serving.watch import Watch

TRIES = 4
"""Winners that are measured, one after the other, at most."""
NOISE = 0.1
"""Of the predicted inference, which a table is off by where it is as good as it should be: a winner that runs over by
no more than that does not run over. Its own error is in arch.json."""
REPEATS = 200
QUICK = 1.05
"""A host whose yardstick takes no more than so many times what it took beside the table is as quick as it was then."""
PART = 0.01
"""Of the budget: by how much it shrinks at least."""
WAITS, WAIT_S = 20, 0.5
"""For such a moment: a neighbour of a virtual machine, or a program beside, takes its turns by seconds."""


@dataclass(frozen=True)
class Clock:
    """Times whole networks as `latency.json` was measured: the same inputs, beside the same yardstick."""

    spec: Spec
    schema: Schema
    stats: Stats

    @property
    def here(self) -> bool:
        """Whether the latency table is of this host, and of the runtime and by the rule that is timed by here."""
        table = self.spec.table
        ours = table.runtime == "onnxruntime" and table.machine == machine()["fingerprint"]
        return ours and table.yardstick_us is not None

    def __call__(self, archs: Sequence[Arch]) -> list[float]:
        """Inference, microseconds, in turns, at a moment when the host is as quick as when the table was measured.

        Where none comes, at the quickest there was, less what the host is slower.
        """
        table, features = self.spec.table, self.spec.features(self.schema)
        # Numbers without statistics, such as those of features that no sample has, cost as much with others.
        stats: Stats = {
            f.name: self.stats.get(f.name, {"mean": [0.0] * f.size, "std": [1.0] * f.size, "missing": 0.0})
            for f in features
            if not f.dim
        }
        setting = Setting(table.runtime, table.candidates, table.threads, table.packed)
        pieces = OnnxPieces(setting, features, stats, table.list_length)
        runs = [pieces.network(arch.features, arch.widths) for arch in archs]
        quickest, taken = math.inf, list[float]()
        for waited in range(WAITS):
            if waited:
                time.sleep(WAIT_S)
            watch = Watch()
            times = timed(runs, REPEATS, watch=watch)
            slower = watch.quick_us / table.yardstick_us if table.yardstick_us else 1.0
            if slower < quickest:
                quickest, taken = slower, [stat(one)["p5"] for one in times]
            if quickest <= QUICK:
                break
        return [us / max(1.0, quickest) for us in taken]


def within_budget(found: Confirmed, clock: Clock, again: Callable[[float], Confirmed]) -> tuple[Confirmed, str]:
    """The search, whose limit is as far below the budget as its winner takes longer than predicted; and what was done.

    `again` searches within such a limit, and what it trains counts as well. The incumbent stays what it is: where it
    fits by the table, nothing runs over that takes no longer than it does.
    """
    spec, schema = found.spec, clock.schema
    if not clock.here:
        return found, "the winner was not measured: the latency table is of another host, or of an earlier version"
    incumbent, space = incumbent_of(spec, schema, spec.budget_us), space_of(spec, schema)
    least_us = space.latency_us(space.cheapest(spec.budget_us))
    tried = 0
    while True:
        arch = found.derive(schema)
        ours_us, *of_incumbent = clock([arch, incumbent] if incumbent and incumbent != arch else [arch])
        features = schema.select(arch.features, where="arch.json")
        predicted_us = inference_us(spec.table, features, arch.widths)
        takes_us = fetch_us(features, schema.fetch) + ours_us
        found = replace(
            found, measured={"measured_us": round(ours_us, 3), "error": round(ours_us / predicted_us - 1, 4)}
        )
        allowed_us = spec.budget_us
        if incumbent and of_incumbent:
            held = schema.select(incumbent.features, where="hand_picked")
            allowed_us = max(allowed_us, fetch_us(held, schema.fetch) + of_incumbent[0])
        over_us = takes_us - allowed_us
        if arch == incumbent or over_us <= NOISE * predicted_us:
            at = f"inference {ours_us:.0f} µs as measured here, {predicted_us:.0f} predicted"
            return found, at + (f"; {tried} before it ran over the budget" if tried else "")
        limit_us = min(spec.budget_us - max(ours_us - predicted_us, over_us), found.limit_us or math.inf)
        # In whole parts, so that a search that is stopped in here most likely goes on with the same.
        limit_us = math.floor(limit_us / spec.budget_us / PART) * PART * spec.budget_us
        tried += 1
        if tried == TRIES or limit_us < least_us:
            said = f"note: {takes_us:.0f} µs as measured, {tried} times longer than predicted: "
            return found, said + "the budget is below what can be promised"
        found = replace(found.and_what(again(limit_us)), limit_us=limit_us)
