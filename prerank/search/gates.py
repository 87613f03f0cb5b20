"""What AutoFAS's gates say of the features, after a search of as many steps as a training, from data in memory."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from prerank.logs.schema import Schema
from prerank.models.batch import Batch
from prerank.search.autofas import AutoFAS
from prerank.search.loop import make_optimizer, take_turn
from prerank.search.short import Held, in_turn
from prerank.search.spec import Spec


def gate_values(spec: Spec, schema: Schema, held: Held, out: Sequence[Batch], steps: int) -> Tensor:
    """[M], as `AutoFAS.values` has them: its search, of `steps` of the weights in place of passes over the samples.

    The weights learn from what is held, the architecture from `out`. What the search does in or after an epoch it does
    here in a part of the steps, of which there are `search.epochs`. Raises FloatingPointError where the loss is not
    finite.
    """
    arm, search = spec.arm, spec.search
    torch.manual_seed(arm.seed)
    method = AutoFAS(spec, schema, held.stats, held.teacher_width)
    optimizer = make_optimizer(method, arm, search)
    ends = [steps * (part + 1) // search.epochs for part in range(search.epochs)]
    warm = ends[search.warmup_epochs - 1] if search.warmup_epochs else 0
    of_weights, of_gates = in_turn(held.batches, arm.seed), itertools.cycle(out)
    loss, clip = torch.zeros(()), arm.optim.clip
    method.train()
    for part, (begin, end) in enumerate(itertools.pairwise([0, *ends])):
        for step in range(begin, end):
            loss = take_turn(method, optimizer, next(of_weights), step, 1.0, "weights", clip=clip)["loss"]
            if step >= warm and (step + 1 - warm) % search.every == 0:
                take_turn(method, optimizer, next(of_gates), step, 1.0, "architecture", clip=clip)
        if part >= search.warmup_epochs:
            method.close((part + 1 - search.warmup_epochs) / (search.epochs - search.warmup_epochs))
    if not math.isfinite(float(loss)):
        raise FloatingPointError(f"{arm.name}: the loss of a short search is not finite; lower optim.lr")
    return method.values(())
