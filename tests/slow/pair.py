"""Two virtual machines with a network between them alone, beside the one by which they are reached: a cluster with kernels of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.slow.vm import Machine, cable
from tests.support import Play, ansible_playbook
from trainyard.paths import REPOSITORY

PATIENCE = 1800  # seconds; an emulated processor on a busy machine takes its time
NETWORK = "192.0.2.0/24"
ADDRESSES = {"head": "192.0.2.1", "node1": "192.0.2.2"}
# A name of its own, and an address on the network between the two.
SETTLE = """
hostnamectl set-hostname {name}
echo '127.0.0.1 localhost {name}' > /etc/hosts
cable=$(cd /sys/class/net && grep -l '^52:54:00:01:' */address | cut -d / -f 1)
printf '[Match]\\nName=%s\\n[Network]\\nAddress={address}/24\\n' $cable > /etc/systemd/network/10-cable.network
networkctl reload
"""


class Pair:
    """Two machines and the inventory that describes them.

    Attributes:
        folder: for their disks and the inventory.
        variables: of all nodes in the inventory.
        machines: by name; the head schedules, node1 computes.
    """

    def __init__(self, folder: Path, variables: Mapping[str, Any]) -> None:
        ends = dict(zip(ADDRESSES, cable(), strict=True))
        for name in ADDRESSES:
            (folder / name).mkdir()
        self.folder, self.variables = folder, variables
        self.machines = {name: Machine(folder / name, nodes=(name,), memory=1536, cable=end) for name, end in ends.items()}
        self.head, self.node1 = self.machines.values()
        self.ssh_config = folder / "ssh_config"
        self.ssh_config.write_text("".join(machine.ssh_config.read_text() for machine in self.machines.values()))
        (self.key,) = {(machine.disk.folder / "id_ed25519.pub").read_text().strip() for machine in self.machines.values()}

    @property
    def inventory(self) -> Path:
        """Return the inventory's path; the last run wrote it."""
        return self.folder / "hosts.yml"

    def apply(self, playbook: str, *words: str, nodes: tuple[str, ...] = tuple(ADDRESSES), **variables: Any) -> Play:
        """Run a playbook on nodes, with ada and bob for users."""
        every = {
            "ansible_user": "admin",
            "ansible_ssh_common_args": f"-F {self.ssh_config}",
            "base_packages": [],
            "base_users": [{"name": name, "uid": uid, "keys": [self.key]} for name, uid in (("ada", 2000), ("bob", 2001))],
            **self.variables,
            **variables,
        }
        hosts: dict[str, dict[str, Any]] = {name: {"names_and_time_address": ADDRESSES[name]} for name in nodes}
        hosts["head"]["names_and_time_serves_to"] = [NETWORK]
        for name in nodes[1:]:
            hosts[name]["names_and_time_servers"] = ["head"]
        groups = {"slurm_controller": {"hosts": {"head": hosts.pop("head")}}, "slurm_compute": {"hosts": hosts}}
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": every, "children": {"cluster": {"children": groups}}}}))
        return ansible_playbook(REPOSITORY / "playbooks" / playbook, self.inventory, ["--timeout", "180", *words], timeout=PATIENCE)


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The two machines, switched off and removed afterwards; a module of tests says in VARIABLES what its inventory holds."""
    started = time.monotonic()
    pair = Pair(tmp_path_factory.mktemp("vms"), request.module.VARIABLES)
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Machine.switch_on, pair.machines.values()))
        for name, machine in pair.machines.items():
            machine.ask(SETTLE.format(name=name, address=ADDRESSES[name]))
        pair.node1.wait_for(f"timeout 5 bash -c '</dev/tcp/{ADDRESSES['head']}/22'", "the machines do not meet", seconds=60)
        yield pair
    finally:
        for machine in pair.machines.values():
            machine.cut_power()
            (machine.folder / "disk.img").unlink()
        terminal = request.config.pluginmanager.get_plugin("terminalreporter")
        boots = sum(machine.boots for machine in pair.machines.values())
        terminal.write_line(f"virtual machines ({pair.head.accelerator}): {boots} times switched on, {time.monotonic() - started:.0f} s")


def says(machine: Machine, person: str, script: str) -> str:
    """Run a script as a person who logs in, and return what it printed."""
    done = machine.attempt(script, person=person)
    assert done.returncode == 0, f"{script}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout.strip()


def fails(machine: Machine, person: str, script: str) -> str:
    """Run a script that does not succeed, and return what it complained of."""
    done = machine.attempt(script, person=person)
    assert done.returncode not in {0, 255}, f"{script}: {done.stdout[-2000:]}"
    return done.stderr.strip()
