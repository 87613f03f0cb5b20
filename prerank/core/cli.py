"""What the command lines share: flags by tyro, defaults from `--config FILE.yaml`, a fault of the input as one line."""

import argparse
import dataclasses
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tyro

from prerank.core.cluster.private import JOB_FOLDERS, causes
from prerank.core.config import apply, load_yaml
from prerank.core.errors import InputError
from prerank.core.storage import place

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
Result = TypeVar("Result")
FULL = (errno.ENOSPC, errno.EDQUOT)
SAID_FULL = ("database or disk is full", os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
"""Of errors without a number: SQLite's, and safetensors'."""


def run(main: Callable[[Config], Result], config_type: type[Config]) -> Result:
    """Parses `sys.argv` into `config_type`, calls `main` with it.

    Exits with 2 where the input is at fault or the disk is full, with 130 where SIGTERM or SIGINT ended it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which `ray job stop` sends; `start_ray` keeps it so
    out = None
    try:
        config = parse(config_type, sys.argv[1:])
        out = getattr(config, "out", None)
        refuse_lost(out)
        return main(config)
    except KeyboardInterrupt:
        print("error: stopped by a signal before the end", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        fault = _input_error(error) or _full_disk(error, out)
        if fault is None:
            raise
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(2)


def refuse_lost(out: Path | None) -> None:
    """Raises InputError where an output would lie in a Ray job's copy of its working directory, which Ray deletes."""
    if isinstance(out, Path) and {*JOB_FOLDERS} <= {*out.resolve().parts}:
        raise InputError(
            f"--out {out}: lies in the job's own copy of the working directory, which Ray deletes; give an absolute "
            "path that every node sees"
        )


def parse(config_type: type[Config], argv: list[str]) -> Config:
    """Flags over `--config FILE.yaml` over the defaults of `config_type`, whose docstring is the help."""
    pre = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    pre.add_argument("--config")
    known, rest = pre.parse_known_args(argv)
    required = [
        field.name
        for field in dataclasses.fields(config_type)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    default = config_type(**dict.fromkeys(required, tyro.MISSING))
    if known.config:
        default = apply(default, load_yaml(place(known.config)), where=f"--config {known.config}")
    return _placed(tyro.cli(config_type, args=rest, default=default, description=config_type.__doc__))


def _placed(config: Config) -> Config:
    """With its paths of object storage as such: flags and YAML make `Path("s3:/bucket/x")` of them."""
    paths = {name: value for name, value in vars(config).items() if isinstance(value, Path)}
    return dataclasses.replace(config, **{name: place(path) for name, path in paths.items()})


def _input_error(error: BaseException) -> InputError | None:
    return next((found for found in _within(error) if isinstance(found, InputError)), None)


def _full_disk(error: BaseException, out: Path | None) -> str | None:
    """What to say where a write found no space; neither Arrow nor SQLite says which file it was."""
    for found in _within(error):
        said = str(found).partition("\n")[0]
        if getattr(found, "errno", None) in FULL or any(words in said for words in SAID_FULL):
            return (
                f"{out}: no space left on its disk, or on that of Ray's temporary files; make room, and run the same "
                "command again"
            )
    return None


def _within(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it: Ray raises what happened in a worker as an error of its own, and keeps that."""
    if error is not None:
        yield error
        for inner in causes(error):
            if inner is not error:
                yield from _within(inner)
