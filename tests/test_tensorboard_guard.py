"""The server in front of TensorBoard, without TensorBoard: who gets through, and what it sees of the log folder."""

from __future__ import annotations

import base64
import importlib.util
import os
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils._web import service

from trainyard.paths import REPOSITORY

SOURCE = REPOSITORY / "roles/tensorboard/files/tensorboard_server.py"


class NotFoundError(Exception):
    """TensorBoard's, as its reader raises it."""

    def __init__(self, _node: Any, _operation: Any, message: str) -> None:
        super().__init__(message)


class DataLossError(NotFoundError):
    """TensorBoard's, after which it leaves a file alone."""


class LocalFileSystem:
    """A stand-in for TensorBoard's, which the server's overrides."""

    def glob(self, pattern: str) -> list[str]:
        return [str(path) for path in Path("/").glob(pattern.lstrip("/"))]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module, with stand-ins for the packages that only nodes have."""

    def stand_in(name: str, **attributes: Any) -> None:
        module = types.ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)

    stand_in("argon2")
    stand_in("tensorboard", default=None, program=types.SimpleNamespace(WerkzeugServer=object))
    stand_in("tensorboard.compat")
    stand_in("tensorboard.compat.tensorflow_stub", errors=types.SimpleNamespace(NotFoundError=NotFoundError, DataLossError=DataLossError))
    gfile = types.SimpleNamespace(LocalFileSystem=LocalFileSystem, StatData=lambda length: types.SimpleNamespace(length=length))
    stand_in("tensorboard.compat.tensorflow_stub.io", gfile=gfile)
    monkeypatch.setitem(sys.modules, "web_service", service)
    spec = importlib.util.spec_from_file_location("tensorboard_server", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules.pop("tensorboard.compat.notf")
    return module


class Door:
    """A guard with an application behind it that remembers what it was asked."""

    def __init__(self, server: types.ModuleType, penalty: float = 0.0) -> None:
        self.asked: list[dict[str, Any]] = []
        self.verified: list[str] = []
        self.guard = server.Guard(self._application, "lab", "Müller's lab", service.Gate(self._verify, penalty))

    def _application(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked.append(environ)
        start_response("200 OK", [])
        return [b"page"]

    def _verify(self, credentials: str) -> bool:
        self.verified.append(credentials)
        return credentials == "lab:right"

    def knock(self, header: str | None) -> tuple[str, dict[str, str]]:
        """Send a request and return status and headers."""
        said: list[Any] = []
        peer = {"REMOTE_ADDR": "192.0.2.7", "REMOTE_PORT": 50000, "SERVER_PORT": "6006"}
        environ = {"PATH_INFO": "/", **peer, **({"HTTP_AUTHORIZATION": header} if header is not None else {})}
        b"".join(self.guard(environ, lambda status, headers: said.extend([status, dict(headers)])))
        return said[0], said[1]


def basic(login: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"\xff\xfe").decode(),
        "Basic " + base64.b64encode(b"right").decode(),
        "Bearer " + base64.b64encode(b"lab:right").decode(),
        basic("lab", ""),
        basic("lab", "wrong"),
        basic("root", "right"),
        basic("", "right"),
    ],
)
def test_nobody_else_gets_through(server: types.ModuleType, header: str | None) -> None:
    door = Door(server)
    status, headers = door.knock(header)
    assert status == "401 Unauthorized"
    assert headers["WWW-Authenticate"].startswith("Basic ")
    assert door.asked == []


def test_a_browser_learns_which_lab_it_is_and_where_the_password_is(server: types.ModuleType) -> None:
    door = Door(server)
    said: list[Any] = []
    body = b"".join(door.guard({"PATH_INFO": "/"}, lambda status, headers: said.extend([status, dict(headers)]))).decode()
    assert body.startswith("401 Unauthorized\nTensorBoard of Müller's lab: reload this page and log in as lab.\n")
    assert "tensorboard_password in the lab's inventory" in body
    assert said[1]["WWW-Authenticate"] == 'Basic realm="TensorBoard of Mller\'s lab", charset="UTF-8"'
    assert said[1]["Content-Type"] == "text/plain; charset=utf-8"
    assert int(said[1]["Content-Length"]) == len(body.encode())


def test_the_right_password_gets_through_and_is_checked_once(server: types.ModuleType) -> None:
    door = Door(server)
    assert [door.knock(basic("lab", "right"))[0] for _ in range(3)] == ["200 OK"] * 3
    assert door.verified == ["lab:right"]
    assert all("HTTP_AUTHORIZATION" not in environ for environ in door.asked)
    assert door.knock(basic("lab", "wrong"))[0] == "401 Unauthorized"
    assert door.knock(basic("root", "right"))[0] == "401 Unauthorized"


def test_login_and_password_are_checked_both(server: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class PasswordHasher:
        def verify(self, stored: str, password: str) -> bool:
            if stored != f"hash of {password}":
                raise MismatchError
            return True

    class MismatchError(Exception):
        pass

    monkeypatch.setattr(server.argon2, "PasswordHasher", PasswordHasher, raising=False)
    monkeypatch.setattr(server.argon2, "exceptions", types.SimpleNamespace(VerificationError=MismatchError), raising=False)
    verify = server.verifier("lab", "hash of a:b")
    assert verify("lab:a:b")
    assert not verify("root:a:b")
    assert not verify("lab:b")


def test_a_crowd_of_guesses_is_sent_away(server: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(server)
    monkeypatch.setattr(service, "QUEUE", 0)
    status, headers = door.knock(basic("lab", "guess"))
    assert (status, headers["Retry-After"]) == ("503 Service Unavailable", "5")


@pytest.fixture
def logs(server: types.ModuleType, tmp_path: Path) -> Any:
    """The log folder as TensorBoard sees it, with one good run and everything that is none."""
    folder = tmp_path / "logs"
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "events.out.tfevents.1").write_text("0123456789")
    os.mkfifo(folder / "run" / "events.fifo")
    (folder / "run" / "zero").symlink_to("/dev/zero")
    (folder / "run" / "secret").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("s")
    (folder / "again").symlink_to(".")
    (folder / "out").symlink_to("/")
    (folder / "run" / os.fsdecode(b"odd\xff")).write_text("")
    deep = folder
    for _ in range(server.DEPTH + 5):
        deep /= "d"
    deep.mkdir(parents=True)
    files = server.LogFiles(str(folder))
    files.folder = folder
    return files


def test_regular_files_in_folders_are_seen_and_nothing_else(logs: Any) -> None:
    assert sorted(logs.listdir(str(logs.folder))) == ["d", "run"]
    assert logs.listdir(f"{logs.folder}/run") == ["events.out.tfevents.1"]
    for path in ("run/events.fifo", "run/zero", "run/secret", "again/run", "out/etc", "../secret", "run/../../secret", "nothing"):
        assert not logs.exists(f"{logs.folder}/{path}"), path
        with pytest.raises(NotFoundError):
            logs.read(f"{logs.folder}/{path}", True, 1)
    assert not logs.exists("/etc/passwd")
    assert logs.isdir(bytes(logs.folder))
    assert not logs.isdir(f"{logs.folder}/run/events.out.tfevents.1")
    assert logs.glob(f"{logs.folder}/run/*") == [f"{logs.folder}/run/events.out.tfevents.1"]


def test_folders_have_an_end(logs: Any, server: types.ModuleType) -> None:
    depth, folder = 0, str(logs.folder)
    while names := [name for name in logs.listdir(folder) if name == "d"]:
        depth, folder = depth + 1, f"{folder}/{names[0]}"
    assert depth == server.DEPTH


def test_a_file_is_read_piece_by_piece(logs: Any) -> None:
    path = f"{logs.folder}/run/events.out.tfevents.1"
    first, token = logs.read(path, True, 4)
    second, token = logs.read(path, True, 4, token)
    rest, _token = logs.read(path, False, None, token)
    assert (first, second, rest) == (b"0123", b"4567", "89")
    assert logs.stat(path).length == 10


def test_more_than_is_sensible_is_not_read_at_once(logs: Any, server: types.ModuleType) -> None:
    path = logs.folder / "run" / "events.out.tfevents.1"
    os.truncate(path, 2**40)
    with pytest.raises(DataLossError, match="More than"):
        logs.read(str(path), True, 2**39)
    with pytest.raises(DataLossError):
        logs.read(str(path), True)
    assert logs.read(str(path), True, 3)[0] == b"012"


def test_a_log_folder_that_is_itself_a_link_is_the_admins(server: types.ModuleType, logs: Any, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(logs.folder)
    files = server.LogFiles(f"{tmp_path}/way/")
    assert files.listdir(f"{tmp_path}/way/run") == ["events.out.tfevents.1"]


def test_a_reader_that_ended_or_hangs_is_noticed(server: types.ModuleType, logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = types.SimpleNamespace(reload_interval=5, reload_task="auto")
    threads = [types.SimpleNamespace(name="Reloader")]
    monkeypatch.setattr(server.threading, "enumerate", lambda: threads)
    assert server.is_reading(logs, flags)
    logs.looked -= server.PATIENCE + 10
    assert not server.is_reading(logs, flags)
    logs.exists(str(logs.folder))
    assert server.is_reading(logs, flags)
    threads.clear()
    assert not server.is_reading(logs, flags)
    for once in ({"reload_interval": 0, "reload_task": "auto"}, {"reload_interval": 5, "reload_task": "process"}):
        assert server.is_reading(logs, types.SimpleNamespace(**once))
