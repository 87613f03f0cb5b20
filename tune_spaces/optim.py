"""How the weights learn."""

from ray import tune

SPACE = {
    "optim.lr": tune.loguniform(3e-4, 1e-2),
    "optim.weight_decay": tune.loguniform(1e-6, 1e-3),
}
