"""The floors of the house, read from the folders: an import goes to a lower floor, and libraries stay where they are
let in."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from floors_fixture import FLOORS

import prerank

HOUSE = Path(prerank.__file__).parent

LET_IN = {
    "ray": (
        *(
            "core/cluster",
            "logs/parts.py",
            "training/apart.py",
            "training/group.py",
            "training/options.py",
            "training/progress.py",
        ),
        *("training/teach.py", "sweeps", "benchmarks"),
    ),
    "mlflow": ("tracking", "evaluation/from_mlflow.py", "serving/export.py"),
    "onnx": ("serving", "latency/pieces.py", "benchmarks"),
    "onnxruntime": ("serving", "latency/pieces.py", "benchmarks"),
    "torch": (
        *(
            "models",
            "samples/batches.py",
            "samples/cut.py",
            "evaluation/scores.py",
            "serving",
            "latency",
            "training",
            "search",
        ),
        *("sweeps", "benchmarks"),
    ),
    "matplotlib": ("reports", "tracking"),
    "tyro": ("core/cli.py",),
    "polars": ("sources", "benchmarks/peers"),
}
"""Of each library the rooms, or files, that may import it; one that is not named here may be imported anywhere."""


def imports(path: Path) -> Iterator[str]:
    """Dotted names of what a file imports, at its top or in a function, names within a module included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides which room it is from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def faults(house: Path) -> list[str]:
    """One line for each import that goes up or sideways, or lets a library in where it has no place."""
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    found = []
    for path in sorted(house.rglob("*.py")):
        place = path.relative_to(house)
        room = place.parts[0]
        for name in imports(path):
            top, *rest = name.split(".")
            if top in ("workflows", "tune_spaces", "tests"):
                found.append(f"{place} imports {name}, which stands on top of the house")
            elif top == "prerank" and rest[0] != room and floor_of[rest[0]] >= floor_of[room]:
                found.append(f"{place} imports {name}, of floor {floor_of[rest[0]]}, and is on {floor_of[room]}")
            elif top in LET_IN and not any(str(place).startswith(where) for where in LET_IN[top]):
                found.append(f"{place} imports {name}; {top} is let into {', '.join(LET_IN[top])}")
    return found


def test_the_rooms_are_those_of_the_floors():
    rooms = {path.name for path in HOUSE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms == {room for rooms in FLOORS for room in rooms}
    assert [path.name for path in HOUSE.glob("*.py")] == ["__init__.py"]


def test_no_import_goes_up():
    assert not faults(HOUSE)


@pytest.mark.parametrize(
    ("where", "planted", "said"),
    [
        ("core/hashing.py", "from prerank.logs.schema import Feature\n", "of floor 1, and is on 0"),
        ("latency/formula.py", "def f():\n    import prerank.training.loop\n", "of floor 5, and is on 5"),
        ("models/ranker.py", "from prerank import reports\n", "of floor 7"),
        ("search/derive.py", "from workflows import pipeline\n", "on top of the house"),
        ("models/losses.py", "import ray.data\n", "ray is let into core/cluster"),
        ("samples/draw.py", "import torch\n", "torch is let into models"),
    ],
)
def test_a_planted_import_is_found(where, planted, said, tmp_path):
    path = tmp_path / where
    path.parent.mkdir(parents=True)
    path.write_text(planted)
    (found,) = faults(tmp_path)
    assert found.startswith(where) and said in found
