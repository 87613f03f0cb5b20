"""The training loop of one arm: no Ray in it, so it runs in a test, under torchrun or in a profiler as well."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor, nn

from prerank.core.errors import InputError
from prerank.core.nested import flat_numpy
from prerank.evaluation import metrics
from prerank.logs.schema import Feature
from prerank.models import checkpoint
from prerank.models.checkpoint import State
from prerank.models.distill import Distiller
from prerank.models.options import Arm
from prerank.samples.batches import ahead, scoring_batch, training_batch
from prerank.samples.reader import Reader

Save = Callable[[State, nn.Module, torch.optim.Optimizer, dict[str, Tensor]], None]


def make_optimizer(model: nn.Module, arm: Arm) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=arm.optim.lr, weight_decay=arm.optim.weight_decay, fused=True)


def train(
    arm: Arm,
    features: tuple[Feature, ...],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    reader: Reader,
    validate: Callable[[Distiller], dict[str, float]],
    *,
    teacher_score: str | None = None,
    state: State,
    best: dict[str, Tensor],
    save: Save,
    checkpoint_steps: int = 0,
    progress: Callable[[State], None] = lambda state: None,
) -> dict[str, Tensor]:
    """Trains until `optim.epochs` or until the validation has not improved for `optim.patience` epochs.

    `model` is a `Distiller`, or DDP around one. `state` and `best` say where to go on from; `state` is brought
    forward in place and `save` is called with it after every epoch (and every `checkpoint_steps`). Every worker calls
    with the same `state`. Returns the best weights of the student. Raises FloatingPointError when the loss is not
    finite and InputError when no batch held anything to learn from.
    """
    distiller: Distiller = model.module if hasattr(model, "module") else model
    device = next(distiller.parameters()).device
    autocast = autocast_on(device)
    warmup_steps = arm.distill.warmup_epochs * reader.steps
    while state.epoch < arm.optim.epochs and state.epoch - state.best_epoch <= arm.optim.patience:
        model.train()
        tables = reader.epoch(state.epoch, state.step)
        for batch in ahead(training_batch(t, arm, features, state.epoch, teacher_score) for t in tables):
            step = state.epoch * reader.steps + state.step
            warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
            with autocast:
                loss, parts = model(batch.to(device), warmup)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), arm.optim.clip)
            optimizer.step()
            state.step += 1
            add(state.sums, {"loss": loss.detach(), **parts})
            progress(state)
            if checkpoint_steps and state.step % checkpoint_steps == 0 and state.step < reader.steps:
                state.sums = over_workers(state.sums)
                save(state, distiller, optimizer, best)
        means = {f"train/{name}": total / reader.steps for name, total in over_workers(state.sums).items()}
        if not math.isfinite(means["train/loss"]):
            raise FloatingPointError(f"{arm.name}: the loss of epoch {state.epoch} is not finite; lower optim.lr")
        if means["train/hard"] == 0 and not arm.distill.active:
            raise InputError(
                f"{arm.name}: the samples hold nothing to learn for strategies {', '.join(arm.strategies)}"
            )
        values = validate(distiller)
        state.history.append({"epoch": state.epoch, **means, **{f"val/{k}": v for k, v in values.items()}})
        chosen = next((value for name, value in values.items() if name.partition("_at_")[0] == arm.select_by), None)
        if chosen is None:
            raise InputError(
                f"{arm.name}: no request of the validation day has the {arm.select_by} that decides on early stopping: "
                "recall takes more than k candidates, hit_rate and auc a click; build samples with more validation "
                "days or requests (split.val_days, val_requests), or lower --k"
            )
        if state.best is None or chosen > state.best:
            state.best, state.best_epoch = chosen, state.epoch
            best = checkpoint.weights(distiller.student)
        state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
        save(state, distiller, optimizer, best)
    return best


def validator(
    tables: Iterable[pa.Table],
    features: tuple[Feature, ...],
    *,
    k: int,
    teacher_score: str | None,
    device: torch.device,
) -> Callable[[Distiller], dict[str, float]]:
    """Scores this worker's validation requests and averages over all workers': no request is lost or counted twice.

    `hit_rate_at_K` and `auc` (clicked against all other candidates, within the request) are over requests with a
    click, `recall_at_K` is the overlap with the teacher's top K where there is a teacher, over requests of more than K
    candidates. What no request defines is left out.
    """
    parts = []
    for table in tables:
        teacher_N = flat_numpy(table[teacher_score]) if teacher_score else None
        parts.append(
            (
                scoring_batch(table, features).to(device),
                metrics.Validation(metrics.Candidates.of(table), teacher_N, k=k),
            )
        )
    names = {"recall": f"recall_at_{k}", "hit_rate": f"hit_rate_at_{k}", "auc": "auc"}

    def validate(distiller: Distiller) -> dict[str, float]:
        distiller.eval()
        sums, counts = dict.fromkeys(names.values(), 0.0), dict.fromkeys(names.values(), 0.0)
        for batch, measure in parts:
            with torch.inference_mode():
                score_N = distiller.student(batch.features, batch.request_I)[0].float().cpu().numpy()
            for name, column_R in measure(score_N).items():
                sums[names[name]] += np.nansum(column_R)
                counts[names[name]] += np.count_nonzero(~np.isnan(column_R))
        sums, counts = all_reduced(sums), all_reduced(counts)
        return {name: sums[name] / counts[name] for name in sums if counts[name]}

    return validate


def autocast_on(device: torch.device) -> torch.autocast:
    """bfloat16 where the device has it; nothing on a CPU."""
    enabled = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def all_reduced(values: dict[str, float]) -> dict[str, float]:
    """The sums over the workers; the values themselves where there is one worker."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor([values[name] for name in sorted(values)], dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return dict(zip(sorted(values), total.tolist(), strict=True))


def over_workers(sums: dict[str, Tensor | float]) -> dict[str, float]:
    """The mean over the workers: that of the whole batch, as each has an equal share of its requests."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    return {name: total / world for name, total in all_reduced({k: float(v) for k, v in sums.items()}).items()}


def add(sums: dict, parts: dict[str, Tensor]) -> None:
    for name, part in parts.items():
        sums[name] = sums.get(name, 0.0) + part.double()
