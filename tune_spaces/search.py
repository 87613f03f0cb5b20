"""How the architecture is searched: the price of a microsecond, the two learning rates, the price of indecision."""

from ray import tune

SPACE = {
    "search.method": tune.choice(["autofas"]),
    "latency.penalty": tune.loguniform(0.01, 3.0),
    "search.gate_lr": tune.loguniform(0.01, 0.2),
    "search.width_lr": tune.loguniform(0.003, 0.1),
    "search.entropy": tune.choice([0.0, 0.001, 0.01]),
}
