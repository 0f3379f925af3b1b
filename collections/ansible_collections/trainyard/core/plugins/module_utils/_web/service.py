# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""What JupyterLab's and TensorBoard's servers share: systemd's sockets, credentials and watchdog, and a penalty for wrong passwords.

The roles copy this one file to the node, beside the server that imports it. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import os
import secrets
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Union

FIRST_SOCKET = 3  # SD_LISTEN_FDS_START
PENALTY = 1.0  # seconds that a wrong password holds up the next one of the same origin: 86,400 guesses a day, against 12 characters
QUEUE = 10  # who comes when so many of the same origin are waiting is sent away at once
CROWD = 50  # and likewise when so many are waiting altogether: each one has a thread
AT_A_TIME = 2  # passwords that are checked at the same time; each check takes 19 MiB and a core for a moment
TCP_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]  # noqa: UP007  # evaluated by Python 3.9


# ----------------------------------------------------------------------------------------------------------------- systemd


def inherited_sockets() -> list[socket.socket]:
    """Return the listening sockets that systemd holds for this service.

    Programs that the service starts do not get them.

    Raises:
        SystemExit: systemd handed none over.
    """
    count = int(os.environ.get("LISTEN_FDS", "0")) if os.environ.get("LISTEN_PID") == str(os.getpid()) else 0
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if not count:
        raise SystemExit("systemd handed no socket over. Start this service with systemctl; its socket unit holds the port.")
    sockets = []
    for descriptor in range(FIRST_SOCKET, FIRST_SOCKET + count):
        os.set_inheritable(descriptor, False)
        sockets.append(socket.socket(fileno=descriptor))
        sockets[-1].setblocking(False)  # a client that is gone again before it was accepted holds up nobody
    return sockets


def credential(name: str) -> Path:
    """Return the path of a secret that systemd gave to this service alone."""
    return Path(os.environ["CREDENTIALS_DIRECTORY"], name)


def notify(message: str) -> None:
    """Send a notification to systemd, if it started this process and listens for one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.sendall(message.encode())


def answers(address: tuple[str, int], path: str = "/", seconds: float = 10) -> bool:
    """Return whether the server on one of our addresses (host and port) answers an HTTPS request, whatever the answer is."""
    host, port = address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the socket is ours; who is behind it is no question
    connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def start_watchdog(healthy: Callable[[], bool]) -> None:
    """Tell systemd again and again that the service is healthy, as long as it is; systemd restarts it otherwise."""
    period = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    if not period:
        return

    def watch() -> None:
        while True:
            try:
                if healthy():
                    notify("WATCHDOG=1")
            except Exception:  # what cannot be told is not well; the next look may tell
                traceback.print_exc()
            time.sleep(period / 4)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()


# --------------------------------------------------------------------------------------------------------------- passwords


def origin(address: str, port: int, server_port: int) -> str:
    """Return who is at the other end of a connection: a user of this node, or an address on the network.

    Whoever comes through an SSH tunnel comes from loopback, as everybody else does who does. The kernel knows which user's process
    has the other end; with ssh -L it is the user who logged in.

    Args:
        address: the client's IP address.
        port: the client's port.
        server_port: the port that it is connected to.
    """
    try:
        client = plain(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return address
    user = owner_of_connection(client, port, server_port) if client.is_loopback else None
    if user is not None:
        return f"user {user}"
    # One machine has a whole network of IPv6 addresses.
    return str(ipaddress.ip_network((client, 64), strict=False)) if client.version == 6 else str(client)


def plain(address: Address) -> Address:
    """Return an IPv4 address that is written as an IPv6 one as what it is."""
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, ipaddress.IPv4Address) else address


def owner_of_connection(client: Address, port: int, server_port: int, tables: tuple[str, ...] = TCP_TABLES) -> int | None:
    """Return the number of the user whose process has the client's end of a connection on this node; None where none is found."""
    ends = (f":{port:04X}", f":{server_port:04X}")
    for table in tables:
        with contextlib.suppress(OSError), open(table, encoding="ascii") as lines:
            for line in lines:
                words = line.split()
                # Local end, remote end, ..., user. The address counts as well: another user may have the same port on 127.0.0.2.
                if len(words) > 9 and words[1].endswith(ends[0]) and words[2].endswith(ends[1]) and kernel_address(words[1]) == client:
                    return int(words[7])
    return None


def kernel_address(word: str) -> Address | None:
    """Read an end of a connection in the kernel's notation: 32-bit numbers of the machine's byte order in hex, a colon and the port."""
    number = word.partition(":")[0]
    try:
        packed = b"".join(struct.pack("=I", int(number[start : start + 8], 16)) for start in range(0, len(number), 8))
        return plain(ipaddress.ip_address(packed))
    except (ValueError, struct.error):
        return None


class _Lane:
    """Who comes from one origin, one after another."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.waiting = 0


class Gate:
    """Checks passwords, and makes guessing slow for who guesses and for nobody else.

    The guesses of one origin go one at a time, and a wrong one holds up the next. A password that was right once is known again by its
    HMAC under a key that lives in this process alone, so that only the first request costs a run of the slow hash.
    """

    def __init__(self, verify: Callable[[str], bool], penalty: float = PENALTY) -> None:
        """Check passwords with ``verify``."""
        self._verify, self._penalty = verify, penalty
        self._key = secrets.token_bytes(32)
        self._known = b""
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane] = {}
        self._checks = threading.BoundedSemaphore(AT_A_TIME)

    def knows(self, password: str) -> bool:
        """Return whether a password is the one that was right before; costs nothing and holds nobody up."""
        return bool(self._known) and hmac.compare_digest(self._mark(password), self._known)

    def allows(self, password: str, who: str) -> bool | None:
        """Return whether a password is right; None where too many are waiting already. A wrong one returns late.

        Args:
            password: what was typed.
            who: where it comes from, see :func:`origin`.
        """
        with self._lock:
            lane = self._lanes.setdefault(who, _Lane())
            if lane.waiting >= QUEUE or sum(each.waiting for each in self._lanes.values()) >= CROWD:
                return None
            lane.waiting += 1
        try:
            with lane.turn:
                with self._checks:
                    right = self._verify(password)
                if right:
                    self._known = self._mark(password)
                else:
                    time.sleep(self._penalty)
                return right
        finally:
            with self._lock:
                lane.waiting -= 1
                if not lane.waiting:
                    del self._lanes[who]

    def _mark(self, password: str) -> bytes:
        return hmac.digest(self._key, password.encode(errors="surrogatepass"), hashlib.sha256)
