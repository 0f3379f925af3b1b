"""A host key that nobody confirmed, or that has changed: every verb that connects refuses it, and says how to confirm a key."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support import ansible_playbook, tool
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

pytestmark = pytest.mark.nodes

VERBS = {
    "apply": [],
    "verify": [],
    "plan": [],
    "add-node": ["new", "--address", "{second}"],
    "remove-node": ["node1"],
    "drain": ["node1"],
    "resume": ["node1"],
    "reboot": ["node1"],
}
STRATEGIES = {"mitogen": {}, "linear": {"ANSIBLE_STRATEGY": "linear"}}
CASES = [
    *((verb, key, "mitogen") for verb in VERBS for key in ("unknown", "changed")),
    # A playbook, a playbook that is only asked, and a single module: the rest goes one of these ways.
    *((verb, key, "linear") for verb in ("apply", "plan", "drain") for key in ("unknown", "changed")),
]
CANARY = "become canary 815"


def inventory(node: Lab, folder: Path, known: str) -> Path:
    """Write an inventory whose nodes all are at the node's address, with these lines as known_hosts."""
    (folder / "known_hosts").write_text(known)
    options = f"-o UserKnownHostsFile={folder}/known_hosts -o GlobalKnownHostsFile=/dev/null -o IdentitiesOnly=yes"
    every = {
        "ansible_host": node.address("head"),
        "ansible_user": "admin",
        "ansible_become_password": CANARY,
        "ansible_ssh_private_key_file": str(node.key),
        "ansible_ssh_common_args": options,
        "plan_environments": ["jax"],
        "framework_env_environments": [],
    }
    groups = {"slurm_controller": {"hosts": {"head": None}}, "slurm_compute": {"hosts": {"node1": None, "node2": None}}}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": every, "children": {"cluster": {"children": groups}}}}, width=10000))
    return path


def second(node: Lab) -> str:
    """Return another address of the node, as that of a machine which is to be added."""
    address = f"{node.address('head').rpartition('.')[0]}.250"
    node.execute("head", ["sh", "-c", f"ip addr show | grep -q {address}/ || ip addr add {address}/16 dev eth0"])
    return address


def wrong_key(node: Lab, folder: Path) -> str:
    """Return a line of known_hosts that has another key for the node, at both of its addresses."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "other")], check=True)
    kind, key, *_comment = (folder / "other.pub").read_text().split()
    return f"{node.address('head')},{second(node)} {kind} {key}\n"


def right_keys(node: Lab) -> str:
    """Return the lines of known_hosts for the node, read inside it."""
    lines = node.execute("head", ["sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub"]).splitlines()
    return "".join(f"{node.address('head')} {' '.join(line.split()[:2])}\n" for line in lines)


def logins(node: Lab) -> list[str]:
    """Return what sshd wrote about logins, successful or tried."""
    text = node.execute("head", ["journalctl", "-u", "ssh.service", "-o", "cat", "--no-pager"])
    return [line for line in text.splitlines() if line.startswith(("Accepted", "Failed", "Postponed"))]


@pytest.mark.parametrize("verb,key,strategy", CASES)
def test_every_verb_refuses(node: Lab, tmp_path: Path, verb: str, key: str, strategy: str) -> None:
    known = wrong_key(node, tmp_path) if key == "changed" else ""
    before = logins(node)
    arguments = [word.format(second=second(node)) for word in VERBS[verb]]
    status, said = tool(inventory(node, tmp_path, known), verb, *arguments, environment=STRATEGIES[strategy])
    words = " ".join(said.split())
    assert status == 1
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in words
    if verb == "add-node" and key == "unknown":  # which asks for the fingerprint itself
        assert "The host key of new is not known. Compare on the machine" in words
        assert "then give it: --host-key SHA256:" in words
    else:
        assert "answer yes only if ssh shows that same fingerprint" in words
    if key == "changed":
        assert "ssh-keygen -R" in words
        assert "Do not go on before you know why" in words or "do not go on before you know why" in words
    assert logins(node) == before
    assert (tmp_path / "known_hosts").read_text() == known
    assert CANARY not in said


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_confirmed_key_is_let_through(node: Lab, tmp_path: Path, strategy: str) -> None:
    path = inventory(node, tmp_path, right_keys(node))
    before = logins(node)
    status, said = tool(path, "drain", "node1", environment=STRATEGIES[strategy])
    assert "node1 is no node of the cluster" in said  # so the controller was asked
    assert status == 1
    assert len(logins(node)) > len(before)


def test_a_user_who_switches_the_check_off_on_purpose_is_obeyed(node: Lab, tmp_path: Path) -> None:
    path = inventory(node, tmp_path, "")
    _status, said = tool(path, "drain", "node1", environment={"ANSIBLE_HOST_KEY_CHECKING": "False"})
    assert "node1 is no node of the cluster" in said


def test_ansible_itself_refuses_too(node: Lab, tmp_path: Path) -> None:
    done = ansible_playbook(REPOSITORY / "playbooks/base.yml", inventory(node, tmp_path, wrong_key(node, tmp_path)))
    assert done.status == 4, done.text
