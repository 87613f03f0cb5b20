"""What can be configured about a model, its loss and its training: the fields that flags, YAML and sweeps name."""

import math
from dataclasses import dataclass, field
from typing import Literal

from prerank.core.config import flatten, widths
from prerank.core.errors import InputError


@dataclass(frozen=True)
class Distill:
    """What the student learns from the teacher beside the hard labels; a weight of 0 switches a part off."""

    score: float = 0.0
    """λ, the weight of the squared distance to the teacher's score."""
    form: Literal["additive", "convex"] = "additive"
    """additive: L + λ·MSE; convex: (1-λ)·L + λ·MSE (AutoFAS)."""
    on: Literal["logits", "centred", "softmax"] = "centred"
    """Compare the scores themselves; the scores less their mean over the request, as a teacher that was trained on
    rankings leaves that mean open; or their softmax over the items of the request (AutoFAS)."""
    items: Literal["all", "exposed"] = "all"
    """The items whose score or distribution is distilled: every item of the sample, or the exposed ones (ASMOL)."""
    warmup_epochs: float = 0.0
    """λ rises linearly from 0 over so many epochs."""
    kl: float = 0.0
    """Weight of the KL divergence between the two softmaxes in a request: the baseline of the contrast."""
    kl_temperature: float = 2.0
    contrast: float = 0.0
    """w, the weight of the contrastive loss between the representations (InfoNCE)."""
    temperature: float = 0.1
    """τ of the InfoNCE loss."""
    positives: Literal["bin", "item"] = "bin"
    """Positives of an item: the items of its rank bin (the article), or itself alone (CIT)."""
    merge_bins: int = 1
    """So many neighbouring rank bins of the samples count as one."""
    projection: int = 128
    """Width of the two projections; 128 in CRD."""

    @property
    def active(self) -> bool:
        return bool(self.score or self.kl or self.contrast)


@dataclass(frozen=True)
class Optim:
    """Adam with decoupled weight decay, early stopping on the validation day."""

    lr: float = 1e-3
    weight_decay: float = 1e-5
    batch: int = 64
    """Requests in a global batch, over all workers."""
    epochs: int = 10
    """At most so many passes over the samples."""
    patience: int = 2
    """Stop after so many epochs without a better validation metric."""
    clip: float = 5.0
    """Largest norm of the gradient."""


@dataclass(frozen=True)
class Compute:
    """Where training runs; none but `lanes` changes what is learned beyond the rounding of floats."""

    workers: int = 1
    """Ray Train workers, one a GPU or one a share of the CPUs, packed on as few nodes as have room for them, as what
    they exchange travels faster within a node; must divide `lanes`."""
    gpu: bool = False
    """Give each worker a GPU (NCCL, bf16 autocast where the device has it); otherwise CPUs and gloo."""
    cpus: float = 1.0
    """CPUs for each worker."""
    lanes: int = 8
    """Parts of a global batch that are dealt to the workers: any divisor as number of workers learns the same. Another
    number puts other requests into a batch, as another seed does."""
    checkpoint_steps: int = 0
    """Also save in mid-epoch every so many steps; 0 saves after each epoch alone."""
    max_failures: int = 3
    """Restarts of the worker group after a failure, from the latest checkpoint."""


Method = Literal["autofas", "fscd", "squeeze_excite", "gradient", "permutation", "random", "hand_picked"]


@dataclass(frozen=True)
class Search:
    """How features and widths are searched."""

    method: Method = "autofas"
    """autofas, or a rival that orders the features and keeps the widths: FSCD's hard-concrete gates, COLD's
    squeeze-and-excitation weights, the loss's gradient by a gate on each feature, permutation importance, a random
    order, or the schema's hand_picked first."""
    widths: str = "64,32,16,0"
    """Candidate widths of each layer, with commas; 0 is the identity. A single one a layer is not searched."""
    layers: int = 2
    form: Literal["shared", "independent"] = "shared"
    """independent: a matrix block for every transition between widths (the paper); shared: prefixes of one layer."""
    estimator: Literal["softmax", "two_path"] = "softmax"
    """softmax: the full mixture (AutoFAS); two_path: ProxylessNAS's binarised gates."""
    joint: bool = False
    """Train a ranking network beside the student, which the gates are learned on and the scores distilled from
    (AutoFAS); otherwise the gates are learned on the student itself, which distils the samples' teacher scores."""
    ranking_widths: str = "256,128,64"
    """Joint: hidden widths of the ranking network."""
    block: bool = True
    """Joint: Loss2 leaves the gates alone (the paper's gradient block)."""
    epochs: int = 10
    """Passes over the samples that the weights learn from."""
    warmup_epochs: int = 2
    """Of these, passes before the architecture moves."""
    every: int = 1
    """An architecture step on held-out samples after so many steps of the weights."""
    fold: int = 4
    """Every so-manieth row group of the training samples is held out for the architecture."""
    gate_lr: float = 0.05
    width_lr: float = 0.01
    entropy: float = 0.0
    """Price of indecision in the architecture's loss: of the mean entropy of a gate and that of a layer's widths."""
    gate_start: float = 0.8
    """Probability of every gate at the start."""
    tight: float = 0.7
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
        for key, least in (("layers", 1), ("epochs", 1), ("warmup_epochs", 0), ("every", 1), ("fold", 2)):
            if getattr(self, key) < least:
                raise InputError(f"{name}: search.{key} must be {least} or more, got {getattr(self, key)}")
        if self.warmup_epochs >= self.epochs:
            raise InputError(f"{name}: search.warmup_epochs must be below search.epochs, got {self.warmup_epochs}")
        for key, most in (("gate_lr", math.inf), ("width_lr", math.inf), ("gate_start", 1), ("tight", 1.0 + 1e-9)):
            if not 0 < getattr(self, key) < most:
                raise InputError(f"{name}: search.{key} is out of range: {getattr(self, key)}")
        if not 0 <= self.entropy < math.inf:
            raise InputError(f"{name}: search.entropy must be 0 or more, got {self.entropy}")


@dataclass(frozen=True)
class Latency:
    """What an architecture costs, in the loss: λ · E[latency] / budget."""

    penalty: float = 0.05
    """λ, the weight of the expected latency."""
    temperature_us: float = 20.0
    """Of the smooth maximum through which the dearest features of a source learn."""
    candidates: int = 1000
    """Candidates of a request, as measured in latency.json."""
    threads: int = 1

    def check(self, name: str) -> None:
        """Raises InputError naming the key whose value makes no sense."""
        for key in ("penalty", "temperature_us"):
            if not 0 <= getattr(self, key) < math.inf or (key == "temperature_us" and not self.temperature_us):
                raise InputError(f"{name}: latency.{key} is out of range: {getattr(self, key)}")


@dataclass(frozen=True)
class Arm:
    """One model to train: what it sees, how wide it is, and what it learns from."""

    name: str
    features: tuple[str, ...]
    widths: tuple[int, ...]
    """Hidden widths; 0 skips the layer; none at all is a linear model."""
    strategies: tuple[str, ...] = ("exposed",)
    """The pairs of the hard loss; without effect on a listwise loss."""
    hard: Literal["pairwise", "listwise"] = "pairwise"
    """pairwise: -log σ(s_i - s_j) over the strategies' pairs; listwise: -log softmax of the clicked items among the
    exposed and `unexposed_ratio` as many unexposed ones (sampled softmax), for the teacher."""
    unexposed_ratio: float = 0.0
    """Listwise: unexposed negatives drawn for each exposed item, anew each epoch; 0 is sample selection bias."""
    select_by: Literal["recall", "hit_rate", "auc"] = "recall"
    """The validation metric of early stopping and of the best checkpoint."""
    distill: Distill = field(default_factory=Distill)
    optim: Optim = field(default_factory=Optim)
    seed: int = 0

    def check(self) -> None:
        """Raises InputError naming the key whose value makes no sense."""
        above_0 = ("optim.lr", "optim.batch", "optim.epochs", "optim.patience", "optim.clip")
        above_0 += ("distill.temperature", "distill.kl_temperature", "distill.merge_bins", "distill.projection")
        from_0 = ("optim.weight_decay", "distill.score", "distill.kl", "distill.contrast", "distill.warmup_epochs")
        values = flatten(self)
        for key in (*above_0, *from_0, "unexposed_ratio"):
            if not 0 <= values[key] < math.inf or (key in above_0 and not values[key]):
                least = "above 0" if key in above_0 else "0 or more"
                raise InputError(f"{self.name}: {key} must be {least}, got {values[key]}")
        if self.distill.form == "convex" and self.distill.score > 1:
            raise InputError(
                f"{self.name}: distill.score must be at most 1 in the convex form, got {self.distill.score}"
            )
        if not self.features or any(width < 0 for width in self.widths):
            raise InputError(f"{self.name}: needs a feature at least, and widths of 0 or more, got {self.widths}")
