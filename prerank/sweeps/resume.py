"""`sweep.json`: what a folder sweeps, so that the same command resumes it and no other does."""

import json
from collections.abc import Mapping
from pathlib import Path

from prerank.core.errors import InputError
from prerank.core.outputs import write_json

FORMAT = 2
"""Of the state that Ray Tune keeps of a sweep: pickles, which name classes of this project by their modules. Raise it
where one of these moves or changes; a sweep.json from before format 2 has none."""

ADDED = {"fusion": ""}
"""Options that sweeps from before there was a choice do not name, as they were then."""


def begin(out: Path, config: Mapping[str, object], *, resume: bool) -> None:
    """Notes what is swept; raises InputError where `out` holds another sweep, or `resume` does not say to go on.

    config: the whole configuration, by dotted key.
    """
    path = out / "sweep.json"
    now = {"format": FORMAT} | {key: value for key, value in config.items() if key != "resume"}
    if not path.is_file():
        if resume:
            raise InputError(f"--resume: {out} holds no sweep; leave the flag out to begin one")
        write_json(path, now)
        return
    was = {"format": 1} | ADDED | json.loads(path.read_text())
    if was["format"] != FORMAT:
        version = "an earlier version" if was["format"] < FORMAT else "a later version"
        raise InputError(
            f"{out}: a sweep of {version} of prerank, whose trials this one cannot go on with; finish it with that "
            "version, or begin anew in another --out"
        )
    for key in sorted({*was, *now}):
        if was.get(key) != now.get(key):
            changed = f"{key} was {was.get(key)!r}, now {now.get(key)!r}"
            raise InputError(f"{out}: holds another sweep: {changed}; name another --out")
    if not resume:
        raise InputError(f"{out}: holds this sweep already; go on with it by --resume, or name another --out")
