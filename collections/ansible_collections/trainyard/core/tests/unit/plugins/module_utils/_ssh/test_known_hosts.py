# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""The nodes' host keys: each node speaks for itself alone."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.filter.known_hosts import known_hosts as by_inventory
from ansible_collections.trainyard.core.plugins.module_utils._host.reported import ReportedError
from ansible_collections.trainyard.core.plugins.module_utils._ssh import known_hosts
from hypothesis import given
from hypothesis import strategies as st


def public(number: int, kind: str = "ssh-ed25519") -> str:
    blob = len(kind).to_bytes(4, "big") + kind.encode() + (32).to_bytes(4, "big") + bytes([number]) * 32
    return f"{kind} {base64.b64encode(blob).decode()}"


ONE, TWO, THREE = public(1), public(2), public(3)
LAB: dict[str, dict[str, Any]] = {
    "head": {"ansible_host": "192.0.2.10", "keys_result": {"keys": [ONE]}},
    "Node1.lab.example": {"names_and_time_address": "10.0.0.1", "keys_result": {"keys": [TWO]}},
    "192.0.2.12": {"name": "gpu2", "keys_result": {"keys": [THREE]}},
    "localhost": {"ansible_host": "127.0.0.1", "keys_result": {"keys": [public(4)]}},
    "away": {},
}


def entries(lab: dict[str, dict[str, Any]], domain: str = "") -> dict[str, dict[str, Any]]:
    return by_inventory(list(lab), lab, "keys_result", "names_and_time_address", "name", domain)


def lines(lab: dict[str, dict[str, Any]], text: str = "", domain: str = "") -> list[str]:
    return known_hosts.renewed(text, entries(lab, domain)).splitlines()


def test_names_and_addresses_are_those_of_the_inventory() -> None:
    assert lines(LAB) == [
        f"head,192.0.2.10 {ONE} trainyard:head",
        f"node1.lab.example,node1,10.0.0.1 {TWO} trainyard:Node1.lab.example",
        f"gpu2,192.0.2.12 {THREE} trainyard:192.0.2.12",
    ]
    assert lines({"head": LAB["head"]}, domain="lab.example") == [f"head,head.lab.example,192.0.2.10 {ONE} trainyard:head"]


def test_a_name_or_address_of_two_nodes_is_neithers() -> None:
    lab = {
        "a.one.example": {"ansible_host": "192.0.2.1", "keys_result": {"keys": [ONE]}},
        "a.two.example": {"ansible_host": "192.0.2.1", "keys_result": {"keys": [TWO]}},
    }
    assert lines(lab) == [f"a.one.example {ONE} trainyard:a.one.example", f"a.two.example {TWO} trainyard:a.two.example"]


def test_a_node_that_was_not_seen_keeps_its_key_and_one_that_is_gone_loses_it() -> None:
    own = f"@revoked * {public(9)}\nsomebody {public(8)} a comment"
    text = f"{own}\naway {TWO} trainyard:away\ngone {THREE} trainyard:gone\nhead {THREE} trainyard:head\n"
    after = known_hosts.renewed(text, entries(LAB))
    assert after.startswith(own + "\n")
    assert f"away {TWO} trainyard:away" in after.splitlines()
    assert "gone" not in after
    assert f"head,192.0.2.10 {ONE} trainyard:head" in after.splitlines()
    assert known_hosts.renewed(after, entries(LAB)) == after
    assert known_hosts.renewed(after, {}) == own + "\n"


def test_a_node_without_sshd_has_no_line() -> None:
    assert lines({"head": {"keys_result": {"keys": []}}}, f"head {ONE} trainyard:head\n") == []
    assert lines({"head": {"keys_result": {"skipped": True}}}, f"head {ONE} trainyard:head\n") == [f"head {ONE} trainyard:head"]


@pytest.mark.parametrize(
    "lie",
    [
        f"{ONE}\nhead {TWO}",
        "head " + ONE,
        "@cert-authority * " + ONE,
        "ssh-ed25519 AAAA",
        ONE.replace("ssh-ed25519", "ssh-rsa"),
        "ssh-ed25519 not_base64",
        "ssh-dss AAAAB3NzaC1kc3MAAAA",
        ONE + "\x1b[31m",
        "x" * 5000,
        None,
        7,
        {"a": "b"},
    ],
)
def test_what_is_no_key_is_refused_for_that_node_alone(lie: Any) -> None:
    found = entries({**LAB, "away": {"keys_result": {"keys": [lie]}}})
    assert (found["away"]["keys"], found["away"]["seen"]) == ([], False)
    assert found["away"]["refused"].startswith("away reports the SSH host key ")
    assert found["away"]["refused"].isprintable()
    assert found["head"] == entries(LAB)["head"]


def test_comments_go_and_the_best_key_stays() -> None:
    keys = [public(5, "ssh-rsa"), ONE + " root@node1", public(6, "ecdsa-sha2-nistp256")]
    assert entries({"head": {"keys_result": {"keys": keys}}})["head"]["keys"] == [ONE]
    assert known_hosts.best([public(5, "ssh-rsa"), "ssh-dss AAAA"]) == [public(5, "ssh-rsa")]


@given(st.one_of(st.text(), st.lists(st.text(max_size=60), max_size=3), st.dictionaries(st.just("keys"), st.lists(st.text(max_size=90)))))
def test_whatever_a_node_reports_no_line_of_another_changes(result: Any) -> None:
    before = lines(LAB)
    after = lines({**LAB, "away": {"keys_result": result}})
    assert [line for line in after if not line.endswith(" trainyard:away")] == before


@given(st.text())
def test_a_key_is_one_of_a_kind_on_one_line(text: str) -> None:
    try:
        kind, blob = known_hosts.key("node1", text).split(" ")
    except ReportedError:
        return
    assert kind in known_hosts.KINDS
    assert base64.b64decode(blob)
