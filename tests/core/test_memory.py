"""What memory there is, in containers of both kinds and in none."""

from types import SimpleNamespace

import psutil
import pytest

from prerank.core import memory


@pytest.fixture(autouse=True)
def of_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1000, available=600))
    monkeypatch.setattr(memory, "CGROUP", tmp_path)


def written(folder, limit, used, cached):
    (folder / "memory").mkdir()
    for names in memory.LIMITS:
        for name, text in zip(names, (limit, used, f"anon 5\ninactive_file {cached}"), strict=True):
            (folder / name).write_text(f"{text}\n")


def test_the_machines_where_there_is_no_container():
    assert memory.memory() == memory.Memory(1000, 600)


@pytest.mark.parametrize(
    ("limit", "used", "cached", "expected"),
    [
        (400, 150, 50, (400, 300)),  # caches give way
        (900, 100, 0, (900, 600)),  # the machine has less than the container may take
        (400, 500, 20, (400, 0)),
        ("max", 500, 20, (1000, 600)),
        (2**63, 500, 20, (1000, 600)),  # version 1 says so where there is no limit
    ],
)
@pytest.mark.parametrize("version", [0, 1])
def test_a_container_has_what_it_may_take(tmp_path, version, limit, used, cached, expected):
    written(tmp_path, limit, used, cached)
    (tmp_path / memory.LIMITS[1 - version][0]).unlink()
    assert memory.memory() == memory.Memory(*expected)
