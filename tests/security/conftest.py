"""A cluster under attack: two ordinary users, a compute node whose root is an attacker, and two machines on the same network.

`head` schedules and has the notebooks, `node1` computes, `node2` computes and is compromised: what runs there as root is the attacker's.
`outsider` and `outsider2` are machines on the network that belong to nobody. alice and bob have accounts on every node of the lab.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import Play, ansible_playbook
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT, REPOSITORY

CLUSTER = ("head", "node1", "node2")
OUTSIDER = "outsider"
OUTSIDERS = (OUTSIDER, "outsider2")
PASSWORD = "Falcon-3-hovers-by"
USERS = {"alice": 2001, "bob": 2002}


@dataclass
class House:
    """The cluster, its users, and ways to act as each of them.

    Attributes:
        lab: the containers.
        folder: where the inventory and the users' keys are.
    """

    lab: Lab
    folder: Path

    @property
    def inventory(self) -> Path:
        """Return the inventory's path."""
        return self.folder / "hosts.yml"

    def root(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a script as root in a node, beside SSH, and return what it printed."""
        return self.lab.execute(node, ["bash", "-ec", script], check=check).strip()

    def user(self, name: str, script: str, node: str = "head") -> tuple[int, str]:
        """Run a script as an ordinary user in her home, and return its exit status and what it printed."""
        words = f"{{ {script}\n}} 2>&1 && echo rc 0 || echo rc $?"
        *lines, status = self.lab.execute(node, ["runuser", "-l", name, "-c", words]).rstrip().splitlines()
        return int(status.removeprefix("rc ")), "\n".join(lines)

    def ssh(self, name: str, command: str = "true", node: str = "head", *options: str) -> subprocess.CompletedProcess[str]:
        """Log in over SSH with the key of a user, or of the account admin."""
        key = self.lab.key if name == "admin" else self.folder / name
        words = ["ssh", "-F", str(self.lab.ssh_config), "-o", "BatchMode=yes", "-o", f"IdentityFile={key}", "-o", f"User={name}"]
        return subprocess.run(
            [*words, *options, node, command], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )

    def until(self, node: str, script: str, expected: str, seconds: float = 60) -> None:
        """Wait until a script prints something."""
        end = time.monotonic() + seconds
        while (printed := self.root(node, script, check=False)) != expected:
            assert time.monotonic() < end, f"{script}: {printed}"
            time.sleep(0.3)

    def describe(self, hosts: Mapping[str, Mapping[str, Any]] | None = None, **variables: Any) -> Path:
        """Write the inventory, with variables for all nodes or for single hosts on top, and return its path."""
        keys = {name: (self.folder / f"{name}.pub").read_text().strip() for name in USERS}
        every = {
            "ansible_user": "admin",
            "ansible_ssh_common_args": f"-F {self.lab.ssh_config}",
            "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
            "base_users": [{"name": name, "uid": uid, "keys": [keys[name]]} for name, uid in USERS.items()],
            "framework_env_environments": [],
            "package_cache_enabled": True,
            "jupyter_password": PASSWORD,
            "session_limits_memory": "1G",  # little enough to be filled up in a second
            "session_limits_tasks": 1000,
            "tensorboard_password": PASSWORD,
            **variables,
        }
        own = {node: {"names_and_time_address": self.lab.address(node), **((hosts or {}).get(node) or {})} for node in CLUSTER}
        groups = {
            "notebooks": {"hosts": {"head": None}},
            "cluster": {
                "children": {
                    "slurm_controller": {"hosts": {"head": None}},
                    "slurm_compute": {"hosts": {"node1": None, "node2": None}},
                }
            },
        }
        self.inventory.write_text(yaml.safe_dump({"all": {"hosts": own, "vars": every, "children": groups}}, width=10000))
        return self.inventory

    def play(
        self, playbook: str, *words: str, hosts: Mapping[str, Mapping[str, Any]] | None = None, timeout: float = 600, **variables: Any
    ) -> Play:
        """Run a playbook of the repository; the inventory is as it was afterwards."""
        try:
            return ansible_playbook(REPOSITORY / playbook, self.describe(hosts, **variables), words, timeout=timeout)
        finally:
            self.describe()


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The cluster, set up by site.yml."""
    lab = Lab(f"security-{CHECKOUT}", [*CLUSTER, *OUTSIDERS], tmp_path_factory.mktemp("lab"), say=lambda _text: None)
    lab.down()  # what an interrupted run left
    lab.up()
    try:
        found = House(lab, tmp_path_factory.mktemp("inventory"))
        for name in USERS:
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(found.folder / name)], check=True)
        done = found.play("site.yml")
        assert done.status == 0, done.failures() or done.text[-3000:]
        yield found
    finally:
        lab.down()


@pytest.fixture
def open_network(house: House) -> Iterator[None]:
    """The cluster as it is without a firewall, for what has to withstand strangers by itself; afterwards the rules are loaded again."""
    for node in CLUSTER:
        house.root(node, "nft add element inet trainyard open_tcp '{ 1024-65535 }'")
    yield
    for node in CLUSTER:
        house.root(node, "systemctl reload trainyard-firewall")
