"""What a task has room for, by what Ray says of its nodes."""

import pytest

from prerank.logs import parts

GIB = 1 << 30


def node(alive=True, **resources):
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "room"),
    [
        ([node(CPU=2.0, memory=12.0 * GIB)], GIB),
        ([node(CPU=2.0, memory=12.0 * GIB), node(CPU=8.0, memory=24.0 * GIB)], GIB / 2),
        ([node(memory=3.0 * GIB), node(CPU=4.0, memory=24.0 * GIB)], GIB),  # a head without CPUs runs no task
        ([node(alive=False, CPU=8.0, memory=1.0 * GIB), node(CPU=2.0, memory=12.0 * GIB)], GIB),
        ([node(CPU=8.0)], parts.A_CPU / 6),
        ([node(memory=3.0 * GIB)], parts.A_CPU / 6),
    ],
)
def test_room_is_that_of_the_node_that_has_least_for_a_cpu(monkeypatch, nodes, room):
    monkeypatch.setattr(parts.ray, "nodes", lambda: nodes)
    assert parts.room_of_a_task() == pytest.approx(room)
