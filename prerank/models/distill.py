"""What a student learns from: the hard loss, and beside it the teacher's scores and representations.

L = L_hard + λ · MSE(scores)  (or the convex form)  + kl · KL  + w · InfoNCE
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prerank.models import losses
from prerank.models.batch import Batch
from prerank.models.options import Arm
from prerank.models.ranker import Ranker


class Distiller(nn.Module):
    """Holds the student and, for the contrastive loss, the two projections; only the student is saved.

    This is the one module that is handed to DDP.
    """

    def __init__(self, student: Ranker, arm: Arm, teacher_width: int | None = None):
        super().__init__()
        self.student = student
        self.arm = arm
        if arm.distill.contrast:
            if teacher_width is None:
                raise ValueError("the contrastive loss needs the teacher's representation")
            self.project_student = nn.Linear(student.repr_width, arm.distill.projection)
            self.project_teacher = nn.Linear(teacher_width, arm.distill.projection)

    def forward(self, batch: Batch, warmup: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts; `warmup` in 0..1 scales λ."""
        return self.loss(*self.student(batch.features, batch.request_I), batch, warmup)

    def loss(
        self, score_I: Tensor, repr_ID: Tensor, batch: Batch, warmup: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The same from the student's scores and representations."""
        distill = self.arm.distill
        score_I = score_I.float()
        hard = self.hard(score_I, batch)
        parts = {"hard": hard}
        loss = hard
        if distill.score:
            parts["score"] = self._score(score_I, batch)
            weight = warmup * distill.score
            loss = (
                (1 - weight) * loss + weight * parts["score"]
                if distill.form == "convex"
                else loss + weight * parts["score"]
            )
        if distill.kl:
            student_I, teacher_I, request_I = self._distilled(score_I, batch)
            parts["kl"] = losses.kl(student_I, teacher_I, request_I, batch.requests, distill.kl_temperature)
            loss = loss + distill.kl * parts["kl"]
        if distill.contrast:
            parts["contrast"] = self._contrast(repr_ID, batch)
            loss = loss + distill.contrast * parts["contrast"]
        return loss, {name: part.detach() for name, part in parts.items()}

    def hard(self, score_I: Tensor, batch: Batch) -> Tensor:
        if self.arm.hard == "listwise":
            return losses.listwise(score_I, batch.target_I, batch.request_I, batch.requests)
        return losses.pairwise(score_I, batch.hi_P, batch.lo_P, batch.group_P, batch.groups)

    def _distilled(self, score_I: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        if self.arm.distill.items == "all":
            return score_I, batch.teacher_I, batch.request_I
        return tuple(x[batch.exposed_I] for x in (score_I, batch.teacher_I, batch.request_I))

    def _score(self, score_I: Tensor, batch: Batch) -> Tensor:
        distance = {"logits": losses.score_mse, "centred": losses.centred_mse, "softmax": losses.softmax_mse}[
            self.arm.distill.on
        ]
        return distance(*self._distilled(score_I, batch), batch.requests)

    def _contrast(self, repr_ID: Tensor, batch: Batch) -> Tensor:
        student = F.normalize(self.project_student(repr_ID), dim=1)
        teacher = F.normalize(self.project_teacher(batch.teacher_ID), dim=1)
        by_item = self.arm.distill.positives == "item"
        label = torch.arange(len(batch.request_I), device=repr_ID.device) if by_item else batch.bin_I
        return losses.info_nce(student, teacher, label, batch.request_I, batch.requests, self.arm.distill.temperature)
