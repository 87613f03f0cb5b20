"""Made-up inputs of a ranker, with every kind of feature."""

import torch
from logs_fixture import SCHEMA

from prerank.logs.schema import parse_schema
from prerank.models.batch import Bags

FEATURES = parse_schema(SCHEMA, "test").features
STATS = {f.name: {"mean": [0.5] * f.size, "std": [2.0] * f.size} for f in FEATURES if not f.dim}
REQUESTS, ITEMS = 3, 8
REQUEST_I = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])


def drawn_inputs():
    """Features of 3 requests with 8 items, drawn at random, by name."""
    torch.manual_seed(1)
    out = {}
    for feature in FEATURES:
        rows = REQUESTS if feature.of_request else ITEMS
        if feature.kind == "id":
            out[feature.name] = torch.randint(0, feature.size + 1, (rows,))
        elif feature.kind == "ids":
            lengths = torch.randint(0, 4, (rows,))
            offsets = lengths.cumsum(0) - lengths
            out[feature.name] = Bags(torch.randint(0, feature.size + 1, (int(lengths.sum()),)), offsets)
        else:
            out[feature.name] = torch.randn(rows, feature.size)
    return out
