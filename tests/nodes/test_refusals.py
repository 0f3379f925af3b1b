"""What an admin meets in her first hour: a node that cannot be logged in to or worked on, and the command that helps, in plain sight."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import inventory_of, tool
from trainyard.containers import Lab

pytestmark = pytest.mark.nodes

SUDOERS = "/etc/sudoers.d/admin"
NODE: dict[str, tuple[str, str, str]] = {
    # what is wrong: done on the node, undone there, advice
    "sudo wants a password": (
        f"cp {SUDOERS} /root/kept; echo 'admin ALL=(ALL) ALL' >{SUDOERS}",
        f"mv /root/kept {SUDOERS}",
        "Run again with `--ask-become-pass`",
    ),
    "no sudo": ("mv /usr/bin/sudo /usr/bin/gone", "mv /usr/bin/gone /usr/bin/sudo", "`apt-get install sudo`"),
    "not in the group sudo": (
        f"mv {SUDOERS} /root/kept; gpasswd -d admin sudo",
        f"mv /root/kept {SUDOERS}; gpasswd -a admin sudo",
        "`usermod -aG sudo USER`",
    ),
    "no room in /tmp": (
        "mount -t tmpfs -o size=64k tmpfs /tmp; head -c 1M /dev/zero >/tmp/fill || true",
        "umount /tmp",
        "A disk is full, perhaps that of /tmp. On the node, `df -h` shows which",
    ),
    "no Python": (
        "mkdir /root/kept; mv /usr/bin/python3* /root/kept",
        "mv /root/kept/* /usr/bin; rmdir /root/kept",
        "`apt-get install python3`",
    ),
}
LOGIN: dict[str, tuple[Mapping[str, Any], str]] = {
    # what is wrong: variables of the inventory, advice
    "wrong sudo password": ({"ansible_become_password": "nope"}, "sudo on the node refuses the password"),
    "wrong user": ({"ansible_user": "nobody-here"}, "The node refuses the login"),
    "port closed": ({"ansible_port": 2299}, "nothing listens on the SSH port"),
    "name not resolved": ({"ansible_host": "no-such-host.invalid"}, "The controller knows no address for head"),
}


def refused(inventory: Path) -> str:
    """Apply the base, which fails, and return what is printed, on one line."""
    status, printed = tool(inventory, "apply", "--playbook", "playbooks/base.yml")
    assert status == 1
    assert "Traceback" not in printed
    return " ".join(printed.split())


@pytest.mark.parametrize("what", NODE)
def test_a_node_that_cannot_be_worked_on(node: Lab, tmp_path: Path, what: str) -> None:
    wrong, right, advice = NODE[what]
    node.execute("head", ["sh", "-ec", wrong])
    try:
        assert advice in refused(inventory_of(node, tmp_path))
    finally:
        node.execute("head", ["sh", "-ec", right])


@pytest.mark.parametrize("what", LOGIN)
def test_a_node_that_cannot_be_logged_in_to(node: Lab, tmp_path: Path, what: str) -> None:
    variables, advice = LOGIN[what]
    node.execute("head", ["sh", "-ec", f"cp {SUDOERS} /root/kept; echo 'admin ALL=(ALL) ALL' >{SUDOERS}; echo admin:right | chpasswd"])
    try:
        assert advice in refused(inventory_of(node, tmp_path, variables))
    finally:
        node.execute("head", ["sh", "-ec", f"mv /root/kept {SUDOERS}; passwd -d admin"])


@pytest.mark.parametrize("passphrase", ["", "a passphrase that nobody gives"])
def test_a_key_that_the_node_refuses_or_that_cannot_be_used(node: Lab, tmp_path: Path, passphrase: str) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(key)], check=True)
    config = tmp_path / "ssh_config"
    config.write_text(node.ssh_config.read_text().replace(str(node.key.resolve()), str(key)))
    printed = refused(inventory_of(node, tmp_path, {"ansible_ssh_common_args": f"-F {config} -o ControlPath=none"}))
    assert "The node refuses the login" in printed
    assert "`ssh-add FILE`" in printed
