"""Limits on login sessions as systemd has them for whoever logs in."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("account", "expected"), [("lab", {"TasksMax": "8192", "CPUWeight": "50"}), ("root", {"TasksMax": "infinity", "CPUWeight": "100"})]
)
def test_a_login_is_in_a_slice_with_the_limits(host: Any, account: str, expected: dict[str, str]) -> None:
    host.run("id lab || useradd --create-home lab")
    uid = host.user(account).uid
    inside = host.check_output(f"systemd-run --quiet --pipe --property=PAMName=login --uid={uid} cat /proc/self/cgroup")
    assert f"user-{uid}.slice" in inside
    shown = host.check_output(f"runuser -l {account} -c 'systemctl show user-{uid}.slice --property=TasksMax,CPUWeight'")
    assert dict(line.split("=") for line in shown.splitlines()) == expected


def test_memory_is_a_share_of_the_nodes_and_swap_is_no_way_on(host: Any) -> None:
    text = host.file("/etc/systemd/system/user-.slice.d/50-trainyard.conf").content_string
    assert "MemoryMax=80%\nMemorySwapMax=0\n" in text


def test_a_shell_at_the_limit_starts_without_a_process(host: Any) -> None:
    script = "/etc/profile.d/trainyard-session-limits.sh"
    assert host.run(f"sh {script}").rc == 0
    assert host.run(f"bash {script}").rc == 0
    text = host.file(script).content_string
    assert "$(systemctl" not in text
    assert "`" not in text
