# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The way to another machine, as the kernel's routing has it: never the interface that happens to come first."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Route:
    """How this machine reaches another one.

    Attributes:
        interface: such as eth0.
        address: this machine's own address on that way.
    """

    interface: str
    address: str


def route_to(host: str) -> Route:
    """Return the way to a host.

    Raises:
        OSError: its name is unknown, or there is no way to it.
    """
    address = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
    done = subprocess.run(["ip", "-json", "route", "get", str(address)], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise OSError(f"there is no route to {host} ({address}): {done.stderr.strip()}")
    return parse_route(done.stdout)


def parse_route(printed: str) -> Route:
    """Read what ``ip -json route get`` prints."""
    found = json.loads(printed)[0]
    return Route(interface=found["dev"], address=found["prefsrc"])


def addresses(hosts: Iterable[str]) -> set[str]:
    """Return all addresses that hosts are known by; a name that nobody knows has none."""
    found: set[str] = set()
    for host in hosts:
        try:
            found |= {str(place[4][0]) for place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        except OSError:
            continue
    return found


def own_addresses() -> set[str]:
    """Return this machine's addresses on all its interfaces; empty where nobody says."""
    done = subprocess.run(["ip", "-json", "address", "show"], capture_output=True, text=True, timeout=20, check=False)
    return parse_addresses(done.stdout) if not done.returncode else set()


def parse_addresses(printed: str) -> set[str]:
    """Read what ``ip -json address show`` prints."""
    return {each["local"] for interface in json.loads(printed) for each in interface.get("addr_info", []) if "local" in each}


def free_ports(address: str, count: int) -> list[int]:
    """Return numbers of ports that are free on an address now."""
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind((address, 0))
        return [int(holder.getsockname()[1]) for holder in holders]
    finally:
        for holder in holders:
            holder.close()
