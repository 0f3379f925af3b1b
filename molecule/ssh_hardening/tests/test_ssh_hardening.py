"""What sshd is like under the modern profile: its effective configuration, and what the live daemon offers to the network."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

POLICIES = {"12": "Hardened Debian 12 (version 3)", "13": "Hardened Debian 13 (version 1)"}


@pytest.fixture
def address(host):
    return host.check_output("hostname -I").split()[0]


def audit(address, *words):
    """Run ssh-audit from the controller; a newer sshd makes whoever asks too often wait."""
    command = [str(Path(sys.executable).parent / "ssh-audit"), "-jj", "--skip-rate-test", *words, address]
    for _ in range(12):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
        if done.stdout.startswith("{"):
            return json.loads(done.stdout)
        time.sleep(5)
    raise AssertionError(f"ssh-audit got no answer: {done.stdout}{done.stderr}")


def effective(host, user):
    output = host.check_output(f"/usr/sbin/sshd -T -C user={user},host=,addr=192.0.2.1,laddr=192.0.2.2,lport=22,rdomain=")
    return dict(line.split(" ", 1) for line in output.splitlines() if " " in line)


@pytest.mark.parametrize("user", ["root", "admin"])
def test_keys_only_and_no_root(host, user):
    rules = effective(host, user)
    assert rules["passwordauthentication"] == "no"
    assert rules["kbdinteractiveauthentication"] == "no"
    assert rules["permitrootlogin"] == "no"
    assert rules["permitemptypasswords"] == "no"
    assert rules["pubkeyauthentication"] == "yes"


def test_the_live_daemon_lets_in_keys_only(address):
    words = [
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "PreferredAuthentications=none",
    ]
    done = subprocess.run(["ssh", *words, f"root@{address}", "true"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 255
    assert "Permission denied (publickey)." in done.stderr


def test_the_hardened_policy_of_the_distribution_passes(host, address):
    verdict = audit(address, "-P", POLICIES[host.system_info.release.partition(".")[0]])
    assert verdict["passed"] is True, verdict["errors"]


def test_ssh_audit_reports_no_failure(address):
    found = audit(address)
    entries = [entry for kind in ("kex", "key", "enc", "mac") for entry in found[kind]]
    assert len(entries) > 8
    assert [entry for entry in entries if entry.get("notes", {}).get("fail")] == []


def test_the_former_host_keys_are_still_there(host):
    for kind in ("ed25519", "ecdsa", "rsa"):
        assert host.file(f"/etc/ssh/ssh_host_{kind}_key").exists


def test_tunnels_to_the_notebook_stay_open(host):
    assert effective(host, "admin")["allowtcpforwarding"] in {"yes", "local"}
    assert effective(host, "admin")["disableforwarding"] == "no"


def test_nothing_is_left_waiting_to_go_back(host):
    assert not host.file("/var/lib/trainyard/ssh_hardening/rollback").exists
    assert host.check_output("systemctl list-units --all --plain --no-legend 'trainyard-ssh*'") == ""
    assert host.service("ssh").is_running
