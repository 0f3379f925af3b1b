"""Two admins run `apply` at the same moment: both end well, and the node is hardened in every case."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.security.conftest import House
from tests.support import tool

pytestmark = pytest.mark.security

DROP_IN = "/etc/ssh/sshd_config.d/00-trainyard.conf"


def test_two_runs_at_once_harden_a_fresh_node(house: House) -> None:
    house.root("node1", f"rm -f {DROP_IN} /etc/ssh/ssh_host_rsa_4096_key*; systemctl reload ssh.service; sleep 0.5")
    assert "passwordauthentication yes" in house.root("node1", "sshd -T")
    words = ["--playbook", "playbooks/hardening.yml", "--limit", "node1"]
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(tool, house.inventory, "apply", *words) for _run in range(2)]
        for status, said in (run.result() for run in runs):
            assert status == 0, said
            assert "converged" in said
    assert "passwordauthentication no" in house.root("node1", "sshd -T")
    assert house.root("node1", f"test -s {DROP_IN}; ls /var/lib/trainyard/ssh_hardening; cat /run/trainyard/locks/ssh_hardening") == ""
    assert house.ssh("alice", node="node1").returncode == 0
