"""A training step as id tables grow: it should cost what its batch looks up, not what there is."""

from collections.abc import Callable

import torch
from torch import nn

from prerank.benchmarks.rows import Row, in_turns, medians
from prerank.training.average import AveragedAdamW
from prerank.training.tables import clip_grad_norm, mark_large

LOOKED_UP, DIM, SMALL = 5_400, 8, 20_000
"""Items of a batch, the width of the table, and the rows of the one that others are held against."""
SIZES = (2_000_000, 50_000_000)
MOST = 2.0


def tables(sizes: tuple[int, ...], *, rounds: int) -> list[Row]:
    """A step at each size against one at `SMALL` rows."""
    took = medians(in_turns({f"{rows:,}": _step(rows) for rows in (SMALL, *sizes)}, rounds))
    base = took.pop(f"{SMALL:,}")
    return [
        Row(
            f"id table, {rows} rows", f"a step, of one at {SMALL:,} rows", seconds / base, "times", MOST,
            detail=f"{1000 * seconds:.1f} and {1000 * base:.1f} ms",
        )
        for rows, seconds in took.items()
    ]  # fmt: skip


def _step(rows: int) -> Callable[[], None]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(rows, DIM), nn.Linear(DIM, 64), nn.ReLU(), nn.Linear(64, 1))
    mark_large(network, torch.device("cpu"))
    optimizer = AveragedAdamW([*network.parameters()], lr=1e-3, weight_decay=1e-5, average=0.99)
    drawn = torch.Generator().manual_seed(1)

    def step() -> None:
        loss = network(torch.randint(0, rows, (LOOKED_UP,), generator=drawn)).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm(network.parameters(), 5.0)
        optimizer.step()

    return step
