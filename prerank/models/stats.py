"""`stats.json`: what the training split says of the numeric features, by which a ranker normalises them."""

import json
from collections.abc import Mapping
from pathlib import Path

from prerank.logs.statistics import Stat

Stats = Mapping[str, Stat]
"""By feature: the dense ones and the embeddings; ids have none."""


def load_stats(folder: Path) -> Stats:
    """Of a folder of samples or of a finished model."""
    return json.loads((folder / "stats.json").read_text())
