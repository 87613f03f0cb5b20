"""Flags over YAML over defaults, and what is wrong is named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

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
