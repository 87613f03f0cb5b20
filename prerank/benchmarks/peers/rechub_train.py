"""An epoch of torch-rechub over items in memory: its loader, embeddings, MLP and trainer; and its ONNX file.

Its tables must all be of one width: here the mean of ours.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_rechub.basic.features import (  # pyright: ignore[reportMissingImports]: of the extra `bench`
    DenseFeature,
    SequenceFeature,
    SparseFeature,
)
from torch_rechub.basic.layers import MLP, EmbeddingLayer  # pyright: ignore[reportMissingImports]
from torch_rechub.trainers import CTRTrainer  # pyright: ignore[reportMissingImports]
from torch_rechub.utils.data import DataGenerator  # pyright: ignore[reportMissingImports]

from prerank.benchmarks.peers.items import Columns


class DNN(nn.Module):
    """Of torch-rechub's layers; its models all add a part beside the network."""

    def __init__(self, features: list[Any], widths: list[int]) -> None:
        super().__init__()
        self.features = features
        self.embedding = EmbeddingLayer(features)
        self.mlp = MLP(sum(feature.embed_dim for feature in features), dims=widths)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return torch.sigmoid(self.mlp(self.embedding(x, self.features, squeeze_dim=True)).squeeze(1))


def trainer_of(columns: Columns, sizes: dict[str, tuple[int, int]], widths: list[int]) -> Any:
    """`sizes`: rows and width of the table of each id."""
    features: list[Any] = []
    width = round(np.mean([width for _, width in sizes.values()])) if sizes else 0
    for name, values in columns.items():
        if name not in sizes:
            features.append(DenseFeature(name))
            continue
        rows, _ = sizes[name]
        kind = SparseFeature if values.ndim == 1 else SequenceFeature
        features.append(kind(name, vocab_size=rows + 2, embed_dim=width, padding_idx=0))
    return CTRTrainer(DNN(features, widths))


def epoch_of(trainer: Any, columns: Columns, label_N: np.ndarray, *, batch: int) -> Callable[[], object]:
    """An epoch, to be called again and again; its loader collates in this process, as it does by default."""
    made = DataGenerator(columns, label_N)
    loader, _, _ = made.generate_dataloader(x_val={}, y_val=[], x_test={}, y_test=[], batch_size=batch)
    return lambda: trainer.train_one_epoch(loader)


def write_onnx(trainer: Any, columns: Columns, path: Path) -> None:
    """By its own export, with a dynamic number of candidates."""
    example = {name: torch.from_numpy(values[:2].copy()) for name, values in columns.items()}
    # torch's older exporter: the newer one, which it tries first, needs onnxscript beside.
    trainer.export_onnx(str(path), dummy_input=example, device="cpu", onnx_export_kwargs={"dynamo": False})


def as_fed(values: np.ndarray, kind: str) -> np.ndarray:
    """In the type of an input of the file, such as `tensor(float)`."""
    return values.astype(np.float32 if kind == "tensor(float)" else np.int64)
