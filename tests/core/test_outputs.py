"""Whole or not at all, and never over another run."""

import re
import shutil
import socket
import subprocess
import sys

import pytest

from prerank.core.errors import InputError
from prerank.core.outputs import is_done, publish, read_manifest

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


def test_partial_files_of_killed_tasks_are_not_published(tmp_path):
    with publish(tmp_path / "out", **RUN) as (staging, _):
        (staging / "train").mkdir()
        (staging / "train" / "whole").write_text("x")
        (staging / "train" / ".half.7.partial").write_text("x")
    assert read_manifest(tmp_path / "out", kind="samples")["files"] == {"train/whole": 1}
    assert [path.name for path in (tmp_path / "out" / "train").iterdir()] == ["whole"]


HOLDER = """
import sys, time
from pathlib import Path
from prerank.core.outputs import publish
with publish(Path(sys.argv[1]), kind="samples", config={}, inputs={}) as (staging, _):
    (staging / "data").write_text("precious")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_second_process_does_not_touch_the_first_ones_work(tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "ready\n"
        here = re.escape(socket.gethostname())
        with (
            pytest.raises(InputError, match=f"out: being written by process {first.pid} on {here}; wait"),
            publish(out, **RUN),
        ):
            pass
        assert (tmp_path / ".out.partial" / "data").read_text() == "precious"
        with publish(tmp_path / "other", **RUN):
            pass
        first.kill()
    with publish(out, **RUN) as (staging, _):
        assert list(staging.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_what_another_process_has_finished_is_not_written_over(tmp_path):
    with publish(tmp_path / "out", **RUN):
        pass
    with pytest.raises(InputError, match="another process has just finished it"), publish(tmp_path / "out", **RUN):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


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


def test_files_that_are_lacking_are_named(tmp_path):
    out = tmp_path / "out"
    with publish(out, **RUN) as (staging, _):
        (staging / "train").mkdir()
        for name in ("train/a", "train/b", "schema.json"):
            (staging / name).write_text("x")
    shutil.copytree(out, tmp_path / "copy", ignore=shutil.ignore_patterns("train"))
    for read in (lambda: read_manifest(tmp_path / "copy", kind="samples"), lambda: is_done(tmp_path / "copy", **RUN)):
        with pytest.raises(InputError, match=r"copy: train/a is missing, one of 2 files of manifest\.json"):
            read()
    shutil.copytree(out, tmp_path / "copy", dirs_exist_ok=True)
    (tmp_path / "copy" / "notes.txt").write_text("beside them")
    assert is_done(tmp_path / "copy", **RUN)
