"""TensorBoard behind TLS and a password.

TensorBoard itself knows neither. Its public extension point (``tensorboard.program.TensorBoard(server_class=...)``) lets a
server of ours serve it, so nothing unprotected listens anywhere, not even on loopback.

Flags are TensorBoard's own. From the environment: RUNTIME_DIRECTORY, a folder with ``tls.pem`` (key and certificate) and
``password`` (an Argon2 hash); TRAINYARD_LOGIN, the name to log in with; NOTIFY_SOCKET, set by systemd.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import secrets
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import argon2
from tensorboard import default, program

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

PENALTY = 1.0  # seconds that a wrong password holds up the next one: 86,400 guesses a day, against 12 characters
SILENCE = 60  # seconds after which a connection that says nothing is closed
QUEUE = 20  # who comes when so many are waiting is sent away at once


class Guard:
    """Lets a request through to an application when it carries the right login and password (HTTP Basic).

    A password that was right once is known again by its HMAC under a key that lives in this process alone, so that only the
    first request costs an Argon2 run. All other checks go one at a time.
    """

    def __init__(self, application: Application, login: str, verify: Callable[[str], bool], penalty: float = PENALTY) -> None:
        """Guard ``application``; ``verify`` says whether a password is right."""
        self._application, self._login, self._verify, self._penalty = application, login, verify, penalty
        self._key = secrets.token_bytes(32)
        self._known = b""
        self._turn = threading.Lock()
        self._waiting = threading.BoundedSemaphore(QUEUE)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""
        header = environ.pop("HTTP_AUTHORIZATION", "")
        if not header:
            return self._refuse(start_response, "401 Unauthorized", ("WWW-Authenticate", 'Basic realm="TensorBoard", charset="UTF-8"'))
        allowed = self._allows(header)
        if allowed is None:
            return self._refuse(start_response, "503 Service Unavailable", ("Retry-After", "5"))
        if not allowed:
            return self._refuse(start_response, "401 Unauthorized", ("WWW-Authenticate", 'Basic realm="TensorBoard", charset="UTF-8"'))
        return self._application(environ, start_response)

    @staticmethod
    def _refuse(start_response: Callable[..., Any], status: str, header: tuple[str, str]) -> Iterable[bytes]:
        body = f"{status}\n".encode()
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"), header])
        return [body]

    def _allows(self, header: str) -> bool | None:
        """Return whether the credentials are right; None where too many are being checked already."""
        scheme, _, encoded = header.partition(" ")
        try:
            login, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        if scheme.lower() != "basic" or not colon:
            return False
        mark = hmac.digest(self._key, password.encode(), hashlib.sha256)
        right_login = hmac.compare_digest(login.encode(), self._login.encode())
        if right_login and hmac.compare_digest(mark, self._known):
            return True
        if not self._waiting.acquire(blocking=False):
            return None
        try:
            with self._turn:
                if self._verify(password) and right_login:
                    self._known = mark
                    return True
                time.sleep(self._penalty)
                return False
        finally:
            self._waiting.release()


def tls_context(pem: Path) -> ssl.SSLContext:
    """Return a server's TLS settings with the key and certificate in one file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pem)
    return context


def tell_systemd(message: str) -> None:
    """Send a notification to systemd, if it started this process and wants one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.sendall(message.encode())


class Server(program.WerkzeugServer):
    """TensorBoard's own server, behind TLS."""

    def __init__(self, application: Application, flags: Any, context: ssl.SSLContext) -> None:
        """Listen as ``flags`` say."""
        super().__init__(application, flags)
        # The handshake waits for the request's own thread, so that a client which says nothing holds up nobody else.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.ssl_context = context

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        connection, address = super().get_request()
        connection.settimeout(SILENCE)
        return connection, address

    def get_url(self) -> str:
        """Return where the server can be reached."""
        return str(super().get_url()).replace("http:", "https:", 1)

    def serve_forever(self, *arguments: Any, **named: Any) -> None:
        """Serve, and say so."""
        tell_systemd("READY=1")
        super().serve_forever(*arguments, **named)


def main() -> int:
    """Run TensorBoard until it is stopped, and return the exit status."""
    folder = Path(os.environ["RUNTIME_DIRECTORY"])
    stored = (folder / "password").read_text().strip()
    login = os.environ["TRAINYARD_LOGIN"]
    context = tls_context(folder / "tls.pem")
    hasher = argon2.PasswordHasher()

    def verify(password: str) -> bool:
        try:
            return hasher.verify(stored, password)
        except (argon2.exceptions.VerificationError, ValueError):
            return False

    tensorboard = program.TensorBoard(
        plugins=default.get_plugins(),
        server_class=lambda application, flags: Server(Guard(application, login, verify), flags, context),
    )
    tensorboard.configure(sys.argv)
    return int(tensorboard.main())


if __name__ == "__main__":
    sys.exit(main())
