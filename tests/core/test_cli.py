"""What a command line makes of a fault: one line and an exit code, whatever was raised and wherever."""

import errno
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pytest
from safetensors import SafetensorError

from prerank.core import cli
from prerank.core.config import Numbers, Positive, Seed, Share, Within, check
from prerank.core.errors import InputError


@dataclass(frozen=True)
class Outer:
    """Do it."""

    out: Path


@dataclass(frozen=True)
class Deep:
    lr: Annotated[float, Within(0, above=True)] = 0.5
    edges: Annotated[str, Numbers(Within(0))] = ""


@dataclass(frozen=True)
class Numbered:
    """Do it."""

    out: Path
    k: Positive = 1
    max_dropped: Share = 0.5
    seed: Seed = 0
    blocks: Annotated[int | None, Within(1)] = None
    factors: Annotated[str, Numbers(Within(0, above=True), whole=False)] = "0.5,1"
    deep: Deep = Deep()


FULL = "x: no space left on its disk, or on that of Ray's temporary files; make room, and run the same command again"


@pytest.mark.parametrize(
    ("cause", "code", "said"),
    [
        (InputError("column 'x' is missing"), 2, "column 'x' is missing"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, FULL),
        (sqlite3.OperationalError("database or disk is full"), 2, FULL),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), 2, FULL),
        (KeyboardInterrupt(), 130, "stopped by a signal before the end"),
    ],
)
def test_what_is_not_the_codes_fault_is_one_line(monkeypatch, capsys, cause, code, said):
    def main(config):
        try:
            raise cause
        except Exception as error:
            raise RuntimeError("a worker failed") from error

    monkeypatch.setattr("sys.argv", ["prog", "--out", "x"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(main, Outer)
    assert stopped.value.code == code
    assert capsys.readouterr().err == f"error: {said}\n"


WITHOUT = f"{{}}: {os.strerror(errno.EACCES)}; name another path, or mend this one"


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (MemoryError(), "memory ran out; free some"),
        (pa.ArrowMemoryError("malloc of size 1 failed"), "memory ran out; free some"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "memory ran out; free some",
        ),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/a/b"), WITHOUT.format("/a/b")),
        (NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), b"/a/b"), "/a/b: Not a directory; name another"),
        (
            OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), Path("n" * 300)),
            "nnn: File name too long; name",
        ),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/ro"), "/ro: Read-only file system; name another path"),
    ],
)
def test_what_the_machine_refuses_is_one_line(monkeypatch, capsys, tmp_path, cause, said):
    def main(config):
        raise RuntimeError("several\nlines") from cause

    monkeypatch.setattr("sys.argv", ["prog", "--out", str(tmp_path / "x")])
    with pytest.raises(SystemExit) as stopped:
        cli.run(main, Outer)
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and err.startswith("error: ") and said in err and err.count("\n") == 1


def of_ray() -> list[Exception]:
    """What Ray raises where a task, a worker of Ray Train or its controller found the input at fault, or was killed."""
    from ray import exceptions
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    task = exceptions.RayTaskError(
        "f", "many\nlines", InputError("the fault"), proctitle="ray::f", pid=1, ip="127.0.0.1"
    )
    both = task.as_instanceof_cause()
    assert isinstance(both, InputError) and "\n" in str(both)  # the class of the fault, and the text of a traceback
    of_worker = UserExceptionWithTraceback(InputError("the fault"), "many\nlines")
    return [
        *(task, both, WorkerGroupError("of a worker", {0: of_worker}), WorkerGroupError("of a task", {1: both})),
        *(ControllerError(both), ControllerError(WorkerGroupError("of a worker", {0: InputError("the fault")}))),
    ]


@pytest.mark.parametrize("which", range(6))
def test_a_fault_within_ray_is_its_own_sentence(monkeypatch, capsys, tmp_path, which):
    def main(config):
        raise of_ray()[which]

    monkeypatch.setattr("sys.argv", ["prog", "--out", str(tmp_path / "x")])
    with pytest.raises(SystemExit) as stopped:
        cli.run(main, Outer)
    assert stopped.value.code == 2 and capsys.readouterr().err == "error: the fault\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("WorkerCrashedError", "a worker was killed from outside"),
        ("LocalRayletDiedError", "a worker was killed from outside"),
        ("OutOfMemoryError", "memory ran out"),
        ("ObjectStoreFullError", "memory ran out"),
        ("OutOfDiskError", "no space left on its disk"),
    ],
)
def test_a_worker_that_was_killed_is_one_line(monkeypatch, capsys, tmp_path, name, said):
    from ray import exceptions
    from ray.train import WorkerGroupError

    made = getattr(exceptions, name)
    killed = made("many\nlines") if name in ("OutOfMemoryError", "ObjectStoreFullError", "OutOfDiskError") else made()

    def main(config):
        raise WorkerGroupError("many\nlines", {0: killed})

    monkeypatch.setattr("sys.argv", ["prog", "--out", str(tmp_path / "x")])
    with pytest.raises(SystemExit):
        cli.run(main, Outer)
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--k 0", "--k 0: expected 1 or more"),
        ("--k -3", "--k -3: expected 1 or more"),
        ("--k 99999999999", "--k 99999999999: expected 2147483647 at most"),
        ("--max-dropped nan", "--max-dropped nan: expected 0 to 1"),
        ("--max-dropped inf", "--max-dropped inf: expected 0 to 1"),
        ("--max-dropped -0.1", "--max-dropped -0.1: expected 0 to 1"),
        ("--max-dropped 1.1", "--max-dropped 1.1: expected 0 to 1"),
        ("--seed -1", "--seed -1: expected 0 or more"),
        ("--seed 99999999999999999999", "--seed 99999999999999999999: expected 9223372036854775807 at most"),
        ("--blocks 0", "--blocks 0: expected 1 or more"),
        ("--deep.lr 0", "--deep.lr 0.0: expected a number above 0"),
        ("--deep.lr nan", "--deep.lr nan: expected a number above 0"),
        ("--deep.lr inf", "--deep.lr inf: expected a number above 0"),
        ("--deep.edges 0;5", "--deep.edges 0;5: expected whole numbers with commas"),
        ("--deep.edges 0,-5", "--deep.edges 0,-5: expected whole numbers with commas, such as 64,32, each 0 or more"),
        ("--factors 1,x", "--factors 1,x: expected numbers with commas"),
        ("--factors 0", "--factors 0: expected numbers with commas, such as 0.5,1, each a number above 0"),
        # What no number is, and flags that are none.
        ("--k abc", "Error parsing --k: invalid literal for int"),
        ("--k 1.5", "Error parsing --k: invalid literal for int"),
        ("--k", "argument '--k'"),
        ("--deep.lr x", "Error parsing --deep.lr"),
        ("--kk 3", "Unrecognized options: --kk, 3"),
        ("--deep.lrr 3", "Perhaps you meant"),
        ("--config", "argument --config: expected one argument"),
        ("stray", "Unrecognized options: stray"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(monkeypatch, capsys, tmp_path, flags, said):
    monkeypatch.setattr("sys.argv", ["prog", "--out", str(tmp_path / "x"), *flags.split()])
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda config: pytest.fail("it began"), Numbered)
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and err.startswith("error: ") and said in err and err.count("\n") == 1


def test_a_flag_that_is_missing_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["prog"])
    with pytest.raises(SystemExit):
        cli.run(lambda config: None, Numbered)
    err = capsys.readouterr().err
    assert "--out" in err and err.count("\n") == 1


def test_help_is_help(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["prog", "--help"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda config: None, Numbered)
    assert stopped.value.code == 0 and "--deep.lr FLOAT" in capsys.readouterr().out


def test_numbers_at_their_limits():
    most = Numbered(Path("x"), 2**31 - 1, 1.0, 2**63 - 1, 1, "", Deep(1e-300, "0,2147483648"))
    check(most)
    check(Numbered(Path("x"), max_dropped=0.0))
    with pytest.raises(InputError, match=r"^compute\.lr 0: expected"):
        check(Deep(lr=0), "compute.")


def configurations() -> dict[str, type]:
    """Of all workflows, by the name of their module."""
    import importlib
    import re

    import workflows

    found = {}
    for path in sorted(Path(workflows.__file__).parent.glob("*.py")):
        name = re.search(r"^    (?:cli\.)?run\(main, (\w+)\)", path.read_text(), re.M)
        if name:
            found[path.stem] = getattr(importlib.import_module(f"workflows.{path.stem}"), name[1])
    return found


def test_every_number_of_every_workflow_has_its_limits():
    """And every text of numbers; those of the sweep's space are checked where they are drawn."""
    from typing import get_args, get_type_hints

    def leaves(config: type, prefix: str):
        for name, hint in get_type_hints(config, include_extras=True).items():
            if hasattr(hint, "__dataclass_fields__"):
                yield from leaves(hint, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", hint

    all_of_them = configurations()
    assert len(all_of_them) > 12
    unlimited = []
    for module, config in all_of_them.items():
        for key, hint in leaves(config, ""):
            kinds = {str(kind) for kind in (hint, *get_args(hint))} & {"<class 'int'>", "<class 'float'>"}
            kinds |= {"numbers"} if "widths" in key else set()
            if kinds and not any(isinstance(part, Within | Numbers) for part in get_args(hint)):
                unlimited.append(f"{module}: {key}")
    assert not unlimited


def test_every_default_of_every_workflow_makes_sense():
    import dataclasses

    for config in configurations().values():
        required = [
            field.name
            for field in dataclasses.fields(config)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ]
        check(config(**dict.fromkeys(required, "x")))


def test_other_faults_are_raised(monkeypatch):
    def main(config):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sys.argv", ["prog", "--out", "x"])
    with pytest.raises(OSError, match="Input/output"):
        cli.run(main, Outer)


def test_a_current_folder_that_was_deleted_is_one_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr("sys.argv", ["prog", "--out", str(tmp_path / "x")])
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda config: None, Outer)
    monkeypatch.chdir(tmp_path)
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("error: the current folder is gone")


@dataclass(frozen=True)
class Reads:
    out: Path
    logs: Path = Path("logs")
    samples: Path = Path("samples")


@pytest.mark.parametrize(
    ("out", "refused"),
    [
        ("logs/fine_lists", True),
        ("logs/candidates/s", True),
        ("x/../logs/impressions/a/b", True),
        ("link/truth/s", True),
        ("samples/train/s", True),
        ("samples/val", True),
        ("logs/samples", False),
        ("logs/train", False),
        ("samples/truth", False),
        ("logs/fine_lists2", False),
    ],
)
def test_an_output_among_the_files_of_an_input_is_refused(monkeypatch, tmp_path, capsys, out, refused):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "link").symlink_to("logs")
    monkeypatch.setattr("sys.argv", ["prog", "--out", out])
    if refused:
        with pytest.raises(SystemExit):
            cli.run(lambda config: None, Reads)
        assert capsys.readouterr().err.startswith(f"error: --out {Path(out)}: lies in ")
        assert not any(path.is_file() for path in tmp_path.rglob("*"))
    else:
        assert cli.run(lambda config: config.out, Reads) == Path(out)


def test_an_output_in_a_jobs_own_folder_is_refused(monkeypatch, tmp_path, capsys):
    there = tmp_path / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    there.mkdir(parents=True)
    monkeypatch.chdir(there)
    monkeypatch.setattr("sys.argv", ["prog", "--out", "runs/x"])
    with pytest.raises(SystemExit):
        cli.run(lambda config: None, Outer)
    assert "error: --out runs/x: lies in the job's own copy of the working directory" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["prog", "--out", str(tmp_path / "x")])
    assert cli.run(lambda config: config.out, Outer) == tmp_path / "x"
