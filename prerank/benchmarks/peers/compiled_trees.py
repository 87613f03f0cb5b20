"""LightGBM's trees as C in a shared library, by Treelite and TL2cgen, with branches marked by how often they go."""

from collections.abc import Callable
from pathlib import Path

import lightgbm
import numpy as np
import tl2cgen  # pyright: ignore[reportMissingImports]: of the extra `bench`
import treelite  # pyright: ignore[reportMissingImports]


def compiled(trees: lightgbm.Booster, usual_NF: np.ndarray, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Scores of rows, float64 as the trees are, on one thread, by a library in the folder; `usual_NF`: rows as they
    come."""
    model = treelite.frontend.from_lightgbm(trees)
    counts, library = folder / "counts.json", folder / "trees.so"
    tl2cgen.annotate_branch(model, tl2cgen.DMatrix(usual_NF.astype(np.float64)), counts, nthread=1)
    params = {"annotate_in": str(counts), "parallel_comp": 8}
    tl2cgen.export_lib(model, toolchain="gcc", libpath=library, params=params)
    predictor = tl2cgen.Predictor(library, nthread=1)
    return lambda rows_NF: predictor.predict(tl2cgen.DMatrix(rows_NF))
