"""Flags over YAML over defaults, and what is wrong is named."""

import errno
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from safetensors import SafetensorError

from prerank.core import cli
from prerank.core.config import apply, flatten, names, plain
from prerank.core.errors import InputError


@dataclass(frozen=True)
class Inner:
    weight: float = 0.5
    form: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    """Do it."""

    out: Path
    steps: int = 3
    arch: Path | None = None
    inner: Inner = Inner()


def test_flags_over_yaml_over_defaults(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("steps: 7\ninner:\n  weight: 0.25\ninner.form: b\n")
    config = cli.parse(Outer, ["--out", "x", "--inner.weight", "0.75", "--config", str(file)])
    assert config == Outer(Path("x"), 7, None, Inner(0.75, "b"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("inner.weigth: 1", "unknown key 'inner.weigth'; did you mean 'inner.weight'"),
        ("steps: many", "steps: .*integer.*'many'"),
        ("inner: {form: c}", "inner.form: .*'c'"),
        ("[1]", "expected keys and values"),
        ("a: [", "config"),
    ],
)
def test_what_is_wrong_in_yaml_is_named(tmp_path, text, complaint):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=complaint):
        cli.parse(Outer, ["--out", "x", "--config", str(file)])


def test_dotted_keys_round_trip():
    config = Outer(Path("x"), 9, Path("y"), Inner(0.1, "b"))
    assert apply(Outer(Path("z")), flatten(config), where="here") == config
    assert plain(config) == {"out": "x", "steps": 9, "arch": "y", "inner.weight": 0.1, "inner.form": "b"}


def test_names():
    assert names(" a, b ,,c") == ("a", "b", "c")
    assert names("") == ()


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


def test_other_faults_are_raised(monkeypatch):
    def main(config):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sys.argv", ["prog", "--out", "x"])
    with pytest.raises(OSError, match="Input/output"):
        cli.run(main, Outer)


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
