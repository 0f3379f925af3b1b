# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""A block of names and addresses in ``/etc/hosts``, and what is wrong with the wishes for names and time."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils._host import reported
from ansible_collections.trainyard.core.plugins.module_utils._host.reported import is_address

FILE = "/etc/hosts"
BEGIN = "# Trainyard's nodes: begin (written by Ansible; changes inside are lost)"
END = "# Trainyard's nodes: end"
TAKEN = "# Trainyard keeps this for its undo: "
"""What stands before a line of somebody else's that named the node itself."""
WITHOUT = "  # Trainyard: without this node's own name"
"""What stands behind what is left of such a line."""
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


def _of_own(line: str, node: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the lines that a line becomes without the names of the node itself, and those names.

    A full name such as ``node1.example.org`` is the node's own on a loopback address, and beside its short name.
    """
    words = line.partition("#")[0].split()
    if len(words) < 2 or not is_address(words[0]):
        return [line], []
    exact = {name.lower() for name in node["names"]}
    short = str(node["host"]).lower()
    own = [name for name in words[1:] if name.lower() in exact]
    if own or ipaddress.ip_address(words[0]).is_loopback:
        own = [name for name in words[1:] if name.lower() in exact or name.lower().partition(".")[0] == short]
    if not own:
        return [line], []
    left = [name for name in words[1:] if name not in own]
    return [TAKEN + line, *([" ".join([words[0], *left]) + WITHOUT] if left else [])], own


def renewed(text: str, nodes: Mapping[str, Mapping[str, Any]], own: str = "") -> tuple[str, list[str]]:
    """Return the file's text with the block for these nodes, and the nodes whose address nobody knows.

    Names are the inventory's; a node decides nothing but its own address. Its own names lead there alone: getaddrinfo takes all lines
    together, and distributions give a machine's name to 127.0.1.1. Lines that named it are kept as comments, and come back with the block's
    end; a full name of its own goes over to its line of the block.

    Args:
        text: the file as it is.
        nodes: name in the inventory -> what :func:`node` returns. One that this run has not seen keeps the address that an earlier one
            wrote. Without nodes the block goes.
        own: the name in the inventory of the node whose file it is; empty to leave other lines as they are.

    Raises:
        ReportedError: a name or an address is none.
    """
    inside, others = split(text)
    others = [line[len(TAKEN) :] if line.startswith(TAKEN) else line for line in others if not line.endswith(WITHOUT)]
    before: dict[str, str] = {}
    for words in map(str.split, inside):
        if len(words) > 1 and is_address(words[0]):
            before.setdefault(words[1], words[0])
    lines, unknown = [], []
    for name, node in nodes.items():
        names = [reported.fqdn(name, each, f"name in {FILE}") for each in node["names"]]
        known = next((before[each] for each in (name, *names) if each in before), "")
        address = known if known and not (node["seen"] and node["address"]) else node["address"]
        if address and names and name == own:
            parted = [_of_own(line, node) for line in others]
            others = [line for kept, _taken in parted for line in kept]
            for each in (each for _kept, taken in parted for each in taken if reported.is_fqdn(each)):
                names += [each] if each.lower() not in map(str.lower, names) else []
        if address and names:
            lines.append(" ".join([reported.address(name, address, f"address in {FILE}"), *names]))
        else:
            unknown.append(name)
    block = [BEGIN, *lines, END] if lines else []
    return "".join(f"{line}\n" for line in [*block, *others]), unknown


def addresses(text: str) -> list[str]:
    """Return the addresses in what ``getent ahosts NAME`` printed, one for each that a program finds, so that one may stand there twice."""
    return [words[0] for words in map(str.split, text.splitlines()) if len(words) > 1 and words[1] == "STREAM"]


def cloud_init_writes(texts: Sequence[str]) -> bool:
    """Return whether cloud-init's configuration has it write /etc/hosts at each boot, which takes the block away and 127.0.1.1 back.

    Args:
        texts: its files, in the order in which they count.
    """
    found = [value for text in texts for value in re.findall(r"(?m)^manage_etc_hosts:[ \t]*['\"]?([A-Za-z]+)", text)]
    return bool(found) and found[-1].lower() in {"true", "yes", "on", "template", "localhost"}


def node(name: str, address: str, ansible_host: str, facts: Mapping[str, Any], host_name: str = "", domain: str = "") -> dict[str, Any]:
    """Return what is known of a node.

    ``host`` is the host name that it has to have, which the inventory decides. ``names`` are those by which others know it: the name in
    the inventory first, then the host name, then that with the domain. ``reported`` is what it calls itself, for comparison and messages
    alone; what is no host name is quoted. ``address`` is empty where nobody knows it, and ``refused`` says why what the node reports is
    not taken for it. ``seen`` tells whether it reported anything.

    Args:
        name: in the inventory.
        address: what the inventory says; counts most.
        ansible_host: by what Ansible reaches it, "" for its name; counts where it is an address.
        facts: what was gathered from it, perhaps nothing.
        host_name: what the inventory says; "" for its name up to the first dot.
        domain: the lab's; "" for none.
    """
    reached = next((each for each in (ansible_host, name) if is_address(each)), "")
    route = facts.get("default_ipv4")
    own, refused = str(route.get("address") or "") if isinstance(route, Mapping) else "", ""
    if own and not address and not reached:
        try:
            own = reported.address(name, own)
        except reported.ReportedError as error:
            own, refused = "", str(error)
    own_name = facts.get("hostname", "")
    host = host_name or ("" if is_address(name) else name.partition(".")[0])
    names = [] if is_address(name) or name.partition(".")[0] == "localhost" else [name]
    names += [host] if host else []
    names += [f"{host}.{domain}"] if host and domain else []
    return {
        "address": address or reached or own,
        "host": host,
        "names": list(dict.fromkeys(names)),
        "reported": own_name if isinstance(own_name, str) and reported.is_host_name(own_name) else reported.shown(own_name),
        "refused": refused,
        "seen": "hostname" in facts,
    }


def name_problems(nodes: Mapping[str, Mapping[str, Any]], host: str, variable: str) -> list[str]:
    """Return one sentence for each node that has no host name of its own by the inventory, and where this one calls itself otherwise.

    Slurm demands that a node's name is its host name. What a node calls itself is compared with the inventory, and goes nowhere. Each node
    speaks for itself, and one that is refused stops all.

    Args:
        nodes: name in the inventory -> what :func:`node` returns.
        host: this node's name in the inventory.
        variable: the one by which the inventory gives a node a host name.
    """
    found: list[str] = []
    before: dict[str, str] = {}
    for name, each in nodes.items():
        wanted, own = str(each["host"]), str(each["reported"])
        if not reported.is_host_name(wanted) or wanted == "localhost":
            found.append(
                f"{variable}: {name} needs a host name (letters, digits and -), and {reported.shown(wanted)} is none. Rename it in the "
                "inventory, or write there what `hostname -s` prints on it, such as node1."
            )
            continue
        for known in each["names"]:
            if before.setdefault(known, name) != name:
                found.append(
                    f"{variable}: {before[known]} and {name} would both be called {known}. Give one of them another host name, on the "
                    "node (sudo hostnamectl set-hostname) and in the inventory."
                )
        if name == host and each["seen"] and own != wanted:
            twin = next((other for other, one in nodes.items() if other != name and own in (one["reported"], one["host"])), "")
            also = f", as {twin} {'does' if nodes[twin]['reported'] == own else 'is called'}" if twin else ""
            found.append(
                f"{name} calls itself {own}{also}; by the inventory its host name is {wanted}. Set it on the node: sudo "
                f"hostnamectl set-hostname {wanted}. Where its own name is right, rename it in the inventory, or write the name there as "
                f"{variable} of {name}."
            )
    return found


def version_problems(nodes: Mapping[str, Mapping[str, Any]], host: str, variable: str) -> list[str]:
    """Return a sentence where this node would be known to Slurm by an IPv6 address: its daemons never come to hear one another by it.

    Args:
        nodes: name in the inventory -> what :func:`node` returns.
        host: this node's name in the inventory.
        variable: the one by which the inventory gives a node an address.
    """
    address = str(nodes.get(host, {}).get("address", ""))
    if not is_address(address) or ipaddress.ip_address(address).version == 4:
        return []
    return [
        f"{variable}: {host} has the IPv6 address {address}, and Slurm's daemons do not hear each other by IPv6. Give {host} the IPv4 "
        f"address by which the other nodes reach it as {variable}; Ansible may go on reaching it by IPv6 (ansible_host)."
    ]


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
    found += [str(nodes[host]["refused"])] if nodes[host]["refused"] else []
    if not address and not nodes[host]["refused"]:
        found.append(
            f"{role}_address is empty: this node has no route to the network. Give it the address by which the other nodes reach it."
        )
    elif address and (not is_address(address) or ipaddress.ip_address(address).is_loopback):
        found.append(f"{role}_address is '{address}': say the IP address by which the other nodes reach this one.")
    for name in addresses:
        if not _HOST.match(name):
            found.append(f"{role}_hosts: '{name}' cannot be a host's name (letters, digits, - and dots).")
    found += name_problems({name: each for name, each in nodes.items() if _HOST.match(name)}, host, f"{role}_hostname")
    domain = str(wishes.get("domain") or "")
    if domain and not reported.is_fqdn(domain):
        found.append(f"{role}_domain: {reported.shown(domain)} is not a domain. Use one such as lab.example, or '' for none.")
    seen: dict[str, str] = {}
    for name, one in addresses.items():
        if one and one in seen:
            found.append(f"{role}_address: {seen[one]} and {name} both have the address {one}.")
        seen.setdefault(one, name)
    servers: Sequence[Any] = wishes["servers"]
    found += [f"{role}_servers: '{server}' is no host's name and no address." for server in servers if not _is_server(str(server))]
    for network in wishes["serves_to"]:
        try:
            if "%" in str(ipaddress.ip_network(str(network))):  # a zone is any text
                raise ValueError
        except ValueError:
            found.append(f"{role}_serves_to: '{network}' is no network. Say one such as 192.0.2.0/24, without host bits.")
    return found


def _is_server(text: str) -> bool:
    return is_address(text) or bool(_HOST.match(text))
