"""JSON that people write: no key stands twice, and what is no such file is said in one line."""

import json
from collections import Counter
from pathlib import Path
from typing import NoReturn

from prerank.core.errors import InputError

UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def load_json(path: Path, what: str = "") -> object:
    """What a JSON file holds; a byte order mark is passed over.

    Raises InputError, whose line begins with `what` or the path, where it cannot be read, is no JSON, has a key twice
    or a number that JSON does not have (NaN).
    """
    where = what or str(path)

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if twice:
            name = dict(pairs).get("name")
            of = f" in {name!r}" if isinstance(name, str) else ""
            raise InputError(f"{where}: key {twice[0]!r} is given twice{of}; keep one of them")
        return dict(pairs)

    def no_number(text: str) -> NoReturn:
        raise InputError(f"{where}: {text} is no number of JSON; write a finite one, or null")

    text = text_of(path, where)
    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=no_number)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error


def text_of(path: Path, where: str) -> str:
    """What a file of text holds; raises InputError, whose line begins with `where`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror or error}") from error
    try:
        return raw.decode("utf-16" if raw[:2] in UTF_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: byte {error.start} is not of {error.encoding.upper()}; save it as UTF-8") from error
