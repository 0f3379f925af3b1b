"""A machine of the neighbours answers at a node's address: every verb refuses it, and nothing is handed over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.conftest import OUTSIDER, House
from tests.support import tool

pytestmark = pytest.mark.security

CANARY = "sudo canary 471123"
VERBS = {
    "apply": ["--limit", "head"],
    "verify": ["--limit", "head"],
    "plan": ["--limit", "head"],
    "add-node": ["node3", "--address", "{outsider}"],
    "remove-node": ["node1"],
    "drain": ["node1"],
    "resume": ["node1"],
    "reboot": ["node1"],
}


@pytest.fixture
def impostor(house: House) -> Iterator[House]:
    """The outsider, which lets in whoever comes, answers in place of the head."""
    elsewhere = f"-F {house.lab.ssh_config} -o HostName={house.lab.address(OUTSIDER)}"
    own = {"head": {"ansible_ssh_common_args": elsewhere, "ansible_become_password": CANARY}}
    house.describe(own, plan_environments=["jax"])
    yield house
    house.describe()


def logins(house: House) -> list[str]:
    """Return what the outsider's sshd wrote about logins."""
    text = house.root(OUTSIDER, "journalctl -u ssh.service -o cat --no-pager")
    return [line for line in text.splitlines() if line.startswith(("Accepted", "Failed", "Postponed"))]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_an_impostor(impostor: House, verb: str) -> None:
    before, inventory = logins(impostor), impostor.inventory.read_text()
    known = (impostor.lab.state / "known_hosts").read_text()
    arguments = [word.format(outsider=impostor.lab.address(OUTSIDER)) for word in VERBS[verb]]
    status, said = tool(impostor.inventory, verb, *arguments)
    assert status == 1
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in " ".join(said.split())
    assert logins(impostor) == before
    assert impostor.inventory.read_text() == inventory
    assert (impostor.lab.state / "known_hosts").read_text() == known
    assert CANARY not in said


def test_a_node_that_is_to_be_rebooted_has_to_prove_itself_too(house: House) -> None:
    elsewhere = f"-F {house.lab.ssh_config} -o HostName={house.lab.address(OUTSIDER)}"
    before = logins(house)
    try:
        house.describe({"node2": {"ansible_ssh_common_args": elsewhere}})
        status, said = tool(house.inventory, "reboot", "node2")
    finally:
        house.describe()
    assert status == 1
    assert "do not go on before you know why" in " ".join(said.split())
    assert logins(house) == before
    assert house.root("head", "sinfo -h -n node2 -o %T") in {"idle", "mixed", "allocated"}, "it takes jobs as before"


def test_the_head_itself_is_let_through(house: House) -> None:
    status, said = tool(house.describe(), "resume", "node1")
    assert status == 0, said
    assert "node1: took jobs all along" in said
