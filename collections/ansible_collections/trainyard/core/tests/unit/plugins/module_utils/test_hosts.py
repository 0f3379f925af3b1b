"""The block in /etc/hosts, and what is wrong with names and times."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _hosts as hosts

OTHERS = "127.0.0.1 localhost\n127.0.1.1 head.example head\n# a colleague's\n192.0.2.99 printer\n"


def seen(address: str, *names: str) -> dict[str, Any]:
    return {"address": address, "names": list(names), "seen": True}


def unseen(address: str = "") -> dict[str, Any]:
    return {"address": address, "names": [], "seen": False}


def block(*lines: str) -> str:
    return "".join(f"{line}\n" for line in (hosts.BEGIN, *lines, hosts.END))


def test_the_block_stands_first_and_other_lines_stay() -> None:
    text, unknown = hosts.renewed(OTHERS, {"head": seen("192.0.2.1", "head.example", "head"), "node1": unseen("192.0.2.2")})
    assert text == block("192.0.2.1 head head.example", "192.0.2.2 node1") + OTHERS
    assert unknown == []


def test_a_node_that_this_run_did_not_see_keeps_its_line() -> None:
    before = block("192.0.2.1 head", "192.0.2.2 node1 node1.example", "192.0.2.3 gone") + OTHERS
    text, unknown = hosts.renewed(before, {"head": seen("192.0.2.7"), "node1": unseen("198.51.100.2"), "node2": unseen()})
    assert text == block("192.0.2.7 head", "192.0.2.2 node1 node1.example") + OTHERS
    assert unknown == ["node2"]


def test_it_is_steady_and_it_goes() -> None:
    nodes = {"head": seen("192.0.2.1")}
    once, _unknown = hosts.renewed(OTHERS, nodes)
    assert hosts.renewed(once, nodes)[0] == once
    assert hosts.renewed(once, {})[0] == OTHERS


def test_a_block_whose_end_is_lost_takes_no_other_line_along() -> None:
    assert hosts.renewed(f"{hosts.BEGIN}\n{OTHERS}", {})[0] == OTHERS


@pytest.mark.parametrize(
    "wished, ansible_host, address",
    [("10.0.0.1", "192.0.2.1", "10.0.0.1"), ("", "192.0.2.1", "192.0.2.1"), ("", "head.example", "198.51.100.1")],
)
def test_by_which_address(wished: str, ansible_host: str, address: str) -> None:
    facts = {"hostname": "head", "fqdn": "localhost.localdomain", "default_ipv4": {"address": "198.51.100.1"}}
    assert hosts.node(wished, ansible_host, facts) == {"address": address, "names": ["head"], "seen": True}


@pytest.mark.parametrize(
    "nodes, wish, said",
    [
        ({"head": seen("")}, {}, "names_and_time_address is empty: this node has no route"),
        ({"head": seen("127.0.0.1")}, {}, "names_and_time_address is '127.0.0.1': say the IP address"),
        ({"head": seen("head.example")}, {}, "names_and_time_address is 'head.example': say the IP address"),
        (
            {"head": seen("192.0.2.1"), "n1": unseen("192.0.2.1")},
            {},
            "names_and_time_address: head and n1 both have the address 192.0.2.1.",
        ),
        ({"head": seen("192.0.2.1"), "a b": unseen()}, {}, "names_and_time_hosts: 'a b' cannot be a host's name"),
        ({"node1": seen("192.0.2.1")}, {}, "names_and_time_hosts does not name head"),
        ({"head": seen("192.0.2.1")}, {"servers": ["a b"]}, "names_and_time_servers: 'a b' is no host's name and no address."),
        ({"head": seen("192.0.2.1")}, {"serves_to": ["10.0.0.1/8"]}, "names_and_time_serves_to: '10.0.0.1/8' is no network."),
    ],
)
def test_what_cannot_be_is_named(nodes: dict[str, Any], wish: dict[str, Any], said: str) -> None:
    (problem,) = hosts.problems({"servers": [], "serves_to": [], **wish}, nodes, "head")
    assert said in problem


def test_a_sound_wish_has_no_problems() -> None:
    wish = {"servers": ["ntp.example", "192.0.2.9"], "serves_to": ["192.0.2.0/24"]}
    assert hosts.problems(wish, {"head": seen("192.0.2.1"), "node1": unseen()}, "head") == []
