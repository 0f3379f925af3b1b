"""Environments that the cluster's head has made go to the other nodes: a head, a second node and a stranger, all containers.

What a node draws from outside is counted by the firewall of the machine that the containers run on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import Play, ansible_playbook
from tests.traffic import counted
from trainyard.containers import Lab
from trainyard.lab import WHEELHOUSE
from trainyard.lab import lab as own_lab
from trainyard.paths import CHECKOUT, REPOSITORY

pytestmark = pytest.mark.nodes

BASE = "/opt/trainyard/envs"
CONFIGURATION = "/etc/trainyard/environments/rsyncd.conf"
LOCK = REPOSITORY / "roles" / "catalog" / "files" / "locks" / "tensorboard-cpu-cp311-x86_64.txt"
EXACTLY = "framework_env : Have the environments exactly as locked"
FIRST = "framework_env : Have the environments on the head"
# The daemon's own protocol, spoken by hand: a stranger has no rsync.
ASK = """
import socket
line = socket.create_connection(("{address}", 8730), 5)
line.sendall(b"@RSYNCD: 31.0\\nenvironments\\n")
line.settimeout(3)
said = b""
try:
    while part := line.recv(4096):
        said += part
except TimeoutError:
    pass
print(said.decode(errors="replace"))
"""


class Cluster:
    """The head, a second node, and a machine that is no part of the cluster."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.outside: dict[str, int] = {}
        self.first: Play | None = None

    def shell(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a script as root in a node, beside SSH."""
        return self.lab.execute(node, ["bash", "-ec", script], check=check).strip()

    def run(self, playbook: str, *words: str, **variables: Any) -> Play:
        """Run one of the playbooks as it is."""
        every = {
            "ansible_user": "admin",
            "ansible_ssh_common_args": f"-F {self.lab.ssh_config}",
            "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
            "base_packages": ["rsync", "python3-venv", "libgomp1"],  # so that nothing of the distribution's is counted later
            "framework_env_wheelhouse": WHEELHOUSE,
            **variables,
        }
        mine = {"framework_env_environments": ["jax", {"name": "course", "environment": "jax"}], "framework_env_services": ["tensorboard"]}
        groups = {"slurm_controller": {"hosts": {"head": mine}}, "slurm_compute": {"hosts": {"node1": mine}}}
        inventory = self.folder / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"all": {"vars": every, "children": {"cluster": {"children": groups}}}}))
        return ansible_playbook(REPOSITORY / playbook, inventory, words)

    def frameworks(self, *words: str, **variables: Any) -> Play:
        """Bring the environments."""
        return self.run("playbooks/frameworks.yml", *words, **variables)

    def again(self, *words: str) -> Play:
        """Have the second node make its smallest environment again, the head not being in the run."""
        self.shell("node1", f"rm -rf {BASE}/tensorboard")
        done = self.frameworks("--limit", "node1", *words)
        assert done.status == 0, done.failures() or done.text[-3000:]
        return done


def sources(done: Play, node: str, task: str = EXACTLY) -> dict[str, str]:
    """Return where each environment came from."""
    return {entry["name"]: entry["from"] for entry in done.results[task, node]["environments"]}


def warnings(done: Play, node: str = "node1") -> str:
    """Return what was warned of while the head was asked and the environments were made."""
    found = [done.results.get((task, node), {}) for task in ("framework_env : Ask the head", EXACTLY)]
    return "\n".join(str(warning) for result in found for warning in result.get("warnings", []))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, its environments made in one run, and what that drew from outside."""
    mounts = {next(iter(own_lab().mounts)): WHEELHOUSE}
    lab = Lab(
        f"test-travel-{CHECKOUT}", ["head", "node1", "stranger"], tmp_path_factory.mktemp("lab"), mounts=mounts, say=lambda _text: None
    )
    lab.down()
    lab.up()
    try:
        found = Cluster(lab, tmp_path_factory.mktemp("inventory"))
        done = found.run("playbooks/base.yml")
        assert done.status == 0, done.failures() or done.text[-3000:]
        with counted(lab, ["head", "node1"]) as counters:
            found.first = found.frameworks()
            found.outside = counters.read()
        assert found.first.status == 0, found.first.failures() or found.first.text[-3000:]
        yield found
    finally:
        lab.down()


def test_the_second_node_draws_next_to_nothing_from_outside(cluster: Cluster) -> None:
    assert cluster.first is not None
    names = {"jax", "course", "tensorboard"}
    assert sources(cluster.first, "head", FIRST) == dict.fromkeys(names, "index")
    assert sources(cluster.first, "node1") == dict.fromkeys(names, "head")
    assert warnings(cluster.first) == ""
    print(f"from outside: {cluster.outside}")
    assert cluster.outside["head"] > 100_000_000, "the counter counts"
    assert cluster.outside["node1"] < 1_000_000
    assert cluster.shell("node1", f"ls -A {BASE}").split() == [".lock", "course", "jax", "tensorboard"], "no installer, no cache"


def test_what_travelled_works_is_compiled_shares_its_files_and_stays(cluster: Cluster) -> None:
    again = cluster.frameworks()
    assert (again.status, again.changed) == (0, {"head": 0, "node1": 0})
    assert sources(again, "node1")["jax"] == "head", "it is remembered"
    code = "import jax.numpy as jnp; print(float(jnp.ones(3).sum()))"
    for name in ("jax", "course"):
        assert cluster.shell("node1", f"su nobody -s /bin/sh -c '{BASE}/{name}/bin/python -c \"{code}\"'") == "3.0"
    assert cluster.shell("node1", f"head -n1 {BASE}/tensorboard/bin/tensorboard") == f"#!{BASE}/tensorboard/bin/python"
    compiled = f"cd {BASE}; find jax tensorboard -name '*.pyc' -printf '%p %s %T@\\n' | sort | sha256sum; find jax -name '*.pyc' | wc -l"
    said = {node: cluster.shell(node, compiled).split() for node in ("head", "node1")}
    assert said["head"] == said["node1"], "nothing was compiled again"
    assert int(said["node1"][-1]) > 1000
    module = "lib/python3.11/site-packages/jax/__init__.py"
    inodes = cluster.shell("node1", f"stat -c %i {BASE}/jax/{module} {BASE}/course/{module}").split()
    assert inodes[0] == inodes[1]


def test_strangers_and_what_is_not_finished_are_refused(cluster: Cluster) -> None:
    ask = ASK.format(address=cluster.lab.address("head"))
    assert "@ERROR: Unknown module" in cluster.lab.execute("stranger", ["python3", "-c", ask]), "what is not listed is not even known"
    assert "@RSYNCD: OK" in cluster.lab.execute("node1", ["python3", "-c", ask])
    url = f"rsync://{cluster.lab.address('head')}:8730/environments"
    assert cluster.shell("node1", f"rsync --no-motd rsync://{cluster.lab.address('head')}:8730/") == "", "nothing is listed"
    assert "bin" in cluster.shell("node1", f"rsync {url}/jax/")
    for path in ("", ".cache/", ".uv/", "jax/../.uv/", "jax/.lock"):
        assert cluster.shell("node1", f"rsync {url}/{path} 2>/dev/null && echo reached || true") == "", path
    assert "read only" in cluster.shell("node1", f"rsync /etc/hostname {url}/jax/ 2>&1", check=False)
    cluster.shell("head", f'sed -i \'s/"complete": true/"complete": false/\' {BASE}/course/.trainyard-env.json')
    assert cluster.shell("node1", f"rsync {url}/course/ 2>/dev/null && echo reached || true") == ""
    cluster.shell("head", f'sed -i \'s/"complete": false/"complete": true/\' {BASE}/course/.trainyard-env.json')
    listening = cluster.shell("head", "ss -Hlnt sport = :8730").split()
    assert listening[3] == f"{cluster.lab.address('head')}:8730"
    assert cluster.shell("head", "ps -o user= -p $(systemctl show -P MainPID trainyard-environments)") != "root"


def test_check_mode_says_where_it_would_come_from_and_does_nothing(cluster: Cluster) -> None:
    done = cluster.again("--check", "--diff")
    assert sources(done, "node1")["tensorboard"] == "head"
    assert done.changed == {"node1": 1}
    assert cluster.shell("node1", f"ls {BASE}").split() == ["course", "jax"]
    done = cluster.again()
    assert sources(done, "node1")["tensorboard"] == "head"


def test_what_was_altered_on_the_head_stays_there_and_is_said(cluster: Cluster) -> None:
    module = f"{BASE}/tensorboard/lib/python3.11/site-packages/tensorboard/version.py"
    cluster.shell("head", f"cp -a {module} /root/; echo altered >> {module}")
    done = cluster.again()
    cluster.shell("head", f"cp -a /root/version.py {module}")
    assert sources(done, "node1")["tensorboard"] == "index"
    assert "tensorboard is not offered to others, since it is not as its lock says: repair tensorboard:" in warnings(done)
    assert "altered" not in cluster.shell("node1", f"cat {module}")


def test_what_is_altered_on_its_way_is_thrown_away_and_said(cluster: Cluster) -> None:
    """A file that no package's list speaks of, altered after the head has told the digest."""
    activate = f"{BASE}/tensorboard/bin/activate"
    cluster.shell("head", f"cp -a {activate} /root/")
    cluster.shell("node1", f"rm -rf {BASE}/tensorboard")
    usual = {"path": BASE, "owner": "framework_env"}
    wish = {
        **usual,
        "environments": [{"name": "tensorboard", "requirements": LOCK.read_text()}],
        "installer_requirements": (LOCK.parent / "installer.txt").read_text(),
    }
    tasks = [
        {"name": "lacks", "trainyard.core.python_env": {**wish, "state": "checked"}, "register": "checked"},
        {
            "name": "offers",
            "trainyard.core.python_env_offers": {**usual, "environments": "{{ checked.lacking }}", "configuration": CONFIGURATION},
            "delegate_to": "head",
            "register": "asked",
        },
        {"name": "alter", "ansible.builtin.shell": f"echo 'echo altered' >> {activate}", "delegate_to": "head"},
        {"name": EXACTLY, "trainyard.core.python_env": {**wish, "offers": "{{ asked.offers }}"}},
    ]
    book = cluster.folder / "altered.yml"
    book.write_text(yaml.safe_dump([{"hosts": "node1", "become": True, "tasks": tasks}], sort_keys=False))
    done = ansible_playbook(book, cluster.folder / "hosts.yml")
    cluster.shell("head", f"cp -a /root/activate {activate}")
    assert done.status == 0, done.failures() or done.text[-3000:]
    assert sources(done, "node1") == {"tensorboard": "index"}
    assert "tensorboard does not come from the head, and is made from the index: what came has another digest" in warnings(done)
    assert "altered" not in cluster.shell("node1", f"cat {activate}")


def test_a_fetch_that_is_killed_is_finished_by_the_next_run(cluster: Cluster) -> None:
    cluster.shell("node1", f"rm -rf {BASE}/jax {BASE}/course")
    plays: list[Play] = []
    runner = threading.Thread(target=lambda: plays.append(cluster.frameworks("--limit", "node1")))
    runner.start()
    deadline = time.monotonic() + 120
    while not (found := cluster.shell("node1", "pgrep -x rsync || true").split()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found, "rsync was not caught at work"
    cluster.shell("node1", f"kill -KILL $(ps -o ppid= -p {found[0]}) {' '.join(found)} 2>/dev/null || true")
    runner.join(120)
    assert plays[0].status != 0
    assert ".fetched-" in cluster.shell("node1", f"ls -A {BASE}")
    done = cluster.frameworks("--limit", "node1")
    assert done.status == 0, done.failures()
    assert sources(done, "node1") == {"jax": "head", "course": "head", "tensorboard": "index"}
    assert ".fetched-" not in cluster.shell("node1", f"ls -A {BASE}")
    assert cluster.frameworks("--limit", "node1").changed == {"node1": 0}


def test_without_the_head_there_is_the_index(cluster: Cluster) -> None:
    cluster.shell("head", "systemctl stop trainyard-environments")
    done = cluster.again()
    assert sources(done, "node1")["tensorboard"] == "index"
    assert "Environments are made from the index, since the head cannot be asked" in warnings(done)
    cluster.lab.kill("head")
    try:
        done = cluster.again()
    finally:
        cluster.lab.start("head")
    assert sources(done, "node1")["tensorboard"] == "index"
    assert "The head head could not be asked for its environments" in done.text
    assert cluster.shell("head", "systemctl is-active trainyard-environments") == "active", "it comes back with the machine"


def test_what_is_no_longer_wanted_goes(cluster: Cluster) -> None:
    off = cluster.frameworks(framework_env_from_head=False)
    assert (off.status, off.changed) == (0, {"head": 2, "node1": 0})
    gone = f"! systemctl cat trainyard-environments; ! ls {CONFIGURATION}; ! ss -Hlnt sport = :8730 | grep ."
    cluster.shell("head", gone)
    assert cluster.frameworks(framework_env_from_head=False).changed == {"head": 0, "node1": 0}
    assert cluster.frameworks().changed == {"head": 3, "node1": 0}
    assert cluster.frameworks("-e", "trainyard_state=absent").status == 0
    cluster.shell("head", gone)
    for node in ("head", "node1"):
        assert cluster.shell(node, f"ls -A {BASE} 2>/dev/null || true") == ""


def test_what_cannot_be_is_refused_by_name(cluster: Cluster) -> None:
    done = cluster.frameworks(framework_env_port=80)
    assert "framework_env_port: 80 is none for a service that is not root's; right are 1024 to 65535, such as 8730." in done.failures()
