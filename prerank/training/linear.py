"""A linear combination of a few numbers, its weights tuned by a search on the validation day (the pre-ranking of 2016).

Nothing is learned from the training samples, and the search looks at the very days that an early stopping looks at.
Shapes: N candidates of the validation day, D inputs.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import torch

from prerank.core.errors import InputError
from prerank.core.nested import flat_numpy
from prerank.evaluation.metrics import Candidates, Validation
from prerank.logs.schema import Feature
from prerank.models.options import Arm
from prerank.models.ranker import Ranker
from prerank.samples.batches import scoring_batch

LOOKS = 100
"""Of the search at the validation day, for each input: Powell's method (1964) settles within five to ten passes."""


def tune(
    ranker: Ranker,
    arm: Arm,
    features: tuple[Feature, ...],
    tables: Sequence[pa.Table],
    teacher_score: str | None,
    k: int,
    tell: Callable[[int, float], object] = lambda looks, best: None,
) -> dict[str, float]:
    """Gives the ranker, which has no hidden layer, the weights of the best `arm.select_by` that Powell's method finds.

    It begins at the correlation of each input with what the teacher says (or, without one, with the clicks), beside
    which the seed of the arm puts a little chance. Returns the metrics of the validation day; raises InputError where
    no request of it defines the one that decides.
    """
    embed, parts = ranker.embed, [_Part(table, ranker, features, teacher_score, k) for table in tables]
    start_D = sum(part.towards() for part in parts)
    assert isinstance(start_D, np.ndarray)
    start_D /= max(float(np.abs(start_D).max()), 1e-12)
    start_D += 0.1 * np.random.default_rng(arm.seed).standard_normal(len(start_D))
    looks, best, best_D = 0, -np.inf, start_D

    def loss(weight_D: np.ndarray) -> float:
        nonlocal looks, best, best_D
        value = _mean(parts, weight_D).get(arm.select_by)
        if value is None:
            raise InputError(
                f"{arm.name}: no request of the validation day has the {arm.select_by} that its weights are tuned by; "
                "build samples with more validation days or requests (split.val_days, val_requests), or lower --k"
            )
        looks += 1
        if value > best:
            best, best_D = value, weight_D.copy()
        tell(looks, best)
        return -value

    from scipy.optimize import minimize  # late: other models are trained without it

    if len(start_D) == 1:
        loss(-start_D)  # of one input the direction is all, and a line search need not come to the other side of 0
    minimize(loss, start_D, method="Powell", options={"maxfev": LOOKS * len(start_D), "xtol": 1e-3, "ftol": 1e-5})
    best_D /= max(float(np.linalg.norm(best_D)), 1e-12)  # the order is the same, and scores are of one size
    with torch.no_grad():
        head = ranker.linears[0]
        head.weight.zero_()
        head.bias.zero_()
        head.weight[0, embed.widths[0] :] = torch.from_numpy(best_D).float()
    found = _mean(parts, best_D)
    return {name if name == "auc" else f"{name}_at_{k}": value for name, value in found.items()}


class _Part:
    """Some requests of the validation day."""

    def __init__(
        self, table: pa.Table, ranker: Ranker, features: tuple[Feature, ...], teacher_score: str | None, k: int
    ) -> None:
        x_ND = ranker.embed.side(scoring_batch(table, features).features, 1)
        assert x_ND is not None
        self.x_ND, candidates = x_ND.detach().numpy(), Candidates.of(table)
        self.wanted_N = flat_numpy(table[teacher_score]) if teacher_score else candidates.clicked.astype(np.float32)
        self.measure = Validation(candidates, self.wanted_N if teacher_score else None, k=k)

    def towards(self) -> np.ndarray:
        """[D]: the sum of inputs times what is wanted, each less its mean."""
        return (self.x_ND - self.x_ND.mean(axis=0)).T.astype(float) @ (self.wanted_N - self.wanted_N.mean())


def _mean(parts: Sequence[_Part], weight_D: np.ndarray) -> dict[str, float]:
    """The metrics by name, where a request defines them; a score is rounded as the model that is kept rounds it."""
    columns = [part.measure(part.x_ND @ weight_D.astype(np.float32)) for part in parts]
    joined = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    return {name: float(np.nanmean(each_R)) for name, each_R in joined.items() if not np.isnan(each_R).all()}
