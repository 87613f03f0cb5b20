"""Which checkpoints of a trial a sweep keeps, with made-up times."""

from types import SimpleNamespace

import pytest
from pyarrow import fs
from ray import tune

from prerank.sweeps import sweep


@pytest.mark.parametrize(("apart", "kept"), [(0.01, 6), (7.5, 6), (15.0, 4), (1000.0, 2)])
def test_checkpoints_that_the_state_on_disk_may_name_stay(tmp_path, monkeypatch, apart, kept):
    """Those that were the latest at any time in the last half minute."""
    clock = [100.0]
    monkeypatch.setattr(sweep.time, "time", lambda: clock[0])
    keeps = sweep._KeepsFewCheckpoints()
    for number in range(6):
        for trial_id in ("a", "b"):
            folder = tmp_path / trial_id / str(number)
            folder.mkdir(parents=True)
            checkpoint = tune.Checkpoint(str(folder), fs.LocalFileSystem())
            keeps.on_checkpoint(0, [], SimpleNamespace(trial_id=trial_id), checkpoint)
        clock[0] += apart
    for trial_id in ("a", "b"):
        assert sorted(path.name for path in (tmp_path / trial_id).iterdir()) == [str(n) for n in range(6 - kept, 6)]
