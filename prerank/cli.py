"""What the command lines share: flags by tyro, defaults from `--config FILE.yaml`, a fault of the input as one line."""

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tyro

from prerank.config import apply, load_yaml
from prerank.errors import InputError
from prerank.storage import place

T = TypeVar("T")


def run(main: Callable[[T], Any], config_type: type[T]) -> Any:
    """Parses `sys.argv` into `config_type`, calls `main` with it; exits with 2 where the input is at fault."""
    try:
        return main(parse(config_type, sys.argv[1:]))
    except Exception as error:
        fault = _input_error(error)
        if fault is None:
            raise
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(2)


def parse(config_type: type[T], argv: list[str]) -> T:
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


def _placed(config: T) -> T:
    """With its paths of object storage as such: flags and YAML make `Path("s3:/bucket/x")` of them."""
    paths = {name: value for name, value in vars(config).items() if isinstance(value, Path)}
    return dataclasses.replace(config, **{name: place(path) for name, path in paths.items()})


def _input_error(error: BaseException | None) -> InputError | None:
    """Ray raises what happened in a worker as an error of its own, and keeps the original within."""
    if error is None or isinstance(error, InputError):
        return error
    within = [getattr(error, "cause", None), error.__cause__, *getattr(error, "worker_failures", {}).values()]
    return next((found for inner in within if inner is not error and (found := _input_error(inner))), None)
