"""Runs in MLflow, found again, and what waits while its server is down."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prerank.tracking.runs import run as run


def __getattr__(name: str) -> object:
    """`run`, when it is asked for: MLflow takes a second to import."""
    if name != "run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from prerank.tracking.runs import run

    return run
