"""The block in /etc/hosts, and what is wrong with names and times."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _hosts as hosts

OTHERS = "127.0.0.1 localhost\n127.0.1.1 head.example head\n# a colleague's\n192.0.2.99 printer\n"


def seen(name: str, address: str, own: str = "", **more: str) -> dict[str, Any]:
    """Return a node with an address by the inventory, which calls itself as it has to, or otherwise."""
    return hosts.node(name, address, "", {"hostname": own or name.partition(".")[0]}, **more)


def unseen(name: str, address: str = "") -> dict[str, Any]:
    return hosts.node(name, address, "", {})


def block(*lines: str) -> str:
    return "".join(f"{line}\n" for line in (hosts.BEGIN, *lines, hosts.END))


def test_the_block_stands_first_and_other_lines_stay() -> None:
    nodes = {"head": seen("head", "192.0.2.1", domain="lab.example"), "n1.lab.example": unseen("n1.lab.example", "192.0.2.2")}
    text, unknown = hosts.renewed(OTHERS, nodes)
    assert text == block("192.0.2.1 head head.lab.example", "192.0.2.2 n1.lab.example n1") + OTHERS
    assert unknown == []


def test_a_node_that_this_run_did_not_see_keeps_its_line() -> None:
    before = block("192.0.2.1 head", "192.0.2.2 node1 mirror.example", "192.0.2.3 gone") + OTHERS
    nodes = {"head": seen("head", "192.0.2.7"), "node1": unseen("node1", "198.51.100.2"), "node2": unseen("node2")}
    text, unknown = hosts.renewed(before, nodes)
    assert text == block("192.0.2.7 head", "192.0.2.2 node1") + OTHERS, "the address; a name that an older release let in goes"
    assert unknown == ["node2"]


def test_it_is_steady_and_it_goes() -> None:
    nodes = {"head": seen("head", "192.0.2.1")}
    once, _unknown = hosts.renewed(OTHERS, nodes)
    assert hosts.renewed(once, nodes)[0] == once
    assert hosts.renewed(once, {})[0] == OTHERS


def test_the_nodes_own_name_is_on_no_other_line_and_the_undo_puts_it_back() -> None:
    """Debian's line, Docker's, one of IPv6's with another name; of another machine in another domain nothing is taken."""
    text = (
        "127.0.0.1 localhost\n127.0.1.1\tHEAD.example head\n192.0.2.1\thead\n::1 ip6-localhost head # mine\n"
        "192.0.2.9 head.elsewhere\n192.0.2.2 node1 # kept: not this node's\n"
    )
    nodes = {"head": seen("head", "192.0.2.1", domain="lab.example"), "node1": seen("node1", "192.0.2.2")}
    once, _unknown = hosts.renewed(text, nodes, "head")
    assert [line for line in once.splitlines() if not line.startswith("#")] == [
        "192.0.2.1 head head.lab.example HEAD.example",
        "192.0.2.2 node1",
        "127.0.0.1 localhost",
        f"::1 ip6-localhost{hosts.WITHOUT}",
        "192.0.2.9 head.elsewhere",
        "192.0.2.2 node1 # kept: not this node's",
    ]
    assert hosts.renewed(once, nodes, "head")[0] == once
    assert hosts.renewed(once, {})[0] == text
    nobody_knows = {"head": unseen("head")}
    assert hosts.renewed(text, nobody_knows, "head")[0] == text, "a name that led somewhere does not come to lead nowhere"


def test_addresses_as_getent_prints_them() -> None:
    said = "192.0.2.1     STREAM head\n192.0.2.1     DGRAM  \n192.0.2.1     RAW    \n192.0.2.1     STREAM \n192.0.2.1     DGRAM  \n"
    assert hosts.addresses(said) == ["192.0.2.1", "192.0.2.1"]
    assert hosts.addresses("") == []


@pytest.mark.parametrize(
    ("texts", "writes"),
    [
        ((), False),
        (("users: [default]\n# manage_etc_hosts: true\n",), False),
        (("manage_etc_hosts: true\n",), True),
        (("a: 1\nmanage_etc_hosts: 'localhost'\n", "b: 2\n"), True),
        (("manage_etc_hosts: template\n", "manage_etc_hosts: False\n"), False),
    ],
)
def test_whether_cloud_init_writes_the_file(texts: tuple[str, ...], writes: bool) -> None:
    assert hosts.cloud_init_writes(texts) is writes


def test_a_block_whose_end_is_lost_takes_no_other_line_along() -> None:
    assert hosts.renewed(f"{hosts.BEGIN}\n{OTHERS}", {})[0] == OTHERS


@pytest.mark.parametrize(
    "wished, ansible_host, address",
    [("10.0.0.1", "192.0.2.1", "10.0.0.1"), ("", "192.0.2.1", "192.0.2.1"), ("", "head.example", "198.51.100.1")],
)
def test_by_which_address(wished: str, ansible_host: str, address: str) -> None:
    facts = {"hostname": "head", "fqdn": "localhost.localdomain", "default_ipv4": {"address": "198.51.100.1"}}
    found = hosts.node("head", wished, ansible_host, facts)
    assert (found["address"], found["names"], found["seen"], found["refused"]) == (address, ["head"], True, "")


@pytest.mark.parametrize(
    "nodes, wish, said",
    [
        ({"head": seen("head", "")}, {}, "names_and_time_address is empty: this node has no route"),
        ({"head": seen("head", "127.0.0.1")}, {}, "names_and_time_address is '127.0.0.1': say the IP address"),
        ({"head": seen("head", "head.example")}, {}, "names_and_time_address is 'head.example': say the IP address"),
        (
            {"head": seen("head", "192.0.2.1"), "n1": unseen("n1", "192.0.2.1")},
            {},
            "names_and_time_address: head and n1 both have the address 192.0.2.1.",
        ),
        ({"head": seen("head", "192.0.2.1"), "a b": unseen("a b")}, {}, "names_and_time_hosts: 'a b' cannot be a host's name"),
        ({"node1": seen("node1", "192.0.2.1")}, {}, "names_and_time_hosts does not name head"),
        ({"head": seen("head", "192.0.2.1")}, {"servers": ["a b"]}, "names_and_time_servers: 'a b' is no host's name and no address."),
        ({"head": seen("head", "192.0.2.1")}, {"serves_to": ["10.0.0.1/8"]}, "names_and_time_serves_to: '10.0.0.1/8' is no network."),
        ({"head": seen("head", "192.0.2.1")}, {"domain": "lab example"}, "names_and_time_domain: 'lab example' is not a domain."),
        (
            {"head": seen("head", "192.0.2.1", "deb.mirror"), "node2": seen("node2", "192.0.2.3", "x")},
            {},
            "head calls itself 'deb.mirror'; by the inventory its host name is head. Set it on the node: sudo hostnamectl",
        ),
        (
            {"head": seen("head", "192.0.2.1", "r16"), "r16": unseen("r16", "192.0.2.2")},
            {},
            "head calls itself r16, as r16 is called; by the inventory its host name is head.",
        ),
        ({"head": seen("head", "192.0.2.1"), "n.a": unseen("n.a"), "n.b": unseen("n.b")}, {}, "n.a and n.b would both be called n."),
        ({"head": seen("head", "192.0.2.1"), "192.0.2.9": unseen("192.0.2.9")}, {}, "names_and_time_hostname: 192.0.2.9 needs a host name"),
    ],
)
def test_what_cannot_be_is_named(nodes: dict[str, Any], wish: dict[str, Any], said: str) -> None:
    (problem,) = hosts.problems({"servers": [], "serves_to": [], **wish}, nodes, "head")
    assert said in problem


def test_a_sound_wish_has_no_problems() -> None:
    wish = {"servers": ["ntp.example", "192.0.2.9"], "serves_to": ["192.0.2.0/24"]}
    assert hosts.problems(wish, {"head": seen("head", "192.0.2.1"), "node1": unseen("node1")}, "head") == []
    by_address = hosts.node("192.0.2.9", "", "", {"hostname": "gpu9"}, "gpu9")
    assert hosts.problems(wish, {"head": seen("head", "192.0.2.1"), "192.0.2.9": by_address}, "head") == []
    assert (by_address["address"], by_address["names"]) == ("192.0.2.9", ["gpu9"])


def test_two_nodes_that_have_one_name_are_both_refused() -> None:
    nodes = {"r17": seen("r17", "192.0.2.1", "ubuntu"), "r18": seen("r18", "192.0.2.2", "ubuntu")}
    ((one,), (other,)) = (hosts.problems({"servers": [], "serves_to": []}, nodes, name) for name in nodes)
    assert one.startswith("r17 calls itself ubuntu, as r18 does; by the inventory its host name is r17.")
    assert "sudo hostnamectl set-hostname r18" in other


@pytest.mark.parametrize("address", ["127.0.0.1", "fe80::1%x\n192.0.2.1 mirror.example", "192.0.2.1 mirror.example", "x", "0.0.0.0"])
def test_an_address_that_is_none_is_refused_and_goes_nowhere(address: str) -> None:
    node = hosts.node("node2", "", "", {"hostname": "node2", "default_ipv4": {"address": address}})
    nodes = {"head": seen("head", "192.0.2.1"), "node2": node}
    (problem,) = hosts.problems({"servers": [], "serves_to": []}, nodes, "node2")
    assert problem.startswith("node2 reports the address '")
    assert "\n" not in problem
    assert hosts.renewed(OTHERS, nodes) == (block("192.0.2.1 head") + OTHERS, ["node2"])


def test_a_cluster_of_ipv6_addresses_is_refused_by_the_variable_that_gives_it_others() -> None:
    facts = {"hostname": "r27", "default_ipv4": {"address": "192.0.2.27"}}
    by_six, by_four = hosts.node("r27", "", "fd00:1234::2", facts), hosts.node("r28", "192.0.2.28", "fd00:1234::3", {})
    (problem,) = hosts.version_problems({"r27": by_six, "r28": by_four}, "r27", "names_and_time_address")
    assert problem.startswith("names_and_time_address: r27 has the IPv6 address fd00:1234::2, and Slurm's daemons do not hear")
    assert hosts.version_problems({"r27": by_six, "r28": by_four}, "r28", "names_and_time_address") == []
    assert hosts.version_problems({}, "r27", "names_and_time_address") == []
