"""What the contrast costs: beside a step with scores, and beside a mask over all pairs of a batch's items.

R requests, I items of all of them, D the width of a representation.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import normalize

from prerank.benchmarks.rows import Row, in_turns, medians
from prerank.benchmarks.training import Pupil, students
from prerank.models.losses import Segments, info_nce

OF_SCORES, OF_MASKS, LINEAR = 2.0, 3.0, 1.15
"""What is to be reached: of a step's time at most, of the masks' speed at least, of an item's memory at most."""
REQUESTS, ITEMS, WIDTH, BINS, TEMPERATURE = 8, 500, 64, 10, 0.1


def contrast(samples: Path, *, k: int, rounds: int) -> list[Row]:
    return [_step(samples, k, rounds), *within_requests(rounds=rounds)]


def _step(samples: Path, k: int, rounds: int) -> Row:
    """Both on batches in memory."""
    turns: dict[str, Callable[[], object]] = {}
    arms = students(samples)
    for name in ("score", "contrast"):
        pupil = Pupil.of(arms[name], samples, k)
        turns[name] = partial(pupil.bare, list(pupil.batches()))
    took = medians(in_turns(turns, rounds))
    detail = f"an epoch's steps {took['contrast']:.2f} and {took['score']:.2f} s"
    value = took["contrast"] / took["score"]
    return Row("contrast", "a step with the contrast, of one with scores", value, "times", OF_SCORES, detail=detail)


def within_requests(*, rounds: int) -> list[Row]:
    """The loss and its gradient, alone, on made-up representations with rank bins as labels."""
    few, many = MadeUp(REQUESTS), MadeUp(4 * REQUESTS)
    took = medians(in_turns({"ours": partial(_learn, ours, few), "masks": partial(_learn, masked, few)}, rounds))
    kept = {
        name: _kept(loss, of) for name, loss, of in (("few", ours, few), ("many", ours, many), ("masks", masked, few))
    }
    each, mib = kept["many"] / kept["few"] / 4, {name: size / 2**20 for name, size in kept.items()}
    what = f"speed of the contrast within {REQUESTS} requests of {ITEMS} items, of a mask over all pairs of the batch"
    detail = (
        f"{1000 * took['ours']:.0f} and {1000 * took['masks']:.0f} ms, {mib['few']:,.0f} and {mib['masks']:,.0f} MiB"
    )
    speed = Row("contrast, masks", what, took["masks"] / took["ours"], "times", least=OF_MASKS, detail=detail)
    what = "memory of an item for the backward pass at x4 items, of x1's"
    detail = f"{mib['many']:,.0f} and {mib['few']:,.0f} MiB"
    return [speed, Row("contrast, memory", what, each, "times", LINEAR, detail=detail)]


class MadeUp:
    """Items in requests of one length, of which the teacher's representation is known."""

    def __init__(self, requests: int) -> None:
        drawn = torch.Generator().manual_seed(0)
        shape = (requests * ITEMS, WIDTH)
        self.student_ID, self.teacher_ID = (normalize(torch.randn(shape, generator=drawn)) for _ in range(2))
        self.student_ID.requires_grad_()
        self.request_I = torch.arange(requests).repeat_interleave(ITEMS)
        self.bin_I = (torch.arange(ITEMS) * BINS // ITEMS).repeat(requests)
        self.requests = requests


def ours(of: MadeUp) -> Tensor:
    segments = Segments(of.request_I, of.requests)
    return info_nce(of.student_ID, of.teacher_ID, segments, label_I=of.bin_I, temperature=TEMPERATURE)


def masked(of: MadeUp) -> Tensor:
    """The same as it is mostly written: the products of all items of the batch, those of other requests masked."""
    logit_II = of.student_ID @ of.teacher_ID.T / TEMPERATURE
    same_II = of.request_I[:, None] == of.request_I
    positive_II = same_II & (of.bin_I[:, None] == of.bin_I)
    log_p_II = logit_II.masked_fill(~same_II, torch.finfo(logit_II.dtype).min).log_softmax(1)
    return -(log_p_II.masked_fill(~positive_II, 0).sum(1) / positive_II.sum(1)).mean()


def _learn(loss: Callable[[MadeUp], Tensor], of: MadeUp) -> None:
    of.student_ID.grad = None
    loss(of).backward()


def _kept(loss: Callable[[MadeUp], Tensor], of: MadeUp) -> int:
    """Bytes that the backward pass needs of the forward one."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        held = loss(of)  # what it has kept stays until it is let go
    del held
    return sum(sizes.values())
