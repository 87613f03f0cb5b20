"""Two towers as they are served: the request's network, the item's, and the vectors of the items that are known.

Shapes: I items, D the width of a vector.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from prerank.core.hashing import hash_ids
from prerank.core.nested import flat
from prerank.logs.schema import Feature
from prerank.models.stats import Stats
from prerank.models.towers import TwoTower, tower
from prerank.samples.batches import scoring_batch
from prerank.samples.files import files_of
from prerank.samples.reader import sequential
from prerank.serving.parity import Feed, Parity, compare, hard_cases, real_cases
from prerank.serving.served import tower_graph
from prerank.serving.session import open_session

FILES = ("request_tower.onnx", "item_tower.onnx")
VECTORS = "item_vectors.parquet"


def write_towers(
    folder: Path, towers: TwoTower, features: tuple[Feature, ...], stats: Stats, samples: Path | None
) -> Parity:
    """Writes both networks and, where there are samples, VECTORS: `item_id` and `vector` [D] of each item of the
    validation day, by the last of its rows there.

    Returns how far the product of what both say is from torch's score, of hard requests and of those of the samples;
    raises RuntimeError where that is too far.
    """
    sessions: list[onnxruntime.InferenceSession] = []
    for of_item, name in enumerate(FILES):
        graph = tower_graph(towers, features, of_item)
        (folder / name).write_bytes(graph.SerializeToString())
        sessions.append(open_session(graph, 1))

    def score(feed: Feed) -> np.ndarray:
        u_1D, v_ND = (
            cast(np.ndarray, session.run(None, {each.name: feed[each.name] for each in session.get_inputs()})[0])
            for session in sessions
        )
        return v_ND @ u_1D[0]

    cases = list(hard_cases(towers, features, stats))
    if samples:
        cases += real_cases(towers, features, samples)
        pq.write_table(item_vectors(towers, features, samples), folder / VECTORS)
    return compare(score, cases)


def item_vectors(towers: TwoTower, features: tuple[Feature, ...], samples: Path) -> pa.Table:
    """`item_id` and `vector`, float32 [D], of each item of the validation day of the samples, ascending by hash."""
    of_item = tuple(feature for feature in features if not feature.of_request)
    ids, vectors = map(list, zip(*_vectors(towers, of_item, samples), strict=True))
    item, vector_ID = pa.chunked_array(ids).combine_chunks(), np.concatenate(vectors)
    key = hash_ids(item)
    _, last = np.unique(key[::-1], return_index=True)
    at = len(key) - 1 - last
    values = pa.FixedSizeListArray.from_arrays(pa.array(vector_ID[at].ravel()), vector_ID.shape[1])
    return pa.table({"item_id": item.take(pa.array(at)), "vector": values})


def _vectors(towers: TwoTower, of_item: tuple[Feature, ...], samples: Path) -> Iterator[tuple[pa.Array, np.ndarray]]:
    files = files_of(samples, "val")
    names: Iterable[str] = (*(feature.name for feature in of_item), "item_id")
    for table in sequential(files, tuple(names)):
        x_ID = towers.embed.side(scoring_batch(table, of_item).features, 1)
        assert x_ID is not None
        with torch.inference_mode():
            yield flat(table["item_id"]), tower(towers.item, x_ID).numpy()
