# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Who listens on a TCP port of this node, by systemd's units."""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
TABLES = ("net/tcp", "net/tcp6")


@dataclass(frozen=True)
class Holder:
    """A process that listens on a port.

    Attributes:
        process: its number.
        name: its command's name.
        units: the parts of its control groups' paths, systemd's unit among them.
    """

    process: int
    name: str
    units: frozenset[str]


def sockets(table: str, port: int, addresses: Collection[str] = ()) -> set[str]:
    """Return the inodes of sockets that listen on a port.

    Args:
        table: text of /proc/net/tcp or tcp6.
        port: the port.
        addresses: those that count, next to the sockets that are there for all addresses; empty for all.
    """
    wanted = {str(ipaddress.ip_address(each)) for each in addresses}
    found = set()
    for line in table.splitlines():
        words = line.split()
        if len(words) > 9 and words[3] == LISTENING and words[1].endswith(f":{port:04X}"):
            address = _address(words[1].partition(":")[0])
            if not wanted or address.is_unspecified or str(address) in wanted:
                found.add(words[9])
    return found


def _address(digits: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address as the kernel's tables write it: words of this processor's byte order."""
    packed = b"".join(struct.pack("=I", int(digits[start : start + 8], 16)) for start in range(0, len(digits), 8))
    found = ipaddress.ip_address(packed)
    return getattr(found, "ipv4_mapped", None) or found


def holders(port: int, addresses: Collection[str] = (), proc: str = "/proc") -> list[Holder]:
    """Return who listens on a port; a process that this one may not look into is missing."""
    inodes = set().union(*(sockets(_read(f"{proc}/{table}"), port, addresses) for table in TABLES))
    links = {f"socket:[{inode}]" for inode in inodes}
    return [_holder(process, proc) for process in _processes(proc) if links & _open(process, proc)] if links else []


def stranger(found: Collection[Holder], units: Collection[str]) -> Holder | None:
    """Return one who holds a port that belongs to units; None where nobody does, or one of these units."""
    if any(holder.units & set(units) for holder in found):
        return None
    return next(iter(found), None)


def _processes(proc: str) -> Iterator[int]:
    yield from sorted(int(name) for name in os.listdir(proc) if name.isdigit())


def _open(process: int, proc: str) -> set[str]:
    found = set()
    try:
        for name in os.listdir(f"{proc}/{process}/fd"):
            found.add(os.readlink(f"{proc}/{process}/fd/{name}"))
    except OSError:  # it has ended, or closed one meanwhile
        pass
    return found


def _holder(process: int, proc: str) -> Holder:
    groups = _read(f"{proc}/{process}/cgroup")
    return Holder(
        process, _read(f"{proc}/{process}/comm").strip(), frozenset(part for line in groups.splitlines() for part in line.split("/"))
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
