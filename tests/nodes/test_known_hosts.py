"""Users go from node to node by SSH without a question, since each node knows the others' host keys; a key that changed is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import Play, ansible_playbook, inventory_of
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT, REPOSITORY

pytestmark = pytest.mark.nodes

FILE = "/etc/ssh/ssh_known_hosts2"
OWN = "# the administrator's\nold.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrvGRH1a3gwGQ+tT1L2yusnNqXqvFQuduzeYBZqU5TE comment\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two nodes."""
    lab = Lab(f"known-hosts-{CHECKOUT}", ["node1", "node2"], tmp_path_factory.mktemp("lab"), say=lambda _text: None)
    lab.down()
    lab.up()
    yield lab
    lab.down()


@pytest.fixture(scope="module")
def variables(pair: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The lab with alice, and her private key in a file that she has on node1 once there is a home."""
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    pair.execute("node1", ["sh", "-c", f"cat >/root/id <<'END'\n{path.read_text()}END\ncat >{FILE} <<'END'\n{OWN}END\n"])
    return {"base_packages": [], "base_users": [{"name": "alice", "keys": [path.with_suffix(".pub").read_text().strip()]}]}


def base(lab: Lab, folder: Path, variables: dict[str, Any], *words: str) -> Play:
    return ansible_playbook(REPOSITORY / "playbooks/base.yml", inventory_of(lab, folder, variables), words, timeout=300)


def ssh(lab: Lab, to: str) -> str:
    """Let alice, who is on node1, ask another node for its name; her own known_hosts is empty, and no question is asked."""
    words = f"ssh -i .ssh/id -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/dev/null {to} hostname"
    lab.execute("node1", ["sh", "-ec", "install -o alice -g alice -m 600 /root/id /home/alice/.ssh/id"])
    return lab.execute("node1", ["su", "-", "alice", "-c", f"{words} 2>&1"], check=False).strip()


def test_before_the_first_run_ssh_refuses_a_node_that_it_does_not_know(pair: Lab) -> None:
    words = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "node2", "true"]
    assert "Host key verification failed" in pair.execute("node1", ["sh", "-c", " ".join(words) + " 2>&1"], check=False)


def test_users_get_from_node_to_node(pair: Lab, tmp_path: Path, variables: dict[str, Any]) -> None:
    checked = base(pair, tmp_path, variables, "--check", "--diff", "-e", "base_domain=lab.example")
    assert checked.status == 0, checked.failures() or checked.text[-3000:]
    diff = checked.results["base : Write the host keys of the lab's nodes", "node1"]["diff"]
    assert "node2,node2.lab.example ssh-ed25519 " in diff["after"]
    assert pair.execute("node1", ["cat", FILE]) == OWN
    addresses = {name: pair.address(name) for name in pair.nodes}
    variables.update(lab_addresses=addresses, names_and_time_address="{{ lab_addresses[inventory_hostname] }}")
    done = base(pair, tmp_path, variables)
    assert done.status == 0, done.failures() or done.text[-3000:]
    assert ssh(pair, "node2") == "node2"
    assert ssh(pair, pair.address("node2")) == "node2"
    assert pair.execute("node1", ["cat", FILE]).startswith(OWN)
    again = base(pair, tmp_path, variables)
    assert (again.status, again.changed) == (0, {"node1": 0, "node2": 0})


def test_a_hardened_node_is_known_by_the_same_key(pair: Lab, tmp_path: Path, variables: dict[str, Any]) -> None:
    book = REPOSITORY / "playbooks/hardening.yml"
    assert ansible_playbook(book, inventory_of(pair, tmp_path, variables), timeout=300).status == 0
    assert ssh(pair, "node2") == "node2"
    assert base(pair, tmp_path, variables).changed == {"node1": 0, "node2": 0}


def test_a_changed_key_is_refused_until_the_next_run(pair: Lab, tmp_path: Path, variables: dict[str, Any]) -> None:
    new = "rm /etc/ssh/ssh_host_ed25519_key*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; systemctl restart ssh"
    pair.execute("node2", ["sh", "-ec", new])
    assert "Host key verification failed" in ssh(pair, "node2")
    # The tool's ssh_config of the lab names the old key, too.
    key = pair.execute("node2", ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).split()[:2]
    for path in pair.state.rglob("known_hosts"):
        lines = [line for line in path.read_text().splitlines() if "node2" not in line and pair.address("node2") not in line]
        names = {line.split()[0] for line in path.read_text().splitlines() if "node2" in line or pair.address("node2") in line}
        path.write_text("\n".join([*lines, *(" ".join([name, *key]) for name in names)]) + "\n")
    alone = base(pair, tmp_path, variables, "--limit", "node1")
    assert (alone.status, alone.changed) == (0, {"node1": 0}), "node2 was not asked, and its line stays"
    assert "Host key verification failed" in ssh(pair, "node2")
    done = base(pair, tmp_path, variables)
    assert done.status == 0, done.failures() or done.text[-3000:]
    assert ssh(pair, "node2") == "node2"


def test_a_node_that_left_and_the_undo(pair: Lab, tmp_path: Path, variables: dict[str, Any]) -> None:
    left = base(pair, tmp_path, variables, "--limit", "node1", "-e", '{"base_nodes": ["node1"]}')
    assert left.status == 0, left.failures()
    assert "node2" not in pair.execute("node1", ["cat", FILE])
    undone = base(pair, tmp_path, variables, "-e", "trainyard_state=absent")
    assert undone.status == 0, undone.failures()
    assert pair.execute("node1", ["cat", FILE]) == OWN
    assert pair.execute("node2", ["sh", "-c", f"ls {FILE} 2>&1"], check=False).count("No such file") == 1
