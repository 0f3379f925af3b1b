"""A node that was planned for: it has been looked at, and nothing else. The plan itself has its tests in tests/test_plan.py."""

from __future__ import annotations

from typing import Any


def test_nothing_was_put_on_the_node(host: Any) -> None:
    assert not host.file("/opt/trainyard").exists
    assert not host.file("/etc/trainyard").exists
    since_boot = host.check_output("find /etc /usr /opt /srv /home /var/lib/dpkg -xdev -newer /run/sshd -type f")
    first_boot = ("/ssh_host_", "/etc/ld.so.cache", "/etc/.updated", "/var/.updated")  # sshd's keys; systemd's units for the first boot
    others = ("/.ansible", "/__pycache__/", *first_boot)  # the first two are Ansible's own
    assert [path for path in since_boot.splitlines() if not any(part in path for part in others)] == []
