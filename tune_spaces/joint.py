"""The article's three together: λ of the scores, τ of the InfoNCE loss, and the latency penalty around the supernet."""

from ray import tune

SPACE = {
    "search.method": tune.choice(["autofas"]),
    "distill.score": tune.loguniform(0.1, 10.0),
    "distill.temperature": tune.loguniform(0.03, 1.0),
    "latency.penalty": tune.loguniform(0.01, 3.0),
}
