"""What a student learns from: the hard loss, and beside it the teacher's scores and representations.

L = L_hard + λ · MSE(scores)  (or the convex form)  + kl · KL  + w · InfoNCE

What an arm's losses read of a batch, `prerank.samples.batches.training_batch` puts there.
"""

from typing import Generic, TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from prerank.models import losses
from prerank.models.batch import Batch
from prerank.models.losses import Segments
from prerank.models.options import Arm
from prerank.models.ranker import Scorer

S = TypeVar("S", bound=Scorer)

DISTANCES = {"logits": losses.score_mse, "centred": losses.centred_mse, "softmax": losses.softmax_mse}
"""By `Distill.on`."""


class Distiller(nn.Module, Generic[S]):
    """Holds the student and, for the contrastive loss, the two projections; only the student is saved.

    This is the one module that is handed to DDP.
    """

    student: S

    def __init__(self, student: S, arm: Arm, teacher_width: int | None = None):
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
        score_I, repr_ID = self.student(batch.features, batch.request_I)
        return self.loss(score_I, repr_ID, batch, warmup)

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
        if distill.contrast:
            parts["contrast"] = self._contrast(repr_ID, batch)
            loss = loss + distill.contrast * parts["contrast"]
        return loss, {name: part.detach() for name, part in parts.items()}

    def hard(self, score_I: Tensor, batch: Batch) -> Tensor:
        if self.arm.hard == "listwise":
            assert batch.target_I is not None
            return losses.listwise(score_I, batch.target_I, Segments(batch.request_I, batch.requests))
        assert batch.hi_P is not None and batch.lo_P is not None and batch.group_P is not None
        return losses.pairwise(score_I, (batch.hi_P, batch.lo_P), Segments(batch.group_P, batch.groups))

    def _distilled(self, score_I: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Segments]:
        assert batch.teacher_I is not None
        if self.arm.distill.items == "all":
            return score_I, batch.teacher_I, Segments(batch.request_I, batch.requests)
        here_I = batch.exposed_I
        assert here_I is not None
        return score_I[here_I], batch.teacher_I[here_I], Segments(batch.request_I[here_I], batch.requests)

    def _contrast(self, repr_ID: Tensor, batch: Batch) -> Tensor:
        assert batch.teacher_ID is not None
        return losses.info_nce(
            F.normalize(self.project_student(repr_ID), dim=1),
            F.normalize(self.project_teacher(batch.teacher_ID), dim=1),
            Segments(batch.request_I, batch.requests),
            label_I=batch.bin_I if self.arm.distill.positives == "bin" else None,
            temperature=self.arm.distill.temperature,
        )
