# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Which addresses a web service holds its port on, and who holds it already."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterable

from ansible_collections.trainyard.core.plugins.module_utils._web import service

LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
ANY = {4: "0.0.0.0", 6: "::"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def has_ipv6() -> bool:
    """Return whether this node has IPv6 on its loopback device."""
    return can_bind("::1")


def can_bind(address: str) -> bool:
    """Return whether a program on this node can listen on an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def addresses(listen: str, ipv6: bool) -> list[str]:
    """Return the addresses that a service holds its port on.

    Both loopback addresses are always among them: people type ``localhost``, which may lead to either, and whoever else of the node
    held one of the two could take their passwords.

    Args:
        listen: an IP address, or ``localhost``.
        ipv6: whether the node has IPv6.
    """
    wanted = ipaddress.ip_address(LOOPBACK[4] if listen == "localhost" else listen)
    held = [str(wanted)]
    for version in (4, 6) if ipv6 else (4,):
        if not (wanted.version == version and (str(wanted) == ANY[version] or str(wanted) == LOOPBACK[version])):
            held.append(LOOPBACK[version])
    return held


def stream(address: str, port: int) -> str:
    """Return an address and port as systemd writes it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def holders(table: str, held: Iterable[str], port: int) -> set[int]:
    """Return the users who listen on a port in the way of ours.

    Args:
        table: one of the kernel's tables, the text of /proc/net/tcp or tcp6.
        held: the addresses that the port is to be held on.
        port: the port.
    """
    taken = {str(ipaddress.ip_address(each)) for each in held} | set(ANY.values())
    found = set()
    for line in table.splitlines():
        words = line.split()
        listens = len(words) > 9 and words[3] == LISTENING and words[1].endswith(f":{port:04X}")
        if listens and str(service.kernel_address(words[1])) in taken:
            found.add(int(words[7]))
    return found


def strangers(held: Iterable[str], port: int, ours: Iterable[int], read: Callable[[str], str]) -> list[int]:
    """Return the users other than root and ``ours`` who listen on a port in the way of ours."""
    found: set[int] = set()
    for table in service.TCP_TABLES:
        if os.path.exists(table):
            found |= holders(read(table), held, port)
    return sorted(found - {0} - set(ours))
