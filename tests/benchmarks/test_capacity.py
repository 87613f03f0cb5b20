"""What a day of logs needs, against a sum worked by hand."""

from dataclasses import replace

import pytest

from prerank.benchmarks.capacity import Load, Rates, needs
from prerank.core.errors import InputError

RATES = Rates(
    rows_a_request=200,
    disk_bytes=100,
    memory_bytes=400,
    sample_items=50,
    sample_bytes=10_000,
    build_rows_s=100_000,
    teach_items_s=50_000,
    teacher_items_s=25_000,
    student_items_s=100_000,
    parameters=1000,
    tile_bytes=2**28,
)
LOAD = Load(rows_a_day=7.2e9, hours=10, teacher_epochs=2, student_epochs=3, node_cpus=16, cpu_hour_usd=0.1, batch=1000)


def answer(rates=RATES, load=LOAD):
    return {need.what: need.value for need in needs(rates, load)}


def test_a_day_worked_by_hand():
    # 7.2e9 rows are 36e6 requests, of which 1.8e9 items are kept.
    found = answer()
    assert found["requests"] == pytest.approx(36)
    assert found["build_samples"] == pytest.approx(20)  # 72,000 s
    assert found["train_teacher"] == pytest.approx(40)  # 2 x 72,000 s
    assert found["teach"] == pytest.approx(10)  # 36,000 s
    assert found["train_student"] == pytest.approx(15)  # 3 x 18,000 s
    assert found["all steps"] == pytest.approx(85)
    assert found["CPUs"] == pytest.approx(8.5)
    assert found["nodes"] == 1
    assert found["cost"] == pytest.approx(8.5)
    assert found["logs on disk"] == pytest.approx(7.2e11 / 2**40)
    assert found["taught samples on disk"] == pytest.approx(3.6e11 / 2**40)
    assert found["shuffled, logs in any order"] == pytest.approx(2.88e12 / 2**40)
    assert found["local disk of a node for that"] == pytest.approx(2.88e12 / 2**40)
    assert found["object store of a node"] == pytest.approx(8)  # 16 CPUs, 2 x 256 MiB
    # The build has 20 of 85 CPU hours, so 20/85 of the 10 h, to read all of it.
    assert found["read from storage"] == pytest.approx(7.2e11 / (36_000 * 20 / 85) / 2**30)
    # 36e6 / 1000 requests a step, 2 epochs, 1000 parameters of 4 bytes, sent twice.
    assert found["gradients a worker sends"] == pytest.approx(72_000 * 8000 / 2**40)


def test_what_grows_with_the_rows():
    once, thrice = answer(), answer(load=replace(LOAD, rows_a_day=3 * LOAD.rows_a_day))
    same = {what for what in once if thrice[what] == pytest.approx(once[what])}
    assert same == {
        "shuffled, logs clustered by request",
        "object store of a node",
    }
    assert thrice["local disk of a node for that"] == pytest.approx(1.5 * once["local disk of a node for that"])  # of 2
    assert thrice["read from storage"] == pytest.approx(3 * once["read from storage"])


@pytest.mark.parametrize("key", vars(LOAD))
def test_a_load_that_makes_no_sense(key):
    with pytest.raises(InputError, match=f"--load.{key} must be above 0, got 0"):
        replace(LOAD, **{key: 0}).check()
