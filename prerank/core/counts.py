"""What was read, built and dropped, and why: nested dictionaries of numbers that parts of a job return and add up."""

from collections.abc import Mapping
from typing import NotRequired, Protocol, Self, TypedDict, TypeVar, cast

from prerank.core.errors import InputError

FAULTS = {
    "lists": ("null_key", "duplicate_item", "positions_not_a_permutation", "request_spans_hours"),
    "impressions": (
        *("impression_null_key", "impression_null_click", "impression_without_list", "impression_not_in_list"),
    ),
}
CURES = {
    "request_spans_hours": "rows of one request_id lie 6 hours or more apart: make ids unique over all days",
    "impression_null_click": "clicked is null: write false where nothing was clicked",
    "duplicate_item": "an item stands twice in a list: look for copies of files, or rows that were appended twice",
    "impression_without_list": "their request_id is in no row of fine_lists/: is a file of it missing?",
    "impression_not_in_list": "their item_id is in no row of that request: is it written alike in all tables?",
    "positions_not_a_permutation": "fine_position is null, below 0, or the same for two items of a request",
}
"""What a fault that is not plain from its name means, and what to do."""


class Number(TypedDict):
    """How many rows, and of how many requests."""

    rows: int
    requests: int


class Read(Number):
    impressions: int


class Checked(TypedDict):
    """Of a table of the logs."""

    dropped: dict[str, Number]
    """By reason."""
    noted: dict[str, Number]
    """What is worth knowing, and kept."""
    read: Read


class Labelled(TypedDict):
    """Of a label: the requests that have it, and among the exposed items those that have it and those that do not."""

    requests: int
    true: int
    false: int


class Drawn(TypedDict):
    """Of pools and pairs."""

    built: Number
    pairs: dict[str, int]
    """By strategy."""
    requests_with_pairs: dict[str, int]
    requests_with_click: NotRequired[int]
    """Of those built; samples of earlier versions do not say."""
    labels: NotRequired[dict[str, Labelled]]
    """Of the training days' lists, where the logs have labels beside the click."""
    dropped: dict[str, Number]
    noted: dict[str, Number]


class OfFeatures(TypedDict):
    """What was found in the features of some requests."""

    features: dict[str, dict[str, int]]
    """By fault, by feature: its elements that have it, or requests where it `varies_within_request`."""
    elements: dict[str, int]
    """All of a feature."""
    requests: int


class Built(Checked):
    """Of a build of samples: what was read of the fine lists, and what came of them."""

    built: Number
    pairs: dict[str, int]
    requests_with_pairs: dict[str, int]
    requests_with_click: NotRequired[int]
    labels: NotRequired[dict[str, Labelled]]
    features: dict[str, dict[str, int]]
    """By fault, by feature, of the training requests: its elements that have it, or requests it varies within."""
    elements: NotRequired[dict[str, int]]
    """All of a feature; samples of earlier versions do not say, nor do they of the validation."""
    validation: NotRequired[OfFeatures]
    candidates: NotRequired[Checked]


class Leaf(Protocol):
    """A number, or moments."""

    def __add__(self, other: Self, /) -> Self: ...


Counts = TypeVar("Counts", bound=Mapping[str, object])


def count(counts: dict[str, Number], reason: str, rows: int, requests: int) -> None:
    if rows:
        merge(counts, {reason: {"rows": rows, "requests": requests}})


def merge(total: Counts, part: Mapping[str, object]) -> Counts:
    """Adds the leaves of `part` (numbers, moments) to those of `total`, in place."""
    branches, leaves = cast("dict[str, dict[str, object]]", total), cast("dict[str, Leaf]", total)
    for key, value in part.items():
        if isinstance(value, dict):
            merge(branches.setdefault(key, {}), value)
        else:
            leaf = cast("Leaf", value)
            leaves[key] = leaves[key] + leaf if key in leaves else leaf
    return total


def check_dropped(counts: Checked | Built, most: float, table: str = "fine_lists") -> None:
    """Raises InputError where faults cost more than this share of the rows of a table, or of its impressions.

    `table` is the one whose rows were counted; what a build counts of candidates/ lies within, and is checked too.
    """
    of = "" if table == "fine_lists" else f" of {table}"
    read = counts["read"]
    for name, rows, reasons in (
        (table, read["rows"], FAULTS["lists"]),
        (f"impressions{of}", read["impressions"], FAULTS["impressions"]),
    ):
        faults = {reason: counts["dropped"][reason]["rows"] for reason in reasons if reason in counts["dropped"]}
        if sum(faults.values()) > most * rows:
            found = ", ".join(f"{reason} {n:,}" for reason, n in faults.items())
            cures = "".join(f"; {CURES[reason]}" for reason in faults if reason in CURES)
            raise InputError(
                f"{name}: {sum(faults.values()):,} of {rows:,} rows dropped for faults ({found}), more than "
                f"max_dropped {most:g}; correct the logs, or allow more{cures}"
            )
    if "candidates" in counts:
        check_dropped(counts["candidates"], most, "candidates")


def check_scores(counts: Checked | Built) -> None:
    """Raises InputError where fine_score rises with fine_position in most requests: one of the two is upside down."""
    against = counts["noted"].get("fine_score_against_position", {"requests": 0})["requests"]
    requests = counts["read"]["requests"]
    if 2 * against > requests:
        raise InputError(
            f"fine_lists: fine_score rises with fine_position in {against:,} of {requests:,} requests; expected the "
            "highest score at position 0: negate a score that is a cost, or leave the wrong one of the columns out"
        )


def check_labels(counts: Built) -> None:
    """Raises InputError for a label that all exposed items of the training days have, or none."""
    for name, found in counts.get("labels", {}).items():
        if not found["true"] or not found["false"]:
            raise InputError(
                f"impressions: label {name!r} is {bool(found['true'])} for all exposed items of the training days: "
                "there is nothing to learn from it; correct the column, bring more days, or leave it out of 'labels' "
                "in schema.json"
            )


def said_of_lists(counts: Checked | Built, days: int, held_back: Mapping[str, int]) -> list[str]:
    """A line for each thing about the lists of so many days that may not be as it was meant.

    held_back: days of the `validation` and of the `test`.
    """
    requests, said = counts["read"]["requests"], list[str]()

    def noted(reason: str) -> int:
        return counts["noted"].get(reason, {"requests": 0})["requests"]

    for name, n in held_back.items():
        found = noted(f"{name}_day")
        if 10 * found * days < n * requests:
            said.append(
                f"note: the days of the {name} have {found:,} of {requests:,} requests, an average day "
                f"{requests / days:,.0f}: where the last day is not complete, leave it out of the logs"
            )
    if quiet := noted("without_impression"):
        said.append(
            f"note: {quiet:,} of {requests:,} requests have no impression; where more of them was shown, files of "
            "impressions/ are missing, or their request_id is written otherwise"
        )
    if 2 * (alike := noted("fine_score_one_value")) > requests:
        said.append(f"note: fine_score is one value in {alike:,} of {requests:,} requests, which tells nothing apart")
    if 10 * (against := noted("fine_score_against_position")) > requests:
        said.append(
            f"note: fine_score rises with fine_position in {against:,} of {requests:,} requests: is it what the lists "
            "were ordered by?"
        )
    return said


def lines(counts: Built) -> list[tuple[str, int, int]]:
    """(what, requests, rows or pairs) of a build of samples, for a table."""
    out = _found(counts, "")
    out.append(("built", counts["built"]["requests"], counts["built"]["rows"]))
    out += [(f"pairs: {name}", counts["requests_with_pairs"][name], n) for name, n in counts["pairs"].items()]
    out += [(f"label: {name}", n["requests"], n["true"]) for name, n in counts.get("labels", {}).items()]
    return out + (_found(counts["candidates"], "candidates ") if "candidates" in counts else [])


def _found(counts: Checked, prefix: str) -> list[tuple[str, int, int]]:
    out = [(f"{prefix}read", counts["read"]["requests"], counts["read"]["rows"])]
    for title, numbers in (("dropped", counts["dropped"]), ("noted", counts["noted"])):
        out += [(f"{prefix}{title}: {why}", n["requests"], n["rows"]) for why, n in sorted(numbers.items())]
    return out
