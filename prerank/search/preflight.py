"""What a search needs, looked up in the schema and the options before there are samples or a latency table."""

from prerank.core.config import widths
from prerank.core.errors import InputError
from prerank.latency.formula import fetch_us
from prerank.latency.options import Latency
from prerank.logs.schema import Schema
from prerank.models.options import Distill
from prerank.search.found import Found
from prerank.search.options import Search
from prerank.search.spec import Spec


def check_search(search: Search, latency: Latency, distill: Distill, *, name: str) -> None:
    """Raises InputError naming the key whose value makes no sense, by itself or with the others."""
    search.check(name)
    latency.check(name)
    if search.joint and not distill.active:
        raise InputError(f"{name}: search.joint distils the ranking network: give distill.score a weight")
    if search.joint and min(widths(search.ranking_widths), default=0) < 0:
        raise InputError(f"{name}: search.ranking_widths must be 0 or more, got {search.ranking_widths!r}")


def check_features(schema: Schema, chosen: tuple[str, ...], *, budget_us: float | None) -> tuple[str, ...]:
    """The features of a student: `chosen`, or those that the schema would have it take.

    Raises InputError where a name is unknown, a feature is not to be had when pre-ranking serves or nothing tells one
    candidate from another, of these features or of those that a search chooses from, and where not even the cheapest
    feature of a candidate is fetched within the budget.
    """
    where = "--features" if chosen else "schema.json: hand_picked"
    features = schema.select(chosen or schema.student_features, where=where)
    served = [feature for feature in schema.features if not feature.teacher_only]
    for feature in features:
        if feature.teacher_only:
            raise InputError(f"{where}: {feature.name!r} is teacher_only: not to be had when pre-ranking serves")
    for what, some in ((where, features), ("schema.json: without those that are teacher_only", served)):
        if all(feature.of_request for feature in some):
            raise InputError(f"{what}: no feature of an item or cross side: nothing tells one candidate from another")
    cheapest_us = min(fetch_us([feature], schema.fetch) for feature in served if not feature.of_request)
    if budget_us is not None and budget_us <= cheapest_us:
        raise InputError(
            f"--budget-us {budget_us:g}: the cheapest feature of a candidate takes {cheapest_us:g} µs to fetch, and a "
            "network comes on top; raise it"
        )
    return tuple(feature.name for feature in features)


def check_budget(spec: Spec, schema: Schema) -> None:
    """Raises InputError where not even the cheapest that the search may come to fits its budget."""
    searched = [[0.0] * len(spec.candidates)] * spec.search.layers
    log_p = searched if spec.searches_widths else spec.fixed_log_p()
    Found(spec, [], (0.0,) * len(spec.arm.features), log_p).derive(schema)  # of nothing that it values: the cheapest
