"""AutoFAS's two losses: gates over the features and weights over the widths, learned with what they cost to serve.

Shapes: I items of a batch, M features, S slots, C candidate widths.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from prerank.core.config import widths
from prerank.latency.formula import expected_fetch_us, expected_inference_us, fetch_us, inference_us, latency_us
from prerank.logs.schema import Feature, Schema
from prerank.models.arch import Arch
from prerank.models.batch import Batch, Inputs
from prerank.models.distill import Distiller
from prerank.models.ranker import Ranker
from prerank.models.stats import Stats
from prerank.search.derive import derive
from prerank.search.method import Facts, Learns
from prerank.search.spec import Spec
from prerank.search.supernet import Draw, Supernet, bernoulli, one_path, rescale, two_path

CLOSED = 0.05
"""Probability of a gate that the budget has closed: it is still seen, and may come back."""
REACH = 3.0
"""Farthest logit of a gate, so that none is out of sight."""
EXPLORE = 0.2
"""Least distance of an open gate's probability from 0 and 1 in the architecture's steps, which must see both sides."""
MEMORY = 0.9
"""Of the running means of the slopes, by observation."""


class AutoFAS(nn.Module):
    """The one module that is handed to DDP: gates, super network and, if joint, the ranking network that is masked.

    Loss1 = L_rank(f(x ⊙ g)) + λ · E[fetch] / budget
    Loss2 = L_pre(f'(x ⊙ g)) + distillation from f + λ · E[inference] / budget

    Not joint, the teacher's scores are columns of the samples, there is no f, and the gates learn from Loss2.
    Draws are seeded by the step, so that every worker has the same gates and paths.

    The penalty prices features, but a sum of prices knows no hard limit: near it, the gate of a dear feature that does
    not fit hovers at one half and crowds others out. So the budget closes gates as well: after each epoch the best
    architecture is derived within a budget that shrinks from the whole set's cost to its own, and what it leaves out is
    closed. A feature's value there is what the loss would lose without it, which the gates' gradients estimate. What
    the budget has no room for even by itself is never drawn.
    """

    fits_M: Tensor
    """Whether the budget has room for the feature by itself."""
    closed_M: Tensor
    """Whether the budget has closed the feature's gate."""
    slope_2M: Tensor
    """Decaying sums of ∂L/∂g where the gate was drawn off (0) and on (1), and of their weights, `seen_2M`."""
    seen_2M: Tensor

    # Of the last architecture's turn, for `moved`:
    on_M: Tensor
    """Which gates were drawn on."""
    share_M: Tensor
    """The part of ∂L/∂g that θ received."""
    price_M: Tensor
    """The gradient of what the architecture costs by the gates' logits."""
    live_SC: Tensor | None

    def __init__(self, spec: Spec, schema: Schema, stats: Stats, teacher_width: int | None = None):
        super().__init__()
        self.features, self.fetch, self.table = spec.features(schema), schema.fetch, spec.table
        self.arm, self.search, self.latency, self.budget_us = spec.arm, spec.search, spec.latency, spec.budget_us
        self.candidates = spec.candidates
        start = torch.logit(torch.tensor(self.search.gate_start))
        self.gate_logits = nn.Parameter(start.repeat(len(self.features)))
        self.width_logits = nn.Parameter(torch.zeros(self.search.layers, len(self.candidates)))
        fits = [self._fits(feature) for feature in self.features]
        self.register_buffer("fits_M", torch.tensor(fits), persistent=False)
        self.register_buffer("closed_M", torch.zeros(len(fits), dtype=torch.bool))
        self.register_buffer("slope_2M", torch.zeros(2, len(fits)))
        self.register_buffer("seen_2M", torch.zeros(2, len(fits)))
        supernet = Supernet(self.features, self.candidates, self.search.layers, stats, self.search.form)
        if self.search.joint:
            self.ranking = Ranker(self.features, widths(self.search.ranking_widths), stats)
            teacher_width = self.ranking.repr_width
        self.distiller = Distiller(supernet, self.arm, teacher_width)

    def architecture(self) -> list[nn.Parameter]:
        return [self.gate_logits, self.width_logits]

    def forward(self, batch: Batch, step: int, warmup: float, learns: Learns) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a turn: Loss1 if joint, Loss2, and in the architecture's turns what the architecture costs."""
        of_weights = learns == "weights"
        generator = torch.Generator().manual_seed(self.arm.seed * 1_000_003 + 2 * step + of_weights)
        theta_M = torch.sigmoid(self.gate_logits)
        # The weights learn in the networks that the gates make likely. The architecture must see each open gate both on
        # and off, or one of its two slopes would be of long ago.
        p_M = theta_M.detach() if of_weights else theta_M.detach().clamp(EXPLORE, 1 - EXPLORE)
        p_M = torch.where(self.closed_M, CLOSED, p_M) * self.fits_M
        gate_M, self.share_M = bernoulli(theta_M, p_M, generator)
        self.on_M = gate_M.detach() > 0.5
        mix_SC, self.live_SC = self._mix(generator, of_weights)
        if of_weights:
            gate_M, mix_SC = gate_M.detach(), mix_SC.detach()
        parts: dict[str, Tensor] = {}
        # DDP waits for a gradient of every parameter.
        loss = 0.0 * (self.gate_logits.sum() + self.width_logits.sum())
        if self.search.joint:
            x_R, x_I = self.ranking.embed(batch.features)
            x_R, x_I = self.ranking.embed.gated(x_R, x_I, gate_M)
            score_I, repr_ID = self.ranking.trunk(x_R, x_I, batch.request_I)
            parts["ranking"] = self.distiller.hard(score_I.float(), batch)
            loss = loss + parts["ranking"]
            batch = replace(batch, teacher_I=score_I.float().detach(), teacher_ID=repr_ID.detach())
            if self.search.block:
                gate_M = gate_M.detach()
        score_I, repr_IH = self.distiller.student(batch.features, batch.request_I, Draw(gate_M, mix_SC, self.live_SC))
        student, student_parts = self.distiller.loss(score_I, repr_IH, batch, warmup)
        loss, parts = loss + student, parts | student_parts
        if not of_weights:
            of_gates, of_widths = self._entropies(theta_M)
            cost = self.latency.penalty * self._cost() + self.search.entropy * (of_gates + of_widths)
            # Kept apart, as `moved` takes it off the gates' gradient again: what is left is the slope of the loss.
            self.price_M = torch.autograd.grad(cost, self.gate_logits, retain_graph=True)[0]
            loss = loss + cost
        return loss, {name: part.detach() for name, part in parts.items()}

    def _fits(self, feature: Feature) -> bool:
        """Whether the budget has room for the feature at all: then by itself, before the smallest network."""
        fetch, inputs = fetch_us([feature], self.fetch), inference_us(self.table, [feature], [min(self.candidates)])
        return fetch + inputs <= self.budget_us

    def _mix(self, generator: torch.Generator, of_weights: bool) -> tuple[Tensor, Tensor | None]:
        if self.search.estimator == "softmax":
            return self.width_logits.softmax(1), None
        return (one_path if of_weights else two_path)(self.width_logits, generator)

    def _expected(self, theta_M: Tensor) -> tuple[Tensor, Tensor]:
        fetch = expected_fetch_us(theta_M, self.features, self.fetch, self.latency.temperature_us)
        of_inference = theta_M.detach() if self.search.joint and self.search.block else theta_M
        p_SC = self.width_logits.softmax(1)
        return fetch, expected_inference_us(of_inference, p_SC, self.table, self.features, self.candidates)

    def _cost(self) -> Tensor:
        """(E[fetch] + E[inference]) / budget."""
        fetch, inference = self._expected(torch.sigmoid(self.gate_logits) * self.fits_M)
        return (fetch + inference) / self.budget_us

    def _entropies(self, theta_M: Tensor) -> tuple[Tensor, Tensor]:
        """Mean entropy, in nats, of a gate and of a layer's widths."""
        p_SC, off_M = self.width_logits.softmax(1), 1 - theta_M
        return -(theta_M.xlogy(theta_M) + off_M.xlogy(off_M)).mean(), -p_SC.xlogy(p_SC).sum(1).mean()

    @torch.no_grad()
    def moved(self, before: list[Tensor]) -> None:
        """After the optimizer has moved the architecture away from `before`.

        Two-path's shift; and from the gradient, less the penalty's, the slope ∂L/∂g of each feature at the drawn g.
        """
        grad_M = self.gate_logits.grad
        assert grad_M is not None
        theta_M = torch.sigmoid(before[0])
        # `bernoulli` gave θ a share of ∂L/∂g, and g came from a sigmoid, whose derivative is θ(1 - θ): undo both.
        slope_M = (grad_M - self.price_M) / (self.share_M * theta_M * (1 - theta_M))
        # A draw tells of one side alone; the other's mean stays as it is, as do the weights of what it has seen.
        here_2M = torch.stack([~self.on_M, self.on_M])
        self.slope_2M.copy_(torch.where(here_2M, MEMORY * self.slope_2M + slope_M, self.slope_2M))
        self.seen_2M.copy_(torch.where(here_2M, MEMORY * self.seen_2M + 1, self.seen_2M))
        self.gate_logits.clamp_(-REACH, REACH)
        if self.live_SC is not None:
            rescale(self.width_logits, before[1], self.live_SC)

    @torch.no_grad()
    def close(self, done: float) -> None:
        """After an epoch: closes the gates of what does not fit the budget, when `done` in 0..1 of the search is over.

        Until `search.tight` of it the budget shrinks geometrically from the cost of everything to its own.
        """
        features = [f for f, fits in zip(self.features, self.fits_M.tolist(), strict=True) if fits]
        everything = latency_us(self.table, features, self.fetch, [max(self.candidates)] * self.search.layers)
        part = min(1.0, done / self.search.tight)
        # The share `part` of the way from the one cost to the other, on a log scale: everything^(1-part) budget^part.
        arch = self.derive(max(self.budget_us, everything ** (1 - part) * self.budget_us**part))
        self.closed_M.copy_(torch.tensor([f.name not in arch.features for f in self.features]))

    def derive(self, budget_us: float) -> Arch:
        return derive(
            features=self.features,
            fetch=self.fetch,
            table=self.table,
            widths=self.candidates,
            budget_us=budget_us,
            value_M=self.values(()),
            log_p_SC=self.width_logits.detach().log_softmax(1),
        )

    @torch.no_grad()
    def values(self, batches: Iterable[Batch]) -> Tensor:
        """What keeping each feature is worth to `derive` [M]: the loss without it less the loss with it, to second
        order; -1 where that is less than λ asks for fetching it, or its gate has gone down."""
        off_M, on_M = self.slope_2M / self.seen_2M.clamp(min=1e-9)
        # L(0) - L(1) by the trapezoid of the slopes at both ends, exact for a quadratic loss. A closed gate's slope at
        # 1 is one of weights that have hardly seen it on: 0 stands in its place, which is what training makes of it.
        gain_M = -torch.where(self.closed_M, off_M, off_M + on_M) / 2
        alone_us = [fetch_us([feature], self.fetch) for feature in self.features]
        price_M = self.latency.penalty * gain_M.new_tensor(alone_us) / self.budget_us
        return torch.where((self.gate_logits > 0) & self.fits_M & (gain_M > price_M), gain_M, -1.0)

    @torch.no_grad()
    def facts(self) -> Facts:
        """Where the architecture stands: expected times, entropies in nats, probabilities."""
        theta_M = torch.where(self.closed_M, CLOSED, torch.sigmoid(self.gate_logits)) * self.fits_M
        fetch, inference = self._expected(theta_M)
        of_gates, of_widths = self._entropies(theta_M)
        return {
            "fetch_us": float(fetch),
            "inference_us": float(inference),
            "latency_us": float(fetch + inference),
            "gate_entropy": float(of_gates),
            "width_entropy": float(of_widths),
            "gates": dict(zip((f.name for f in self.features), theta_M.tolist(), strict=True)),
            "widths": self.width_logits.softmax(1).tolist(),
        }

    @torch.no_grad()
    def log_p(self) -> list[list[float]]:
        return self.width_logits.log_softmax(1).tolist()

    def student(self, features: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the strongest architecture as it stands, with the super network's weights: for validation."""
        best_S = self.width_logits.argmax(1)
        mix_SC = torch.zeros_like(self.width_logits).scatter(1, best_S[:, None], 1.0)
        gate_M = ((self.gate_logits > 0) & ~self.closed_M & self.fits_M).float()
        return self.distiller.student(features, request_I, Draw(gate_M, mix_SC, mix_SC > 0))
