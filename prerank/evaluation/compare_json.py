"""The shape of `compare.json`: runs of MLflow held against each other, their groups and what was left out."""

from typing import NotRequired, TypedDict

Values = list[float | None]
"""`[lo, hi]` of a mean or `[difference, lo, hi]`; None where no request defines it."""


class Known(TypedDict):
    """What a run was, whether or not it can be compared."""

    run_id: str
    name: str
    group: str
    """The id of its parent; empty where it has none."""
    sampler: str
    space: str
    status: str
    stopped_early: bool
    epochs: int | None
    curve: list[list[float]]
    """`[epoch, validation recall at K]`."""


class Row(Known):
    """A run that has a table of requests."""

    latency_us: float | None
    fetch_us: float | None
    inference_us: float | None
    features: list[str] | None
    widths: list[int] | None
    params: dict[str, float | str | None]
    """Of the keys that were swept."""


class ComparedRow(Row):
    label: str
    """A name that no other has."""
    vs_base: dict[str, Values] | None
    """By metric, paired by request; None of the base itself."""
    recall: float
    recall_ci: list[float]
    """95%."""
    hit_rate: float | None
    hit_rate_ci: Values
    front: bool
    """Whether it is on the Pareto front of all rows."""


class Group(TypedDict):
    """The runs of one parent."""

    id: str
    name: str
    space: str
    sampler: str
    scheduler: str
    metric: str
    runs: int
    left_out: int
    epochs: int


class Front(Group):
    front: list[str]
    """Labels, the quickest first."""
    hypervolume: float | None
    """The share that the front dominates of the rectangle between the `reference` and the best of each."""


class Pair(TypedDict):
    """Two fronts, by the names of their groups."""

    a: str
    b: str
    dominates: str | None
    """Which of them, or None."""
    covered_of_a: int
    """Points of a's front that b's has covered."""
    covered_of_b: int
    difference: Values | None
    """Of the hypervolumes, a - b, over the requests."""


class Reference(TypedDict):
    """The least recall and the longest latency of all rows."""

    recall: float
    latency_us: float


class Fronts(TypedDict):
    groups: list[Front]
    pairs: list[Pair]
    reference: NotRequired[Reference]
    """Not where no row was timed."""


class Compared(Fronts):
    rows: list[ComparedRow]
    """The best mean recall first."""
    base: str
    base_given: bool
    requests: int
    seed: int


class LeftOut(Known):
    reason: str


class Results(Compared):
    k: int
    """The cut-off of recall and hit-rate."""
    requests_of: str
    """`validation` or `test`."""
    swept: list[str]
    """The keys that `params` has."""
    left_out: list[LeftOut]
    """Runs that could not be compared."""
    mlflow: str
    command: NotRequired[str]
