"""The shape of a pipeline's `results.json`, and what its pages and tables read of it."""

from collections.abc import Sequence
from typing import Literal, NotRequired, Required, TypedDict

from prerank.evaluation.intervals import Curve
from prerank.evaluation.summed import Facts
from prerank.reports.words import Edges, is_whole, number
from prerank.search.confirmed import Front
from prerank.search.method import SearchEpoch
from prerank.search.spec import FoundArch


class Row(TypedDict, total=False):
    """A model. Its metrics stand beside these keys, such as `recall_at_150` with `recall_at_150_ci` [lo, hi]:
    `words.number` and `words.edges` read them."""

    name: Required[str]
    describes: str
    requests: int
    slices: dict[str, dict[str, object]]
    """The same metrics over the `exposed` and the `unexposed` candidates."""
    curve: Curve | None
    features: list[str]
    widths: list[int]
    fetch_us: float
    inference_us: float
    inference_p99_us: float
    latency_us: float
    vs_base: dict[str, Edges]
    """By metric `[difference, lo, hi]`, paired by request."""
    vs_all: dict[str, Edges]
    """Of the searched student: against the same techniques on the base's network."""
    history: list[dict[str, float]] | None
    """Of each epoch `epoch`, the parts of the loss and the metrics of the validation day."""


class LogFacts(Facts):
    """What was evaluated on, and where it lies."""

    path: str


class FeatureFacts(TypedDict):
    """What is read of a feature of the schema."""

    name: str
    source: str
    fetch_us: float


class SearchFacts(TypedDict):
    arch: FoundArch
    history: list[SearchEpoch]
    widths: list[int]
    """The candidates of each layer."""
    front: NotRequired[Front]
    """Of a search by proposals."""
    features: list[FeatureFacts]
    """Those to choose from."""


class Results(TypedDict, total=False):
    logs: Required[LogFacts]
    rows: Required[list[Row]]
    """The students, `base` first, and the teacher last."""
    teacher_groups: dict[str, float | None]
    """The hit-rate of the teacher, and of models that see one group of its features."""
    commands: list[str]
    mlflow: str
    key: str
    """What the evaluation followed from."""
    search: SearchFacts


def students(results: Results, *, base: bool = False) -> list[Row]:
    """The students that are compared with the base."""
    return [row for row in results["rows"] if row["name"] != "teacher" and (base or row["name"] != "base")]


def named(results: Results, name: str) -> Row | None:
    return next((row for row in results["rows"] if row["name"] == name), None)


def blind_draw(results: Results) -> float | None:
    """The recall, and the hit-rate, of a blind draw: the evaluation is of the same requests in every row."""
    key = f"random_recall_at_{results['logs']['k']}"
    return next((value for row in results["rows"] if (value := number(row, key)) is not None), None)


def vs_base(row: Row, key: str) -> Sequence[float] | None:
    """`[difference, lo, hi]`; None where there is none, or where it says nothing: the teacher's recall of itself."""
    interval = (row.get("vs_base") or {}).get(key)
    if row["name"] == "base" or (row["name"] == "teacher" and key.startswith("recall_")):
        return None
    return interval if is_whole(interval) else None


def vs_all(row: Row, key: str) -> Sequence[float] | None:
    """`[difference, lo, hi]` of the searched student against `all`, the same techniques on the base's network."""
    interval = (row.get("vs_all") or {}).get(key)
    return interval if is_whole(interval) else None


def series_of(
    results: Results, metric: Literal["recall", "hit_rate"], skip: str = ""
) -> dict[str, list[tuple[float, float]]]:
    """`(k, metric in percent)` of each row that has a curve, but for `skip`."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in results["rows"]:
        curve = row.get("curve")
        if row["name"] == skip or not curve:
            continue
        means = zip(curve["k"], curve.get(metric) or [], strict=False)
        series[row["name"]] = [(k, 100 * mean) for k, mean in means if mean is not None]
    return {name: points for name, points in series.items() if points}
