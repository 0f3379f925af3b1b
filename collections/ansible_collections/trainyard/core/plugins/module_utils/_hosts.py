# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""A block of names and addresses in ``/etc/hosts``, and what is wrong with the wishes for names and time."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

BEGIN = "# Trainyard's nodes: begin (written by Ansible; changes inside are lost)"
END = "# Trainyard's nodes: end"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")


def split(text: str) -> tuple[list[str], list[str]]:
    """Return the block's lines, and all others; of a block whose end is lost only its first line is taken."""
    lines = text.splitlines()
    if BEGIN not in lines:
        return [], lines
    first = lines.index(BEGIN)
    if END not in lines[first:]:
        return [], lines[:first] + lines[first + 1 :]
    last = lines.index(END, first)
    return lines[first + 1 : last], lines[:first] + lines[last + 1 :]


def renewed(text: str, nodes: Mapping[str, Mapping[str, Any]]) -> tuple[str, list[str]]:
    """Return the file's text with the block for these nodes, and the nodes whose address nobody knows.

    The block stands first: of several addresses for a name programs take the first, and distributions give a machine's own name
    to 127.0.1.1.

    Args:
        text: the file as it is.
        nodes: name in the inventory -> what :func:`node` returns. One that this run has not seen keeps the line that an earlier one
            wrote. Without nodes the block goes.
    """
    inside, others = split(text)
    before = {line.split()[1]: line for line in inside if len(line.split()) > 1}
    lines, unknown = [], []
    for name, node in nodes.items():
        if name in before and not (node["seen"] and node["address"]):
            lines.append(before[name])
        elif node["address"]:
            lines.append(" ".join([node["address"], *dict.fromkeys([name, *node["names"]])]))
        else:
            unknown.append(name)
    block = [BEGIN, *lines, END] if lines else []
    return "".join(f"{line}\n" for line in [*block, *others]), unknown


def node(wished: str, ansible_host: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node's ``address``, further ``names`` and whether it was ``seen``.

    Args:
        wished: what the inventory says; counts most.
        ansible_host: by what Ansible reaches it; counts where it is an address.
        facts: what was gathered from it, perhaps nothing.
    """
    own = str((facts.get("default_ipv4") or {}).get("address") or "")
    names = [str(facts.get(key) or "") for key in ("fqdn", "hostname")]
    return {
        "address": wished or (ansible_host if is_address(ansible_host) else own),
        "names": [name for name in dict.fromkeys(names) if name and not name.startswith("localhost")],
        "seen": "hostname" in facts,
    }


def is_address(text: str) -> bool:
    """Return whether it is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_host_name(text: str) -> bool:
    """Return whether a host can have this name."""
    return bool(_HOST.match(text))


def problems(wishes: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]], host: str) -> list[str]:
    """Return one sentence for each thing that cannot be.

    Args:
        wishes: the role's variables without their prefix: servers, serves_to.
        nodes: name in the inventory -> what :func:`node` returns.
        host: this node's name in the inventory.
    """
    role, found = "names_and_time", []
    addresses = {name: str(each["address"]) for name, each in nodes.items()}
    address = addresses.get(host)
    if address is None:
        return [f"{role}_hosts does not name {host}, which is to know the others: {', '.join(nodes) or 'it is empty'}."]
    if not address:
        found.append(
            f"{role}_address is empty: this node has no route to the network. Give it the address by which the other nodes reach it."
        )
    elif not is_address(address) or ipaddress.ip_address(address).is_loopback:
        found.append(f"{role}_address is '{address}': say the IP address by which the other nodes reach this one.")
    for name in addresses:
        if not _HOST.match(name):
            found.append(f"{role}_hosts: '{name}' cannot be a host's name (letters, digits, - and dots).")
    seen: dict[str, str] = {}
    for name, one in addresses.items():
        if one and one in seen:
            found.append(f"{role}_address: {seen[one]} and {name} both have the address {one}.")
        seen.setdefault(one, name)
    servers: Sequence[Any] = wishes["servers"]
    found += [f"{role}_servers: '{server}' is no host's name and no address." for server in servers if not _is_server(str(server))]
    for network in wishes["serves_to"]:
        try:
            ipaddress.ip_network(str(network))
        except ValueError:
            found.append(f"{role}_serves_to: '{network}' is no network. Say one such as 192.0.2.0/24, without host bits.")
    return found


def _is_server(text: str) -> bool:
    return is_address(text) or bool(_HOST.match(text))
