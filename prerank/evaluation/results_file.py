"""The file of an evaluation's results: what is there already, and what is to stand beside it."""

import json
from pathlib import Path

from prerank.core.errors import InputError


def beside(out: Path) -> Path:
    """The table of requests of the results in `out`, named after all of its name but `.json`.

    Raises InputError where that is the table of other results: of `x.json` beside `x`.
    """
    stem = out.name.removesuffix(".json") or out.name
    twin = out.with_name(stem if stem != out.name else f"{out.name}.json")
    if twin.is_file():
        raise InputError(f"{out}: its {stem}.requests.parquet is that of {twin.name}; name another --out")
    return out.with_name(f"{stem}.requests.parquet")


def finished(out: Path, key: str) -> dict[str, object] | None:
    """The results in `out` if they are of this very evaluation; raises InputError if they are of another."""
    if not out.exists():
        return None
    try:
        results = json.loads(out.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{out}: is there and no results of this program ({error}); name another --out") from error
    if not isinstance(results, dict) or results.get("key") != key:
        raise InputError(f"{out}: already holds the results of other logs, models or options; name another --out")
    return results
