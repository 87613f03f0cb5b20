"""What the guides say is there: their links, the files and rooms they name, and their commands."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from floors_fixture import FLOORS
from guides import commands, parsed

ROOT = Path(__file__).parents[1]
FOLDERS = ("prerank", "workflows", "tune_spaces", "cluster", "tests")
GUIDES = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]


def prose(guide: str) -> str:
    """The guide without its blocks of code."""
    return re.sub(r"^```.*?^```", "", guide, flags=re.DOTALL | re.MULTILINE)


def anchors(guide: str) -> set[str]:
    """Of its headings, as GitHub makes them: lower case, no punctuation, a dash for each space."""
    headings = re.findall(r"^#+ (.*)$", prose(guide), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def faults(path: Path) -> Iterator[str]:
    """One line for each relative link, and each file of the repository in backticks, that leads nowhere."""
    text = prose(path.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        where, _, anchor = link.partition("#")
        target = path.parent / where if where else path
        if "://" in link:
            continue
        if not target.exists():
            yield f"{path.name} links to {link}, which is not there"
        elif anchor and anchor not in anchors(target.read_text()):
            yield f"{path.name} links to {link}, which has no such heading"
    for name in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", text):
        if not (ROOT / name).exists():
            yield f"{path.name} names {name}, which is not there"


def first_line(path: Path) -> str:
    """What a module says that it is for."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def test_links_and_names_lead_somewhere():
    assert not [fault for path in GUIDES for fault in faults(path)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("See [it](gone.md).", "gone.md, which is not there"),
        ("# A room's floor\n\n[it](#a-rooms-floor), [more](#a-room)", "#a-room, which has no such heading"),
        ("`prerank/gone.py` and `prerank/core/`", "names prerank/gone.py"),
    ],
)
def test_a_planted_fault_is_found(text, said, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(text)
    (found,) = faults(path)
    assert said in found


def test_the_front_page_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


def test_the_map_has_every_room_on_its_floor():
    text = (ROOT / "prerank/README.md").read_text()
    rows = re.findall(r"^\| (\d) \| \[(\w+)\]\((\w+)/\) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [
        (str(floor), room, room, first_line(ROOT / "prerank" / room / "__init__.py"))
        for floor, rooms in enumerate(FLOORS)
        for room in rooms
    ]


def test_the_list_of_commands_is_that_of_the_files():
    rows = set(re.findall(r"^\| `(\w+)` \| (.*) \|$", (ROOT / "workflows/README.md").read_text(), re.MULTILINE))
    files = [path for folder in ("workflows", "tune_spaces") for path in (ROOT / folder).glob("[!_]*.py")]
    assert rows == {(path.stem, first_line(path)) for path in files}


RUN = {
    " ".join(line.split()): path.relative_to(ROOT)
    for path in GUIDES
    for line in [*commands(path.read_text()), *re.findall(r"`(python -m workflows\.\w[^`]*)`", prose(path.read_text()))]
    if "python -m workflows." in line
}
"""Commands of the guides, in blocks and in sentences; those of cluster/ are also in `line/test_manifests.py`."""


@pytest.mark.parametrize("command", RUN, ids=lambda line: re.search(r"workflows\.\w+", line)[0])
def test_commands_parse(command):
    parsed(command)


def test_what_python_imports_is_there():
    blocks = [block for path in GUIDES for block in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)]
    for block in blocks:
        tree = ast.parse(block)
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(tree, "a guide", "exec"))
    assert blocks


def test_every_guide_with_commands_is_read():
    assert {str(path) for path in RUN.values()} >= {"README.md", "cluster/README.md", "prerank/training/README.md"}
