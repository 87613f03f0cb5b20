"""The order of the samples: the same batches for any number of workers, and from any step on."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prerank.core.errors import InputError
from prerank.core.memory import Memory
from prerank.models.options import Optim
from prerank.samples import kept
from prerank.samples.reader import FEW_STEPS, Dealt, Reader, deal, sequential
from prerank.search.options import Search

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


def test_other_samples_at_the_same_place_are_read_as_they_are(tmp_path):
    path = tmp_path / "0.parquet"
    for first in (0, ROWS):
        path.unlink(missing_ok=True)
        pq.write_table(pa.table({"id": np.arange(first, first + 96)}), path, row_group_size=37)
        assert min(id for batch in epoch((path,)) for id in batch) == first
        assert next(sequential((path,), ("id",)))["id"][0].as_py() == first


def test_rows_are_mixed_over_the_files(files):
    first = epoch(files)[0]
    assert np.ptp(first) > ROWS / 2


def test_what_does_not_divide_is_refused(files):
    with pytest.raises(InputError, match="lanes must divide the batch"):
        Reader(files, ("id",), 50)
    with pytest.raises(InputError, match="workers must divide the lanes"):
        Reader(files, ("id",), 48, rank=0, world=3)


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


def written(folder, *rows, row_group=128):
    """Files of so many rows each, numbered through."""
    paths, first = [], 0
    for index, n in enumerate(rows):
        paths.append(folder / f"{index}.parquet")
        pq.write_table(pa.table({"id": np.arange(first, first + n)}), paths[-1], row_group_size=row_group)
        first += n
    return tuple(paths)


@given(st.integers(1, 3000), st.sampled_from([1, 2, 4, 6, 8, 12]), st.integers(1, 20), st.sampled_from([1, 7, 40, 300]))
def test_few_samples_are_dealt_in_smaller_batches(rows, lanes, slices, epoch_steps):
    """Against a search of all that could be: the asked batch where it is filled, else the largest that leaves steps."""
    batch = lanes * slices
    dealt = deal(rows, batch, lanes, epoch_steps)

    def steps(size, lanes):
        return (rows // lanes) // (size // lanes)

    if rows >= lanes and steps(batch, lanes):
        expected = batch, lanes
    else:
        divisors = [n for n in range(1, lanes + 1) if lanes % n == 0 and n <= rows]
        few = lanes if rows >= lanes else max(divisors)
        sizes = [size for size in range(few, batch + 1, few) if steps(size, few) >= FEW_STEPS] if few == lanes else []
        expected = max(sizes, default=few), few
    assert (dealt.batch, dealt.lanes) == expected
    assert dealt.batches == steps(*expected) >= 1
    assert dealt.steps >= epoch_steps > (dealt.passes - 1) * dealt.batches


def test_samples_of_some_size_are_dealt_as_ever(tmp_path):
    """The demo's (62 batches of 64, 48 where a search holds out) and KuaiRand's: a pass an epoch, no step more."""
    optim, fold = Optim(), Search().fold
    for name, rows in (("demo", (4000,)), ("kuairand", (2600, 2600, 2600))):
        (tmp_path / name).mkdir()
        files = written(tmp_path / name, *rows)
        whole, part = (
            Reader(files, ("id",), optim.batch, fold=fold, epoch_steps=optim.epoch_steps) for fold in (0, fold)
        )
        assert whole.dealt == Dealt(64, 8, 1, sum(rows) // 8 // 8)
        assert part.dealt == Dealt(64, 8, 1, part.rows // 8 // 8)
        assert part.steps >= optim.epoch_steps and (name != "demo" or (whole.steps, part.steps) == (62, 48))


@pytest.mark.parametrize(
    ("rows", "dealt"), [((36,), (8, 8, 4)), ((20, 16), (8, 8, 4)), ((5,), (4, 4, 1)), ((1,), (1, 1, 1))]
)
def test_few_samples_are_the_same_for_any_number_of_workers_and_from_any_step(tmp_path, rows, dealt):
    files = written(tmp_path, *rows, row_group=7)
    options = {"lanes": 8, "epoch_steps": 10, "seed": 3}
    one = Reader(files, ("id",), 64, **options)
    assert (one.dealt.batch, one.dealt.lanes, one.dealt.batches) == dealt

    def batches(world, epoch=1, start=0):
        readers = [Reader(files, ("id",), 64, rank=rank, world=world, **options) for rank in range(world)]
        parts = zip(*(reader.epoch(epoch, start) for reader in readers), strict=True)
        return [sorted(np.concatenate([table["id"].to_numpy() for table in tables]).tolist()) for tables in parts]

    whole = batches(1)
    assert len(whole) == one.steps >= 10
    for world in (n for n in (2, 4, 8) if one.dealt.lanes % n == 0):
        assert batches(world) == whole
    for start in range(one.steps):
        assert batches(1, start=start) == whole[start:]


def test_of_few_samples_none_is_left_out_for_good(tmp_path):
    """A single row group has one order: the rows at the ends of the lanes would never be seen."""
    reader = Reader(written(tmp_path, 127), ("id",), 64, epoch_steps=40)
    seen = [table["id"].to_numpy() for epoch in range(3) for table in reader.epoch(epoch)]
    times = np.bincount(np.concatenate(seen), minlength=127)
    assert times.min() > 0.2 * times.mean()
    passes = [np.concatenate(seen[i : i + reader.dealt.batches]) for i in range(0, len(seen), reader.dealt.batches)]
    assert all(len(set(one)) == len(one) for one in passes), "a pass has no request twice"
    assert [reader.pass_of(step) for step in range(3)] == [0, 1, 2], "of one batch"


def test_where_nothing_can_be_dealt_one_line_says_so(tmp_path):
    files = written(tmp_path, 3)
    with pytest.raises(InputError, match="3 training requests make batches of 2, which 4 workers cannot share evenly"):
        Reader(files, ("id",), 64, rank=1, world=4)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no training request: nothing to learn from"):
        Reader(written(tmp_path / "none", 0), ("id",), 64)
    (tmp_path / "one").mkdir()
    with pytest.raises(InputError, match=r"no training request held out by search\.fold 4"):
        Reader(written(tmp_path / "one", 1), ("id",), 64, fold=4, held_out=True)


@pytest.mark.parametrize("rows", [(2,), (3,), (3, 3, 3), (36,), (1, 1, 30)])
def test_a_fold_of_few_rows_holds_some_out(tmp_path, rows):
    """Of files that each have fewer rows than the fold, too."""
    files, n = written(tmp_path, *rows), sum(rows)
    sides = [Reader(files, ("id",), 1, lanes=1, fold=4, held_out=held_out) for held_out in (False, True)]
    learned, held_out = ({row for table in side.epoch(0) for row in table["id"].to_pylist()} for side in sides)
    assert learned | held_out == set(range(n)) and not learned & held_out
    assert len(held_out) == max(1, n // 4)


def test_what_was_read_stays_while_half_of_the_memory_is_free(files, monkeypatch):
    expected, read = epoch(files), []
    free = [Memory(1000, 1000)]
    monkeypatch.setattr(kept, "memory", lambda: free[0])
    whole = pq.ParquetFile.read_row_group

    def counted(file, index, columns):
        read.append(index)
        return whole(file, index, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    groups = sum(pq.ParquetFile(path).num_row_groups for path in files)
    roomy, full = kept.Kept(), kept.Kept()
    assert epoch(files, kept=roomy) == expected and len(read) >= groups
    read.clear()
    assert epoch(files, kept=roomy) == expected and not read
    free[0] = Memory(1000, 500)
    assert epoch(files, kept=full) == expected and not full.groups
    read.clear()
    assert epoch(files, kept=full) == expected and read
    assert not pickle.loads(pickle.dumps(roomy)).groups


def test_columns_that_are_not_here_yet_are_read_alone(tmp_path):
    pq.write_table(pa.table({"a": [1, 2], "b": [3, 4]}), tmp_path / "x")
    asked, rows = [], kept.Kept()

    def read(names):
        asked.append(names)
        return pq.read_table(tmp_path / "x", columns=names)

    assert rows.columns(tmp_path / "x", 0, ("a",), read).to_pydict() == {"a": [1, 2]}
    assert rows.columns(tmp_path / "x", 0, ("b", "a"), read).to_pydict() == {"b": [3, 4], "a": [1, 2]}
    assert asked == [["a"], ["b"]]
