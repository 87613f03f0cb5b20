"""What a worker checks before it trains."""

import re
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from prerank.core.errors import InputError
from prerank.logs.schema import Feature
from prerank.training.worker import check_memory

CPU = torch.device("cpu")
SMALL = Feature("city", "context", "id", "F1", 1.0, size=400, dim=8)
PRICE = Feature("price", "item", "dense", "F1", 1.0)


def taken(feature):
    """Bytes of a table, its gradient and its optimizer's moments after a step."""
    table = nn.Embedding(feature.size + 1, feature.dim)
    optimizer = torch.optim.AdamW(table.parameters())
    table(torch.tensor([0])).sum().backward()
    optimizer.step()
    moments = [value for value in optimizer.state[table.weight].values() if value.ndim]
    return sum(tensor.nbytes for tensor in (table.weight, table.weight.grad, *moments))


def test_tables_fit_to_the_byte(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**40, available=taken(SMALL)))
    check_memory((SMALL, PRICE), CPU)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**40, available=taken(SMALL) - 1))
    with pytest.raises(InputError, match="'city'"):
        check_memory((SMALL, PRICE), CPU)


def test_tables_that_fit_nowhere_are_named_before_they_are_made():
    skus = Feature("sku", "item", "id", "F1", 1.0, size=10**12, dim=16)
    said = "tables take 238,418.6 GiB in training, most of it 'sku' with 238,418.6"
    with pytest.raises(InputError, match=re.escape(said)):
        check_memory((SMALL, skus, PRICE), CPU)
