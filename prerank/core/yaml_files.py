"""YAML that people write: no key stands twice, and what is no such file is said in one line."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from prerank.core.documents import text_of
from prerank.core.errors import InputError

LEADING_ZERO = re.compile(r"[-+]?0\d+")
NULLS = ("", "~", "null", "Null", "NULL")
MERGE = "<<"


def load_yaml(path: Path) -> dict[str, object]:
    """The dotted keys of a YAML file that may be nested, dotted, or both.

    Scalars are the text as it is written, and None where nothing is: what is a number or a truth is said by the type
    of the key, not guessed from the text (by YAML 1.1 `1e-3` is text, `no` a truth and `1:30` is 90). Lists, anchors
    and `<<` are read; tags are not. Raises InputError naming the line.
    """
    where = f"--config {path}"
    text = text_of(path, where)
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from error
    if root is None or _is_null(root):
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{where}: expected keys and values, got {_said(root)}")
    found: dict[str, object] = {}
    lines: dict[str, int] = {}
    for key, line, value in _leaves(root, "", where, ()):
        if key in found:
            raise InputError(f"{where}: {key} is given twice, in lines {lines[key]} and {line}; keep one of them")
        found[key], lines[key] = value, line
    return found


def _leaves(
    node: yaml.MappingNode, prefix: str, where: str, around: tuple[yaml.Node, ...]
) -> Iterator[tuple[str, int, object]]:
    """Dotted key, line and value of what is below the mapping; keys of its own before those of `<<`, which give way."""
    _check(node, where, around)
    merged: list[yaml.Node] = []
    own: set[str] = set()
    for name, value in node.value:
        line = name.start_mark.line + 1
        _check(name, where, around)
        if not isinstance(name, yaml.ScalarNode):
            raise InputError(f"{where}: line {line}: expected a key, got {_said(name)}")
        if name.value == MERGE and name.style is None:
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            continue
        for leaf in _below(f"{prefix}{name.value}", line, value, where, (*around, node)):
            own.add(leaf[0])
            yield leaf
    for other in merged:
        if not isinstance(other, yaml.MappingNode):
            raise InputError(f"{where}: line {other.start_mark.line + 1}: {MERGE} takes a mapping, got {_said(other)}")
        for leaf in _leaves(other, prefix, where, (*around, node)):
            if leaf[0] not in own:
                own.add(leaf[0])
                yield leaf


def _below(
    key: str, line: int, value: yaml.Node, where: str, around: tuple[yaml.Node, ...]
) -> Iterator[tuple[str, int, object]]:
    if isinstance(value, yaml.MappingNode):
        yield from _leaves(value, f"{key}.", where, around)
    else:
        yield key, line, _plain(value, where, around)


def _plain(node: yaml.Node, where: str, around: tuple[yaml.Node, ...]) -> object:
    _check(node, where, around)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, where, (*around, node)) for item in node.value]
    if not isinstance(node, yaml.ScalarNode):
        raise InputError(f"{where}: line {node.start_mark.line + 1}: expected a value, got {_said(node)}")
    if node.style is None and LEADING_ZERO.fullmatch(node.value):
        raise InputError(
            f"{where}: line {node.start_mark.line + 1}: {node.value} is octal to some readers of YAML; write a number "
            "without the zero in front, and text in quotes"
        )
    return None if _is_null(node) else node.value


def _check(node: yaml.Node, where: str, around: tuple[yaml.Node, ...]) -> None:
    line = node.start_mark.line + 1
    if node.tag not in (
        yaml.BaseLoader.DEFAULT_SCALAR_TAG,
        yaml.BaseLoader.DEFAULT_MAPPING_TAG,
        yaml.BaseLoader.DEFAULT_SEQUENCE_TAG,
    ):
        raise InputError(f"{where}: line {line}: tags such as {node.tag} are not read; write the value alone")
    if any(node is one for one in around):
        raise InputError(f"{where}: line {line}: an alias within what it stands for")


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in NULLS


def _said(node: yaml.Node) -> str:
    kinds = {yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list"}
    return kinds.get(type(node)) or f"the text {node.value!r:.50}"
