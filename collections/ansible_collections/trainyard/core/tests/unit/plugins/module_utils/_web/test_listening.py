# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Which addresses a port is held on, and who is in the way."""

from __future__ import annotations

import socket

import pytest
from ansible_collections.trainyard.core.plugins.module_utils._web import listening

# Captured from a node: JupyterLab's socket held by systemd, bob on [::1]:8888, alice on 192.168.0.7:8888, a connection of alice's.
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 123 1 0000000000000000 100 0 0 10 0
   1: 0700A8C0:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  2001        0 124 1 0000000000000000 100 0 0 10 0
   2: 0100007F:22B8 0100007F:C350 01 00000000:00000000 00:00000000 00000000  2003        0 125 1 0000000000000000 100 0 0 10 0
"""
TCP6 = """\
  sl  local_address  remote_address  st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 00000000000000000000000001000000:22B8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  2002 0 9 1
"""


@pytest.mark.parametrize(
    "listen, ipv6, held",
    [
        ("127.0.0.1", True, ["127.0.0.1", "::1"]),
        ("127.0.0.1", False, ["127.0.0.1"]),
        ("localhost", True, ["127.0.0.1", "::1"]),
        ("::1", True, ["::1", "127.0.0.1"]),
        ("127.0.0.5", True, ["127.0.0.5", "127.0.0.1", "::1"]),
        ("0.0.0.0", True, ["0.0.0.0", "::1"]),
        ("0.0.0.0", False, ["0.0.0.0"]),
        ("::", True, ["::", "127.0.0.1"]),
        ("192.0.2.7", True, ["192.0.2.7", "127.0.0.1", "::1"]),
        ("2001:DB8::7", True, ["2001:db8::7", "127.0.0.1", "::1"]),
    ],
)
def test_both_loopbacks_are_held_whatever_is_asked_for(listen: str, ipv6: bool, held: list[str]) -> None:
    assert listening.addresses(listen, ipv6) == held


def test_systemd_writes_ipv6_in_brackets() -> None:
    assert [listening.stream(address, 8888) for address in ("127.0.0.1", "::1")] == ["127.0.0.1:8888", "[::1]:8888"]


def test_who_listens_in_the_way_of_ours() -> None:
    assert listening.holders(TCP, ["127.0.0.1", "::1"], 8888) == {0}
    assert listening.holders(TCP, ["192.168.0.7"], 8888) == {2001}
    assert listening.holders(TCP6, ["127.0.0.1", "::1"], 8888) == {2002}
    assert listening.holders(TCP6, ["127.0.0.1"], 8888) == set()
    assert listening.holders(TCP6, ["::1"], 6006) == set()


def test_root_and_the_service_itself_are_no_strangers() -> None:
    text = {"/proc/net/tcp": TCP, "/proc/net/tcp6": TCP6}
    assert listening.strangers(["127.0.0.1", "::1"], 8888, [], lambda path: text[path]) == [2002]
    assert listening.strangers(["127.0.0.1", "::1"], 8888, [2002], lambda path: text[path]) == []


def test_an_address_of_another_machine_cannot_be_had() -> None:
    assert listening.can_bind("127.0.0.1")
    assert not listening.can_bind("192.0.2.7")
    assert listening.has_ipv6() == listening.can_bind("::1")
    assert socket.has_ipv6
