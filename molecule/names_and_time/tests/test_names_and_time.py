"""Names and time as programs on the node find them."""

from __future__ import annotations

from typing import Any


def test_the_nodes_own_name_leads_to_the_network(host: Any) -> None:
    own = host.check_output("hostname -I").split()
    first = host.check_output("getent ahostsv4 %s", host.check_output("hostname")).split()[0]
    assert first in own
    assert not first.startswith("127.")


def test_the_hosts_file_keeps_what_others_wrote(host: Any) -> None:
    assert "localhost" in host.file("/etc/hosts").content_string
    assert host.check_output("getent ahostsv4 localhost").split()[0] == "127.0.0.1"


def test_chrony_runs_and_does_not_touch_the_hosts_clock(host: Any) -> None:
    assert host.service("chrony").is_enabled
    assert host.service("chrony").is_running
    assert "-x" in host.check_output("ps -o args= -C chronyd").split()
    assert "Leap status" in host.check_output("chronyc tracking")


def test_nobody_is_answered_unasked(host: Any) -> None:
    listening = {line.split()[3] for line in host.check_output("ss -Hlun").splitlines() if line.split()[3].endswith((":123", ":323"))}
    assert listening <= {"127.0.0.1:323", "[::1]:323"}


def test_nothing_else_keeps_the_clock(host: Any) -> None:
    assert not host.package("systemd-timesyncd").is_installed
