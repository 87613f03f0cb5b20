"""Whole or not at all, and never over another run."""

import pytest

from prerank.errors import InputError
from prerank.outputs import is_done, publish, read_manifest

RUN = {"kind": "samples", "config": {"seed": 0, "bins": [1, 2]}, "inputs": {"logs": "abc"}}


def test_published_whole(tmp_path):
    out = tmp_path / "out"
    assert not is_done(out, **RUN)
    with publish(out, **RUN) as (staging, extra):
        (staging / "data").write_text("x")
        extra["rows"] = 3
        assert not out.exists()
    manifest = read_manifest(out, kind="samples")
    assert manifest["files"] == {"data": 1} and manifest["rows"] == 3
    assert is_done(out, **RUN)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_publishes_nothing(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(OSError, match="No space"), publish(out, **RUN) as (staging, _):
        (staging / "data").write_text("half")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_run_are_replaced(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "old").write_text("x")
    with publish(tmp_path / "out", **RUN) as (staging, _):
        assert list(staging.iterdir()) == []


def test_another_run_is_refused_by_the_key_that_differs(tmp_path):
    with publish(tmp_path / "out", **RUN):
        pass
    with pytest.raises(InputError, match="config seed was 0, now 1"):
        is_done(tmp_path / "out", **{**RUN, "config": {"seed": 1, "bins": [1, 2]}})
    with pytest.raises(InputError, match="input logs was 'abc', now 'abd'"):
        is_done(tmp_path / "out", **{**RUN, "inputs": {"logs": "abd"}})
    with pytest.raises(InputError, match="holds samples, expected teacher"):
        is_done(tmp_path / "out", **{**RUN, "kind": "teacher"})


def test_foreign_and_unfinished_folders_are_refused(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(InputError, match="not an output of this program"):
        is_done(tmp_path, **RUN)
    with pytest.raises(InputError, match="not a finished output"):
        read_manifest(tmp_path, kind="samples")
