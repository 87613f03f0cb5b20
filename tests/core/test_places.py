"""Where an output can be made, and that one command at a time makes it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prerank.core.errors import InputError
from prerank.core.outputs import check_place, claimed, is_done, publish, read_manifest

RUN = {"kind": "samples", "config": {"seed": 0}, "inputs": {}}
ODD = ["%", "a%20b", "?", "a?b=c", "#", "sp ace", "größe", "中文", "a;b", "a&b", "'\"", "*", "[x]", "-", ".x", "a\nb"]
ODD += ["x" * 210]


@pytest.mark.parametrize("name", ODD)
def test_odd_names(tmp_path, name):
    for out in (tmp_path / name, tmp_path / "new" / name / name, tmp_path / "new" / ".." / f"{name}2"):
        assert not is_done(out, **RUN)
        with claimed(out), publish(out, **RUN) as (staging, _):
            (staging / "data").write_text("x")
        assert is_done(out, **RUN) and read_manifest(out, kind="samples")["files"] == {"data": 1}


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ("file/s", "Not a directory"),
        ("file/s/t", "Not a directory"),
        ("n" * 256, "File name too long"),
        ("n" * 230, "File name too long"),  # with what stands beside it
        ("ä" * 120, "File name too long"),  # bytes, not letters
        ("/".join(["d" * 200] * 21), "File name too long"),
        ("/proc/prerank/s", "No such file or directory"),
        ("/proc/s", "No such file or directory"),
        ("/sys/s", "Permission denied|No such file|not permitted"),
        ("/dev/null/s", "Not a directory"),
        ("nul\0l", "embedded null"),
    ],
)
def test_places_where_nothing_can_be_made(tmp_path, out, why):
    (tmp_path / "file").write_text("x")
    out = tmp_path / out
    for make in (check_place, lambda out: is_done(out, **RUN), lambda out: publish(out, **RUN).__enter__()):
        with pytest.raises(InputError, match=why) as caught:
            make(out)
        assert str(caught.value).startswith(f"{out}: cannot be made: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_no_place_for_a_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file: not empty and not an output of this program"):
        is_done(tmp_path / "file", **RUN)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "manifest.json: not JSON"),
        ("[]", "manifest.json: not written by this program"),
        ('{"kind": "samples"}', "manifest.json: not written by this program"),
        ('{"kind": "samples", "kind": "teacher"}', "manifest.json: key 'kind' is given twice"),
    ],
)
def test_a_manifest_of_somebody_else(tmp_path, text, complaint):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=complaint):
        is_done(tmp_path, **RUN)


CLAIMS = """
import sys
from pathlib import Path
from prerank.core.outputs import claimed
from prerank.core.errors import InputError
try:
    with claimed(Path(sys.argv[1])):
        print("mine", flush=True)
        sys.stdin.read()
except InputError as error:
    print(error, flush=True)
"""


def claims(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLAIMS, str(out)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_one_command_at_a_time_makes_an_output(tmp_path):
    out = tmp_path / "out"
    running = [claims(out) for _ in range(4)]
    said = [process.stdout.readline() for process in running]
    (holder,) = (process for process, line in zip(running, said, strict=True) if line == "mine\n")
    others = [line for line in said if line != "mine\n"]
    assert len(others) == 3 and all(line.startswith(f"{out}: being written by ") for line in others)
    assert any(f"process {holder.pid} on " in line for line in others)
    with claimed(tmp_path / "other"):
        pass
    holder.kill()
    holder.wait()
    with claimed(out):  # the kernel takes the right back
        pass
    for process in running:
        process.communicate()
    assert not list(tmp_path.iterdir())


def test_what_is_done_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    with publish(tmp_path / "out", **RUN):
        pass
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = {*tmp_path.iterdir()}
    with claimed(tmp_path / "out"):
        assert is_done(tmp_path / "out", **RUN) and {*tmp_path.iterdir()} == before
