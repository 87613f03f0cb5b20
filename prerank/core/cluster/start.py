"""Ray is joined, or started on this machine alone."""

import atexit
import ipaddress
import logging
import os
import re
import socket
import sys
import tempfile
from contextlib import suppress

import ray
from ray.exceptions import RayError

from prerank.core.cluster.private import (
    SOCKET_BYTES,
    SOCKETS,
    TOKEN_LOGGER,
    address_of_the_last_start,
    answers,
    folder_of_temporary_files,
    listen_on_loopback,
    signals_left_alone,
)
from prerank.core.cluster.settings import configure
from prerank.core.errors import InputError

STORE_BYTES = 1 << 30
"""Object store of a local cluster: only a shuffle's input passes through it."""
ANSWER_S = 10
"""That a cluster has to answer at all."""
UNSET = "unset RAY_ADDRESS to have the command start Ray on this machine for itself"


def start_ray(cpus: int | None = None) -> None:
    """Joins the cluster of RAY_ADDRESS, or starts one on this machine; one that this process has joined is kept.

    `cpus`: of the one that it starts; by default all that there are. Raises InputError where RAY_ADDRESS leads to no
    cluster, soon, or where Ray has no place for its temporary files.
    """
    if not ray.is_initialized():
        logging.getLogger(TOKEN_LOGGER).setLevel(logging.ERROR)  # it speaks while Ray starts
        with signals_left_alone():
            if joins():
                _join(os.environ["RAY_ADDRESS"].strip())
            else:
                _start_here(cpus or os.cpu_count() or 1)
        atexit.register(ray.shutdown)  # Ray's own, which comes after it, waits half a second for words of its workers
    configure()


def joins() -> bool:
    """Whether the environment names a cluster to join."""
    return os.environ.get("RAY_ADDRESS", "").strip() not in ("", "local")


def _join(named: str) -> None:
    address, what = named, f"RAY_ADDRESS {named}"
    if named == "auto":
        address = address_of_the_last_start() or ""
        if not address:
            raise InputError(
                f"{what}: no cluster was started on this machine; `ray start --head` starts one, or {UNSET}"
            )
        what = f"{what}, {address} by the last `ray start`"
    where = re.fullmatch(r"(ray://)?(?P<host>[\w.-]+|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})", address)
    if not where or not 0 < int(where["port"]) < 1 << 16:
        raise InputError(f"{what}: expected HOST:PORT of a cluster's head, ray://HOST:PORT or auto; or {UNSET}")
    if not answers(f"{where['host']}:{where['port']}", seconds=ANSWER_S):
        raise InputError(f"{what}: no cluster answers there within {ANSWER_S} s; start it, or {UNSET}")
    if _on_loopback_alone(where["host"], int(where["port"])):
        listen_on_loopback()
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(f"{what}: cannot be joined: {said}; mend that, or {UNSET}") from error


def _on_loopback_alone(host: str, port: int) -> bool:
    """Whether what answers there is a cluster that the machine's own address does not lead to.

    Ray puts that address in the place of a loopback one, would wait minutes for an answer there, and then abort.
    """
    own = ray.util.get_node_ip_address()
    if not _is_loopback(host.strip("[]")) or _is_loopback(own):
        return False
    with suppress(OSError), socket.create_connection((own, port), timeout=1):
        return False
    return True


def _is_loopback(host: str) -> bool:
    with suppress(OSError):
        return ipaddress.ip_address(host if ":" in host else socket.gethostbyname(host)).is_loopback
    return False


def _start_here(cpus: int) -> None:
    """Ray's processes and torch's workers on loopback; raises InputError where the machine does not let them start."""
    listen_on_loopback()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    folder = _temporary()
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _temp_dir=folder,
        )
    except TypeError:
        raise
    except Exception as error:  # Ray raises what it has, from Exception itself to what a hook of the environment lacks
        said = " ".join(str(error).split())[:300]
        raise InputError(
            f"Ray does not start on this machine: {said}; its logs are in {folder}/session_latest/logs; look for "
            "limits (ulimit -n, -u), memory, and variables that begin with RAY_"
        ) from error


def _temporary() -> str:
    """The folder of Ray's temporary files: as Ray has it, or another one where that cannot be written or is too long.

    Raises InputError where there is none.
    """
    named = folder_of_temporary_files()
    faults: list[str] = []
    for folder in dict.fromkeys(os.path.abspath(path) for path in (named, "/tmp", "/var/tmp", "/dev/shm")):
        for path in (f"{folder}/ray", f"{folder}/ray-{os.getuid()}"):
            fault = _fault_of(folder, path)
            if not fault:
                if faults:
                    print(f"note: {faults[0]}: Ray's temporary files are in {path}", file=sys.stderr)
                return path
            faults.append(fault)
    raise InputError(f"{faults[0]}: set TMPDIR to a folder with room for Ray's temporary files")


def _fault_of(folder: str, path: str) -> str:
    most = SOCKET_BYTES - len(SOCKETS)
    if len(os.fsencode(path)) > most:
        return f"the temporary folder {folder} is too long for sockets, of which Ray's take {most - 4} bytes here"
    try:
        with tempfile.TemporaryFile(dir=path if os.path.exists(path) else folder):
            return ""
    except OSError as error:
        return f"the temporary folder {folder} cannot be written ({error.strerror})"
