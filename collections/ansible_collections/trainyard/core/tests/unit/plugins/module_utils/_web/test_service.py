# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Sockets from systemd, its watchdog, and how fast somebody can guess a password."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.trainyard.core.plugins.module_utils._web import service

FILE = Path(service.__file__)


class Door:
    """A gate that counts what it was asked."""

    def __init__(self, penalty: float) -> None:
        self.verified: list[str] = []
        self.gate = service.Gate(self._verify, penalty)
        self.opens = threading.Event()
        self.opens.set()

    def _verify(self, password: str) -> bool:
        self.opens.wait(60)
        self.verified.append(password)
        return password == "right"

    def crowd(self, number: int, who: str) -> list[threading.Thread]:
        """Let a number of guesses come at the same time."""
        self.seen: list[bool | None] = []
        threads = [threading.Thread(target=lambda n=n: self.seen.append(self.gate.allows(f"guess{n}", who))) for n in range(number)]
        for thread in threads:
            thread.start()
        return threads


def test_a_password_that_was_right_is_known_again() -> None:
    door = Door(0)
    assert not door.gate.knows("right")
    assert door.gate.allows("right", "user 1") is True
    assert door.gate.knows("right")
    assert not door.gate.knows("wrong")
    assert door.gate.allows("wrong", "user 1") is False
    assert door.gate.knows("right"), "and a wrong one changes nothing"
    assert door.verified == ["right", "wrong"]


def test_the_guesses_of_one_wait_for_each_other_and_hold_up_nobody_else() -> None:
    door = Door(0.2)
    threads = door.crowd(5, "user 2")
    started = time.monotonic()
    assert door.gate.allows("right", "user 1") is True
    assert time.monotonic() - started < 0.2
    for thread in threads:
        thread.join()
    assert time.monotonic() - started >= 5 * 0.2 - 0.05
    assert door.seen == [False] * 5


def test_a_crowd_from_one_origin_is_sent_away_and_others_are_let_in() -> None:
    door = Door(0)
    door.opens.clear()
    threads = door.crowd(service.QUEUE + 5, "user 2")
    deadline = time.monotonic() + 60
    while len(door.seen) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert door.seen == [None] * 5
    door.opens.set()
    assert door.gate.allows("right", "user 1") is True
    for thread in threads:
        thread.join()
    assert door.seen.count(False) == service.QUEUE
    assert door.gate._lanes == {}, "nothing is kept of who came"


def test_origins() -> None:
    assert service.origin("192.0.2.7", 50000, 8888) == "192.0.2.7"
    assert service.origin("::ffff:192.0.2.7", 50000, 8888) == "192.0.2.7"
    assert service.origin("2001:db8::7", 1, 8888) == service.origin("2001:db8::8", 2, 8888) == "2001:db8::/64"
    assert service.origin("fe80::1%eth0", 1, 8888) == "fe80::/64"
    assert service.origin("", 1, 8888) == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
def test_a_user_of_the_node_is_known_by_the_end_of_the_connection(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.fail(f"{host} cannot be listened on here")
    with server, socket.create_connection(server.getsockname()[:2], source_address=(host, 0)) as client:
        accepted, address = server.accept()
        with accepted:
            assert service.origin(address[0], address[1], server.getsockname()[1]) == f"user {os.geteuid()}"
            assert client.getsockname()[1] == address[1]


def test_the_port_of_another_user_on_another_address_is_not_mistaken(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0200007F:C350 0100007F:22B8 01 00000000:00000000 00:00000000 00000000  2002        0 1 1\n"
        "   1: 0100007F:C350 0100007F:22B8 01 00000000:00000000 00:00000000 00000000  2001        0 2 1\n"
    )
    for text, user in (("127.0.0.1", 2001), ("127.0.0.2", 2002), ("127.0.0.3", None)):
        address = service.ipaddress.ip_address(text)
        assert service.owner_of_connection(address, 0xC350, 0x22B8, (str(table), "/nowhere")) == user


def test_sockets_are_taken_over_and_not_handed_on() -> None:
    program = f"""
import os, socket, subprocess, sys
sys.path.insert(0, {str(FILE.parent)!r})
listening = socket.create_server(("127.0.0.1", 0))
os.dup2(listening.fileno(), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
import service
(taken,) = service.inherited_sockets()
assert taken.getsockname() == listening.getsockname()
assert taken.gettimeout() == 0 and not os.get_inheritable(3) and "LISTEN_FDS" not in os.environ
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_service_without_its_socket_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")  # meant for another process
    with pytest.raises(SystemExit, match="systemd handed no socket over"):
        service.inherited_sockets()


def test_the_watchdog_is_told_as_long_as_the_service_is_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        states = iter([True, False, None, True])
        done = threading.Event()

        def healthy() -> bool:
            state = next(states, "")
            if state == "":
                done.set()
                threading.Event().wait()  # no more, as long as the tests run
            if state is None:
                raise RuntimeError("cannot tell")  # and the watch goes on
            return bool(state)

        service.start_watchdog(healthy)
        assert done.wait(5)
        assert [systemd.recv(100), systemd.recv(100)] == [b"WATCHDOG=1"] * 2
        systemd.settimeout(0.2)
        with pytest.raises(TimeoutError):
            systemd.recv(100)


def test_a_socket_that_nobody_serves_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not service.answers(silent.getsockname(), seconds=0.2)


def test_a_server_answers_over_tls_whatever_it_says_and_whoever_signed_its_certificate(tmp_path: Path) -> None:
    pem = tmp_path / "tls.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=x"]
    subprocess.run([*words, "-keyout", str(pem), "-out", str(tmp_path / "crt")], check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "crt").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        threads = [threading.Thread(target=_answer, args=(listening, context, status)) for status in (401, 500)]
        for thread, well in zip(threads, (True, False), strict=True):
            thread.start()
            assert service.answers(address) is well
            thread.join()


def _answer(listening: socket.socket, context: ssl.SSLContext, status: int) -> None:
    with context.wrap_socket(listening.accept()[0], server_side=True) as connection:
        connection.recv(1000)
        connection.sendall(f"HTTP/1.0 {status} Status\r\n\r\n".encode())
