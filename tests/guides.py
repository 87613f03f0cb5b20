"""The commands that guides show: read from their text, and parsed by the workflows that they name."""

import importlib
import re
import shlex
import typing
from typing import Any

from prerank.core import cli


def commands(guide: str) -> list[str]:
    """The commands in the `sh` blocks of a guide, each on one line."""
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", guide, re.DOTALL | re.MULTILINE))
    return re.sub(r"\\\n\s*|(?<=\|)\n\s*", " ", blocks).splitlines()


def parsed(command: str) -> Any:
    """The configuration that the parser of its workflow makes of `python -m workflows.NAME ...`."""
    name, flags = re.search(r"python -m workflows\.(\w+)(.*)", command).groups()
    main = importlib.import_module(f"workflows.{name}").main
    config_type = next(iter(typing.get_type_hints(main).values()))
    return cli.parse(config_type, shlex.split(flags.replace("$PWD", "/here"), comments=True))
