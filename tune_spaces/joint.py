"""The article's three together: λ of the scores, the contrast with its τ and α, and the penalty around the supernet."""

from ray import tune

SPACE = {
    "search.method": tune.choice(["autofas"]),
    "distill.score": tune.loguniform(0.1, 10.0),
    "distill.contrast": tune.loguniform(0.03, 3.0),
    "distill.temperature": tune.loguniform(0.03, 1.0),
    "distill.of_bin": tune.uniform(0.0, 1.0),
    "latency.penalty": tune.loguniform(0.01, 3.0),
}
