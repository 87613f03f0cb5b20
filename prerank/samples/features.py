"""What a build finds in the features: counted, told, and refused where a column says nothing.

Counts are of elements (numbers, or ids) of the items that are trained or validated on, and of requests where a feature
of the request varies.
"""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from prerank.core.counts import Built, OfFeatures
from prerank.core.errors import InputError
from prerank.core.nested import flat
from prerank.logs.outliers import StandIn
from prerank.logs.schema import Feature, Schema
from prerank.logs.statistics import Ends, Moments, of_one_value, rounded
from prerank.logs.types import is_list

VARIES = "varies_within_request"
FAULTS = ("not_finite", "declared_missing", "unknown_id", "far", VARIES)
"""By which `OfFeatures` counts, in the order in which they are told."""


def elements(samples: pa.Table, schema: Schema) -> dict[str, int]:
    """Numbers or ids of sample rows by feature, the missing and unknown ones included."""
    out = {}
    for feature in schema.features:
        values = samples[feature.name].combine_chunks()
        while is_list(values.type):
            values = flat(values)
        out[feature.name] = len(values)
    return out


def of_training(counts: Built) -> OfFeatures:
    """Its requests are those whose items were looked at: the ones without a pair are left out later."""
    requests = counts["built"]["requests"]
    if "no_pairs" in counts["dropped"]:
        requests += counts["dropped"]["no_pairs"]["requests"]
    return {"features": counts["features"], "elements": counts.get("elements", {}), "requests": requests}


def check_features(counts: Built, schema: Schema, most: float) -> None:
    """Raises InputError where a feature is missing of all training items, or varies within more than this share of the
    training requests, or of those of the validation."""
    found = of_training(counts)
    for feature in schema.features:
        where = f"feature {feature.name!r}"
        if found["elements"].get(feature.name) == _lost(found, feature):
            raise InputError(f"{where}: {_says_nothing(found, feature)}; or take the feature out of schema.json")
        for part, of in (("", found), ("validation ", counts.get("validation"))):
            varies = _number(of, VARIES, feature) if of else 0
            if of and varies > most * of["requests"]:
                raise InputError(
                    f"{where}: of the side {feature.side}, but differs between the items of {varies:,} of "
                    f"{of['requests']:,} {part}requests, more than max_dropped {most:g}; declare the side item or "
                    "cross in schema.json, or log one value a request"
                )


def _says_nothing(found: OfFeatures, feature: Feature) -> str:
    n, declared = found["elements"][feature.name], _number(found, "declared_missing", feature)
    also = f", {declared:,} of them declared missing" if declared else ""
    if not feature.dim:
        return f"all {n:,} values of the training items are missing (null, NaN or infinite{also}); correct the logs"
    if not n:
        return "no list of the training items holds an id; correct the logs"
    if feature.hash:
        return f"all {n:,} ids of the training items are null{also}; correct the logs"
    return (
        f"all {n:,} ids of the training items are unknown (null, or integers outside 0..{feature.size - 1}{also}); "
        'raise size, or set "hash": true to have integers hashed'
    )


def rows_of_features(counts: Built) -> Iterator[tuple[str, int | None, int | None]]:
    """(what, requests, elements) of all that was found, for a table."""
    for prefix, found in (("", of_training(counts)), ("validation ", counts.get("validation"))):
        for fault in FAULTS:
            for name, n in sorted(found["features"].get(fault, {}).items()) if found else ():
                yield f"{prefix}{fault}: {name}", n if fault == VARIES else None, None if fault == VARIES else n


def said_of_values(sums: Mapping[str, Moments], ids: Mapping[str, Ends]) -> list[str]:
    """A line for each feature whose values tell little apart, as they are or as float32."""
    said = [
        f"note: feature {name!r}: one value for all training items, which tells nothing apart; correct the logs, or "
        "take it out of schema.json"
        for name in sorted(of_one_value(sums, ids))
    ]
    for name, step in sorted(rounded(sums).items()):
        said.append(
            f"note: feature {name!r}: varies by little beside its size: as float32 its values are rounded to {step:g}; "
            "log it from another zero, such as a time since yesterday"
        )
    return said


def said_of_features(counts: Built, schema: Schema, likely: Mapping[str, StandIn]) -> list[str]:
    """A line for each feature of which much is lost or changed, with what to do about it."""
    said: list[str] = []
    for feature in schema.features:
        for part, found in (("training", of_training(counts)), ("validation", counts.get("validation"))):
            said += [f"note: feature {feature.name!r}: {what}" for what in _said(found, part, feature)] if found else []
        if feature.name in likely:
            value, share = f"{likely[feature.name]['value']:.7g}", likely[feature.name]["share"]
            said.append(
                f"note: feature {feature.name!r}: {value}, about {share:.1%} of the values, is far off all others; if "
                f'it is no number but a missing one, declare it by "missing": [{value}] in schema.json'
            )
    return said


def _said(found: OfFeatures, part: str, feature: Feature) -> Iterator[str]:
    n, lost = found["elements"].get(feature.name, 0), _lost(found, feature)
    if 2 * lost > n:
        beyond = feature.dim and not feature.hash and _number(found, "unknown_id", feature)
        cure = '; raise size, or set "hash": true, if they are integers beyond it' if beyond else ""
        what = f"ids of the {part} items are unknown" if feature.dim else f"values of the {part} items are missing"
        yield f"{lost:,} of {n:,} {what}{cure}"
    if far := _number(found, "far", feature):
        yield f"{far:,} of {n:,} values are absurdly far off the others; mean and deviation are taken without them"
    if varies := _number(found, VARIES, feature):
        yield (
            f"of the side {feature.side}, but differs between the items of {varies:,} of {found['requests']:,} {part} "
            "requests; the value of one item is taken for all"
        )


def _lost(found: OfFeatures, feature: Feature) -> int:
    """Elements that say nothing."""
    fault = "unknown_id" if feature.dim else "not_finite"
    return _number(found, fault, feature) + _number(found, "declared_missing", feature)


def _number(found: OfFeatures, fault: str, feature: Feature) -> int:
    return found["features"].get(fault, {}).get(feature.name, 0)
