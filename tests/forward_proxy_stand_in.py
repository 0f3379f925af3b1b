"""A stand-in for a site's proxy: passes HTTP and tunnels of TLS on, and notes what it was asked for."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class ForwardProxy:
    """A proxy at an address of this machine, for as long as a test lasts.

    Attributes:
        asked: methods and what they named, such as ("CONNECT", "index.example:443").
    """

    def __init__(self, address: str) -> None:
        self.asked: list[tuple[str, str]] = []
        self._listener = socket.create_server((address, 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        """Return its URL."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{host}:{port}"

    def close(self) -> None:
        """Take no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                threading.Thread(target=self._handle, args=(client,), daemon=True).start()

    def _handle(self, client: socket.socket) -> None:
        with suppress(OSError, ValueError), client:
            data = b""
            while b"\r\n\r\n" not in data:
                block = client.recv(65536)
                if not block:
                    return
                data += block
            head, _blank, rest = data.partition(b"\r\n\r\n")
            line, *fields = head.split(b"\r\n")
            method, target, _version = line.decode().split()
            self.asked.append((method, target))
            if method == "CONNECT":
                host, _colon, port = target.rpartition(":")
                server = socket.create_connection((host, int(port)), 30)
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                server.sendall(rest)
            else:
                parts = urlsplit(target)
                server = socket.create_connection((str(parts.hostname), parts.port or 80), 30)
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                kept = [field for field in fields if not field.lower().startswith((b"proxy-", b"connection:"))]
                server.sendall(b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *kept, b"Connection: close", b"", b""]) + rest)
            with server:
                threading.Thread(target=_pass_on, args=(client, server), daemon=True).start()
                _pass_on(server, client)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(65536):
            sink.sendall(block)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
