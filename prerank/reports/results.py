"""The shape of a pipeline's `results.json`, and what its pages and tables read of it."""

from collections.abc import Sequence
from typing import Literal, Required, TypedDict

from prerank.reports.words import Edges, is_whole, number


class Curve(TypedDict):
    """Means at several k; None where no request defines one."""

    k: list[int]
    recall: list[float | None]
    hit_rate: list[float | None]


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


class LogFacts(TypedDict, total=False):
    """What was evaluated on."""

    path: Required[str]
    k: Required[int]
    """Items that pre-ranking keeps; `m`: the teacher's top M that they are held against."""
    m: int
    space: str
    """`candidates`, or `fine_lists`."""
    test_from: str
    requests: int
    candidates: float
    """Of a request, their mean."""
    requests_at_most_k: int
    has_truth: bool
    dropped: dict[str, dict[str, int]]
    noted: dict[str, dict[str, int]]


class ArchFacts(TypedDict, total=False):
    """An arch.json: what a search found, and its times as predicted."""

    features: list[str]
    widths: list[int]
    fetch_us: float
    inference_us: float
    latency_us: float
    budget_us: float
    candidates: int
    threads: int
    latency_table: str


class SearchEpoch(TypedDict, total=False):
    """Where a search stood after an epoch, as far as its method tells."""

    epoch: Required[int]
    gates: dict[str, float]
    """Of each feature the probability that it is kept."""
    widths: list[list[float]]
    """Probabilities [slot][candidate]."""
    fetch_us: float
    inference_us: float
    latency_us: float
    gate_entropy: float
    width_entropy: float


class FeatureFacts(TypedDict):
    """What is read of a feature of the schema."""

    name: str
    source: str
    fetch_us: float


class SearchFacts(TypedDict, total=False):
    arch: ArchFacts
    history: list[SearchEpoch]
    widths: list[int]
    """The candidates of each layer."""
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


def arch_of(results: Results) -> ArchFacts:
    """What the search found; empty where there was none."""
    return results.get("search", {}).get("arch", {})


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
