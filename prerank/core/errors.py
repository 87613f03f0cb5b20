"""The one exception that means: the input is at fault, not the code."""

import difflib


class InputError(ValueError):
    """What is at fault (file, column, request, key), what was expected, and what to do about it.

    The command line prints the message alone, without a traceback, and exits with 2.
    """


def nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; known are {', '.join(sorted(known)[:20])}"
