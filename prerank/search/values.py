"""What features are worth in the metric itself, on whole held-out lists, to a student that is trained already.

Shapes: R requests of a list's part, I items over all of them, H columns of the first layer.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from prerank.logs.schema import Feature
from prerank.models.batch import Batch
from prerank.models.losses import Segments, means
from prerank.models.ranker import Ranker
from prerank.search.short import Held, Lists

CANDIDATES = 100_000
"""That features are valued on, or a few more: each is scored as often as there are features."""
FOLDS = 2
"""What a feature could add is fitted on every other request, and measured on the rest."""
DIRECTIONS = 6
"""Of the last layer's representations, with which the inputs of a feature are multiplied."""
RIDGE = 1e-3
"""Of that fit, as a share of the mean variance."""


@torch.inference_mode()
def lost(ranker: Ranker, held: Held, features: tuple[Feature, ...], seed: int) -> dict[str, float]:
    """By feature of the ranker what the metric loses when its values are shuffled, the mean over the requests.

    A request's values are shuffled among the requests, an item's among all items (Breiman, 2001), but what is compared
    is the metric of whole lists, not a loss of drawn items: a feature that orders the middle of the list counts too.
    """
    generator = torch.Generator().manual_seed(seed)
    sums, count = dict.fromkeys((feature.name for feature in features), 0.0), 0
    for part in _some(held):
        batch = part.batch
        x_R, x_I = ranker.embed(batch.features)
        first, n = ranker.linears[0].weight, ranker.embed.widths[0]
        before_IH = F.linear(x_I, first[:, n:], ranker.linears[0].bias)
        if x_R is not None:
            before_IH = before_IH + F.linear(x_R, first[:, :n])[batch.request_I]
        metric_R = part.metric(_after_first(ranker, before_IH))
        counts_R = ~np.isnan(metric_R)
        count += int(counts_R.sum())
        orders = [torch.randperm(0 if x is None else len(x), generator=generator) for x in (x_R, x_I)]
        for feature in features:
            columns = ranker.embed.columns[feature.name]
            x, order = (x_R, orders[0]) if feature.of_request else (x_I, orders[1])
            assert x is not None
            of_x = columns if feature.of_request else slice(columns.start - n, columns.stop - n)
            here = x[:, of_x]
            change = F.linear(here[order] - here, first[:, columns])
            change = change[batch.request_I] if feature.of_request else change
            after_R = part.metric(_after_first(ranker, before_IH + change))
            sums[feature.name] += float((metric_R - after_R)[counts_R].sum())
    return {name: total / max(count, 1) for name, total in sums.items()}


@torch.inference_mode()
def added(ranker: Ranker, full: Ranker, held: Held, others: tuple[Feature, ...]) -> dict[str, float]:
    """By feature that the ranker does not read what the metric gains when a line of it joins the score.

    The line is the least squares of what the teacher's scores have beyond the ranker's, within each request, from the
    feature's inputs, their squares and their products with what the ranker's last layer holds; it is fitted on half of
    the requests and counts on the other half. `full` has learned the embeddings of all features' ids.
    """
    sums, count = dict.fromkeys((feature.name for feature in others), 0.0), 0
    for part in _some(held):
        batch = part.batch
        if part.teacher_N is None:
            continue
        score_I, repr_ID = ranker(batch.features, batch.request_I)
        metric_R = part.metric(score_I)
        counts_R = ~np.isnan(metric_R)
        count += int(counts_R.sum())
        missed_I = _centred((torch.from_numpy(part.teacher_N) - score_I)[:, None], batch)[:, 0]
        with_IE = _directions(repr_ID, batch)
        x_R, x_I = full.embed(batch.features)
        for feature in others:
            columns, n = full.embed.columns[feature.name], full.embed.widths[0]
            if feature.of_request:
                assert x_R is not None
                x_ID = x_R[:, columns][batch.request_I]
            else:
                x_ID = x_I[:, columns.start - n : columns.stop - n]
            products_IE = (x_ID[:, :, None] * with_IE[:, None, :]).flatten(1)
            design_IE = _centred(torch.cat([x_ID, x_ID**2, products_IE], dim=1), batch)
            better_I = score_I + _fitted(design_IE, missed_I, batch)
            sums[feature.name] += float((part.metric(better_I) - metric_R)[counts_R].sum())
    return {name: total / max(count, 1) for name, total in sums.items()}


def _some(held: Held) -> Iterator[Lists]:
    scored = 0
    for part in held.lists:
        if scored >= CANDIDATES:
            return
        scored += len(part.batch.request_I)
        yield part


def _directions(repr_ID: Tensor, batch: Batch) -> Tensor:
    """The representations within their requests, along their `DIRECTIONS` of most variance, to unit variance."""
    centred_ID = _centred(repr_ID, batch)
    axes_DE = torch.linalg.eigh(centred_ID.T @ centred_ID / len(centred_ID))[1][:, -DIRECTIONS:]
    along_IE = centred_ID @ axes_DE
    return along_IE / along_IE.std(dim=0).clamp(min=1e-6)


def _fitted(design_IE: Tensor, target_I: Tensor, batch: Batch) -> Tensor:
    """Of each request what the ridge regression on the requests of the other folds says of it."""
    out_I = torch.zeros_like(target_I)
    for fold in range(FOLDS):
        here_I = batch.request_I % FOLDS == fold
        x_IE, y_I = design_IE[~here_I], target_I[~here_I]
        gram_EE = x_IE.T @ x_IE
        gram_EE += RIDGE * gram_EE.diagonal().mean().clamp(min=1e-6) * torch.eye(len(gram_EE))
        out_I[here_I] = design_IE[here_I] @ torch.linalg.solve(gram_EE, x_IE.T @ y_I)
    return out_I


def _centred(x_ID: Tensor, batch: Batch) -> Tensor:
    """Less the mean over the request."""
    return x_ID - means(x_ID, Segments(batch.request_I, batch.requests))[batch.request_I]


def _after_first(ranker: Ranker, first_IH: Tensor) -> Tensor:
    """score_I from what the first layer gives before its ReLU."""
    h = first_IH
    for layer in ranker.linears[1:]:
        h = layer(torch.relu(h))
    return h.squeeze(1)
