"""Steps on the rows that were looked up, against dense ones and against a loop over the rows."""

import os

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from prerank.models import checkpoint
from prerank.models.checkpoint import State
from prerank.training import tables
from prerank.training.average import AveragedAdamW, weights_of

ROWS, WIDTH = 7, 3
LR, DECAY = 0.05, 0.01


def table(*, of_rows: bool, seed: int = 0) -> nn.Embedding:
    torch.manual_seed(seed)
    return nn.Embedding(ROWS, WIDTH, sparse=of_rows).double()


def optimizer_of(model: nn.Module, average: float) -> AveragedAdamW:
    return AveragedAdamW([*model.parameters()], lr=LR, weight_decay=DECAY, average=average)


def step(model: nn.Embedding, optimizer: AveragedAdamW, ids: list[int], number: int) -> None:
    target = torch.linspace(-1, 1, WIDTH, dtype=torch.float64) * number
    loss = (model(torch.tensor(ids)) - target).square().sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    tables.clip_grad_norm(model.parameters(), 5.0)
    optimizer.step()


@pytest.mark.parametrize("average", [0.0, 0.5, 0.99])
def test_with_every_row_in_every_step_they_are_the_dense_steps(average):
    models = [table(of_rows=flag) for flag in (False, True)]
    optimizers = [optimizer_of(model, average) for model in models]
    for number in range(12):
        for model, optimizer in zip(models, optimizers, strict=True):
            step(model, optimizer, [*range(ROWS), 2, 2, number % ROWS], number)  # some twice and more
    of = [weights_of(model, optimizer) for model, optimizer in zip(models, optimizers, strict=True)]
    torch.testing.assert_close(models[1].weight, models[0].weight)
    torch.testing.assert_close(of[1]["weight"], of[0]["weight"])


@pytest.mark.parametrize("average", [0.0, 0.5, 0.99])
def test_rows_that_do_not_come_by_stand_still(average):
    """Each row by itself: AdamW at its own steps, the bias corrected by the steps of all; its mean in every one."""
    torch.manual_seed(1)
    drawn = [torch.randint(0, ROWS, (4,)).tolist() for _ in range(40)]
    model = table(of_rows=True)
    weight = model.weight.detach().clone()
    first, second, mean = torch.zeros_like(weight), torch.zeros_like(weight), None
    optimizer = optimizer_of(model, average)
    for number, ids in enumerate(drawn):
        target = torch.linspace(-1, 1, WIDTH, dtype=torch.float64) * number
        gradient = torch.zeros_like(weight)
        for row in ids:
            gradient[row] += 2 * (weight[row] - target)
        gradient *= min(1.0, 5.0 / (float(gradient.norm()) + 1e-6))
        for row in set(ids):
            first[row] = 0.9 * first[row] + 0.1 * gradient[row]
            second[row] = 0.999 * second[row] + 0.001 * gradient[row] ** 2
            m, v = first[row] / (1 - 0.9 ** (number + 1)), second[row] / (1 - 0.999 ** (number + 1))
            weight[row] = weight[row] * (1 - LR * DECAY) - LR * m / (v.sqrt() + 1e-8)
        stays = min(average, (2 + number) / (11 + number))
        mean = weight.clone() if mean is None else stays * mean + (1 - stays) * weight
        step(model, optimizer, ids, number)
        torch.testing.assert_close(model.weight.detach(), weight)
        if average:
            torch.testing.assert_close(weights_of(model, optimizer)["weight"], mean, rtol=1e-6, atol=1e-8)


def test_the_mean_is_exact_where_its_share_has_reached_the_limit():
    model = table(of_rows=True)
    optimizer = optimizer_of(model, 0.9)  # from step 80 on
    shares = [optimizer._share(t) for t in range(1, 301)]
    for since in (1, 30, 80, 200):
        expected = torch.tensor(shares[since:], dtype=torch.float64).prod()
        found = optimizer._left(torch.tensor([float(since)], dtype=torch.float64), 300.0)
        torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=0)


def test_gradients_of_rows_are_clipped_as_dense_ones():
    ids = torch.tensor([1, 1, 4])
    norms = []
    for of_rows in (False, True):
        model = nn.Sequential(table(of_rows=of_rows), nn.Linear(WIDTH, 1).double())
        torch.manual_seed(2)
        nn.init.normal_(model[1].weight)
        model(ids).square().sum().mul(100).backward()
        tables.clip_grad_norm(model.parameters(), 0.5)
        grad = model[0].weight.grad
        norms.append([grad.to_dense() if grad.is_sparse else grad, *(p.grad for p in model[1].parameters())])
    for dense, of_row in zip(*norms, strict=True):
        torch.testing.assert_close(of_row, dense)
    assert sum(float(g.square().sum()) for g in norms[1]) == pytest.approx(0.25)


def test_a_training_on_rows_goes_on_as_if_nothing_had_happened(tmp_path):
    ids = [[0, 1], [1, 2], [5, 5], [0, 6], [3, 1], [2, 2]]
    whole, model = table(of_rows=True), table(of_rows=True)
    through, before = optimizer_of(whole, 0.9), optimizer_of(model, 0.9)
    for number, of in enumerate(ids):
        step(whole, through, of, number)
        if number < 3:
            step(model, before, of, number)
    checkpoint.save_state(tmp_path, "x", State(), model, before, {})
    again = table(of_rows=True, seed=9)
    after = optimizer_of(again, 0.9)
    checkpoint.load_state(tmp_path, "x", again, after)
    for number, of in enumerate(ids[3:], 3):
        step(again, after, of, number)
    assert torch.equal(again.weight, whole.weight)
    assert torch.equal(weights_of(again, after)["weight"], weights_of(whole, through)["weight"])


def test_only_large_tables_on_a_cpu_are(monkeypatch):
    monkeypatch.setattr(tables, "LARGE", ROWS)
    model = nn.ModuleList([nn.Embedding(ROWS, 1), nn.Embedding(ROWS - 1, 1), nn.Linear(1, 1)])
    tables.mark_large(model, torch.device("cpu"))
    assert [model[0].sparse, model[1].sparse] == [True, False]
    tables.mark_large(model, torch.device("cuda"))
    assert not model[0].sparse


def learned(rank: int, world: int, folder) -> None:
    """Twenty steps of this worker's share of the same batches."""
    torch.manual_seed(0)
    # Doubles: AdamW divides by the gradient's size, so that in floats a small sum's rounding shows in the weights.
    model = nn.Sequential(nn.Embedding(200, 4, sparse=True), nn.Linear(4, 1)).double()
    if world > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    trained = DistributedDataParallel(model) if world > 1 else model
    optimizer, drawn = optimizer_of(trained, 0.9), torch.Generator().manual_seed(3)
    for _ in range(20):
        ids = torch.randint(0, 200, (64,), generator=drawn)[rank::world]
        optimizer.zero_grad(set_to_none=True)
        trained(ids).square().mean().backward()
        tables.clip_grad_norm(trained.parameters(), 5.0)
        optimizer.step()
    save_file(weights_of(model, optimizer), folder / f"{rank}-of-{world}")
    if world > 1:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_sum_gradients_of_rows(tmp_path):
    learned(0, 1, tmp_path)
    spawn(learned, (2, tmp_path), nprocs=2)
    one, first, second = (load_file(tmp_path / name) for name in ("0-of-1", "0-of-2", "1-of-2"))
    for name, weight in one.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], weight, rtol=0, atol=1e-9)
