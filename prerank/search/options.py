"""What can be configured about a search of features and widths."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from prerank.core.config import Above0, Count, Positive, Weight, Widths, Within, names, widths
from prerank.core.errors import InputError

MethodName = Literal[
    "propose",
    "autofas",
    "fscd",
    "squeeze_excite",
    "gradient",
    "permutation",
    "shuffle_gate",
    "random",
    "hand_picked",
    "fscd_free",
    "squeeze_excite_free",
    "gradient_free",
    "permutation_free",
    "shuffle_gate_free",
    "cegb_free",
    "autofas_free",
    "random_free",
    "hand_picked_free",
]


@dataclass(frozen=True)
class Search:
    """How features and widths are searched."""

    method: MethodName = "propose"
    """propose: what several valuers propose is trained for a short while, and the best of it refined; autofas: the
    paper's gates and width weights, whose answer is taken as it is; or a rival that orders the features and keeps the
    widths: FSCD's hard-concrete gates, COLD's squeeze-and-excitation weights, the loss's gradient by a gate on each
    feature, permutation importance, ShuffleGate, a random order, or the schema's hand_picked first. With _free such an
    order, that of autofas's gates or of LightGBM's cost-aware splits (cegb), makes the best set for every network
    apart, and as many short trainings as propose has choose among them, so that the rival has its choice of widths
    too."""
    widths: Widths = "64,32,16,0"
    """Candidate widths of each layer, with commas; 0 is the identity. A single one a layer is not searched."""
    layers: Positive = 2
    trainings: Positive = 300
    """Of propose, and of rivals with _free, what a budget may cost: trainings of `steps`, or as much of longer ones.
    More never finds less on the validation days. A winner that runs over as measured makes the budget a smaller one,
    which may cost as much again."""
    steps: Positive = 60
    """Of propose, of the shortest training; the best of these go on to three and nine times as many."""
    front: str = ""
    """Of propose: other budgets that are searched too, as shares of this one, with commas, such as 0.5,2: each may cost
    as much again. All that was trained makes the front of recall and latency."""
    form: Literal["shared", "independent"] = "shared"
    """independent: a matrix block for every transition between widths (the paper); shared: prefixes of one layer."""
    estimator: Literal["softmax", "two_path"] = "softmax"
    """softmax: the full mixture (AutoFAS); two_path: ProxylessNAS's binarised gates."""
    joint: bool = False
    """Train a ranking network beside the student, which the gates are learned on and the scores distilled from
    (AutoFAS); otherwise the gates are learned on the student itself, which distils the samples' teacher scores."""
    ranking_widths: Widths = "256,128,64"
    """Joint: hidden widths of the ranking network."""
    block: bool = True
    """Joint: Loss2 leaves the gates alone (the paper's gradient block)."""
    epochs: Positive = 10
    """Passes over the samples that the weights learn from; where the gates are one valuer of several, parts of the
    steps of the longest training."""
    warmup_epochs: Count = 2
    """Of these, those before the architecture moves."""
    every: Positive = 1
    """An architecture step on held-out samples after so many steps of the weights."""
    fold: Annotated[int, Within(2)] = 4
    """Every so-manieth row group of the training samples is held out for the architecture."""
    gate_lr: Above0 = 0.05
    width_lr: Above0 = 0.01
    entropy: Weight = 0.0
    """Price of indecision in the architecture's loss: of the mean entropy of a gate and that of a layer's widths."""
    gate_start: Annotated[float, Within(0, 1, above=True)] = 0.8
    """Probability of every gate at the start."""
    tight: Annotated[float, Within(0, 1, above=True)] = 0.7
    """Part of the search, after the warm-up, over which the budget shrinks to its own size."""

    def check(self, name: str) -> None:
        """Raises InputError naming the key whose value makes no sense."""
        hidden = widths(self.widths)
        if not any(hidden) or len(set(hidden)) < len(hidden) or min(hidden) < 0:
            raise InputError(
                f"{name}: search.widths must be different widths, one at least above 0, got {self.widths!r}"
            )
        if self.estimator == "two_path" and len(hidden) < 2:
            raise InputError(f"{name}: search.estimator two_path needs two search.widths, got {self.widths!r}")
        for key, least in (
            ("layers", 1),
            ("trainings", 1),
            ("steps", 1),
            ("epochs", 1),
            ("warmup_epochs", 0),
            ("every", 1),
            ("fold", 2),
        ):
            if getattr(self, key) < least:
                raise InputError(f"{name}: search.{key} must be {least} or more, got {getattr(self, key)}")
        if self.joint and self.method != "autofas":
            raise InputError(f"{name}: search.joint is of search.method autofas; give both, or leave it out")
        if self.warmup_epochs >= self.epochs:
            raise InputError(f"{name}: search.warmup_epochs must be below search.epochs, got {self.warmup_epochs}")
        for key, most in (("gate_lr", math.inf), ("width_lr", math.inf), ("gate_start", 1), ("tight", 1.0 + 1e-9)):
            if not 0 < getattr(self, key) < most:
                raise InputError(f"{name}: search.{key} is out of range: {getattr(self, key)}")
        try:
            shares = [float(share) for share in names(self.front)]
        except ValueError:
            shares = [0.0]
        if not all(0 < share < math.inf for share in shares):
            raise InputError(f"{name}: search.front must be numbers above 0 with commas, got {self.front!r}")
        if not 0 <= self.entropy < math.inf:
            raise InputError(f"{name}: search.entropy must be 0 or more, got {self.entropy}")
