"""What can be configured about the price of time."""

import math
from dataclasses import dataclass

from prerank.core.config import Above0, Count, Positive, Weight
from prerank.core.errors import InputError


@dataclass(frozen=True)
class Latency:
    """What an architecture costs, in the loss: λ · E[latency] / budget."""

    penalty: Weight = 0.05
    """λ, the weight of the expected latency."""
    temperature_us: Above0 = 20.0
    """Of the smooth maximum through which the dearest features of a source learn."""
    candidates: Count = 1000
    """Candidates of a request, as measured in latency.json."""
    threads: Positive = 1

    def check(self, name: str) -> None:
        """Raises InputError naming the key whose value makes no sense."""
        for key in ("penalty", "temperature_us"):
            if not 0 <= getattr(self, key) < math.inf or (key == "temperature_us" and not self.temperature_us):
                raise InputError(f"{name}: latency.{key} is out of range: {getattr(self, key)}")
