"""The order of the samples: the same batches for any number of workers, and from any step on."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prerank.core.errors import InputError
from prerank.samples.reader import Reader, sequential

ROWS = 1000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paths = []
    for index, ids in enumerate(np.array_split(np.arange(ROWS), 3)):
        paths.append(folder / f"{index}.parquet")
        pq.write_table(pa.table({"id": ids}), paths[-1], row_group_size=37)
    return tuple(paths)


def epoch(files, epoch=0, start=0, world=1, **options):
    """Sorted ids of each global batch."""
    readers = [Reader(files, ("id",), 48, rank=rank, world=world, **options) for rank in range(world)]
    steps = zip(*(reader.epoch(epoch, start) for reader in readers), strict=True)
    return [sorted(np.concatenate([part["id"].to_numpy() for part in parts]).tolist()) for parts in steps]


def test_any_number_of_workers_deals_the_same_batches(files):
    one = epoch(files)
    assert epoch(files, world=2) == one
    assert epoch(files, world=8) == one


def test_workers_get_equal_shares(files):
    sizes = {table.num_rows for table in Reader(files, ("id",), 48, rank=1, world=4).epoch(0)}
    assert sizes == {12}


def test_an_epoch_has_no_row_twice_and_leaves_out_less_than_a_batch_and_the_lanes(files):
    seen = [row for batch in epoch(files) for row in batch]
    assert len(seen) == len(set(seen)) == Reader(files, ("id",), 48).steps * 48
    assert ROWS - len(seen) < 48 + 8


def test_epochs_and_seeds_differ_and_are_reproducible(files):
    assert epoch(files, 0) == epoch(files, 0)
    assert epoch(files, 0) != epoch(files, 1)
    assert epoch(files, 0) != epoch(files, 0, seed=1)


def test_row_groups_in_memory_are_not_read_again(files, monkeypatch):
    expected = epoch(files)
    opened = {path: pq.ParquetFile(path) for path in files[:2]}
    held = {(path, i): file.read_row_group(i) for path, file in opened.items() for i in range(file.num_row_groups)}
    read = []
    monkeypatch.setattr("prerank.samples.reader.open_file", lambda path: read.append(path) or pq.ParquetFile(path))
    assert epoch(files, tables=held) == expected
    assert set(read) == {files[2]}


@pytest.mark.parametrize("start", [1, 7, 20])
def test_from_any_step_on(files, start, monkeypatch):
    monkeypatch.setattr("prerank.samples.reader.WINDOW", 18)  # several windows in a lane
    assert epoch(files, start=start) == epoch(files)[start:]


def test_rows_are_mixed_over_the_files(files):
    first = epoch(files)[0]
    assert np.ptp(first) > ROWS / 2


def test_what_does_not_divide_is_refused(files):
    with pytest.raises(InputError, match="lanes must divide the batch"):
        Reader(files, ("id",), 50)
    with pytest.raises(InputError, match="workers must divide the lanes"):
        Reader(files, ("id",), 48, rank=0, world=3)
    with pytest.raises(InputError, match="do not fill a batch"):
        Reader(files, ("id",), 8000)


def test_sequential_loses_nothing(files):
    parts = [sequential(files, ("id",), rank, 3) for rank in range(3)]
    ids = [i for part in parts for table in part for i in table["id"].to_pylist()]
    assert sorted(ids) == list(range(ROWS))


@pytest.mark.parametrize("fold", [2, 5, 31])
def test_a_fold_parts_the_rows(files, fold):
    """Every row is either held out or learned from, whether the row groups are many or few."""
    sides = [Reader(files, ("id",), 1, lanes=1, fold=fold, held_out=held_out) for held_out in (False, True)]
    learned, held_out = ([row for table in side.epoch(0) for row in table["id"].to_pylist()] for side in sides)
    assert sorted(learned + held_out) == list(range(ROWS))
    assert 0 < len(held_out) < 1.3 * ROWS / fold
