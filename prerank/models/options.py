"""What can be configured about a model, its loss and its training: the fields that flags, YAML and sweeps name."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from prerank.core.config import Above0, Positive, Share, Weight, Within, flatten, plain
from prerank.core.errors import InputError
from prerank.models.arch import Arch, ModelName
from prerank.models.fusion import Fusion

Positions = Literal["teacher", "logged"]
Hard = Literal["pairwise", "lambda", "pointwise", "softmax", "topk", "list"]
"""The losses of the strategies' pairs."""


@dataclass(frozen=True)
class Distill:
    """What the student learns from the teacher beside the hard labels; a weight of 0 switches a part off."""

    score: Weight = 0.0
    """λ, the weight of the squared distance to the teacher's score."""
    form: Literal["additive", "convex"] = "additive"
    """additive: L + λ·MSE; convex: (1-λ)·L + λ·MSE (AutoFAS)."""
    on: Literal["logits", "centred", "softmax", "correlation"] = "centred"
    """Compare the scores themselves; the scores less their mean over the request, as a teacher that was trained on
    rankings leaves that mean open; their softmax over the items of the request (AutoFAS); or their correlation there,
    where the unit of the scores says nothing (DIST)."""
    items: Literal["all", "exposed"] = "all"
    """The items whose score or distribution is distilled: every item of the sample, or the exposed ones (ASMOL)."""
    warmup_epochs: Weight = 0.0
    """λ rises linearly from 0 over so many epochs."""
    kl: Weight = 0.0
    """Weight of the KL divergence between the two softmaxes in a request: the baseline of the contrast."""
    kl_temperature: Above0 = 2.0
    contrast: Weight = 0.0
    """w, the weight of the contrastive loss between the representations (InfoNCE)."""
    temperature: Above0 = 0.1
    """τ of the InfoNCE loss."""
    positives: Literal["bin", "item"] = "bin"
    """Positives of an item: the items of its rank bin (the article), or itself alone (CIT)."""
    of_bin: Share = 1.0
    """α, the share of the bin among the positives, where they are by bin; the rest is the item's own."""
    ordered: bool = True
    """Rank bins have an order: only items whose bin is farther than the positive's are negatives (Rank-N-Contrast)."""
    merge_bins: Positive = 1
    """So many neighbouring rank bins count as one."""
    contrasted: Positive = 16
    """Items of a request, at most, whose representations are held against each other in a step; others in the next pass
    over the samples."""
    projection: Positive = 64
    """Width of the two projections; 128 in CRD, which doubles their time."""
    head: Literal["tied", "free"] = "tied"
    """tied: with a contrast, the score is read from the projection that it aligns, by what reads the teacher's scores
    from the teacher's (SimKD); both are one row of the last layer when the student is saved. free: a last layer that
    the other losses alone teach."""
    relations: Weight = 0.0
    """Weight of the distance between the cosines of a request's items, the student's and the teacher's (FTD)."""

    @property
    def active(self) -> bool:
        return bool(self.score or self.kl or self.reads_representation)

    @property
    def reads_representation(self) -> bool:
        return bool(self.contrast or self.relations)


@dataclass(frozen=True)
class Optim:
    """Adam with decoupled weight decay, means of the weights, early stopping on the validation day."""

    lr: Above0 = 3e-3
    weight_decay: Weight = 1e-5
    batch: Positive = 64
    """Requests in a global batch, over all workers; fewer where the samples do not fill one."""
    epoch_steps: Positive = 40
    """An epoch is a pass over the samples, or as many as it takes for so many steps: of few samples a pass is too short
    to learn in, or to tell from one validation to the next. 1: always one pass."""
    epochs: Positive = 30
    """At most so many epochs."""
    patience: Positive = 4
    """Stop after so many epochs without a better validation metric."""
    average: Annotated[float, Within(0, 1)] = 0.99
    """What is validated and kept are the weights' exponential means over the steps, of which this share stays in each
    step: they settle as under a falling learning rate, whose length nobody has to know. 0: the weights themselves."""
    clip: Above0 = 5.0
    """Largest norm of the gradient."""


@dataclass(frozen=True)
class Arm:
    """One model to train: what it sees, how wide it is, and what it learns from."""

    name: str
    features: tuple[str, ...]
    widths: tuple[int, ...]
    """Hidden widths; 0 skips the layer; none at all is a linear model."""
    strategies: tuple[str, ...] = ("exposed",)
    """The pairs of the hard loss; without effect on a listwise loss."""
    hard: Hard | Literal["listwise", "clicks"] = "pairwise"
    """Of the strategies' pairs: pairwise, -log σ(s_i - s_j); lambda, the same weighted by ΔDCG. Of the list that each
    strategy's pairs are of, whose top are the clicked, or the first K to its scale: pointwise, softmax, topk (DFTopK),
    list (ListMLE). For the teacher listwise: -log softmax of the clicked items among the exposed and `unexposed_ratio`
    as many unexposed ones (sampled softmax). For a logistic regression clicks: the cross entropy of each of these items
    by itself."""
    unexposed_ratio: float = 0.0
    """Not pairwise: unexposed negatives drawn for each exposed item, anew each epoch; 0 is sample selection bias."""
    positions: Positions = "teacher"
    """Whose order of the fine lists the strategies and rank bins follow: the teacher's, against which recall is
    measured, or the one in the logs."""
    select_by: Literal["recall", "hit_rate", "auc"] = "recall"
    """The validation metric of early stopping and of the best checkpoint."""
    distill: Distill = field(default_factory=Distill)
    optim: Optim = field(default_factory=Optim)
    seed: int = 0
    model: ModelName = "mlp"
    crosses: tuple[str, ...] = ()
    """Of a logistic regression, as in `Arch`."""
    by_place: bool = False
    """Not pairwise: what the place at which an item was shown does to its clicks is learned beside what the item is
    worth (`prerank.models.place`), and scoring knows nothing of it."""
    id_dropout: float = 0.0
    """Share of the ids of large tables that are the unknown in a step: see `prerank.samples.dropout`."""
    heads: tuple[str, ...] = ()
    """Objectives; none: the clicks alone. Each head learns from its own label, and from the teacher's head."""
    shares: tuple[float, ...] = ()
    """Of each head in the score that ranks."""
    learned: tuple[float, ...] = ()
    """Of each head in the loss; none: as in the score."""

    @property
    def fusion(self) -> Fusion:
        return Fusion(self.heads, self.shares)

    @property
    def arch(self) -> Arch:
        return Arch(self.features, self.widths, self.model, self.crosses, self.fusion)

    def said(self) -> dict[str, object]:
        """By dotted keys, as manifests and keys of checkpoints have it: what all arms of earlier versions were is left
        out, so that theirs still count."""
        new = {
            "model": "mlp",
            "crosses": [],
            "by_place": False,
            "id_dropout": 0.0,
            "heads": [],
            "shares": [],
            "learned": [],
        }
        return {key: value for key, value in plain(self).items() if key not in new or value != new[key]}

    @property
    def by_strategy(self) -> bool:
        """Whether the hard loss learns from the strategies' pairs."""
        return self.hard not in ("listwise", "clicks")

    def check(self) -> None:
        """Raises InputError naming the key whose value makes no sense."""
        above_0 = ("optim.lr", "optim.batch", "optim.epoch_steps", "optim.epochs", "optim.patience", "optim.clip")
        above_0 += ("distill.temperature", "distill.kl_temperature", "distill.merge_bins", "distill.projection")
        above_0 += ("distill.contrasted",)
        from_0 = ("optim.weight_decay", "distill.score", "distill.kl", "distill.contrast", "distill.warmup_epochs")
        from_0 += ("distill.relations", "distill.of_bin", "optim.average")
        values = flatten(self)
        for key in (*above_0, *from_0, "unexposed_ratio"):
            value, least = values[key], "above 0" if key in above_0 else "0 or more"
            if not isinstance(value, int | float) or not 0 <= value < math.inf or (key in above_0 and not value):
                raise InputError(f"{self.name}: {key} must be {least}, got {value}")
        if self.distill.form == "convex" and self.distill.score > 1:
            raise InputError(
                f"{self.name}: distill.score must be at most 1 in the convex form, got {self.distill.score}"
            )
        if self.optim.average >= 1:
            raise InputError(f"{self.name}: optim.average must be below 1, got {self.optim.average}")
        if not 0 <= self.id_dropout < 1:
            raise InputError(f"{self.name}: id_dropout must be from 0 to below 1, got {self.id_dropout}")
        if self.distill.of_bin > 1:
            raise InputError(f"{self.name}: distill.of_bin must be at most 1, got {self.distill.of_bin}")
        if self.model != "mlp" and self.distill.reads_representation:
            raise InputError(
                f"{self.name}: distill.contrast and distill.relations hold the last hidden layer of an mlp against the "
                f"teacher's, and a {self.model} has none; leave them out"
            )
        if self.heads and self.model != "mlp":
            raise InputError(f"{self.name}: --fusion needs the heads of --model mlp, and this is a {self.model}")
        if self.by_place and (self.heads or self.hard != "listwise"):
            raise InputError(
                f"{self.name}: learn.shown_position is of a network that learns the clicks of whole lists, and "
                "no other objective; leave it out"
            )
        if self.heads and self.distill.reads_representation:
            raise InputError(
                f"{self.name}: distill.contrast and distill.relations follow the order of one objective, the clicks; "
                f"leave them out with --fusion {self.fusion.said()}"
            )
        if self.model in ("two_tower", "two_tower_gbdt") and not any(self.widths):
            raise InputError(f"{self.name}: a tower needs a layer, the last of which is its vector, got {self.widths}")
        if not self.features or any(width < 0 for width in self.widths):
            raise InputError(f"{self.name}: needs a feature at least, and widths of 0 or more, got {self.widths}")
