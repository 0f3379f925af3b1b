"""TensorBoard behind TLS and a password.

TensorBoard itself knows neither. Its public extension point (``tensorboard.program.TensorBoard(server_class=...)``) lets a
server of ours serve it, so nothing unprotected listens anywhere, not even on loopback.

Flags are TensorBoard's own. systemd gives the rest: the listening sockets, the credentials ``tls.pem`` (key and certificate) and
``password`` (an Argon2 hash), and in TRAINYARD_LOGIN the name to log in with, in TRAINYARD_LAB the name of the lab.
"""

from __future__ import annotations

import base64
import binascii
import os
import selectors
import socket
import ssl
import stat
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# Without TensorFlow, which somebody may have installed beside it: its reader knows nothing of the rules of LogFiles.
sys.modules["tensorboard.compat.notf"] = types.ModuleType("tensorboard.compat.notf")

import argon2  # noqa: E402
import web_service  # noqa: E402
from tensorboard import default, program  # noqa: E402
from tensorboard.compat.tensorflow_stub import errors  # noqa: E402
from tensorboard.compat.tensorflow_stub.io import gfile  # noqa: E402

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

SILENCE = 60  # seconds after which a connection that says nothing is closed
DEPTH = 32  # folders below the log folder; TensorBoard walks them by recursion
MOST_AT_ONCE = 256 * 2**20  # bytes; a record may claim any length, and TensorBoard would read it into memory
PATIENCE = 600.0  # seconds without a look at the log folder after which the reader hangs, on a dead file server for instance


class Guard:
    """Lets a request through to an application when it carries the right login and password (HTTP Basic)."""

    def __init__(self, application: Application, login: str, lab: str, gate: web_service.Gate) -> None:
        """Guard ``application`` of the lab of that name; ``gate`` checks login and password, joined by a colon."""
        self._application, self._gate = application, gate
        # A browser asks for name and password in a window of its own, which some label with the realm (plain ASCII, to be safe). It
        # shows the text to who closes that window.
        realm = f"TensorBoard of {lab}".encode("ascii", "ignore").decode().replace('"', "").replace("\\", "")
        self._challenge = ("WWW-Authenticate", f'Basic realm="{realm}", charset="UTF-8"')
        self._hint = (
            f"TensorBoard of {lab}: reload this page and log in as {login}.\n\n"
            "The password is the lab's, not that of your own account. Ask the lab's admin for it.\n"
            "The admin finds it as tensorboard_password in the lab's inventory.\n"
        )

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""
        allowed = self._allows(environ.pop("HTTP_AUTHORIZATION", ""), environ)
        if allowed is None:
            return self._refuse(start_response, "503 Service Unavailable", ("Retry-After", "5"))
        if not allowed:
            return self._refuse(start_response, "401 Unauthorized", self._challenge, self._hint)
        return self._application(environ, start_response)

    @staticmethod
    def _refuse(start_response: Callable[..., Any], status: str, header: tuple[str, str], hint: str = "") -> Iterable[bytes]:
        body = f"{status}\n{hint}".encode()
        start_response(
            status,
            [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"), header],
        )
        return [body]

    def _allows(self, header: str, environ: Environ) -> bool | None:
        """Return whether the credentials are right; None where too many are being checked already."""
        scheme, _, encoded = header.partition(" ")
        try:
            credentials = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        if scheme.lower() != "basic" or ":" not in credentials:
            return False
        if self._gate.knows(credentials):
            return True
        who = web_service.origin(
            str(environ.get("REMOTE_ADDR", "")), int(environ.get("REMOTE_PORT") or 0), int(environ.get("SERVER_PORT") or 0)
        )
        return self._gate.allows(credentials, who)


def verifier(login: str, stored: str) -> Callable[[str], bool]:
    """Return what checks login and password, joined by a colon, against the one and the other's Argon2 hash."""
    hasher = argon2.PasswordHasher()

    def verify(credentials: str) -> bool:
        name, _, password = credentials.partition(":")
        try:
            return bool(hasher.verify(stored, password)) and name == login
        except (argon2.exceptions.VerificationError, ValueError):
            return False

    return verify


class LogFiles(gfile.LocalFileSystem):  # type: ignore[misc]
    """The log folder as TensorBoard may see it: regular files in folders, and nothing else on the node.

    Everybody may write there. A FIFO would be waited for, a device or a file that claims to be huge would fill the memory, a link could
    lead anywhere, to this service's own secrets for one, and a folder that cannot be read would end the thread that reads. They all count
    as not being there. Links are not followed, so that a folder that holds itself has an end.
    """

    def __init__(self, folder: str) -> None:
        """Show one folder."""
        self.given, self.real = os.path.normpath(folder), os.path.realpath(folder)
        self.looked = time.monotonic()

    def open(self, path: str | bytes, flags: int) -> tuple[int, os.stat_result]:
        """Open a file or folder and return its descriptor and status.

        Raises:
            NotFoundError: it is not below the log folder, is too deep, or is reached over a link; it is gone, or cannot be opened.
        """
        self.looked = time.monotonic()
        place = os.path.normpath(os.fsdecode(path))
        if place == self.given or place.startswith(self.given + os.sep):
            place = self.real + place[len(self.given) :]
        below = os.path.relpath(place, self.real)
        if below.startswith("..") or below.count(os.sep) >= DEPTH or not place.isprintable():
            raise errors.NotFoundError(None, None, f"Not in the log folder: {place}")
        try:
            # A FIFO is opened without waiting for its other end.
            descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | flags)
        except (OSError, ValueError) as error:
            raise errors.NotFoundError(None, None, f"Cannot be opened: {place}") from error
        # What was opened counts, not what had the name a moment ago.
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()) != place:
            os.close(descriptor)
            raise errors.NotFoundError(None, None, f"Reached over a link, or gone: {place}")
        return descriptor, os.fstat(descriptor)

    def status(self, path: str | bytes) -> os.stat_result | None:
        """Return the status of a regular file or folder; None of everything else."""
        try:
            descriptor, status = self.open(path, os.O_PATH)
        except errors.NotFoundError:
            return None
        os.close(descriptor)
        return status if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) else None

    def exists(self, filename: str | bytes) -> bool:
        """Return whether there is a regular file or a folder."""
        return self.status(filename) is not None

    def isdir(self, dirname: str | bytes) -> bool:
        """Return whether there is a folder."""
        found = self.status(dirname)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def listdir(self, dirname: str | bytes) -> list[str]:
        """Return the names of what is to be seen in a folder."""
        descriptor, _status = self.open(dirname, os.O_DIRECTORY)
        try:
            names = os.listdir(descriptor)  # noqa: PTH208  # of what was opened, not of a name
        except OSError as error:
            raise errors.NotFoundError(None, None, f"Cannot be listed: {os.fsdecode(dirname)}") from error
        finally:
            os.close(descriptor)
        return [name for name in names if self.status(f"{os.fsdecode(dirname)}/{name}") is not None]

    def glob(self, filename: Any) -> list[str]:
        """Return what matches a pattern and is to be seen."""
        return [path for path in super().glob(filename) if self.exists(path)]

    def read(
        self, filename: str | bytes, binary_mode: bool = False, size: int | None = None, continue_from: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Read from a regular file, from where the last read ended.

        Raises:
            NotFoundError: there is no such file.
            DataLossError: more would have to be read at once than is sensible.
        """
        descriptor, status = self.open(filename, 0)
        with open(descriptor, "rb" if binary_mode else "r", encoding=None if binary_mode else "utf8") as file:
            if not stat.S_ISREG(status.st_mode):
                raise errors.NotFoundError(None, None, f"Not a regular file: {os.fsdecode(filename)}")
            if (status.st_size if size is None else size) > MOST_AT_ONCE:
                raise errors.DataLossError(None, None, f"More than {MOST_AT_ONCE} bytes at once in {os.fsdecode(filename)}")
            if continue_from and continue_from.get("opaque_offset") is not None:
                file.seek(continue_from["opaque_offset"])
            data = file.read(-1 if size is None else size)
            return data, {"opaque_offset": file.tell()}

    def stat(self, filename: str | bytes) -> Any:
        """Return the length of a file."""
        found = self.status(filename)
        if found is None:
            raise errors.NotFoundError(None, None, "Could not find file")
        return gfile.StatData(found.st_size)


def tls_context(pem: Path) -> ssl.SSLContext:
    """Return a server's TLS settings with the key and certificate in one file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pem)
    return context


class Server(program.WerkzeugServer):  # type: ignore[misc]
    """TensorBoard's own server, behind TLS, on the sockets that systemd holds."""

    def __init__(self, application: Application, flags: Any, context: ssl.SSLContext, sockets: list[socket.socket]) -> None:
        """Serve ``application`` on ``sockets``."""
        # TensorBoard refuses a port that is taken, as this one is, by systemd for us.
        port, flags.port = flags.port, 0
        try:
            super().__init__(application, flags)
        finally:
            flags.port = port
        self.socket.close()
        self.port = self.server_port = port
        self.server_address = (flags.host, port)
        # The handshake waits for the request's own thread, so that a client which says nothing holds up nobody else.
        self.sockets = [context.wrap_socket(each, server_side=True, do_handshake_on_connect=False) for each in sockets]
        self.socket = self.sockets[0]
        self.ssl_context = context

    def server_bind(self) -> None:
        """Leave the socket that the base class makes alone; it never listens."""
        self.server_name = "localhost"

    def server_activate(self) -> None:
        """Likewise."""

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        connection, address = super().get_request()
        connection.settimeout(SILENCE)
        return connection, address

    def get_url(self) -> str:
        """Return where the server can be reached."""
        return str(super().get_url()).replace("http:", "https:", 1)

    def serve_forever(self, *_arguments: Any, **_named: Any) -> None:
        """Serve on all sockets until the process ends, and tell systemd when that begins."""
        with selectors.DefaultSelector() as selector:
            for each in self.sockets:
                selector.register(each, selectors.EVENT_READ)
            web_service.notify("READY=1")
            while True:
                for key, _events in selector.select():
                    self.socket = key.fileobj
                    self._handle_request_noblock()


def is_reading(files: LogFiles, flags: Any) -> bool:
    """Return whether TensorBoard still looks into its log folder, where it is to do so again and again."""
    if flags.reload_interval <= 0 or flags.reload_task == "process":
        return True
    alive = any(thread.name == "Reloader" for thread in threading.enumerate())
    return alive and time.monotonic() - files.looked < PATIENCE + flags.reload_interval


def main() -> int:
    """Run TensorBoard until it is stopped, and return the exit status."""
    login, lab = os.environ["TRAINYARD_LOGIN"], os.environ["TRAINYARD_LAB"]
    context = tls_context(web_service.credential("tls.pem"))
    gate = web_service.Gate(verifier(login, web_service.credential("password").read_text().strip()))
    sockets = web_service.inherited_sockets()
    addresses = [each.getsockname()[:2] for each in sockets]  # now: the server wraps the sockets, and then they are others
    tensorboard = program.TensorBoard(
        plugins=default.get_plugins(),
        server_class=lambda application, flags: Server(Guard(application, login, lab, gate), flags, context, sockets),
    )
    tensorboard.configure(sys.argv)
    flags = tensorboard.flags
    files = LogFiles(flags.logdir)
    gfile.register_filesystem("", files)
    web_service.start_watchdog(lambda: is_reading(files, flags) and all(web_service.answers(each) for each in addresses))
    return int(tensorboard.main())


if __name__ == "__main__":
    sys.exit(main())
