"""Packages by way of a cache on the cluster's head: three containers, and the real archive of the distribution.

What a node draws from outside is counted by the firewall of the machine that the containers run on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import Play, ansible_playbook
from tests.traffic import counted
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT, REPOSITORY

pytestmark = pytest.mark.nodes

SETTINGS = "/etc/apt/apt.conf.d/80trainyard-package-cache"
CHOICE = "/usr/local/lib/trainyard/package-cache"
DRAW = """
rm -rf /var/lib/apt/lists/*
apt-get -qq update
apt-get -qq -y install --no-install-recommends {0} >/dev/null
apt-get -qq -y purge --autoremove {0} >/dev/null
apt-get clean
"""


class Cluster:
    """The head, a second node, and one that comes later."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder

    def shell(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a script as root in a node, beside SSH."""
        return self.lab.execute(node, ["bash", "-ec", script], check=check).strip()

    def run(self, *words: str, enabled: bool = True, nodes: tuple[str, ...] = ("node1",)) -> Play:
        """Bring the base, and the cache or none."""
        every: dict[str, Any] = {
            "ansible_user": "admin",
            "ansible_ssh_common_args": f"-F {self.lab.ssh_config}",
            "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
            "base_packages": ["less"],
            "package_cache_enabled": enabled,
        }
        groups = {"slurm_controller": {"hosts": {"head": None}}, "slurm_compute": {"hosts": dict.fromkeys(nodes)}}
        inventory = self.folder / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"all": {"vars": every, "children": {"cluster": {"children": groups}}}}))
        return ansible_playbook(REPOSITORY / "playbooks" / "base.yml", inventory, words)

    def draw(self, node: str, package: str) -> dict[str, int]:
        """Fetch lists and a package, and return the bytes that each node drew from outside."""
        with counted(self.lab, self.lab.nodes) as counters:
            self.shell(node, DRAW.format(package))
            return counters.read()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, with a cache."""
    lab = Lab(f"test-package-cache-{CHECKOUT}", ["head", "node1", "node2"], tmp_path_factory.mktemp("lab"), say=lambda _text: None)
    lab.down()
    lab.up()
    try:
        found = Cluster(lab, tmp_path_factory.mktemp("inventory"))
        bare = found.run("--check")
        assert bare.status == 0, bare.failures() or bare.text[-3000:]
        done = found.run()
        assert done.status == 0, done.failures() or done.text[-3000:]
        yield found
    finally:
        lab.down()


def test_what_the_head_has_drawn_is_not_drawn_again(cluster: Cluster) -> None:
    assert cluster.run().changed == {"head": 0, "node1": 0}
    first = cluster.draw("head", "gdb")
    second = cluster.draw("node1", "gdb")
    print(f"from outside: first {first}, second {second}")
    assert first["head"] > 5_000_000, "the counter counts"
    assert second["node1"] == 0
    assert second["head"] < first["head"] / 20, "whether lists are still current is asked anew"
    listening = cluster.shell("head", "ss -Hlnt sport = :3142").split()
    assert listening[3] == f"{cluster.lab.address('head')}:3142"
    assert "Trainyard" in cluster.shell("node1", f"cat {SETTINGS}")
    assert cluster.shell("node1", f"{CHOICE} https://example.org/debian") == "DIRECT"


def test_a_node_that_comes_later_draws_its_base_from_the_head(cluster: Cluster) -> None:
    with counted(cluster.lab, cluster.lab.nodes) as counters:
        done = cluster.run("--limit", "node2,head", nodes=("node1", "node2"))
        drawn = counters.read()
    assert done.status == 0, done.failures()
    print(f"from outside: {drawn}")
    assert cluster.shell("node2", "dpkg-query -W -f '${Status}' less") == "install ok installed"
    assert drawn["node2"] == 0


def test_without_the_head_nodes_draw_directly(cluster: Cluster) -> None:
    cluster.shell("head", "systemctl stop apt-cacher-ng")
    assert cluster.draw("node1", "tree")["node1"] > 1_000_000
    cluster.lab.kill("head")
    cluster.shell("node1", DRAW.format("tree"))
    cluster.lab.start("head")
    cluster.shell("head", "systemctl is-active apt-cacher-ng")
    assert cluster.run().changed == {"head": 0, "node1": 0}


def test_what_is_no_longer_wanted_goes(cluster: Cluster) -> None:
    assert cluster.run("--check", enabled=False).changed == {"head": 3, "node1": 1}
    cluster.shell("node1", f"test -e {SETTINGS}")
    assert cluster.run(enabled=False).changed == {"head": 3, "node1": 1}
    for node in ("head", "node1"):
        cluster.shell(
            node, f"! ls {SETTINGS} {CHOICE} /etc/trainyard/package_cache /usr/sbin/apt-cacher-ng /var/cache/apt-cacher-ng 2>/dev/null"
        )
    cluster.shell("head", "! ls /etc/systemd/system/apt-cacher-ng.service.d/trainyard.conf 2>/dev/null; ! ss -Hlnt sport = :3142 | grep .")
    assert cluster.run(enabled=False).changed == {"head": 0, "node1": 0}
    assert cluster.draw("node1", "tree")["node1"] > 1_000_000


def test_what_cannot_be_is_refused_by_name(cluster: Cluster) -> None:
    done = cluster.run("-e", "package_cache_port=80")
    assert "package_cache_port: 80 is none for a service that is not root's; right are 1024 to 65535, such as 3142." in done.failures()
