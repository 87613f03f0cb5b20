"""What a ranker costs to serve: the fetch of its features and its layers, from a measured table; exact and expected.

Shapes: M features, S slots of hidden layers, C candidate widths of a slot; all times are microseconds for one request.
"""

import itertools
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from prerank.latency.table import HEAD, Table
from prerank.logs.schema import Feature


def item_width(features: Iterable[Feature]) -> int:
    """Inputs of the first layer that each candidate has of its own; a request's are multiplied once, in `inputs_us`."""
    return sum(feature.width for feature in features if not feature.of_request)


def fetch_us(features: Iterable[Feature], fetch: Mapping[str, Mapping[str, float]]) -> float:
    """Time to fetch a kept set: max over the sources of (max of fetch_us + per_feature_us · number); 0 for none.

    Sources are fetched in parallel (AutoFAS, "Feature latency", for any number of sources).
    """
    groups: dict[str, list[float]] = {}
    for feature in features:
        groups.setdefault(feature.source, []).append(feature.fetch_us)
    return max((max(us) + fetch[source]["per_feature_us"] * len(us) for source, us in groups.items()), default=0.0)


def inference_us(table: Table, features: Iterable[Feature], widths: Iterable[int]) -> float:
    """Overhead + the inputs + T along the layers, skipping the widths that are 0, up to the one score.

    Raises InputError for features and widths that the table does not know.
    """
    features = tuple(features)
    table.check(0, features=features)
    chain = [item_width(features), *(width for width in widths if width), HEAD]
    layers = sum(table.at(width_in, width_out) for width_in, width_out in itertools.pairwise(chain))
    return table.overhead_us + sum(table.inputs_us[feature.name] for feature in features) + layers


def latency_us(
    table: Table, features: Iterable[Feature], fetch: Mapping[str, Mapping[str, float]], widths: Iterable[int]
) -> float:
    """Fetch, then inference."""
    return times_us(table, features, fetch, widths)["latency_us"]


def times_us(
    table: Table, features: Iterable[Feature], fetch: Mapping[str, Mapping[str, float]], widths: Iterable[int]
) -> dict[str, float]:
    """`fetch_us`, `inference_us` and their sum, `latency_us`."""
    features = tuple(features)
    times = {"fetch_us": float(fetch_us(features, fetch)), "inference_us": float(inference_us(table, features, widths))}
    return times | {"latency_us": sum(times.values())}


def expected_fetch_us(
    theta_M: Tensor,
    features: tuple[Feature, ...],
    fetch: Mapping[str, Mapping[str, float]],
    temperature: float,
) -> Tensor:
    """E[fetch] of features that are kept with probability θ: max over the sources of (max of θ_m L_m + β Σ θ_m).

    Both maxima are straight-through: the value is the hard maximum, so that a one-hot θ gives `fetch_us` exactly (a
    log-sum-exp would lie above it); the gradient is that of temperature · log Σ exp(· / temperature), a softmax over
    all of a source's features and over the sources, so that more than the one slowest feature learns. `temperature`
    is in microseconds: how far below the slowest a feature may be and still feel the penalty.
    """
    sources = sorted({feature.source for feature in features})
    member_GM = theta_M.new_tensor([[f.source == source for f in features] for source in sources], dtype=torch.bool)
    fetch_M = theta_M.new_tensor([feature.fetch_us for feature in features])
    per_feature_G = theta_M.new_tensor([fetch[source]["per_feature_us"] for source in sources])
    slowest_G = _straight_through_max((theta_M * fetch_M).where(member_GM, -torch.inf), temperature)
    return _straight_through_max(slowest_G + per_feature_G * (member_GM * theta_M).sum(dim=1), temperature)


def _straight_through_max(x: Tensor, temperature: float) -> Tensor:
    """Over the last dimension: the value of the maximum, the gradient of the log-sum-exp."""
    soft = temperature * torch.logsumexp(x / temperature, dim=-1)
    return x.amax(dim=-1).detach() + (soft - soft.detach())


def expected_inference_us(
    theta_M: Tensor, p_SC: Tensor, table: Table, features: tuple[Feature, ...], widths_C: tuple[int, ...]
) -> Tensor:
    """E[inference] of a super network whose slot s takes the width c with probability p_SC, independently.

    AutoFAS's recursion E_k^{l+1} = Σ_j p_j (E_j^l + T[dim(j) -> dim(k)]), written over the distribution P of the width
    that reaches a slot, since the identity (0) passes on the width that came in: a slot adds Σ_j P_j Σ_k p_k T[j, k],
    and then P'_k = p_k + P_k p_0. It is the expectation over all p's networks of `inference_us`, and equal to it where
    p is one-hot; θ enters by the features' inputs and by D(θ) = Σ θ_m width_m, at which T[D, k] is read between the
    measured widths (exact where θ is one-hot).

    Raises InputError for features and widths that the table does not know.
    """
    hidden = [c for c, width in enumerate(widths_C) if width]
    identity = [c for c, width in enumerate(widths_C) if not width]
    outs = [*(widths_C[c] for c in hidden), HEAD]
    table.check(item_width(features), outs, features)
    inputs_M = theta_M.new_tensor([table.inputs_us[feature.name] for feature in features])
    width_M = theta_M.new_tensor([0 if feature.of_request else feature.width for feature in features])
    rows_us = [[table.at(width_in, out) for out in outs] for width_in in outs[:-1]]

    # States: 0 is the width of the items' inputs, 1.. are the hidden candidates.
    first_us = _between(table, theta_M @ width_M, outs)
    cost_KO = torch.cat([first_us[None], theta_M.new_tensor(rows_us).view(-1, len(outs))])
    choose_SK = functional.pad(p_SC[:, hidden], (1, 0))
    skip_S = p_SC[:, identity].sum(dim=1)
    reach_K = p_SC.new_tensor([1.0] + [0.0] * len(hidden))
    reached = []
    for choose_K, skip in zip(choose_SK, skip_S, strict=True):
        reached.append(reach_K)
        reach_K = reach_K * skip + choose_K
    hidden_us = ((torch.stack(reached) @ cost_KO[:, :-1]) * choose_SK[:, 1:]).sum() if reached else 0.0
    return table.overhead_us + theta_M @ inputs_M + hidden_us + reach_K @ cost_KO[:, -1]


def _between(table: Table, width_in: Tensor, outs: list[int]) -> Tensor:
    """T[in, outs] at a width in that need not be whole, linear between the measured ones."""
    columns = [table.outs.index(out) for out in outs]
    grid_IO = width_in.new_tensor([[row[column] for column in columns] for row in table.layer_us])
    ins_I = width_in.new_tensor(table.ins)
    high = torch.searchsorted(ins_I, width_in.detach()).clamp(max=len(table.ins) - 1)
    low = (high - 1).clamp(min=0)
    part = ((width_in - ins_I[low]) / (ins_I[high] - ins_I[low]).clamp(min=1)).clamp(0, 1)
    return grid_IO[low] + part * (grid_IO[high] - grid_IO[low])
