"""What a student learns from: the hard loss, and beside it the teacher's scores and representations.

L = L_hard + λ · MSE(scores)  (or the convex form)  + kl · KL  + w · InfoNCE + r · relations

A head that only the hard pairs teach does not read what InfoNCE aligns, so by default the score is read from the
projection (SimKD, Chen et al., CVPR 2022): s = v·P(h), where v, the reader, becomes the covariance of the *teacher's*
projections with its scores (within the request, in deviations): the way from its low to its high items. Least squares
would lean on directions in which the projections hardly differ, which the contrast leaves to the hard pairs. P is not
normalised in the contrast, whose logits are <P h_S, z_T>/τ: its scale is that which fits, and score and contrast see
the same linear map. v and P are one row of the last layer where the student is saved.

What an arm's losses read of a batch, `prerank.samples.batches.training_batch` puts there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from prerank.models import hard, losses
from prerank.models.batch import Batch, Inputs
from prerank.models.losses import Segments
from prerank.models.options import Arm
from prerank.models.place import PlaceBias
from prerank.models.ranker import Ranker, Scorer

S = TypeVar("S", bound=Scorer)

DISTANCES = {
    "logits": losses.score_mse,
    "centred": losses.centred_mse,
    "softmax": losses.softmax_mse,
    "correlation": losses.uncorrelated,
}
"""By `Distill.on`."""


STUDENT = "student."
"""Before the names of its weights, among a distiller's."""


class Distiller(nn.Module, Generic[S]):
    """Holds the student and, for the contrastive loss, the two projections; only the student is saved.

    This is the one module that is handed to DDP.
    """

    student: S

    def __init__(self, student: S, arm: Arm, teacher_width: int | None = None):
        super().__init__()
        self.student = student
        self.arm = arm
        self.tied = bool(arm.distill.contrast) and arm.distill.head == "tied"
        if arm.distill.contrast:
            if teacher_width is None:
                raise ValueError("the contrastive loss needs the teacher's representation")
            self.project_student = nn.Linear(student.repr_width, arm.distill.projection)
            self.project_teacher = nn.Linear(teacher_width, arm.distill.projection)
        if self.tied:
            self.reader = nn.Parameter(torch.zeros(arm.distill.projection))
        if arm.by_place:
            self.place = PlaceBias()

    def forward(self, batch: Batch, warmup: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts; `warmup` in 0..1 scales λ. Of several heads the loss is the mean of theirs, each by
        its share, and so is each part, beside which stand the heads' own."""
        if not batch.heads:
            return self.loss(*self.scores(batch), batch, warmup)
        head_IH, repr_ID = cast(Ranker, self.student).heads(batch.features, batch.request_I)
        shares = self.arm.learned or self.arm.shares
        loss, parts = torch.zeros((), device=head_IH.device), dict[str, Tensor]()
        for head, share, score_I, one in zip(self.arm.heads, shares, head_IH.unbind(1), batch.heads, strict=True):
            part, said = self.loss(score_I, repr_ID, one, warmup)
            loss = loss + share * part
            for name, value in said.items():
                parts[name] = parts.get(name, 0.0) + share * value
                parts[f"{name}_{head}"] = value
        return loss, parts

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """score_I, read from the projection where the head is tied, and repr_ID."""
        score_I, repr_ID = self.student(batch.features, batch.request_I)
        if self.tied:
            # v·(P h + p) by one row of weights; DDP waits for a gradient of what it stands in the place of.
            row_D, bias = (self.reader.detach() @ part for part in self.project_student.parameters())
            score_I = repr_ID @ row_D + bias + 0.0 * score_I
        return score_I, repr_ID

    def loss(
        self, score_I: Tensor, repr_ID: Tensor, batch: Batch, warmup: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The same from the student's scores and representations."""
        distill = self.arm.distill
        score_I = score_I.float()
        loss = self.hard(score_I, batch)
        parts = {"hard": loss}
        if distill.score:
            parts["score"] = DISTANCES[distill.on](*self._distilled(score_I, batch))
            weight = warmup * distill.score
            loss = (
                (1 - weight) * loss + weight * parts["score"]
                if distill.form == "convex"
                else loss + weight * parts["score"]
            )
        if distill.kl:
            parts["kl"] = losses.kl(*self._distilled(score_I, batch), temperature=distill.kl_temperature)
            loss = loss + distill.kl * parts["kl"]
        if distill.reads_representation:
            sides = self._sides(repr_ID, batch)
            if distill.contrast:
                parts |= self._contrast(sides)
                loss = loss + distill.contrast * parts["contrast"] + parts.get("reader", 0.0)
            if distill.relations:
                student_ID, teacher_ID = F.normalize(sides.student_ID, dim=1), F.normalize(sides.teacher_ID, dim=1)
                parts["relations"] = losses.relations(student_ID, teacher_ID, sides.segments)
                loss = loss + distill.relations * parts["relations"]
        return loss, {name: part.detach() for name, part in parts.items()}

    def hard(self, score_I: Tensor, batch: Batch) -> Tensor:
        if self.arm.hard == "clicks":
            assert batch.target_I is not None
            return F.binary_cross_entropy_with_logits(score_I, batch.target_I.float())
        if self.arm.hard == "listwise":
            assert batch.target_I is not None
            requests_I = Segments(batch.request_I, batch.requests)
            if self.arm.by_place:
                assert batch.shown_I is not None
                score_I = self.place(score_I, batch.shown_I, requests_I)
            return losses.listwise(score_I, batch.target_I, requests_I)
        assert batch.hi_P is not None and batch.lo_P is not None and batch.group_P is not None
        pairs_P, kind = (batch.hi_P, batch.lo_P), self.arm.hard
        if kind in ("pairwise", "lambda"):
            weight_P = None
            if kind == "lambda":
                assert batch.gain_P is not None
                here = Segments(batch.request_I, batch.requests)
                weight_P = hard.swaps(score_I, pairs_P, here, gain_P=batch.gain_P)
            return losses.pairwise(score_I, pairs_P, Segments(batch.group_P, batch.groups), weight_P=weight_P)
        assert batch.listed_L is not None and batch.group_L is not None
        assert batch.place_L is not None and batch.top_L is not None
        score_L, groups_L = score_I[batch.listed_L], Segments(batch.group_L, batch.groups)
        if kind == "list":
            return hard.list_likelihood(score_L, batch.place_L, groups_L)
        of_top = {"pointwise": hard.pointwise, "softmax": losses.listwise, "topk": hard.top_k}[kind]
        return of_top(score_L, batch.top_L, groups_L)

    def _distilled(self, score_I: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Segments]:
        assert batch.teacher_I is not None
        if self.arm.distill.items == "all":
            return score_I, batch.teacher_I, Segments(batch.request_I, batch.requests)
        here_I = batch.exposed_I
        assert here_I is not None
        return score_I[here_I], batch.teacher_I[here_I], Segments(batch.request_I[here_I], batch.requests)

    def _sides(self, repr_ID: Tensor, batch: Batch) -> "_Sides":
        assert batch.teacher_ID is not None
        here_I = slice(None) if batch.contrasted_I is None else batch.contrasted_I
        bin_I, teacher_I = (None if x is None else x[here_I] for x in (batch.bin_I, batch.teacher_I))
        segments = Segments(batch.request_I[here_I], batch.requests)
        return _Sides(segments, repr_ID[here_I], batch.teacher_ID, bin_I, teacher_I)

    def _contrast(self, sides: "_Sides") -> dict[str, Tensor]:
        distill, segments = self.arm.distill, sides.segments
        teacher_IP = F.normalize(self.project_teacher(sides.teacher_ID), dim=1)
        student_IP = self.project_student(sides.student_ID)
        contrast = losses.info_nce(
            student_IP if self.tied else F.normalize(student_IP, dim=1),
            teacher_IP,
            segments,
            label_I=sides.bin_I if distill.positives == "bin" else None,
            of_label=distill.of_bin,
            ordered=distill.ordered,
            temperature=distill.temperature,
        )
        if not self.tied:
            return {"contrast": contrast}
        assert sides.teacher_I is not None
        wanted_I = losses.standardised(sides.teacher_I, segments)
        covariance_P = losses.mean_by(wanted_I[:, None] * teacher_IP.detach().float(), segments) / segments.count
        # Half the squared distance to the covariance, but for its square: the workers' mean is that of the batch.
        return {"contrast": contrast, "reader": self.reader @ self.reader / 2 - self.reader @ covariance_P}

    def finished(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The student's weights as it is saved, its last layer that of the reader where it is tied: v·(P h + p) is one
        row, P'v, and v·p. From the module's `weights`, by default as they stand.
        """
        weights = self.state_dict() if weights is None else weights
        out = {key.removeprefix(STUDENT): value for key, value in weights.items() if key.startswith(STUDENT)}
        if self.tied:
            layer = f"layers.{len(cast(Ranker, self.student).layers) - 1}"
            with torch.no_grad():
                for part in ("weight", "bias"):
                    row = weights["reader"] @ weights[f"project_student.{part}"]
                    out[f"{layer}.{part}"] = row.reshape(out[f"{layer}.{part}"].shape)
        return out


@dataclass(frozen=True)
class _Sides:
    """Student and teacher of the items that take part in the losses of representations."""

    segments: Segments
    student_ID: Tensor
    teacher_ID: Tensor
    bin_I: Tensor | None
    teacher_I: Tensor | None


@dataclass(frozen=True)
class Shown:
    """A ranker that scores with the given weights in place of its own, for a validation."""

    ranker: nn.Module
    weights: dict[str, Tensor]

    def student(self, features: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        return functional_call(self.ranker, self.weights, (features, request_I))

    def eval(self) -> None:
        self.ranker.eval()
