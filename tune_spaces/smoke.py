"""To see a sweep work, in a minute."""

from ray import tune

SPACE = {"distill.score": tune.loguniform(0.3, 3.0), "optim.lr": tune.loguniform(3e-4, 3e-3)}
