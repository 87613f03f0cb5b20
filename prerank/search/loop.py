"""The loop of a search: steps of the weights, and between them steps of the architecture on held-out samples."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import cast

import pyarrow as pa
import torch
from torch import Tensor, nn

from prerank.models.batch import Batch
from prerank.models.checkpoint import State
from prerank.models.options import Arm
from prerank.samples.batches import ahead
from prerank.samples.cut import training_batches
from prerank.samples.reader import Reader
from prerank.search.method import Learns, Method
from prerank.search.options import Search
from prerank.training.loop import Lesson, add, autocast_on, over_workers


def method_of(model: nn.Module) -> Method:
    """The method itself, where DDP may be around it."""
    return cast(Method, getattr(model, "module", model))


def make_optimizer(method: Method, arm: Arm, search: Search) -> torch.optim.Optimizer:
    """Adam: weights as in a student's training; the architecture with β1 = 0 and no weight decay (ProxylessNAS)."""
    architecture = method.architecture()
    ids = {id(p) for p in architecture}
    weights = {"params": [p for p in method.parameters() if id(p) not in ids], "weight_decay": arm.optim.weight_decay}
    # β1 = 0: two_path moves two of a slot's widths at a time, and a momentum would push the others by old gradients.
    groups = [
        {"params": [p], "lr": lr, "betas": (0.0, 0.999), "weight_decay": 0.0}
        for p, lr in zip(architecture, (search.gate_lr, search.width_lr), strict=False)
    ]
    return torch.optim.AdamW([weights, *groups], lr=arm.optim.lr, fused=True)


def search_steps(
    lesson: Lesson,
    search: Search,
    held_out: Reader,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    state: State,
    save: Callable[[State], None],
    progress: Callable[[State], None] = lambda state: None,
) -> None:
    """Runs the search from `state` to its end; `save` is called after every epoch (and every `checkpoint_steps`).

    The weights learn from the lesson, the architecture from `held_out`. `model` is a `Method`, or DDP around one.
    Weights alone warm up; then the architecture takes a step after every `search.every` steps of the weights. `state`
    is brought forward in place. Raises FloatingPointError when the loss is not finite.
    """
    arm, reader, every = lesson.arm, lesson.reader, lesson.checkpoint_steps
    method = method_of(model)
    device = next(method.parameters()).device
    autocast = autocast_on(device)
    architecture = method.architecture()
    warm, ramp = search.warmup_epochs * reader.steps, arm.distill.warmup_epochs * reader.steps

    def batches(tables: Iterable[pa.Table], epoch: int) -> Iterator[Batch]:
        numbered = ((epoch, table) for table in tables)
        made = training_batches(numbered, arm, lesson.features, lesson.teacher_score)
        return chain.from_iterable(ahead(made))

    def held(start: int) -> Iterator[Batch]:
        # Held-out batches go round without an end; a restart goes on with the one that its steps come to.
        while True:
            turns, into = divmod(start, held_out.steps)
            start -= into  # a round draws by its first step, so that one that is gone on with draws as it began
            yield from batches(held_out.epoch(turns, into), start)
            start += held_out.steps

    def turn(batch: Batch, step: int, learns: Learns) -> dict[str, Tensor]:
        ready = min(1.0, (step + 1) / ramp) if ramp else 1.0
        clip = arm.optim.clip
        return take_turn(model, optimizer, batch.to(device), step, ready, learns, clip=clip, autocast=autocast)

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
            progress(state)
            if every and state.step % every == 0 and state.step < reader.steps:
                state.sums = dict(over_workers(state.sums))
                save(state)
        means = {f"train/{name}": total / reader.steps for name, total in over_workers(state.sums).items()}
        if not math.isfinite(means["train/loss"]):
            raise FloatingPointError(f"{arm.name}: the loss of epoch {state.epoch} is not finite; lower optim.lr")
        if architecture and state.epoch >= search.warmup_epochs:
            method.close((state.epoch + 1 - search.warmup_epochs) / (search.epochs - search.warmup_epochs))
        values = {f"val/{k}": v for k, v in lesson.validate(method).items()}
        state.history.append({"epoch": state.epoch, **means, **values, **method.facts()})
        state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
        save(state)


def take_turn(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    step: int,
    warmup: float,
    learns: Learns,
    *,
    clip: float,
    autocast: AbstractContextManager[object] = nullcontext(),  # noqa: B008
) -> dict[str, Tensor]:
    """One step of the weights or of the architecture, which moves nothing else; returns the loss and its parts."""
    method = method_of(model)
    weights, architecture = optimizer.param_groups[0]["params"], method.architecture()
    if not hasattr(model, "module"):  # DDP waits for every gradient
        for parameter in weights:
            parameter.requires_grad_(learns == "weights")
    with autocast:
        loss, parts = model(batch, step, warmup, learns)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    # The optimizer passes over what has no gradient, moments and all.
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
