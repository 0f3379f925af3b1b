"""The guard in front of TensorBoard, without TensorBoard: who gets through, and how fast somebody can guess."""

from __future__ import annotations

import base64
import importlib.util
import sys
import threading
import time
import types
from collections.abc import Iterable
from typing import Any

import pytest

from trainyard.paths import REPOSITORY

SOURCE = REPOSITORY / "roles/tensorboard/files/tensorboard_server.py"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module, with stand-ins for the two packages that only nodes have."""
    program = types.SimpleNamespace(WerkzeugServer=object)
    monkeypatch.setitem(sys.modules, "argon2", types.ModuleType("argon2"))
    package = types.ModuleType("tensorboard")
    package.default, package.program = None, program  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    spec = importlib.util.spec_from_file_location("tensorboard_server", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Door:
    """A guard with an application behind it that remembers what it was asked."""

    def __init__(self, server: types.ModuleType, penalty: float = 0.0) -> None:
        self.asked: list[dict[str, Any]] = []
        self.verified: list[str] = []
        self.guard = server.Guard(self._application, "lab", self._verify, penalty)

    def _application(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked.append(environ)
        start_response("200 OK", [])
        return [b"page"]

    def _verify(self, password: str) -> bool:
        self.verified.append(password)
        return password == "right"

    def knock(self, header: str | None) -> tuple[str, dict[str, str]]:
        """Send a request and return status and headers."""
        said: list[Any] = []
        environ = {"PATH_INFO": "/", **({"HTTP_AUTHORIZATION": header} if header is not None else {})}
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


def test_the_right_password_gets_through_and_is_checked_once(server: types.ModuleType) -> None:
    door = Door(server)
    assert [door.knock(basic("lab", "right"))[0] for _ in range(3)] == ["200 OK"] * 3
    assert door.verified == ["right"]
    assert all("HTTP_AUTHORIZATION" not in environ for environ in door.asked)
    assert door.knock(basic("lab", "wrong"))[0] == "401 Unauthorized"
    assert door.knock(basic("root", "right"))[0] == "401 Unauthorized"


def test_guesses_wait_for_each_other_and_do_not_hold_up_who_is_known(server: types.ModuleType) -> None:
    door = Door(server, penalty=0.05)
    door.knock(basic("lab", "right"))
    threads = [threading.Thread(target=door.knock, args=(basic("lab", f"guess{n}"),)) for n in range(4)]
    seen: list[str] = []
    known = threading.Thread(target=lambda: seen.append(door.knock(basic("lab", "right"))[0]), daemon=True)
    with door.guard._turn:  # as if somebody's guess were being looked at
        for thread in [*threads, known]:
            thread.start()
        known.join(60)
        assert seen == ["200 OK"]
        started = time.monotonic()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started >= 4 * 0.05


def test_a_crowd_of_guesses_is_sent_away(server: types.ModuleType) -> None:
    door = Door(server, penalty=0)
    seen: list[str] = []
    threads = [threading.Thread(target=lambda n=n: seen.append(door.knock(basic("lab", f"guess{n}"))[0])) for n in range(server.QUEUE + 15)]
    with door.guard._turn:  # nobody's password is looked at meanwhile
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(seen) < 15 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert seen == ["503 Service Unavailable"] * 15
    for thread in threads:
        thread.join()
    assert seen[15:] == ["401 Unauthorized"] * server.QUEUE
