"""What AutoFAS is compared with: other ways to say what each feature is worth to a network of fixed widths.

Each trains a plain network over all features with the student's own losses, and then values the features on held-out
batches; `prerank.search.derive` keeps the best set that fits. Shapes: R requests of a batch, I items over all of them,
M features, D inputs.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from prerank.latency.formula import fetch_us
from prerank.logs.schema import Feature, Schema
from prerank.models.batch import Batch, Inputs
from prerank.models.distill import Distiller
from prerank.models.ranker import Ranker
from prerank.models.stats import Stats
from prerank.search.method import Facts, Learns
from prerank.search.options import MethodName
from prerank.search.spec import Spec

TEMPERATURE = 0.1
"""t of FSCD's relaxed Bernoulli gates, as in the paper."""
STEEP = 5.0
"""t of ShuffleGate's gates."""


class Rival(nn.Module):
    """A network of the arm's widths in the place of `AutoFAS`; it has no architecture to learn beside its weights."""

    def __init__(self, spec: Spec, schema: Schema, stats: Stats, teacher_width: int | None = None):
        super().__init__()
        self.spec, self.arm, self.features = spec, spec.arm, spec.features(schema)
        self.distiller = Distiller(Ranker(self.features, self.arm.widths, stats), self.arm, teacher_width)

    def architecture(self) -> list[nn.Parameter]:
        return []

    def moved(self, before: list[Tensor]) -> None:
        """Nothing to do where there is no architecture."""

    def close(self, done: float) -> None:
        """No gates that a budget could close."""

    def facts(self) -> Facts:
        return {}

    def student(self, features: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        """score_I and the last hidden layer, for the loss and for validation."""
        return self.distiller.student(features, request_I)

    def forward(
        self, batch: Batch, step: int = 0, warmup: float = 1.0, learns: Learns = "weights"
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the student and its parts."""
        score_I, repr_ID = self.student(batch.features, batch.request_I)
        return self.distiller.loss(score_I, repr_ID, batch, warmup)

    def values(self, batches: Iterable[Batch]) -> Tensor:
        """What keeping each feature is worth to `derive` [M], on batches that the weights did not learn from."""
        raise NotImplementedError

    def log_p(self) -> list[list[float]]:
        return self.spec.fixed_log_p()

    def embedded(self, batch: Batch) -> tuple[Tensor | None, Tensor]:
        """The inputs of the network before any gate: x_RD (None without features of requests) and x_ID."""
        return self.distiller.student.embed(batch.features)

    def loss_of(self, x_R: Tensor | None, x_I: Tensor, batch: Batch) -> Tensor:
        """The whole loss from embedded inputs."""
        score_I, repr_ID = self.distiller.student.trunk(x_R, x_I, batch.request_I)
        return self.distiller.loss(score_I, repr_ID, batch)[0]

    def _here(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        self.eval()
        device = next(self.parameters()).device
        return (batch.to(device) for batch in batches)


class SqueezeExcite(Rival):
    """COLD's block (Wang et al., DLP-KDD 2020): s_M = σ(W [e_1 ... e_M] + b) of each item scales its features.

    A feature is worth the mean of its s over the items.
    """

    def __init__(self, spec: Spec, schema: Schema, stats: Stats, teacher_width: int | None = None):
        super().__init__(spec, schema, stats, teacher_width)
        self.squeeze = nn.Linear(sum(self.distiller.student.embed.widths), len(self.features))

    def excitation(self, x_ID: Tensor) -> Tensor:
        """s_IM."""
        return torch.sigmoid(self.squeeze(x_ID))

    def _concatenated(self, features: Inputs, request_I: Tensor) -> Tensor:
        x_R, x_I = self.distiller.student.embed(features)
        return x_I if x_R is None else torch.cat([x_R[request_I], x_I], dim=1)

    def student(self, features: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        ranker = self.distiller.student
        x_ID = self._concatenated(features, request_I)
        x_ID = x_ID * self.excitation(x_ID)[:, ranker.embed.feature_D]
        # A request's inputs are scaled item by item, so that each item has a row of its own.
        n, row_I = ranker.embed.widths[0], torch.arange(len(x_ID), device=x_ID.device)
        return ranker.trunk(x_ID[:, :n] if n else None, x_ID[:, n:], row_I)

    @torch.no_grad()
    def values(self, batches: Iterable[Batch]) -> Tensor:
        total_M, items = torch.zeros(len(self.features), dtype=torch.float64), 0
        for batch in self._here(batches):
            s_IM = self.excitation(self._concatenated(batch.features, batch.request_I))
            total_M += s_IM.double().sum(0).cpu()
            items += len(s_IM)
        return (total_M / items).float()


class FSCD(Rival):
    """Feature selection by complexity and variational dropout (Ma et al., SIGIR 2021).

    z_m = σ((logit δ_m + logit u_m) / t), u ~ U(0, 1), one for each feature and batch, scales the feature, and
    λ Σ c_m z_m joins the loss; c_m is what fetching the feature alone takes, over the budget. δ learns with the
    weights, on their batches, from `search.gate_start`. A feature is worth logit δ, so that
    `derive` keeps the likeliest set.
    """

    cost_M: Tensor
    """Shares of the budget."""

    def __init__(self, spec: Spec, schema: Schema, stats: Stats, teacher_width: int | None = None):
        super().__init__(spec, schema, stats, teacher_width)
        self.penalty = spec.latency.penalty
        self.faster = spec.search.gate_lr / self.arm.optim.lr
        start = torch.logit(torch.tensor(spec.search.gate_start)) / self.faster
        self.slow_logits = nn.Parameter(start.repeat(len(self.features)))
        cost_us = [fetch_us([feature], schema.fetch) for feature in self.features]
        self.register_buffer("cost_M", torch.tensor(cost_us) / spec.budget_us, persistent=False)

    @property
    def logits(self) -> Tensor:
        """logit δ_M. Adam's step is its rate whatever the gradient's scale: this way `gate_lr`, in the weights' group,
        and the gates' share of the gradient's norm, which is clipped, stays as it is."""
        return self.slow_logits + (self.faster - 1) * self.slow_logits.detach()

    def gates(self, step: int) -> Tensor:
        """z_M of a step, the same on every worker."""
        generator = torch.Generator().manual_seed(self.arm.seed * 1_000_003 + 2 * step + 1)
        u_M = torch.rand(len(self.features), generator=generator).to(self.cost_M)
        return torch.sigmoid((self.logits + torch.logit(u_M, eps=1e-6)) / TEMPERATURE)

    def forward(
        self, batch: Batch, step: int = 0, warmup: float = 1.0, learns: Learns = "weights"
    ) -> tuple[Tensor, dict[str, Tensor]]:
        z_M = self.gates(step)
        ranker = self.distiller.student
        x_R, x_I = ranker.embed.gated(*self.embedded(batch), z_M)
        score_I, repr_ID = ranker.trunk(x_R, x_I, batch.request_I)
        loss, parts = self.distiller.loss(score_I, repr_ID, batch, warmup)
        complexity = (self.cost_M * z_M).sum()
        return loss + self.penalty * complexity, parts | {"complexity": complexity.detach()}

    def student(self, features: Inputs, request_I: Tensor) -> tuple[Tensor, Tensor]:
        """With the features whose δ is above 1/2."""
        ranker = self.distiller.student
        x_R, x_I = ranker.embed(features)
        x_R, x_I = ranker.embed.gated(x_R, x_I, (self.logits > 0).float())
        return ranker.trunk(x_R, x_I, request_I)

    def facts(self) -> Facts:
        delta_M = torch.sigmoid(self.logits.detach()).tolist()
        return {"gates": dict(zip((feature.name for feature in self.features), delta_M, strict=True))}

    def values(self, batches: Iterable[Batch]) -> Tensor:
        return self.logits.detach().cpu()


class Gradient(Rival):
    """One shot by gradient: a feature is worth |∂L/∂g_m| at g = 1, of a gate that scales it, mean over the batches.

    The absolute value is taken batch by batch (SFS, Wang et al., SIGIR 2023, after SNIP, Lee et al., ICLR 2019).
    """

    def values(self, batches: Iterable[Batch]) -> Tensor:
        total_M, count = torch.zeros(len(self.features), dtype=torch.float64), 0
        for batch in self._here(batches):
            gate_M = torch.ones(len(self.features), device=batch.request_I.device, requires_grad=True)
            embed = self.distiller.student.embed
            loss = self.loss_of(*embed.gated(*self.embedded(batch), gate_M), batch)
            total_M += torch.autograd.grad(loss, gate_M)[0].double().abs().cpu()
            count += 1
        return (total_M / count).float()


class ShuffleGate(Rival):
    """ShuffleGate (Huang et al., arXiv 2503.09315): g_m = σ(t θ_m) mixes each feature with one that says nothing.

    x_m becomes g_m x_m + (1 - g_m) stop(x_m of another), shuffled within the batch anew in each step, each feature by
    itself (a request's among the requests); α · mean of g joins the loss, so that the gate of what can be replaced
    without harm falls to 0. A feature is worth its g. α is `latency.penalty`, and θ learns at `search.gate_lr`, as
    FSCD's logits do: neither is of the paper.
    """

    def __init__(self, spec: Spec, schema: Schema, stats: Stats, teacher_width: int | None = None):
        super().__init__(spec, schema, stats, teacher_width)
        self.faster = spec.search.gate_lr / self.arm.optim.lr
        self.slow_theta = nn.Parameter(torch.ones(len(self.features)) / self.faster)

    @property
    def gates(self) -> Tensor:
        """g_M."""
        theta_M = self.slow_theta + (self.faster - 1) * self.slow_theta.detach()
        return torch.sigmoid(STEEP * theta_M)

    def forward(
        self, batch: Batch, step: int = 0, warmup: float = 1.0, learns: Learns = "weights"
    ) -> tuple[Tensor, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(self.arm.seed * 1_000_003 + 2 * step + 1)
        gate_M, ranker = self.gates, self.distiller.student
        gate_D, n = gate_M[ranker.embed.feature_D], ranker.embed.widths[0]
        x_R, x_I = self.embedded(batch)
        x_R = None if x_R is None else self._mixed(x_R, gate_D[:n], ranker.embed.feature_D[:n], generator)
        x_I = self._mixed(x_I, gate_D[n:], ranker.embed.feature_D[n:], generator)
        score_I, repr_ID = ranker.trunk(x_R, x_I, batch.request_I)
        loss, parts = self.distiller.loss(score_I, repr_ID, batch, warmup)
        return loss + self.spec.latency.penalty * gate_M.mean(), parts | {"gates": gate_M.mean().detach()}

    def _mixed(self, x_XD: Tensor, gate_D: Tensor, feature_D: Tensor, generator: torch.Generator) -> Tensor:
        order_MX = torch.rand(len(self.features), len(x_XD), generator=generator).argsort(dim=1).to(x_XD.device)
        other_XD = x_XD.detach().gather(0, order_MX[feature_D].T)
        return gate_D * x_XD + (1 - gate_D) * other_XD

    def facts(self) -> Facts:
        return {"gates": dict(zip((feature.name for feature in self.features), self.gates.tolist(), strict=True))}

    def values(self, batches: Iterable[Batch]) -> Tensor:
        return self.gates.detach().cpu()


class Permutation(Rival):
    """A feature is worth the rise of the loss when its values are shuffled (Breiman 2001; Fisher et al. 2019).

    A request's values are shuffled among the requests of a batch, an item's among all of its items. Negative where the
    shuffled feature did better: `derive` leaves it out.
    """

    @torch.no_grad()
    def values(self, batches: Iterable[Batch]) -> Tensor:
        generator = torch.Generator().manual_seed(self.arm.seed)
        embed, n = self.distiller.student.embed, self.distiller.student.embed.widths[0]
        total_M, count = torch.zeros(len(self.features), dtype=torch.float64), 0
        for batch in self._here(batches):
            x_R, x_I = self.embedded(batch)
            orders = [torch.randperm(0 if x is None else len(x), generator=generator) for x in (x_R, x_I)]
            other_R, other_I = None if x_R is None else x_R[orders[0]], x_I[orders[1]]
            before = self.loss_of(x_R, x_I, batch)
            for index, feature in enumerate(self.features):
                columns = embed.columns[feature.name]
                if feature.of_request:
                    assert x_R is not None and other_R is not None
                    after = self.loss_of(_replaced(x_R, other_R, columns), x_I, batch)
                else:
                    columns = slice(columns.start - n, columns.stop - n)
                    after = self.loss_of(x_R, _replaced(x_I, other_I, columns), batch)
                total_M[index] += float(after - before)
            count += 1
        return (total_M / count).float()


def _replaced(x: Tensor, other: Tensor, columns: slice) -> Tensor:
    x = x.clone()
    x[:, columns] = other[:, columns]
    return x


def untrained_values(
    method: MethodName, features: tuple[Feature, ...], hand_picked: tuple[str, ...], seed: int
) -> Tensor:
    """[M] of the methods that look at no data: `random` uniform in (0, 1]; `hand_picked` 1 for those, 0 for others."""
    if method.startswith("random"):
        return 1 - torch.rand(len(features), generator=torch.Generator().manual_seed(seed))
    return torch.tensor([float(feature.name in hand_picked) for feature in features])


RIVALS: dict[MethodName, type[Rival]] = {
    "squeeze_excite": SqueezeExcite,
    "fscd": FSCD,
    "gradient": Gradient,
    "permutation": Permutation,
    "shuffle_gate": ShuffleGate,
}
"""The rivals that train, by the name of `Search.method`."""
