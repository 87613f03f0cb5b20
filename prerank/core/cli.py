"""What the command lines share: flags by tyro, defaults from `--config FILE.yaml`, each fault as one line."""

import argparse
import dataclasses
import errno
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tyro

from prerank.core import process
from prerank.core.cluster.private import (
    JOB_FOLDERS,
    KILLED,
    OUT_OF_DISK,
    OUT_OF_MEMORY,
    causes,
    no_word_of_unhandled_errors,
    own_words,
)
from prerank.core.config import apply, check
from prerank.core.errors import InputError
from prerank.core.outputs import check_place, claimed
from prerank.core.storage import Remote, place
from prerank.core.yaml_files import load_yaml

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
Result = TypeVar("Result")
FULL = (errno.ENOSPC, errno.EDQUOT)
SAID_FULL = ("database or disk is full", os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
"""Of errors without a number: SQLite's, and safetensors'."""
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""What a file system says of a path that it will not have; a fault of the code is that a file is missing."""
READ = {"logs": ("fine_lists", "impressions", "candidates", "truth"), "samples": ("train", "val")}
"""By input its folders of which every file is read."""
SAID_NO_MEMORY = ("CUDA out of memory", "can't allocate memory")
"""Torch's, on a GPU and on the host."""


def run(main: Callable[[Config], Result], config_type: type[Config]) -> Result:
    """Parses `sys.argv` into `config_type`, calls `main` with it; one command at a time writes its `--out`.

    Exits with 2 where the input is at fault, the disk is full or memory ran out, with 130 where a signal
    ended it.
    """
    try:
        with process.stoppable():
            return _run(main, config_type)
    except KeyboardInterrupt:
        process.leave()


def _run(main: Callable[[Config], Result], config_type: type[Config]) -> Result:
    no_word_of_unhandled_errors()
    out = None
    try:
        refuse_no_folder()
        config = parse(config_type, sys.argv[1:])
        check(config, "--")
        out = getattr(config, "out", None)
        if not isinstance(out, Path):
            return main(config)
        refuse_lost(out)
        refuse_within_inputs(out, config)
        check_place(out)
        with claimed(out):
            return main(config)
    except Exception as error:
        if process.stopped():  # what was cut off says so in its own words
            raise KeyboardInterrupt from error
        fault = _input_error(error) or _full_disk(error, out) or _refused_path(error) or _no_memory(error)
        if fault is None:
            raise
        print(f"error: {' '.join(own_words(str(fault)).splitlines())}", file=sys.stderr)
        sys.exit(2)


def refuse_no_folder() -> None:
    """Raises InputError where the current folder was deleted: relative paths lead nowhere, and Ray does not start."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise InputError(
            "the current folder is gone: it was deleted or moved; go to another one, and run again"
        ) from error


def refuse_lost(out: Path) -> None:
    """Raises InputError where an output would lie in a Ray job's copy of its working directory, which Ray deletes."""
    if {*JOB_FOLDERS} <= {*out.resolve().parts}:
        raise InputError(
            f"--out {out}: lies in the job's own copy of the working directory, which Ray deletes; give an absolute "
            "path that every node sees"
        )


def refuse_within_inputs(out: Path, config: "DataclassInstance") -> None:
    """Raises InputError where an output would lie among the files of an input, and be read as one of them next time."""
    for name, folders in READ.items():
        value = getattr(config, name, None)
        if isinstance(value, Path) and not isinstance(value, Remote) and not isinstance(out, Remote):
            for folder in folders:
                if (value / folder).resolve() in (out.resolve(), *out.resolve().parents):
                    raise InputError(f"--out {out}: lies in {value / folder}, whose files are the input; name another")


def parse(config_type: type[Config], argv: list[str]) -> Config:
    """Flags over `--config FILE.yaml` over the defaults of `config_type`, whose docstring is the help."""
    pre = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    pre.add_argument("--config")
    try:
        known, rest = pre.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from error
    required = [
        field.name
        for field in dataclasses.fields(config_type)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    default = config_type(**dict.fromkeys(required, tyro.MISSING))
    if known.config:
        default = apply(default, load_yaml(place(known.config)), where=f"--config {known.config}")
    return _placed(_flags(config_type, rest, default))


def _flags(config_type: type[Config], argv: list[str], default: Config) -> Config:
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(config_type, args=argv, default=default, description=config_type.__doc__)
    except SystemExit as stop:
        if stop.code:
            raise InputError(_unboxed(said.getvalue())) from None
        raise


def _unboxed(box: str) -> str:
    """What tyro says of flags, in one line: each part of its box but the last, which names the help."""
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).strip("│╭╮╰╯ ") for line in box.splitlines()]
    parts = [[]]
    for line in lines[1:]:
        parts[-1].append(line) if line.strip("─ |-") else parts.append([])
    said = [" ".join(part) for part in parts if part and "--help" not in " ".join(part)]
    return f"{'; '.join(said) or ' '.join(lines)}; --help says what there is"


def _placed(config: Config) -> Config:
    """With its paths of object storage as such: flags and YAML make `Path("s3:/bucket/x")` of them."""
    paths = {name: value for name, value in vars(config).items() if isinstance(value, Path)}
    return dataclasses.replace(config, **{name: place(path) for name, path in paths.items()})


def _input_error(error: BaseException) -> InputError | None:
    """The one that the program raised: of a task, Ray makes one more, whose text is a traceback."""
    found = [one for one in _within(error) if isinstance(one, InputError)]
    return next((one for one in found if not any(isinstance(cause, InputError) for cause in causes(one))), None)


def _full_disk(error: BaseException, out: Path | None) -> str | None:
    """What to say where a write found no space; neither Arrow nor SQLite says which file it was."""
    for found in _within(error):
        said = str(found).partition("\n")[0]
        of_ray = type(found).__name__ in OUT_OF_DISK
        if of_ray or getattr(found, "errno", None) in FULL or any(words in said for words in SAID_FULL):
            return (
                f"{out}: no space left on its disk, or on that of Ray's temporary files; make room, and run the same "
                "command again"
            )
    return None


def _refused_path(error: BaseException) -> str | None:
    for found in _within(error):
        if isinstance(found, OSError) and found.errno in REFUSED and found.filename is not None:
            return f"{os.fsdecode(found.filename)}: {found.strerror}; name another path, or mend this one"
    return None


def _no_memory(error: BaseException) -> str | None:
    """What to say where memory ran out: in this process, in a task, or so that Ray or the kernel killed a worker."""
    for found in _within(error):
        said, name = str(found), type(found).__name__
        if isinstance(found, MemoryError) or name in OUT_OF_MEMORY or any(words in said for words in SAID_NO_MEMORY):
            what = "memory ran out"
        elif name in KILLED:
            what = "a worker was killed from outside, as the kernel does where memory runs out"
        else:
            continue
        return (
            f"{what}; free some, give it fewer CPUs or workers at a time, or smaller parts (--blocks, --optim.batch), "
            "and run the same command again"
        )
    return None


def _within(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it: Ray raises what happened in a worker as an error of its own, and keeps that."""
    if error is not None:
        yield error
        for inner in causes(error):
            if inner is not error:
                yield from _within(inner)
