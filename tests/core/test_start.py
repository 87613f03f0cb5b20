"""Where Ray is joined or started: an address that leads nowhere, and folders it cannot use, without starting it."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest
import ray
from server_fixture import free_port

from prerank.core.cluster import private, start
from prerank.core.errors import InputError


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No cluster that this process or this machine knows of."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(start, "configure", lambda: None)
    monkeypatch.setattr(start, "ANSWER_S", 1)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


@pytest.fixture
def inits(monkeypatch):
    """The calls of `ray.init`."""
    calls: list[tuple[tuple[object, ...], dict[str, object]]] = []
    monkeypatch.setattr(ray, "init", lambda *args, **options: calls.append((args, options)))
    return calls


@pytest.mark.slow
@pytest.mark.parametrize(
    "address",
    [
        *(
            "nowhere",
            "127.0.0.1",
            "127.0.0.1:",
            ":6379",
            "127.0.0.1:port",
            "127.0.0.1:0",
            "127.0.0.1:99999",
            "a b:6379",
        ),
        *("http://127.0.0.1:8265", "ray://", "ray://127.0.0.1", "ray://user@host:1", "127.0.0.1:6379/x", "AUTO", "-"),
        *("127.0.0.1:6379,127.0.0.1:6380", "redis://127.0.0.1:6379", "[::1]", "größe:6379\n"),
    ],
)
def test_an_address_that_is_none(monkeypatch, inits, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    with pytest.raises(InputError, match=r"RAY_ADDRESS .*(expected HOST:PORT|no cluster answers)") as caught:
        start.start_ray()
    assert "unset RAY_ADDRESS" in str(caught.value) and not inits and time.monotonic() - began < 20


@pytest.mark.slow
@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "localhost:{}", "[::1]:{}", " 127.0.0.1:{} "])
def test_an_address_where_nobody_is(monkeypatch, inits, form):
    monkeypatch.setenv("RAY_ADDRESS", form.format(free_port()))
    with pytest.raises(InputError, match=r"RAY_ADDRESS .*no cluster answers there within 1 s; start it, or unset"):
        start.start_ray()
    assert not inits


@pytest.mark.slow
@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n"])
def test_an_address_where_another_service_is(monkeypatch, inits, says):
    """One that answers otherwise, or not at all, as a machine that swallows what is sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.sendall(says)

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(InputError, match="no cluster answers there"):
            start.start_ray()
        assert time.monotonic() - began < 20 and not inits


@pytest.mark.slow
def test_auto(monkeypatch, inits, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(InputError, match="RAY_ADDRESS auto: no cluster was started on this machine; `ray start"):
        start.start_ray()
    (tmp_path / "ray").mkdir()
    port = free_port()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}")
    with pytest.raises(
        InputError, match=f"RAY_ADDRESS auto, 127.0.0.1:{port} by the last `ray start`: no cluster answers"
    ):
        start.start_ray()
    monkeypatch.setattr(start, "answers", lambda address, seconds: True)
    start.start_ray()
    assert [args for args, _ in inits] == [(f"127.0.0.1:{port}",)]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_cluster_on_loopback_alone_is_joined_there(monkeypatch, inits, host, everywhere):
    """Ray would look for it at the machine's own address, which here is another address of loopback."""
    told = []
    monkeypatch.setattr(start, "answers", lambda address, seconds: True)
    monkeypatch.setattr(start, "listen_on_loopback", lambda: told.append(True))
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "own")
    monkeypatch.setattr(start, "_is_loopback", lambda host: host != "own")
    resolved = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda at, timeout: resolved(("127.0.0.1", at[1]), timeout))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if everywhere else free_port()
        monkeypatch.setenv("RAY_ADDRESS", f"{host}:{port}")
        start.start_ray()
    assert told == ([] if everywhere else [True]) and [args for args, _ in inits] == [(f"{host}:{port}",)]


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("localhost", True), ("::1", True), ("8.8.8.8", False)],
)
def test_what_is_loopback(host, expected):
    assert start._is_loopback(host) is expected


@pytest.mark.parametrize(
    "error", [ConnectionError("no raylet\nhere"), RuntimeError("version\nmismatch"), ValueError("x")]
)
def test_a_cluster_that_cannot_be_joined(monkeypatch, error):
    def init(*args, **options):
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(start, "answers", lambda address, seconds: True)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    with pytest.raises(InputError, match=r"RAY_ADDRESS 127.0.0.1:6379: cannot be joined: ") as caught:
        start.start_ray()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [Exception("The current node timed out\nduring startup."), OSError(24, "Too many"), ModuleNotFoundError("Too")],
)
def test_a_machine_that_does_not_let_ray_start(monkeypatch, error):
    def init(**options):
        raise error

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError, match=r"^Ray does not start on this machine: .*(timed out during|Too)") as caught:
        start.start_ray()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("address", ["", " ", "local", None])
def test_no_address_starts_one_on_loopback(monkeypatch, inits, tmp_path, address):
    monkeypatch.setattr(start, "listen_on_loopback", lambda: None)
    monkeypatch.setattr(private, "SOCKET_BYTES", 300)
    monkeypatch.setattr(start, "SOCKET_BYTES", 300)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    start.start_ray(cpus=3)
    ((_, options),) = inits
    assert options["address"] == "local" and options["num_cpus"] == 3 and options["_temp_dir"] == f"{tmp_path}/ray"


@pytest.fixture
def short(tmp_path):
    """A folder whose name is short enough for sockets."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as folder:
        yield Path(folder)


def test_the_folder_of_temporary_files_is_that_of_the_environment(monkeypatch, short, capsys):
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", str(short))
    assert start._temporary() == f"{short}/ray"
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert start._temporary() == "/tmp/ray" and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("/tmp/" + "x" * 90, "is too long for sockets"),
        ("/tmp/" + "ä" * 20, "is too long for sockets"),  # bytes, not letters
        ("/nowhere/at/all", "cannot be written (No such file or directory)"),
        ("/proc/tmp", "cannot be written (No such file or directory)"),
        ("/dev/null", "cannot be written (Not a directory)"),
    ],
)
def test_another_folder_of_temporary_files_is_said_once(monkeypatch, capsys, named, said):
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", named)
    assert start._temporary().startswith("/tmp/ray")
    err = capsys.readouterr().err
    assert err.startswith(f"note: the temporary folder {named} {said}") and err.count("\n") == 1


def test_no_folder_of_temporary_files_at_all(monkeypatch):
    monkeypatch.setattr(start, "_fault_of", lambda folder, path: f"the temporary folder {folder} cannot be written")
    with pytest.raises(InputError, match="cannot be written: set TMPDIR to a folder"):
        start._temporary()


def test_a_folder_of_another_user_gets_one_beside(monkeypatch, short):
    def fault(folder: str, path: str) -> str:
        return "of another user" if path.endswith("/ray") else ""

    monkeypatch.setattr(start, "_fault_of", fault)
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    assert start._temporary() == f"{short}/ray-{os.getuid()}"
