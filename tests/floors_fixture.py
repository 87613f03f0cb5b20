"""The floors of the house."""

FLOORS = (
    ("core",),
    ("logs", "tracking"),
    ("models", "sources"),
    ("samples",),
    ("evaluation", "serving"),
    ("latency", "training"),
    ("search",),
    ("reports", "sweeps"),
    ("benchmarks",),
)
"""From the ground up. Rooms of one floor do not know of each other; workflows and tune_spaces stand on top of all."""
