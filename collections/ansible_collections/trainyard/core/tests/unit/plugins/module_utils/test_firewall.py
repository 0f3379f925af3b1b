"""The firewall's rules: what they admit, whatever the inventory says, and what the inventory must not say."""

from __future__ import annotations

import ipaddress
import itertools
import re
import subprocess
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _firewall as fw
from ansible_collections.trainyard.core.plugins.module_utils import _hosts as hosts
from hypothesis import assume, given
from hypothesis import strategies as st

# --- a reader of the rules that knows nothing of how they were made --------------------------------------------------


def elements(rules: str, name: str) -> list[str]:
    body = re.search(r"set " + name + r" \{(.*?)\n\t\}", rules, re.DOTALL)
    assert body, name
    found = re.search(r"elements = \{ (.*) \}", body[1])
    return found[1].split(", ") if found else []


def has_port(rules: str, name: str, port: int) -> bool:
    ranges = [entry.partition("-") for entry in elements(rules, name)]
    return any(int(first) <= port <= int(last or first) for first, _dash, last in ranges)


def has_address(rules: str, name: str, address: str) -> bool:
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(entry) for entry in elements(rules, name))


def verdict(rules: str, protocol: str, source: str, port: int) -> str:
    """Return what becomes of a packet that opens a connection, by the chain's lines from the first to the last."""
    chain = rules[rules.index("chain input {") :].splitlines()
    family = "4" if ":" not in source else "6"
    for line in (each.strip() for each in chain):
        first = re.search(r"^(tcp|udp) dport >= (\d+)", line)
        if line == "tcp dport @ssh accept" and protocol == "tcp" and has_port(rules, "ssh", port):
            return "accept"
        if line.endswith(f"saddr @cluster{family} accept") and has_address(rules, f"cluster{family}", source):
            return "accept"
        if line == f"{protocol} dport @open_{protocol} accept" and has_port(rules, f"open_{protocol}", port):
            return "accept"
        if first and first[1] == protocol and port >= int(first[2]):
            assert line.endswith("drop")
            return "drop"
    return "accept"  # the chain's policy


def request(**changed: Any) -> dict[str, Any]:
    return {
        "nodes": {"head": {"addresses": ["192.0.2.1"], "seen": True}},
        "admitted": [],
        "open_ports": [],
        "service_ports": [],
        "ssh_ports": [],
        "first_port": 1024,
        "interfaces": [],
        "rollback_seconds": 60,
        **changed,
    }


def rules(ssh: tuple[int, ...] = (22,), before: str = "", **changed: Any) -> str:
    wanted = request(**changed)
    assert fw.problems(wanted) == []
    return fw.render(fw.firewall(wanted, ssh, before)[0])


# --- properties ------------------------------------------------------------------------------------------------------

PORT = st.integers(1, 65535)
ADDRESS = st.one_of(
    st.ip_addresses(network="198.18.0.0/15"), st.ip_addresses(network="192.0.2.0/28"), st.ip_addresses(network="2001:db8::/64")
).map(str)
ENTRY = st.one_of(
    PORT,
    PORT.map(str),
    st.tuples(PORT, PORT, st.sampled_from(["", "/tcp", "/udp"])).map(lambda each: f"{min(each[:2])}-{max(each[:2])}{each[2]}"),
)
NODES = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True),
    st.fixed_dictionaries({"addresses": st.lists(ADDRESS, max_size=3), "seen": st.booleans()}),
    max_size=4,
)
REQUEST = st.fixed_dictionaries(
    {
        "nodes": NODES,
        "admitted": st.lists(st.sampled_from(["203.0.113.0/25", "203.0.113.9", "2001:db8:1::/48"]), max_size=3),
        "open_ports": st.lists(ENTRY, max_size=4),
        "service_ports": st.lists(PORT, max_size=2),
        "ssh_ports": st.lists(PORT, max_size=2),
        "first_port": st.integers(1024, 65535),
        "interfaces": st.lists(st.sampled_from(["docker0", "virbr*"]), max_size=2, unique=True),
        "rollback_seconds": st.just(60),
    }
)
SSH = st.sets(PORT, max_size=3)


@given(REQUEST, SSH, ADDRESS)
def test_ssh_is_open_to_everybody(wanted: dict[str, Any], ssh: set[int], source: str) -> None:
    text = fw.render(fw.firewall(wanted, ssh)[0])
    for port in {*ssh, *wanted["ssh_ports"]}:
        assert verdict(text, "tcp", source, port) == "accept"


@given(REQUEST, SSH, PORT, st.sampled_from(["tcp", "udp"]))
def test_the_cluster_is_admitted_to_every_port(wanted: dict[str, Any], ssh: set[int], port: int, protocol: str) -> None:
    text = fw.render(fw.firewall(wanted, ssh)[0])
    for node in wanted["nodes"].values():
        for address in node["addresses"]:
            assert verdict(text, protocol, address, port) == "accept"


@given(REQUEST, SSH, ADDRESS, PORT, st.sampled_from(["tcp", "udp"]))
def test_an_outsider_reaches_what_is_low_or_listed_and_nothing_else(
    wanted: dict[str, Any], ssh: set[int], source: str, port: int, protocol: str
) -> None:
    assume(all(source not in node["addresses"] for node in wanted["nodes"].values()))
    text = fw.render(fw.firewall(wanted, ssh)[0])
    opened = [fw.ports(entry) for entry in [*wanted["open_ports"], *wanted["service_ports"]]]
    listed = any(each.protocol == protocol and each.first <= port <= each.last for each in opened)
    listed |= protocol == "tcp" and port in {*ssh, *wanted["ssh_ports"]}
    expected = "accept" if port < wanted["first_port"] or listed else "drop"
    assert verdict(text, protocol, source, port) == expected


@given(REQUEST, SSH)
def test_a_set_has_no_overlaps_and_no_order_of_the_inventory(wanted: dict[str, Any], ssh: set[int]) -> None:
    text = fw.render(fw.firewall(wanted, ssh)[0])
    for name in ("open_tcp", "open_udp"):
        spans = [tuple(int(part) for part in (each.split("-") * 2)[:2]) for each in elements(text, name)]
        assert all(first[1] + 1 < second[0] for first, second in itertools.pairwise(spans))
    for name in ("cluster4", "cluster6"):
        networks = [ipaddress.ip_network(each) for each in elements(text, name)]
        assert not any(one != other and one.overlaps(other) for one in networks for other in networks)
    turned = {**wanted, "nodes": dict(reversed(wanted["nodes"].items())), "open_ports": wanted["open_ports"][::-1]}
    assert fw.render(fw.firewall(turned, ssh)[0]) == text


@given(REQUEST, SSH)
def test_no_table_but_ours_is_named_and_the_rules_remember_the_nodes(wanted: dict[str, Any], ssh: set[int]) -> None:
    text = fw.render(fw.firewall(wanted, ssh)[0])
    assert "flush" not in text
    assert set(re.findall(r"^(?:delete )?table (.*?)(?: \{)?$", text, re.MULTILINE)) == {"inet trainyard"}
    assert fw.remembered(text) == {
        name: list(dict.fromkeys(each["addresses"])) for name, each in wanted["nodes"].items() if each["addresses"]
    }


@given(st.text(), st.sampled_from(["open_ports", "service_ports", "ssh_ports", "admitted", "interfaces"]))
def test_no_text_of_the_inventory_becomes_a_rule(text: str, name: str) -> None:
    wanted = request(**{name: [text]})
    if not fw.problems(wanted):
        assert re.fullmatch(r"[\w.:/@*-]+", text, re.ASCII), text


# --- examples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("open_ports", 0, "node_firewall_open_ports: '0' is not a port: ports go from 1 to 65535."),
        ("open_ports", 65536, "node_firewall_open_ports: '65536' is not a port: ports go from 1 to 65535."),
        ("open_ports", "90-80", "node_firewall_open_ports: '90-80' is not a range of ports: write 80-90."),
        (
            "open_ports",
            "http",
            "node_firewall_open_ports: 'http' is not a port. Write a number such as 8080, a range such as 8000-8010, or",
        ),
        ("open_ports", "80/sctp", "node_firewall_open_ports: '80/sctp' is not a port. Write"),
        ("open_ports", True, "node_firewall_open_ports: 'True' is not a port. Write"),
        ("service_ports", "x", "node_firewall_service_ports: 'x' is not a port."),
        ("ssh_ports", "22-30", "node_firewall_ssh_ports: '22-30' is not a single port such as 2222."),
        ("admitted", "192.0.2.1/24", "node_firewall_admitted: '192.0.2.1/24' has host bits set. Did you mean '192.0.2.0/24'?"),
        ("admitted", "gpu1", "node_firewall_admitted: 'gpu1' is neither an IP address nor a network such as 192.0.2.0/24."),
        (
            "admitted",
            "0.0.0.0/0",
            "node_firewall_admitted: '0.0.0.0/0' admits everybody. To have no firewall, set node_firewall_enabled: false.",
        ),
        ("admitted", "::/0", "node_firewall_admitted: '::/0' admits everybody."),
        ("admitted", "127.0.0.1", "node_firewall_admitted: '127.0.0.1' is no address of another host."),
        ("interfaces", "*", "node_firewall_interfaces: '*' is not the name of a network interface"),
        ("interfaces", 'eth0" }', "node_firewall_interfaces: 'eth0\" }' is not the name of a network interface"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_the_name_of_its_variable(name: str, value: object, said: str) -> None:
    found = fw.problems(request(**{name: [value]}))
    assert len(found) == 1
    assert found[0].startswith(said)


def test_numbers_and_nodes_that_cannot_be_used_are_refused() -> None:
    assert fw.problems(request(first_port=80)) == ["node_firewall_first_port is 80: it must be from 1024 to 65535."]
    assert fw.problems(request(rollback_seconds=5)) == ["node_firewall_rollback_seconds is 5: it must be from 10 to 110."]
    nodes = {"a b": {"addresses": [], "seen": False}, "c": {"addresses": ["192.0.2.0/24"], "seen": True}}
    assert fw.problems(request(nodes=nodes)) == [
        "node_firewall_cluster: 'a b' cannot be a node's name (letters, digits and - _ . :).",
        "node_firewall_address of c: '192.0.2.0/24' is not the IP address of a host.",
    ]


def test_a_node_that_this_run_has_not_seen_keeps_its_addresses_and_one_that_is_gone_loses_them() -> None:
    before = rules(
        nodes={
            "head": {"addresses": ["192.0.2.1"], "seen": True},
            "node1": {"addresses": ["192.0.2.2", "10.0.0.2"], "seen": True},
            "gone": {"addresses": ["192.0.2.9"], "seen": True},
        }
    )
    unseen = {"addresses": [], "seen": False}
    wanted = request(nodes={"head": {"addresses": ["192.0.2.7"], "seen": True}, "node1": unseen, "node2": unseen})
    found, unknown = fw.firewall(wanted, [22], before)
    assert found.nodes == {"head": ["192.0.2.7"], "node1": ["192.0.2.2", "10.0.0.2"]}
    assert unknown == ["node2"]


def test_the_first_rules_of_a_run_of_one_node_admit_those_that_its_hosts_file_names() -> None:
    block = "\n".join([hosts.BEGIN, "192.0.2.1 head head.lab", "127.0.0.1 node9", hosts.END, "203.0.113.5 node1"])
    unseen = {"addresses": [], "seen": False}
    found, unknown = fw.firewall(request(nodes={"head": unseen, "node1": unseen, "node9": unseen}), [22], "", block)
    assert found.nodes == {"head": ["192.0.2.1"]}
    assert unknown == ["node1", "node9"]


def test_a_file_that_somebody_wrote_into_admits_no_network() -> None:
    assert fw.remembered("# node a: 0.0.0.0/0 192.0.2.1 127.0.0.1 x\n# node b: ::/0\n") == {"a": ["192.0.2.1"], "b": []}


def test_a_node_has_the_addresses_of_all_its_networks_but_those_of_its_containers() -> None:
    facts: dict[str, Any] = {
        "hostname": "n",
        "default_ipv4": {"address": "192.0.2.5"},
        "interfaces": ["lo", "eth0", "ib0", "br-1a2b", "docker0", "wg0"],
        "lo": {"type": "loopback", "ipv4": {"address": "127.0.0.1"}, "ipv6": [{"address": "::1"}]},
        "eth0": {
            "type": "ether",
            "ipv4": {"address": "192.0.2.5"},
            "ipv4_secondaries": [{"address": "192.0.2.6"}],
            "ipv6": [{"address": "fe80::1"}, {"address": "2001:db8::5"}],
        },
        "ib0": {"type": "infiniband", "ipv4": {"address": "10.0.0.5"}},
        "br_1a2b": {"type": "bridge", "ipv4": {"address": "172.18.0.1"}},
        "docker0": {"type": "bridge", "ipv4": {"address": "172.17.0.1"}},
        "wg0": {"ipv4": {"address": "0.0.0.0/0"}},
    }
    hostvars: dict[str, Any] = {"n": {"ansible_facts": facts}, "m": {"ansible_host": "198.51.100.7"}, "l": {"ansible_host": "127.0.0.1"}}
    assert fw.cluster_addresses(["n", "m", "l"], hostvars, "a") == {
        "n": {"addresses": ["192.0.2.5", "192.0.2.6", "2001:db8::5", "10.0.0.5"], "seen": True},
        "m": {"addresses": ["198.51.100.7"], "seen": False},
        "l": {"addresses": [], "seen": False},
    }
    for nonsense in (5, "eth0", {"a": 1}, ["eth0", 7, None]):  # whoever is root there decides what a node reports
        hostvars["n"]["ansible_facts"] = {**facts, "interfaces": nonsense, "eth0": ["x"]}
        assert fw.cluster_addresses(["n"], hostvars, "a")["n"]["addresses"] == ["192.0.2.5"]
    hostvars["n"]["ansible_facts"] = facts
    facts["interfaces"] = [f"e{number}" for number in range(300)]
    facts.update({f"e{number}": {"type": "ether", "ipv4": {"address": f"10.1.{number}.1"}} for number in range(250)})
    assert len(fw.cluster_addresses(["n"], hostvars, "a")["n"]["addresses"]) <= fw.ADDRESSES + 1


def test_what_listens_and_would_be_closed_is_named() -> None:
    listing = (
        "udp UNCONN 0 0 0.0.0.0:51820 0.0.0.0:*\nudp UNCONN 0 0 127.0.0.54:5353 0.0.0.0:*\ntcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:*\n"
        "tcp LISTEN 0 128 *:9100 *:*\ntcp LISTEN 0 128 [::]:2222 [::]:*\ntcp LISTEN 0 128 [::1]:6010 [::]:*\n"
        "tcp LISTEN 0 1 0.0.0.0:8080 0.0.0.0:*\ntcp LISTEN 0 1 192.0.2.1%eth0:5000 0.0.0.0:*\n"
    )
    wanted = fw.firewall(request(open_ports=[8080]), [2222])[0]
    assert fw.closed(listing, wanted) == ["5000/tcp", "9100/tcp", "51820/udp"]


def test_sshs_ports_are_those_of_the_configuration_the_socket_and_this_login() -> None:
    effective = "port 22\nport 2222\naddressfamily any\nlistenaddress [::]:2022\nlistenaddress 0.0.0.0:22\n"
    assert fw.ssh_ports(effective, "[::]:2200 (Stream)", "198.51.100.1 50000 192.0.2.1 2299") == {22, 2222, 2022, 2200, 2299}
    assert fw.ssh_ports("", "", "") == set()


@pytest.mark.parametrize("existed", [True, False])
def test_the_way_back_is_a_script_that_a_shell_understands(existed: bool) -> None:
    script = fw.ROLLBACK.script({fw.RULES: "/var/x/0"}, [fw.UNIT], fw.reload_commands(existed))
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert script.index(f"mv -f {fw.RULES}.old") < script.index("systemctl daemon-reload")
    assert ("delete table inet trainyard" in script) is not existed
