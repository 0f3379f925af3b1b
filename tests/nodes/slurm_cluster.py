"""A Slurm cluster of container nodes for tests: its inventory, its playbook, and jobs of an ordinary user."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support import Play, ansible_playbook
from trainyard.containers import Lab
from trainyard.paths import REPOSITORY

QUEUES = [
    {"name": "main", "max_time": "1:00:00", "default_time": "30"},
    {"name": "quick", "max_time": "1", "priority": "high"},
    {"name": "whole", "exclusive": True, "nodes": ["node1"]},
]
STARTED = "systemctl show -P ExecMainStartTimestampMonotonic"


class Cluster:
    """The nodes, the inventory that describes them, and the playbook that makes a cluster of them."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder

    def shell(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a script as root in a node, beside SSH."""
        return self.lab.execute(node, ["bash", "-ec", script], check=check).strip()

    def ada(self, script: str) -> str:
        """Run a script on the head as an ordinary user."""
        return self.lab.execute("head", ["runuser", "-u", "ada", "--", "bash", "-ec", f"cd /tmp; {script}"]).strip()

    def until(self, script: str, wanted: str, seconds: float = 60) -> None:
        """Wait until a script on the head prints something."""
        end = time.monotonic() + seconds
        while (said := self.shell("head", script, check=False)) != wanted:
            assert time.monotonic() < end, f"{script}: {said}"
            time.sleep(0.3)

    def run(
        self,
        *words: str,
        controller: str = "head",
        computes: tuple[str, ...] = ("node1",),
        submits: tuple[str, ...] = (),
        hosts: Mapping[str, Any] | None = None,
        **variables: Any,
    ) -> Play:
        """Run the playbook of clusters as it is."""
        every = {
            "ansible_user": "admin",
            "ansible_ssh_common_args": f"-F {self.lab.ssh_config}",
            "base_users": [{"name": "ada", "uid": 2000}],
            "slurm_partitions": QUEUES,
            **variables,
        }
        groups = {
            "slurm_controller": {
                "hosts": {controller: {"names_and_time_serves_to": [self.lab.address(controller).rpartition(".")[0] + ".0/24"]}}
            },
            "slurm_compute": {
                "hosts": {node: {"names_and_time_servers": [controller], **((hosts or {}).get(node) or {})} for node in computes}
            },
            "slurm_submit": {"hosts": {node: {} for node in submits}},
        }
        for name in self.lab.nodes:
            for group in groups.values():
                if name in group["hosts"]:
                    group["hosts"][name]["names_and_time_address"] = self.lab.address(name)
        inventory = self.folder / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"all": {"vars": every, "children": {"cluster": {"children": groups}}}}))
        return ansible_playbook(REPOSITORY / "playbooks" / "cluster.yml", inventory, words)

    def started(self) -> dict[str, str]:
        """Return when every daemon of Slurm and munge was started."""
        daemons = {"head": ["munge", "slurmctld", "chrony"], "node1": ["munge", "slurmd", "chrony"]}
        return {f"{node} {name}": self.shell(node, f"{STARTED} {name}") for node, names in daemons.items() for name in names}


def submit(cluster: Cluster, words: str, script: str) -> str:
    return cluster.ada(f"sbatch --parsable --output=/dev/null {words} --wrap '{script}'")


def running(cluster: Cluster, job: str) -> None:
    cluster.until(f"squeue -h -j {job} -o %T", "RUNNING")


def ended(cluster: Cluster, job: str, seconds: float = 60) -> dict[str, str]:
    """Wait until a job has ended and its node is clean, and return what the controller says of it."""
    end = time.monotonic() + seconds
    while True:
        said = dict(word.partition("=")[::2] for word in cluster.shell("head", f"scontrol --oneliner show job {job}").split())
        if said.get("JobState", "PENDING") not in {"PENDING", "RUNNING", "COMPLETING"}:
            return said
        assert time.monotonic() < end, said
        time.sleep(0.3)
