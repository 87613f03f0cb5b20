"""The loop of a search: steps of the weights, and between them steps of the architecture on held-out samples."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prerank.logs.schema import Feature
from prerank.models.batch import Batch
from prerank.models.checkpoint import State
from prerank.models.options import Arm
from prerank.samples.batches import ahead, training_batch
from prerank.samples.reader import Reader
from prerank.search.options import Search
from prerank.training.loop import add, autocast_on, over_workers

Save = Callable[[State, nn.Module, torch.optim.Optimizer], None]


def make_optimizer(method: nn.Module, arm: Arm, search: Search) -> torch.optim.Optimizer:
    """Adam: weights as in a student's training; the architecture with β1 = 0 and no weight decay (ProxylessNAS)."""
    architecture = method.architecture()
    ids = {id(p) for p in architecture}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in method.parameters() if id(p) not in ids], "weight_decay": arm.optim.weight_decay}
    ]
    rates = (search.gate_lr, search.width_lr)
    groups += [
        {"params": [p], "lr": lr, "betas": (0.0, 0.999), "weight_decay": 0.0}
        for p, lr in zip(architecture, rates, strict=False)
    ]
    return torch.optim.AdamW(groups, lr=arm.optim.lr, fused=True)


def search_steps(
    arm: Arm,
    search: Search,
    features: tuple[Feature, ...],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    reader: Reader,
    held_out: Reader,
    validate: Callable[[Any], dict[str, float]],
    *,
    teacher_score: str | None,
    state: State,
    save: Save,
    checkpoint_steps: int = 0,
    progress: Callable[[State, nn.Module], None] = lambda state, method: None,
) -> None:
    """Runs the search from `state` to its end; `save` is called after every epoch (and every `checkpoint_steps`).

    `model` is a method (`AutoFAS` or a rival), or DDP around one. Weights alone warm up; then the architecture takes a
    step after every `search.every` steps of the weights. Raises FloatingPointError when the loss is not finite.
    """
    method = model.module if hasattr(model, "module") else model
    device = next(method.parameters()).device
    autocast = autocast_on(device)
    architecture = method.architecture()
    warm, ramp = search.warmup_epochs * reader.steps, arm.distill.warmup_epochs * reader.steps

    def batches(tables: Iterator, epoch: int) -> Iterator[Batch]:
        return ahead(training_batch(table, arm, features, epoch, teacher_score) for table in tables)

    def held(start: int) -> Iterator[Batch]:
        while True:
            yield from batches(held_out.epoch(start // held_out.steps, start % held_out.steps), start)
            start += held_out.steps - start % held_out.steps

    def turn(batch: Batch, step: int, learns: str) -> dict[str, Tensor]:
        ready, options = min(1.0, (step + 1) / ramp) if ramp else 1.0, {"clip": arm.optim.clip, "autocast": autocast}
        return take_turn(model, optimizer, batch.to(device), step, ready, learns, **options)

    begun = state.epoch * reader.steps + state.step
    validation = held(max(0, begun - warm) // search.every) if architecture else iter(())
    while state.epoch < search.epochs:
        model.train()
        for batch in batches(reader.epoch(state.epoch, state.step), state.epoch):
            step = state.epoch * reader.steps + state.step
            add(state.sums, turn(batch, step, "weights"))
            state.step += 1
            if architecture and step >= warm and (step + 1 - warm) % search.every == 0:
                turn(next(validation), step, "architecture")
            progress(state, method)
            if checkpoint_steps and state.step % checkpoint_steps == 0 and state.step < reader.steps:
                state.sums = over_workers(state.sums)
                save(state, method, optimizer)
        means = {f"train/{name}": total / reader.steps for name, total in over_workers(state.sums).items()}
        if not math.isfinite(means["train/loss"]):
            raise FloatingPointError(f"{arm.name}: the loss of epoch {state.epoch} is not finite; lower optim.lr")
        if architecture and state.epoch >= search.warmup_epochs:
            method.close((state.epoch + 1 - search.warmup_epochs) / (search.epochs - search.warmup_epochs))
        values = {f"val/{k}": v for k, v in validate(method).items()}
        state.history.append({"epoch": state.epoch, **means, **values, **method.facts()})
        state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
        save(state, method, optimizer)


def take_turn(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    step: int,
    warmup: float,
    learns: Literal["weights", "architecture"],
    *,
    clip: float,
    autocast: AbstractContextManager = nullcontext(),  # noqa: B008
) -> dict[str, Tensor]:
    """One step of the weights or of the architecture, which moves nothing else; returns the loss and its parts."""
    method = model.module if hasattr(model, "module") else model
    weights, architecture = optimizer.param_groups[0]["params"], method.architecture()
    if model is method:  # DDP waits for every gradient
        for parameter in weights:
            parameter.requires_grad_(learns == "weights")
    with autocast:
        loss, parts = model(batch, step, warmup, learns)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for parameter in architecture if learns == "weights" else weights:
        parameter.grad = None
    if learns == "weights":
        nn.utils.clip_grad_norm_(weights, clip)
        optimizer.step()
    else:
        before = [parameter.detach().clone() for parameter in architecture]
        optimizer.step()
        method.moved(before)
    return {"loss": loss.detach(), **parts}
