"""Where people look: one MLflow run a step, an arm or a trial, children of the run of the pipeline or the sweep.

No global state: a worker logs to a run that the driver made. The run's id is kept beside the output, so a restarted
command goes on in its run. Nothing in MLflow is read back as an input. While its server is down, what is logged waits
beside the output, and is sent in order once the server answers.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prerank.core.errors import InputError
from prerank.core.outputs import fingerprint, write_json
from prerank.core.storage import Remote, fetched
from prerank.tracking.entry import Entry, What
from prerank.tracking.experiment import SQLITE, experiment_of
from prerank.tracking.faults import explained, is_down, is_fault, is_refusal, masked
from prerank.tracking.server import KEYED, PARENT, connect, local_uri, probe, send
from prerank.tracking.unsent import Refused, Spool

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.tracking import MlflowClient

PARAM_LENGTH = 6000
TRY_AGAIN_S, DRAIN_S = 5.0, 2.0  # between two tries of a store that is down; to send what waits, of a call in training
_next_try: dict[Path, float] = {}  # by queue, on this process's clock


@dataclass(frozen=True)
class Run:
    """A run that any process can log to; what an outage of the store holds up waits in `spool`, where one is given.

    Any other fault, as a parameter with a second value, is raised as MlflowException; where it shows only when what
    waited is sent, the entry is put aside and told of. `top`: the run has no parent, and its end sends what waits.
    """

    uri: str
    """Of the store without its secrets, which every process has in its environment: Ray keeps runs on disk."""
    run_id: str
    experiment_id: str
    spool: Path | None = None
    top: bool = False

    @property
    def client(self) -> "MlflowClient":
        return connect(self.uri)

    def metrics(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Metrics in one request; None and NaN are left out, as MLflow has no place for them."""
        now = _now_ms()
        self.log({"metrics": [(k, float(v), now, step) for k, v in values.items() if v is not None and v == v]})

    def tags(self, values: dict[str, str]) -> None:
        self.log({"tags": values})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file or a folder, which may be changed or deleted afterwards."""
        with fetched(path) as file:
            self.log({"artifact": folder}, file)

    def figures(self, figures: dict[str, "Figure"]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, figure in figures.items():
                figure.savefig(Path(folder) / f"{name}.png")
                self.artifact(Path(folder) / f"{name}.png", "figures")

    def end(self, status: str = "FINISHED") -> None:
        """FINISHED, FAILED or KILLED; the top run sends all that waits, or tells where it does."""
        self.log({"ended": status, "time": _now_ms()})
        if self.top and self.spool:
            _send_all(self.uri, self.spool)

    def online(self) -> "Run":
        """This run by the server's own id, for calls of `client`; raises InputError where the server is down."""
        if self.spool:
            _drain(self.uri, self.spool, all_of_it=True)
            if not Spool(self.spool).empty():
                raise InputError(f"{_down(self.uri)}; start it, and run the same command again")
        return replace(self, run_id=send(self.uri, self.entry({}), None))

    def entry(self, what: What) -> Entry:
        """With the run that it is of."""
        return {"run": self.run_id, "experiment": self.experiment_id, **what}

    def log(self, what: What, file: Path | None = None) -> str:
        """Sends an entry or queues it; the run's id, as far as it is known."""
        if self.spool is None:
            return send(self.uri, self.entry(what), file)
        spool, began = Spool(self.spool), time.monotonic()
        if spool.empty():
            try:
                return send(self.uri, self.entry(what), file)
            except Exception as error:
                if not is_down(error) and not _is_early(self.run_id, error):
                    raise
                _wait(self.spool, began)
                print(f"{_down(self.uri, error)}; what is logged waits in {spool.queue}", file=sys.stderr)
        spool.add(self.entry(what), file)
        _drain(self.uri, self.spool)
        return self.run_id


def tracking_uri(out: Path) -> str:
    """`MLFLOW_TRACKING_URI` without its secrets, or a SQLite file in the folder that holds the output.

    Raises InputError for an output in object storage, beside which no database can lie.
    """
    uri = masked(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if not uri and isinstance(out, Remote):
        raise InputError(
            f"{out}: no database can lie beside it; set MLFLOW_TRACKING_URI to a server, or sqlite:///FILE"
        )
    if uri.startswith(SQLITE):  # a trial runs in a folder of its own
        return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).resolve()}"
    return uri or local_uri(out.resolve().parent / "mlflow.db")


@contextmanager
def run(
    name: str,
    *,
    out: Path,
    state: Path,
    params: Mapping[str, object],
    tags: dict[str, str] | None = None,
    parent: Run | None = None,
) -> Iterator[Run]:
    """The run that `open_run` opens; ends as FINISHED, by an exception as FAILED, by a signal as KILLED."""
    current = open_run(name, out=out, state=state, params=params, tags=tags, parent=parent)
    try:
        yield current
    except BaseException as error:
        current.end("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    current.end()


def open_run(
    name: str,
    *,
    out: Path,
    state: Path,
    params: Mapping[str, object],
    tags: dict[str, str] | None = None,
    parent: Run | None = None,
) -> Run:
    """A run named `name` for the output `out`, a child of `parent` if there is one; RUNNING.

    Without a parent, the experiment is MLFLOW_EXPERIMENT_NAME or the run's name; what earlier runs for `out` left
    unsent is sent first; a store that is down is an InputError. `state` is the JSON file that remembers the run's id,
    so that a restart goes on in it rather than adding another.
    """
    uri = parent.uri if parent else tracking_uri(out)
    own, shared = _spool(uri, out), parent.spool if parent else None
    try:
        if parent is None:
            _drain(uri, own, all_of_it=True, strict=True)
        current = _resumed(uri, shared, state)
        if current is None:
            experiment_id = parent.experiment_id if parent else experiment_of(connect(uri), uri, name, out)
            new = Run(uri, KEYED + uuid.uuid4().hex, experiment_id, shared)
            known = {"uri": uri, "run_id": new.run_id, "experiment_id": experiment_id}
            write_json(state, known)  # before there is a run: one that nothing remembers would be made twice
            all_tags = {"mlflow.source.git.commit": git_commit(), "out": str(out), **(tags or {})}
            all_tags |= {PARENT: parent.run_id} if parent else {}
            current = replace(new, run_id=new.log({"create": name, "tags": all_tags, "time": _now_ms()}))
            write_json(state, known | {"run_id": current.run_id})
            current.log({"params": {key: _text(value)[:PARAM_LENGTH] for key, value in params.items()}})
    except Exception as error:
        if parent or not (is_down(error) or is_fault(error)):
            raise
        if not is_down(error):
            raise InputError(explained(uri, error)) from error
        what_to_do = "start it, or unset MLFLOW_TRACKING_URI to log into a SQLite file"
        if uri.startswith(SQLITE):
            what_to_do = "another process has held its file for long: wait for it, and run the same command again"
        raise InputError(f"{_down(uri, error)}: {what_to_do}") from None
    return current if parent else replace(current, spool=own, top=True)


def send_unsent(out: Path) -> None:
    """Sends what the runs for a finished `out` could not; tells where it waits if the store is still down."""
    uri = tracking_uri(out)
    if _spool(uri, out).exists():
        _send_all(uri, _spool(uri, out))


def _send_all(uri: str, folder: Path) -> None:
    _drain(uri, folder, all_of_it=True)
    spool = Spool(folder)
    if left := len(spool):
        print(f"{_down(uri)}: {left} entries wait in {spool.queue}; the same command sends them", file=sys.stderr)
    spool.tidy()


def _drain(uri: str, folder: Path, *, all_of_it: bool = False, strict: bool = False) -> None:
    """Sends what waits, or some of it and nothing soon after a try that failed; only `strict` raises outages."""
    spool, began = Spool(folder), time.monotonic()
    if not all_of_it and began < _next_try.get(folder, began):
        return

    def send_again(entry: Entry, file: Path | None) -> None:
        try:
            send(uri, entry, file, again=True)
        except Exception as error:
            if is_refusal(error) and (strict or not _is_early(entry["run"], error)):
                raise Refused(masked(str(error))[:1000]) from error
            raise

    try:
        if strict or not spool.empty():
            probe(uri)
        if not spool.empty():
            refused = spool.drain(send_again, seconds=float("inf") if all_of_it else DRAIN_S, wait=all_of_it)
            if refused:
                print(f"MLflow at {masked(uri)} refused {refused} entries: see {spool.refused}", file=sys.stderr)
    except Exception as error:
        if strict or not (is_down(error) or _is_unmade(error)):
            raise
        _wait(folder, began)


def _is_early(run_id: str, error: Exception) -> bool:
    """Of an output in object storage, whether another node's queue may still have to make the run."""
    return run_id.startswith(KEYED) and _is_unmade(error)


def _is_unmade(error: Exception) -> bool:
    return getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"


def _wait(folder: Path, began: float) -> None:
    """A store that is down costs a training a twentieth of its time at most."""
    now = time.monotonic()
    _next_try[folder] = now + max(TRY_AGAIN_S, 20 * (now - began))


def _down(uri: str, error: Exception | None = None) -> str:
    return f"MLflow at {masked(uri)} is down" + (f" ({masked(str(error))[:300]})" if error else "")


def _spool(uri: str, out: Path) -> Path:
    """Beside the output, where it outlives the run's state; one a store. Of one in object storage on this machine."""
    if isinstance(out, Remote):
        return Path(tempfile.gettempdir()) / f"prerank-{os.getuid()}" / f"unsent-{fingerprint([str(out), masked(uri)])}"
    return out.resolve().parent / f".{out.resolve().name}.unsent-{fingerprint(masked(uri))[:8]}"


def _resumed(uri: str, spool: Path | None, state: Path) -> Run | None:
    """The run that `state` remembers, if it is of this store and still there."""
    known = json.loads(state.read_text()) if state.is_file() else {}
    if known.get("uri") != uri:
        return None
    current = Run(uri, known["run_id"], known["experiment_id"], spool)
    running: What = {"status": "RUNNING"}
    if spool is None or Spool(spool).empty():  # nothing waits that would still make it
        try:
            return replace(current, run_id=send(uri, current.entry(running), None))
        except Exception as error:
            if _is_unmade(error):
                return None
            if spool is None or not is_down(error):
                raise
    return replace(current, run_id=current.log(running))


def _now_ms() -> int:
    return int(1000 * time.time())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def git_commit() -> str:
    """The commit of the code that runs, or `unknown` outside a checkout and where there is no git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return result.stdout.strip() or "unknown"
