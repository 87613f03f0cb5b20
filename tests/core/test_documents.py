"""YAML and JSON as people write them: read as they are meant, or refused in one line that names the file and key."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prerank.core.config import apply
from prerank.core.documents import load_json
from prerank.core.errors import InputError
from prerank.core.yaml_files import load_yaml


@dataclass(frozen=True)
class Draw:
    bins: int = 10
    share: float = 0.5


@dataclass(frozen=True)
class Config:
    seed: int = 0
    lr: float = 1.0
    gpu: bool = False
    blocks: int | None = 7
    strategy: str = "all"
    widths: str = "64,32"
    out: Path = Path("x")
    draw: Draw = Draw()


def read(folder: Path, text: str | bytes) -> Config:
    file = folder / "c.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return apply(Config(), load_yaml(file), where=f"--config {file}")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("lr: 1e-3", "lr", 0.001),
        ("lr: 1E3", "lr", 1000.0),
        ("lr: 5", "lr", 5.0),
        ("lr: .5", "lr", 0.5),
        ("lr: 1_000.5", "lr", 1000.5),
        ("seed: 1_000", "seed", 1000),
        ("seed: '5'", "seed", 5),
        ("seed: -3", "seed", -3),
        ("seed: 99999999999999999999", "seed", 99999999999999999999),
        ("gpu: yes", "gpu", True),
        ("gpu: off", "gpu", False),
        ("gpu: True", "gpu", True),
        ("blocks: null", "blocks", None),
        ("blocks: ~", "blocks", None),
        ("blocks:", "blocks", None),
        ("strategy: no", "strategy", "no"),
        ("strategy: 2024-03-04", "strategy", "2024-03-04"),
        ("strategy: 12:30", "strategy", "12:30"),
        ("widths: 64", "widths", "64"),
        ("widths: '0304'", "widths", "0304"),
        ("strategy: ''", "strategy", ""),
        ("out: runs/größe", "out", Path("runs/größe")),
        ("draw: {bins: 3}", "draw", Draw(3)),
        ("draw.bins: 3\r\n", "draw", Draw(3)),
        ("draw:\n  bins: 3\ndraw.share: 0.1\n", "draw", Draw(3, 0.1)),
        ("draw:\n", "draw", Draw()),
        ("<<: {seed: 3, lr: 2}\nseed: 4\n", "seed", 4),
        ("seed: 3\n<<: {seed: 4, lr: 2}\n", "lr", 2.0),
        ("seed: &s 3\ndraw:\n  bins: *s\n", "draw", Draw(3)),
        ("\ufeffseed: 4\n", "seed", 4),
        ("seed: 4\n".encode("utf-16"), "seed", 4),
        ("seed: 4\n".encode("utf-16-be").join([b"\xfe\xff", b""]), "seed", 4),
        ("# größe\nseed: 4\n", "seed", 4),
        ("---\nseed: 4\n...\n", "seed", 4),
    ],
)
def test_what_is_read(tmp_path, text, key, value):
    assert getattr(read(tmp_path, text), key) == value


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n", "{}"])
def test_nothing_changes_nothing(tmp_path, text):
    assert read(tmp_path, text) == Config()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: 1\nlr: 2\nseed: 2\n", "seed is given twice, in lines 1 and 3"),
        ("draw:\n  bins: 5\ndraw.bins: 7\n", "draw.bins is given twice, in lines 2 and 3"),
        ("draw:\n  bins: 5\ndraw:\n  bins: 7\n", "draw.bins is given twice, in lines 2 and 4"),
        ("draw: {bins: 5, bins: 5}", "draw.bins is given twice, in lines 1 and 1"),
        ("'seed': 1\nseed: 1", "seed is given twice"),
        ("seed: 010", "line 1: 010 is octal"),
        ("draw: {bins: 007}", "007 is octal"),
        ("seed: 1:30", "seed: .*valid integer.*'1:30'"),
        ("seed: 0x10", "seed: .*valid integer.*'0x10'"),
        ("seed: 1e3", "seed: .*valid integer"),
        ("seed: 2024-01-01", "seed: .*valid integer"),
        ("seed: true", "seed: .*valid integer.*'true'"),
        ("seed: yes", "seed: .*valid integer"),
        ("seed: '1'''", "seed: .*valid integer"),
        ("seed:", "seed: .*valid integer.*None"),
        ("seed: [1]", "seed: .*valid integer"),
        ("strategy:", "strategy: .*valid string.*None"),
        ("strategy: [exposed]", "strategy: .*valid string"),
        ("gpu: 7", "gpu: .*boolean"),
        ("lr: 1,5", "lr: .*number"),
        ("lr: 1 000", "lr: .*number"),
        ("draw: 5", "draw is a section"),
        ("draw: [bins]", "draw is a section"),
        ("draw: {bins: {a: 1}}", "unknown key 'draw.bins.a'"),
        ("drow: {bins: 1}", "unknown key 'drow.bins'; did you mean 'draw.bins'"),
        ("a: &x 4\nseed: 1", "unknown key 'a'"),
        ("1: 2", "unknown key '1'"),
        ("? [a]\n: 1", "expected a key, got a list"),
        ("- seed: 1", "expected keys and values, got a list"),
        ("seed", "expected keys and values, got the text 'seed'"),
        (
            "seed: !!python/object/apply:os.system ['true']",
            "tags such as tag:yaml.org,2002:python/object/apply:os.system",
        ),
        ("seed: !!int 5", "tags such as"),
        ("!mine {seed: 5}", "tags such as !mine"),
        ("draw:\n\tbins: 5", "cannot start any token"),
        ("draw: &d {bins: *d}", "line 1: an alias within what it stands for"),
        ("seed: *nowhere", "undefined alias"),
        ("<<: 5", "<< takes a mapping"),
        ("seed: 1\n---\nseed: 2\n", "expected a single document"),
        ("seed: [", "expected"),
        ("seed: 'a", "quoted scalar"),
        ("seed: a\0b", "special characters|unacceptable"),
        ("# 注释\nseed: 4\n".encode("gbk"), "byte 4 is not of UTF-8; save it as UTF-8"),
        (b"\xff\xfes", "not of UTF-16"),
    ],
)
def test_what_is_refused(tmp_path, text, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"--config {tmp_path / 'c.yaml'}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.yaml", ""])
def test_a_file_that_cannot_be_read(tmp_path, name):
    for load in (load_yaml, load_json):
        with pytest.raises(InputError, match=f"{tmp_path / name}: cannot be read: (No such file|Is a directory)"):
            load(tmp_path / name)


NAME = st.text("abcxyz_", min_size=1, max_size=4)
LEAF = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.text(max_size=8))
TREE = st.recursive(st.dictionaries(NAME, LEAF, max_size=4), lambda inner: st.dictionaries(NAME, inner, max_size=3))


def flat(tree: dict, prefix: str = "") -> dict[str, object]:
    out: dict[str, object] = {}
    for key, value in tree.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


@pytest.mark.slow
@given(TREE, st.booleans())
def test_any_tree_is_read_by_its_leaves(tmp_path_factory, tree, flow):
    file = tmp_path_factory.mktemp("yaml") / "c.yaml"
    file.write_text(yaml.safe_dump(tree, default_flow_style=flow))
    leaves = flat(tree)
    found = load_yaml(file)
    assert {*leaves} == {key for key, value in found.items() if not (value is None and key not in leaves)}
    for key, value in leaves.items():
        text = found[key]
        assert isinstance(text, str)
        if isinstance(value, str):
            assert text == value
        elif isinstance(value, bool):
            assert text == str(value).lower()
        else:
            assert float(text.replace(".inf", "inf")) == float(value)


@pytest.mark.slow
@given(TREE, st.data())
def test_a_key_that_is_given_again_anywhere_is_refused(tmp_path_factory, tree, data):
    leaves = flat(tree)
    if not leaves:
        return
    again = data.draw(st.sampled_from([*leaves]))
    file = tmp_path_factory.mktemp("yaml") / "c.yaml"
    file.write_text(yaml.safe_dump(tree) + yaml.safe_dump({again: 1}))
    with pytest.raises(InputError, match=f"{again} is given twice"):
        load_yaml(file)


@pytest.mark.slow
@given(
    st.recursive(
        st.one_of(LEAF, st.none()), lambda inner: st.dictionaries(st.text(max_size=3), inner) | st.lists(inner)
    )
)
def test_json_is_read_as_it_was_written(tmp_path_factory, value):
    file = tmp_path_factory.mktemp("json") / "a.json"
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:  # infinite
        return
    file.write_text(text)
    assert load_json(file) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"a": 1, "a": 1}', "key 'a' is given twice; keep"),
        ('{"features": [{"name": "price", "kind": "dense", "kind": "id"}]}', "key 'kind' is given twice in 'price'"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "key 'b' is given twice"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": -Infinity}', "-Infinity is no number of JSON"),
        ('{"a": 1,}', "not JSON: .*line 1 column"),
        ("", "not JSON: Expecting value"),
        ("// a\n{}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("1" * 5000, "not JSON: Exceeds the limit"),
        ('{"a": "é"}'.encode("latin-1"), "byte 7 is not of UTF-8"),
    ],
)
def test_json_that_is_refused(tmp_path, text, complaint):
    file = tmp_path / "schema.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=complaint) as caught:
        load_json(file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_json_with_a_byte_order_mark(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_text('{"ä": 1}', encoding=encoding)
        assert load_json(tmp_path / "a.json") == {"ä": 1}
