"""A Ray cluster of several nodes on this machine, and what tests of faults look at."""

import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from driver_fixture import environment, tail
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file

from prerank.core.errors import InputError
from prerank.core.outputs import read_manifest
from prerank.core.storage import parquet
from prerank.samples.files import sample_files


class Nodes:
    """A head and two raylets, each on 127.0.0.1 with its own processes; what a driver needs to join is in `env`."""

    def __init__(self, folder: Path) -> None:
        self.log, self.held = folder / "host.log", Held(folder / "held")
        token = folder / "token"
        token.write_text(secrets.token_hex(16))
        token.chmod(0o600)
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.env = environment() | auth | {"HELD": str(self.held.folder)}
        command = [sys.executable, "-m", "nodes_host"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
        with open(self.log, "a") as file:
            self.host = subprocess.Popen(command, env=self.env, stderr=file, **pipes)
        self.env["RAY_ADDRESS"] = self._answer()
        self.alive: list[str] = []
        self.fill()

    def fill(self) -> None:
        """Brings back the nodes that were lost."""
        while len(self.alive) < 2:
            self.alive.append(self._ask("add"))

    def lose(self, node: str) -> None:
        """SIGKILL to the processes of a node."""
        self._ask(f"lose {node}")
        self.alive.remove(node)

    def close(self) -> None:
        self.host.stdin.close()
        try:
            self.host.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.host.pid, signal.SIGKILL)
            self.host.wait()

    def _ask(self, what: str) -> str:
        self.host.stdin.write(f"{what}\n")
        self.host.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        for line in self.host.stdout:
            if line.startswith("> "):
                return line[2:].strip()
        pytest.fail(f"no cluster:\n{tail(self.log)}")


class Held:
    """Points at which processes of the cluster wait: see held.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    @contextmanager
    def at(self, point: str) -> Iterator[None]:
        """Who comes to `point` waits there until the block is left."""
        hold = self.folder / f"{point}.hold"
        hold.touch()
        try:
            yield
        finally:
            hold.unlink(missing_ok=True)

    def release(self, point: str) -> None:
        (self.folder / f"{point}.hold").unlink()

    def been(self, point: str) -> list[tuple[str, int]]:
        """(node, pid) of every time that a process came to `point`, in order."""
        marks = sorted(self.folder.glob(f"{point}.at.*"), key=lambda path: path.stat().st_mtime_ns)
        return [(node, int(pid)) for node, pid, _ in (mark.name.split(".")[2:] for mark in marks)]

    def forget(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()


class Watch:
    """Reads outputs over and over while something goes wrong with them: each is not there, or whole and the same."""

    def __init__(self, outs: dict[Path, str]) -> None:
        """outs: folders with a manifest by kind; of `json`, files."""
        self.outs, self.broken, self.stopped = outs, [], threading.Event()
        self.seen: dict[Path, str] = {}
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.stopped.wait(0.05):
            for out, kind in self.outs.items():
                try:
                    whole = _whole(out, kind)
                except InputError:
                    continue  # what a reader is told
                except FileNotFoundError:
                    if kind == "json":
                        continue
                    whole = None
                except Exception as error:
                    self.broken.append(f"{out}: {error!r}")
                    continue
                if whole is None or self.seen.setdefault(out, whole) != whole:
                    self.broken.append(f"{out}: not whole, or another than before")

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stopped.set()
        self.thread.join()
        assert not self.broken, self.broken[:5]


def _whole(out: Path, kind: str) -> str | None:
    """What the output says of itself; None where a file that it names is missing or of another size."""
    if kind == "json":
        return json.dumps(json.loads(out.read_text()))
    manifest = read_manifest(out, kind=kind)
    sizes = {name: (out / name).stat().st_size for name in manifest["files"]}
    return manifest["fingerprint"] if sizes == manifest["files"] else None


def content(samples: Path) -> dict[str, str]:
    """A hash of each split's rows by content: in the order of their ids, columns in the order of their names."""
    found = {"stats": (samples / "stats.json").read_text()}
    for split in ("train", "val"):
        table = pa.concat_tables([parquet(path).read() for path, _ in sample_files(samples, split)])
        table = table.select(sorted(table.column_names)).sort_by("request_id")
        found[split] = hashlib.sha256(repr(table.to_pylist()).encode()).hexdigest()
    return found


def assert_same_student(student: Path, expected: Path, *, losses: float, weights: float) -> None:
    """Losses and metrics of every epoch, and the best weights, within the tolerances."""
    history, other = (read_manifest(folder, kind="student")["history"] for folder in (student, expected))
    assert len(history) == len(other)
    for epoch, expected_epoch in zip(history, other, strict=True):
        assert epoch == pytest.approx(expected_epoch, rel=losses, abs=losses)
    tensors = load_file(student / "model.safetensors")
    for key, value in load_file(expected / "model.safetensors").items():
        assert torch.allclose(tensors[key], value, rtol=0, atol=weights), key


def runs_of(uri: str, state: Path) -> tuple[Any, dict[str, list[Any]]]:
    """The run that `state` remembers, and its children by name."""
    client, known = MlflowClient(uri), json.loads(state.read_text())
    children: dict[str, list[Any]] = {}
    for run in client.search_runs([known["experiment_id"]], f"tags.`mlflow.parentRunId` = '{known['run_id']}'"):
        children.setdefault(run.info.run_name, []).append(run)
    return client.get_run(known["run_id"]), children


def assert_none_doubled(children: dict[str, list[Any]], expected: Iterable[str]) -> None:
    """One run a name, and each FINISHED."""
    assert {name: [run.info.status for run in runs] for name, runs in children.items()} == {
        name: ["FINISHED"] for name in expected
    }


def left_behind(folder: Path) -> list[str]:
    """Half-written files and staging folders."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.endswith((".partial", ".lock"))]


@contextmanager
def tmpfs(folder: Path, kib: int) -> Iterator[Callable[[int], None]]:
    """A disk of so many KiB at `folder`; the function changes that. Skips the test where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"needs to mount a tmpfs: {made.stderr.strip()}")

    def resize(kib: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kib}k", folder], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
