# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The table of nftables that keeps outsiders from a node's high ports: rendered, validated, and read back. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _hosts as hosts
from ansible_collections.trainyard.core.plugins.module_utils._host.rollback import Rollback

NFT = "/usr/sbin/nft"
TABLE = "inet trainyard"
RULES = "/etc/trainyard/firewall.nft"
SERVICE = "trainyard-firewall.service"
UNIT = f"/etc/systemd/system/{SERVICE}"
WANTS = f"/etc/systemd/system/sysinit.target.wants/{SERVICE}"
FLUSHED = "/etc/systemd/system/nftables.service.d/trainyard.conf"
"""A drop-in: nftables.service flushes all tables when it is started, reloaded or stopped, ours with them."""
STATE = "/var/lib/trainyard/node_firewall"
ROLLBACK = Rollback("trainyard-firewall-rollback", STATE + "/rollback", "the former firewall")

ROLE = "node_firewall"
FIRST, LAST = 1024, 65535
ADDRESSES = 64
"""So many addresses of one node are used; nodes report them, and none may fill the others' tables."""
_PORTS = re.compile(r"(?P<first>\d{1,5})(-(?P<last>\d{1,5}))?(/(?P<protocol>tcp|udp))?\Z")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}\Z|[A-Za-z0-9_.:@-]{1,14}\*\Z")
_NAME = re.compile(r"[A-Za-z0-9_.:-]+\Z")
_NODE = re.compile(r"# node (\S+):((?: \S+)*)\Z")


@dataclass(frozen=True, order=True)
class Ports:
    """A port, or a range of them, of one protocol."""

    protocol: str
    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class Firewall:
    """What a node admits.

    Attributes:
        nodes: name of a node of the cluster -> its addresses.
        admitted: further networks whose hosts are treated as the cluster's.
        open: ports that are open to everybody.
        ssh: sshd's ports, which are open to everybody.
        first_port: from this port on only the cluster is admitted.
        interfaces: network interfaces that lead to this machine's own containers and virtual machines.
    """

    nodes: Mapping[str, Sequence[str]]
    admitted: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
    open: Sequence[Ports]
    ssh: Sequence[int]
    first_port: int = FIRST
    interfaces: Sequence[str] = ()


# --- the request ---------------------------------------------------------------------------------------------------


def ports(entry: object) -> Ports:
    """Read 8080, "8000-8010", "51820/udp".

    Raises:
        ValueError: it is nothing of the kind; says what is wrong.
    """
    found = None if isinstance(entry, bool) else _PORTS.match(str(entry))
    if not found:
        raise ValueError("is not a port. Write a number such as 8080, a range such as 8000-8010, or either with /udp")
    first, last = int(found["first"]), int(found["last"] or found["first"])
    if not 1 <= first <= LAST or not 1 <= last <= LAST:
        raise ValueError(f"is not a port: ports go from 1 to {LAST}")
    if last < first:
        raise ValueError(f"is not a range of ports: write {last}-{first}")
    return Ports(found["protocol"] or "tcp", first, last)


def network(entry: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Read an address or a network.

    Raises:
        ValueError: it is none, or too large to admit; says what is wrong.
    """
    text = str(entry)
    try:
        found = ipaddress.ip_network(text)
    except ValueError:
        try:
            meant = ipaddress.ip_interface(text).network
        except ValueError:
            raise ValueError("is neither an IP address nor a network such as 192.0.2.0/24") from None
        raise ValueError(f"has host bits set. Did you mean '{meant}'?") from None
    if found.prefixlen == 0:
        raise ValueError(f"admits everybody. To have no firewall, set {ROLE}_enabled: false")
    if found.is_loopback or found.is_multicast or found.is_unspecified:
        raise ValueError("is no address of another host")
    return found


def problems(request: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each value that cannot be used.

    Args:
        request: the role's variables without their prefix.
    """
    found = []
    for name, read in (("open_ports", ports), ("service_ports", ports), ("ssh_ports", ports), ("admitted", network)):
        for entry in request[name]:
            try:
                read(entry)
            except ValueError as error:
                found.append(f"{ROLE}_{name}: '{entry}' {error}.")
    for entry in request["ssh_ports"]:
        if re.search(r"[-/]", str(entry)):
            found.append(f"{ROLE}_ssh_ports: '{entry}' is not a single port such as 2222.")
    for entry in request["interfaces"]:
        if not _INTERFACE.match(str(entry)):
            found.append(f"{ROLE}_interfaces: '{entry}' is not the name of a network interface, such as docker0 or virbr*.")
    if not FIRST <= int(request["first_port"]) <= LAST:
        found.append(f"{ROLE}_first_port is {request['first_port']}: it must be from {FIRST} to {LAST}.")
    if not 10 <= int(request["rollback_seconds"]) <= 110:
        found.append(f"{ROLE}_rollback_seconds is {request['rollback_seconds']}: it must be from 10 to 110.")
    for name, node in request["nodes"].items():
        if not _NAME.match(str(name)):
            found.append(f"{ROLE}_cluster: '{name}' cannot be a node's name (letters, digits and - _ . :).")
        for address in node["addresses"]:
            if not _is_host(str(address)):
                found.append(f"{ROLE}_address of {name}: '{address}' is not the IP address of a host.")
    return found


def firewall(request: Mapping[str, Any], ssh: Iterable[int], before: str = "", hosts_file: str = "") -> tuple[Firewall, list[str]]:
    """Return what a node is to admit, and the nodes of which no address is known.

    Args:
        request: the role's variables without their prefix, of which `problems` found none.
        ssh: sshd's ports as the node knows them.
        before: the rules as an earlier run wrote them. A node that this run has not seen keeps the addresses that it has there.
        hosts_file: this node's ``/etc/hosts``. Where there are no rules yet, a node that this run has not seen has the address from there.
    """
    known = remembered(before) or named(hosts_file)
    nodes: dict[str, Sequence[str]] = {}
    for name, node in request["nodes"].items():
        addresses = [str(address) for address in node["addresses"]]
        if not node["seen"]:
            addresses += known.get(str(name), [])
        nodes[str(name)] = list(dict.fromkeys(addresses))
    opened = {ports(entry) for entry in [*request["open_ports"], *request["service_ports"]]}
    return Firewall(
        nodes={name: addresses for name, addresses in nodes.items() if addresses},
        admitted=[network(entry) for entry in request["admitted"]],
        open=sorted(opened),
        ssh=sorted({*ssh, *(int(entry) for entry in request["ssh_ports"])}),
        first_port=int(request["first_port"]),
        interfaces=[str(entry) for entry in request["interfaces"]],
    ), [name for name, addresses in nodes.items() if not addresses]


def remembered(text: str) -> dict[str, list[str]]:
    """Return the nodes and their addresses that rules name."""
    found = {}
    for line in text.splitlines():
        node = _NODE.match(line)
        if node:
            found[node[1]] = [address for address in node[2].split() if _is_host(address)]
    return found


def named(hosts_file: str) -> dict[str, list[str]]:
    """Return the nodes and their addresses that the role names_and_time wrote into ``/etc/hosts``."""
    lines = [line.split() for line in hosts.split(hosts_file)[0]]
    return {words[1]: [words[0]] for words in lines if len(words) > 1 and _is_host(words[0])}


def cluster_addresses(nodes: Sequence[str], hostvars: Mapping[str, Any], variable: str) -> dict[str, dict[str, Any]]:
    """Return for each node its ``addresses`` and whether it was ``seen``.

    Besides the one by which the others reach it, a node has the addresses of its other networks, such as InfiniBand's, over which training
    goes. Those of bridges are left out: they lead to the machine's own containers.

    Args:
        nodes: names in the inventory.
        hostvars: Ansible's.
        variable: in which the inventory may name an address.
    """
    found = {}
    for name in nodes:
        variables = hostvars.get(name, {})
        facts = variables.get("ansible_facts") or {}
        node = hosts.node(str(name), str(variables.get(variable) or ""), str(variables.get("ansible_host") or ""), facts)
        own = node["address"] if variables.get(variable) or _is_host(node["address"]) else ""
        addresses = [*([own] if own else []), *[address for address in _reported(facts) if _is_host(address)][:ADDRESSES]]
        found[str(name)] = {"addresses": list(dict.fromkeys(addresses)), "seen": node["seen"] and "interfaces" in facts}
    return found


def _reported(facts: Mapping[str, Any]) -> Iterable[str]:
    for name in sorted(str(each) for each in _entries(facts.get("interfaces"))):
        interface = facts.get(name.replace("-", "_"))
        if not isinstance(interface, Mapping) or interface.get("type") in {"bridge", "loopback"}:
            continue
        first = interface.get("ipv4")
        for entry in [first, *_entries(interface.get("ipv4_secondaries")), *_entries(interface.get("ipv6"))]:
            if isinstance(entry, Mapping) and entry.get("address"):
                yield str(entry["address"])


def _entries(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else []


def _is_host(text: str) -> bool:
    """Return whether it is the address of one host that others may have: no loopback, no network, no address of a link alone."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local) and "%" not in text


# --- what lands on the node ----------------------------------------------------------------------------------------


def render(wanted: Firewall) -> str:
    """Return the rules as nft reads them: one transaction that replaces our table and touches no other."""
    networks = [ipaddress.ip_network(address) for addresses in wanted.nodes.values() for address in addresses] + list(wanted.admitted)
    fourth = [str(each) for each in ipaddress.collapse_addresses(each for each in networks if isinstance(each, ipaddress.IPv4Network))]
    sixth = [str(each) for each in ipaddress.collapse_addresses(each for each in networks if isinstance(each, ipaddress.IPv6Network))]
    interfaces = ", ".join(f'"{name}"' for name in wanted.interfaces)
    lines = [
        "# Written by Trainyard (role node_firewall). Changes here are lost; node_firewall_open_ports and node_firewall_admitted in the",
        "# inventory open more. From outside the cluster: SSH, what is listed, and every port below the first one that is closed.",
        *(f"# node {name}: {' '.join(addresses)}" for name, addresses in sorted(wanted.nodes.items())),
        f"table {TABLE}",
        f"delete table {TABLE}",
        f"table {TABLE} {{",
        *_set("cluster4", "ipv4_addr", fourth, interval=True),
        *_set("cluster6", "ipv6_addr", sixth, interval=True),
        *_set("ssh", "inet_service", [str(port) for port in wanted.ssh], interval=False),
        *_set("open_tcp", "inet_service", _merged(each for each in wanted.open if each.protocol == "tcp"), interval=True),
        *_set("open_udp", "inet_service", _merged(each for each in wanted.open if each.protocol == "udp"), interval=True),
        "\tchain input {",
        "\t\ttype filter hook input priority filter - 5; policy accept;",
        "\t\ttcp dport @ssh accept",
        "\t\tiif lo accept",
        "\t\tct state established,related accept",
        "\t\tct status dnat accept",
        *([f"\t\tiifname {{ {interfaces} }} accept"] if interfaces else []),
        "\t\tip saddr @cluster4 accept",
        "\t\tip6 saddr @cluster6 accept",
        "\t\ttcp dport @open_tcp accept",
        "\t\tudp dport @open_udp accept",
        # Only what opens a connection: conntrack does not know those that are older than this table.
        f"\t\ttcp dport >= {wanted.first_port} tcp flags & (syn | rst | ack) == syn counter drop",
        f"\t\tudp dport >= {wanted.first_port} ct state new counter drop",
        "\t}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _set(name: str, kind: str, elements: Sequence[str], *, interval: bool) -> list[str]:
    return [
        f"\tset {name} {{",
        f"\t\ttype {kind}",
        *(["\t\tflags interval"] if interval else []),
        *([f"\t\telements = {{ {', '.join(elements)} }}"] if elements else []),
        "\t}",
    ]


def _merged(entries: Iterable[Ports]) -> list[str]:
    """Return ranges that do not overlap, which nft demands."""
    found: list[Ports] = []
    for each in sorted(entries):
        if found and each.first <= found[-1].last + 1:
            found[-1] = Ports(each.protocol, found[-1].first, max(found[-1].last, each.last))
        else:
            found.append(each)
    return [str(each) for each in found]


def units() -> dict[str, str]:
    """Return the unit that loads the rules at boot, and the drop-in that loads them again after nftables.service has flushed all tables."""
    again = f"/bin/sh -c '! systemctl is-active --quiet {SERVICE} || {NFT} -f {RULES}'"
    return {
        UNIT: f"""# Written by Trainyard (role node_firewall).
[Unit]
Description=High ports of this node are open to its cluster only
DefaultDependencies=no
Wants=network-pre.target
After=nftables.service local-fs.target
Before=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={NFT} -f {RULES}
ExecReload={NFT} -f {RULES}
ExecStop=-{NFT} delete table {TABLE}

[Install]
WantedBy=sysinit.target
""",
        FLUSHED: f"""# Written by Trainyard (role node_firewall). Each of these flushes all tables.
# Trainyard's comes back at once, as long as {SERVICE} is active.
[Service]
ExecStartPost=-{again}
ExecReload=-{again}
ExecStopPost=-{again}
""",
    }


REMOVE = f"table {TABLE}\ndelete table {TABLE}\n"
"""What makes nft remove our table, whether it is there or not."""


def reload_commands(existed: bool) -> str:
    """Return the shell commands that have the restored files used.

    Args:
        existed: whether there were rules of ours before the change.
    """
    if existed:
        link = f"mkdir -p {WANTS.rpartition('/')[0]}\nln -sf ../{SERVICE} {WANTS}"
        return f"{link}\nsystemctl daemon-reload\nsystemctl reload-or-restart {SERVICE}"
    return (
        f"systemctl stop {SERVICE}\nrm -f {WANTS}\n"
        f"printf 'table {TABLE}\\ndelete table {TABLE}\\n' | {NFT} -f -\nsystemctl daemon-reload\nsystemctl reset-failed {SERVICE}"
    )


# --- what a node says ----------------------------------------------------------------------------------------------


def closed(listing: str, wanted: Firewall) -> list[str]:
    """Return what listens now and would not be reached from outside the cluster any more, such as ``9100/tcp``.

    Args:
        listing: what ``ss -Hltun`` printed.
        wanted: the firewall.
    """
    found = set()
    for line in listing.splitlines():
        words = line.split()
        if len(words) < 5:
            continue
        protocol, (address, _colon, port) = words[0], words[4].rpartition(":")
        host = address.strip("[]").partition("%")[0]
        if not port.isdigit() or host.startswith("127.") or host == "::1":
            continue
        number = int(port)
        opened = any(each.protocol == protocol and each.first <= number <= each.last for each in wanted.open)
        if number >= wanted.first_port and not opened and not (protocol == "tcp" and number in wanted.ssh):
            found.add((number, protocol))
    return [f"{number}/{protocol}" for number, protocol in sorted(found)]


def ssh_ports(effective: str, listen: str, connection: str) -> set[int]:
    """Return sshd's ports.

    Args:
        effective: what ``sshd -T`` printed.
        listen: the property Listen of ssh.socket, where that is active.
        connection: SSH_CONNECTION of this login; its last word is the port of sshd as this node sees it.
    """
    found = {int(port) for port in re.findall(r"^port (\d+)$", effective, re.MULTILINE)}
    found |= {int(port) for port in re.findall(r"^listenaddress \S*:(\d+)", effective, re.MULTILINE)}
    found |= {int(port) for port in re.findall(r"(?:^|[:\s])(\d+) \(Stream\)", listen)}
    words = connection.split()
    if len(words) == 4 and words[3].isdigit():
        found.add(int(words[3]))
    return found
