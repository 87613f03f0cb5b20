"""An epoch of FuxiCTR over items in memory: its loader, its embeddings, its network block, its training loop.

Its package has no model, only the parts: this is the DNN of its model zoo. Numbers are embedded in one dimension each,
so that the network is as wide as ours.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuxictr.features import FeatureMap  # pyright: ignore[reportMissingImports]: of the extra `bench`
from fuxictr.pytorch.dataloaders import RankDataLoader  # pyright: ignore[reportMissingImports]
from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block  # pyright: ignore[reportMissingImports]
from fuxictr.pytorch.models import BaseModel  # pyright: ignore[reportMissingImports]

from prerank.benchmarks.peers.items import Columns


def epoch_of(
    columns: Columns, label_N: np.ndarray, sizes: dict[str, tuple[int, int]], *, widths: list[int], batch: int, at: Path
) -> Callable[[], object]:
    """An epoch, to be called again and again; `sizes`: rows and width of the table of each id; `at`: an empty folder.

    Its loader collates in a process of its own, as it does by default.
    """
    np.savez(at / "items.npz", allow_pickle=False, click=label_N, **columns)  # its annotations know no keywords
    feature_map = FeatureMap("items", str(at))
    for name, values in columns.items():
        feature_map.features[name] = _spec(name, values, sizes)
    feature_map.labels = ["click"]
    feature_map.num_fields = len(columns)
    feature_map.default_emb_dim = 1
    feature_map.set_column_index()
    made = {"feature_map": feature_map, "train_data": str(at / "items.npz"), "batch_size": batch, "shuffle": True}
    loader, _ = RankDataLoader(stage="train", num_workers=1, **made)
    model = _dnn(feature_map, widths, at)
    model._eval_steps, model._total_steps, model._max_gradient_norm = len(loader) + 1, 0, 10.0
    model._stop_training = False

    def epoch() -> None:
        model._total_steps = 0  # or it would validate
        model.train_epoch(loader)

    return epoch


def _spec(name: str, values: np.ndarray, sizes: dict[str, tuple[int, int]]) -> dict[str, object]:
    if name not in sizes:
        return {"source": "", "type": "numeric", "embedding_dim": 1}
    rows, width = sizes[name]
    about = {"source": "", "vocab_size": rows + 2, "padding_idx": 0, "embedding_dim": width}
    if values.ndim == 1:
        return {"type": "categorical", **about}
    return {"type": "sequence", "max_len": values.shape[1], "feature_encoder": "layers.MaskedAveragePooling()", **about}


def _dnn(feature_map: Any, widths: list[int], at: Path) -> Any:
    class DNN(BaseModel):
        def __init__(self) -> None:
            super().__init__(feature_map, verbose=0, model_root=str(at), metrics=["AUC"])
            self.embedding_layer = FeatureEmbedding(feature_map, 1)
            inputs = feature_map.sum_emb_out_dim()
            self.mlp = MLP_Block(inputs, widths, output_dim=1, output_activation=self.output_activation)
            self.compile("adam", "binary_crossentropy", 1e-3)
            self.reset_parameters()
            self.model_to_device()

        def forward(self, inputs: dict[str, object]) -> dict[str, object]:
            return {"y_pred": self.mlp(self.embedding_layer(self.get_inputs(inputs), flatten_emb=True))}

    return DNN()
