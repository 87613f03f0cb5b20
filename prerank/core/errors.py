"""The one exception that means: the input is at fault, not the code."""


class InputError(ValueError):
    """What is at fault (file, column, request, key), what was expected, and what to do about it.

    The command line prints the message alone, without a traceback, and exits with 2.
    """
