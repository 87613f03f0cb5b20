"""What is logged, as data: an entry is one call to MLflow, sent at once or kept as a line of JSON until it can be."""

from typing import TypedDict


class What(TypedDict, total=False):
    """One of the first seven keys, and what belongs to it; none asks for the run's id alone."""

    create: str
    """A run by this name, with `tags`, begun at `time`."""
    metrics: list[tuple[str, float, int, int]]
    """Name, value, milliseconds since 1970, step."""
    params: dict[str, str]
    tags: dict[str, str]
    artifact: str | None
    """The folder among the run's artifacts that the file goes to; None for the top."""
    ended: str
    """As FINISHED, FAILED or KILLED, at `time`."""
    status: str
    time: int
    """Milliseconds since 1970."""


class Entry(What):
    run: str
    experiment: str


class Waiting(Entry, total=False):
    """As it stands in the queue."""

    file: str
    """The copy of what belongs to the entry, within the queue's folder."""
    because: str
    """Of an entry that was refused: why."""
