"""A small cluster for jobs of ordinary users: the head schedules, node1 and node2 compute; ada and bob have homes of their own on each.

The folder /srv/shared is a stand-in for a file server's export: Docker mounts one folder of this machine into all nodes. Where no framework
is needed, `plain` stands in for its environment: a folder with the node's own Python.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ansible_playbook
from trainyard.containers import Lab
from trainyard.lab import WHEELHOUSE
from trainyard.lab import lab as own_lab
from trainyard.paths import CHECKOUT, REPOSITORY

SHARED = "/srv/shared"
USERS = {"ada": 2000, "bob": 2001}
QUEUES = [
    {"name": "main", "priority": "high", "max_time": "1:00:00", "default_time": "30"},
    {"name": "spare", "priority": "low", "preemptible": True, "max_time": "1:00:00", "default_time": "30"},
]
PLAIN = "mkdir -p /opt/trainyard/envs/plain/bin && ln -sf /usr/bin/python3 /opt/trainyard/envs/plain/bin/python"


@dataclass(frozen=True)
class Job:
    """A job of ada's.

    Attributes:
        place: where it was submitted.
        number: Slurm's.
        folder: its results.
    """

    place: Place
    number: str
    folder: str

    def read(self, path: str) -> str:
        """Return what a file in its folder holds."""
        return self.place.shell(f"cat {self.folder}/{path}")

    def result(self) -> dict[str, Any]:
        """Return how it ended."""
        found: dict[str, Any] = json.loads(self.read("result.json"))
        return found

    def files(self) -> set[str]:
        """Return the files that it left, but for the logs and what stands in every folder."""
        found = self.place.shell(f"cd {self.folder} && find . -type f -printf '%P\\n'").splitlines()
        return {path for path in found if not path.startswith("logs/") and not path.endswith(".json")}

    def said(self) -> str:
        """Return all that it printed."""
        return self.place.shell(f"cat {self.folder}/logs/*.log", check=False)

    def prints(self, words: str, seconds: float = 120) -> None:
        """Wait until it has printed something."""
        self.place.cluster.until(lambda: words in self.said(), seconds, self.said)

    def state(self) -> str:
        """Return its state in the queue, or how it ended."""
        return self.place.cluster.shell("head", f"scontrol --oneliner show job {self.number} | grep -oP '(?<=JobState=)\\S+'", check=False)

    def ends(self, state: str, seconds: float = 120) -> None:
        """Wait until it has ended as it should."""
        left = f"squeue -h -j {self.number}"  # Slurm says how it ended before the nodes are done
        self.place.cluster.until(
            lambda: self.state() == state and not self.place.cluster.shell("head", left, check=False), seconds, self.state
        )


@dataclass(frozen=True)
class Place:
    """Where ada types: a node, and a folder there.

    Attributes:
        cluster: the cluster.
        node: its name.
        home: the folder.
    """

    cluster: Cluster
    node: str
    home: str

    def shell(self, script: str, *, check: bool = True) -> str:
        """Run a script as root on the node."""
        return self.cluster.shell(self.node, script, check=check)

    def user(self, script: str, name: str = "ada") -> tuple[int, str]:
        """Run a script as a user, and return its exit status and what it printed."""
        words = f"cd {self.home}; {{ {script}\n}} 2>&1 && echo rc 0 || echo rc $?"
        *lines, status = self.cluster.lab.execute(self.node, ["runuser", "-u", name, "--", "bash", "-c", words]).rstrip().splitlines()
        return int(status.removeprefix("rc ")), "\n".join(lines)

    def put(self, path: str, text: str) -> None:
        """Write a file of ada's."""
        script = f"mkdir -p $(dirname {path}); cat > {path} << 'END'\n{text}\nEND"
        self.cluster.lab.execute(self.node, ["runuser", "-u", "ada", "--", "bash", "-ec", f"cd {self.home}; {script}"])

    def submit(self, folder: str, words: str) -> Job:
        """Submit a job that runs the folder's train.py."""
        status, said = self.user(f"cd {folder} && cluster_train --config train.py {words}")
        assert status == 0, said
        return Job(self, said.split("Job ")[1].split()[0], self._folder(said))

    def watch(self, folder: str, words: str) -> tuple[int, str, Job]:
        """Run a job to its end, and return the command's exit status, what it printed, and the job."""
        status, said = self.user(f"cd {folder} && cluster_train --watch --config train.py {words}")
        assert "Job " in said, said
        return status, said, Job(self, said.split("Job ")[1].split()[0], self._folder(said))

    @staticmethod
    def _folder(said: str) -> str:
        return next(line for line in said.splitlines() if "its logs and results: " in line).rpartition(": ")[2]


class Cluster:
    """The nodes and their inventory."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder

    def shell(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a script as root in a node, beside SSH."""
        return self.lab.execute(node, ["bash", "-ec", script], check=check).strip()

    @staticmethod
    def until(condition: Any, seconds: float, said: Any) -> None:
        """Wait for a condition."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, said()
            time.sleep(0.5)

    def run(self, playbook: str, environments: Sequence[str]) -> None:
        """Run one of the playbooks as it is."""
        every = {
            "ansible_user": "admin",
            "ansible_ssh_common_args": f"-F {self.lab.ssh_config}",
            "base_users": [{"name": name, "uid": uid} for name, uid in USERS.items()],
            "slurm_partitions": QUEUES,
            "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
            "ssh_hardening_enabled": False,  # its users log in by no key here
            "framework_env_wheelhouse": WHEELHOUSE,
            "plan_environments": list(environments),
            "training_shared_folders": [SHARED],
        }
        hosts: dict[str, dict[str, Any]] = {name: {"names_and_time_address": self.lab.address(name)} for name in self.lab.nodes}
        hosts["head"]["names_and_time_serves_to"] = [self.lab.address("head").rpartition(".")[0] + ".0/24"]
        hosts["head"]["framework_env_environments"] = []
        groups = {"slurm_controller": {"hosts": {"head": None}}, "slurm_compute": {"hosts": {"node1": None, "node2": None}}}
        for name in groups["slurm_compute"]["hosts"]:
            hosts[name]["names_and_time_servers"] = ["head"]
        inventory = self.folder / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"all": {"vars": every, "hosts": hosts, "children": {"cluster": {"children": groups}}}}))
        done = ansible_playbook(REPOSITORY / "playbooks" / playbook, inventory, timeout=2400)
        assert done.status == 0, done.failures() or done.text[-3000:]


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, with the frameworks' environments that the test file names as ENVIRONMENTS."""
    environments = getattr(request.module, "ENVIRONMENTS", ())
    shared = tmp_path_factory.mktemp("shared")
    shared.chmod(0o755)
    for name, uid in USERS.items():
        (shared / name).mkdir()
        os.chown(shared / name, uid, uid)
    mounts = {next(iter(own_lab().mounts)): WHEELHOUSE}
    name = f"{request.path.stem}-{CHECKOUT}".replace("_", "-")
    lab = Lab(
        name, ["head", "node1", "node2"], tmp_path_factory.mktemp("lab"), mounts=mounts, shared={shared: SHARED}, say=lambda _text: None
    )
    lab.down()
    lab.up()
    try:
        found = Cluster(lab, tmp_path_factory.mktemp("inventory"))
        for playbook in ("base.yml", *(["frameworks.yml"] if environments else []), "cluster.yml"):
            found.run(playbook, environments)
        for node in lab.nodes:
            found.shell(node, PLAIN)
        yield found
    finally:
        lab.down()


@pytest.fixture(params=["shared", "own"])
def place(request: pytest.FixtureRequest, cluster: Cluster) -> Place:
    """A folder that all nodes see, on the head; and a home that only node2 sees, which is no job's first node."""
    return Place(cluster, "head", f"{SHARED}/ada") if request.param == "shared" else own(cluster)


def own(cluster: Cluster) -> Place:
    """ada's home on node2."""
    return Place(cluster, "node2", "/home/ada")
