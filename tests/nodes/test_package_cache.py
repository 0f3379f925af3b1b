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
REFUSED = "403 Forbidden file type or location"
ASK = """
import socket, sys
for request in sys.argv[2:]:
    with socket.create_connection((sys.argv[1], 3142), 10) as connection:
        try:
            connection.sendall(f"{request} HTTP/1.0\\r\\nHost: cache\\r\\n\\r\\n".encode())
            lines = connection.makefile("rb").readlines()
            answer = lines[0].decode() if lines else ""
            answer += " with a header of the attacker" * any(line.startswith(b"X-Evil") for line in lines)
        except ConnectionError:
            answer = ""
    print("answer", answer.partition(" ")[2].strip())
"""
FILL = """
cd $(mktemp -d); chmod 0777 .
for package in openjdk-17-jre-headless libllvm14 libllvm13 gcc-12 libicu-dev libclang-cpp14; do
    apt-get -qq download $package; rm -f *.deb
done
"""
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

    def run(self, *words: str, enabled: bool = True, nodes: tuple[str, ...] = ("node1",), **variables: Any) -> Play:
        """Apply the base, and the cache or none."""
        every: dict[str, Any] = {
            "ansible_user": "admin",
            "ansible_ssh_common_args": f"-F {self.lab.ssh_config}",
            "base_ca_certificates": "{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}",
            "base_packages": ["less"],
            "package_cache_enabled": enabled,
            **variables,
        }
        groups = {"slurm_controller": {"hosts": {"head": None}}, "slurm_compute": {"hosts": dict.fromkeys(nodes)}}
        inventory = self.folder / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"all": {"vars": every, "children": {"cluster": {"children": groups}}}}))
        return ansible_playbook(REPOSITORY / "playbooks" / "base.yml", inventory, words)

    def ask(self, node: str, *requests: str) -> list[str]:
        """Send requests to the cache from a node, and return the first line of each answer; '' where the connection is closed."""
        told = self.shell(node, f"python3 -c '{ASK}' {self.lab.address('head')} {' '.join(map(repr, requests))}")
        return [line.removeprefix("answer").strip() for line in told.split("\n")]

    def mirror(self) -> str:
        """Return a machine that the head's packages come from."""
        return self.shell("head", "cat /etc/trainyard/package_cache/public/mirrors").split()[0]

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
    assert cluster.shell("node1", f"{CHOICE} https://example.org/debian") == ""


def test_the_page_of_maintenance_is_closed(cluster: Cluster) -> None:
    pages = ("/acng-report.html", "/acng-report.html?doExpire=Start+Expiration", "/acng-report.html?doImport=1", "/html/<script>.html")
    for node in ("node1", "head"):
        assert cluster.ask(node, *(f"GET {page}" for page in pages)) == [REFUSED] * len(pages)
    split = f"GET http://{cluster.mirror()}/debian/%0d%0aX-Evil:%201%0d%0a/x.deb"
    assert cluster.ask("node1", split) == ["404 Not Found"], "an answer cannot be split"
    assert cluster.ask("node1", "GET /trainyard/../acng.conf", "GET /acng-doc/html/index.html") == [REFUSED] * 2


def test_only_known_mirrors_are_asked(cluster: Cluster) -> None:
    mirror = cluster.mirror()
    good, *bad = cluster.ask(
        "node1",
        f"GET http://{mirror}/debian/dists/bookworm/InRelease",
        "GET http://example.org/debian/dists/bookworm/InRelease",
        f"GET http://{mirror}.example.org/debian/dists/bookworm/InRelease",
        "GET http://127.0.0.1/debian/dists/bookworm/InRelease",
        "GET http://169.254.169.254/debian/dists/bookworm/InRelease",
    )
    assert good == "200 OK"
    assert bad == [REFUSED] * 4
    ports = cluster.ask("node1", f"GET http://{mirror}:22/debian/x.deb", "CONNECT 127.0.0.1:22", f"CONNECT {mirror}:443")
    assert all(answer.startswith("403 ") for answer in ports)


def test_an_archive_that_is_not_known_is_reached_directly(cluster: Cluster) -> None:
    assert cluster.shell("node1", f"{CHOICE} http://{cluster.mirror()}/debian/x") == f"http://{cluster.lab.address('head')}:3142"
    assert cluster.shell("node1", f"{CHOICE} http://example.org/debian/x") == ""
    own = "deb [trusted=yes] http://127.0.0.1:8000 ./"
    cluster.shell("node1", f"mkdir -p /srv/own; cd /srv/own; touch Packages; echo '{own}' >/etc/apt/sources.list.d/own.list")
    cluster.shell("node1", "systemd-run --quiet --unit own-archive python3 -m http.server -d /srv/own -b 127.0.0.1 8000; sleep 1")
    try:
        cluster.shell("node1", "apt-get -qq -o APT::Update::Error-Mode=any update")
    finally:
        cluster.shell("node1", "systemctl stop own-archive; rm /etc/apt/sources.list.d/own.list")


def test_who_is_not_of_the_cluster_is_not_answered(cluster: Cluster) -> None:
    assert cluster.ask("node2", "GET /trainyard/mirrors", f"GET http://{cluster.mirror()}/debian/dists/bookworm/InRelease") == ["", ""]
    assert cluster.ask("node1", "GET /trainyard/mirrors") == ["200 OK"]
    cluster.shell("head", "grep -q 'apt-cacher-ng: ALL : DENY' /etc/hosts.allow")


def test_the_daemon_is_nobodys_root_and_writes_into_one_folder(cluster: Cluster) -> None:
    for unit in ("apt-cacher-ng", "trainyard-package-cache-guard"):
        shown = cluster.shell("head", f"systemctl show {unit} -p User,NoNewPrivileges,ProtectSystem,CapabilityBoundingSet,ActiveState")
        assert set(shown.split("\n")) == {
            "User=apt-cacher-ng",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "CapabilityBoundingSet=",
            "ActiveState=active",
        }
    assert cluster.shell("head", "ps -o user:20= -C apt-cacher-ng").split() == ["apt-cacher-ng"]
    assert cluster.shell("head", "/etc/cron.daily/apt-cacher-ng 2>&1") == "", "the daily job asks nobody"


def test_the_cache_cannot_be_filled(cluster: Cluster) -> None:
    done = cluster.run(package_cache_max_size="60M")
    assert done.changed == {"head": 2, "node1": 0}, done.failures()
    cluster.shell("node1", "apt-get -qq update")
    with counted(cluster.lab, cluster.lab.nodes) as counters:
        cluster.shell("node1", FILL)
        drawn = counters.read()
    assert drawn["node1"] == 0
    assert drawn["head"] > 100_000_000
    kept = "for i in $(seq 20); do [ $(du -sm /var/cache/apt-cacher-ng | cut -f 1) -le 60 ] && exit 0; sleep 0.5; done; exit 1"
    cluster.shell("head", kept)
    assert "removed" in cluster.shell("head", "journalctl -u trainyard-package-cache-guard -o cat")
    cluster.shell("node1", DRAW.format("tree"))
    assert cluster.run().changed == {"head": 2, "node1": 0}


def test_without_its_guard_the_cache_does_not_run(cluster: Cluster) -> None:
    until = "for i in $(seq 60); do {0} systemctl is-active -q apt-cacher-ng && exit 0; sleep 0.25; done; exit 1"
    cluster.shell("head", f"systemctl kill -s KILL trainyard-package-cache-guard; {until.format('!')}")
    cluster.shell("head", until.format(""))
    cluster.shell("head", "systemctl stop trainyard-package-cache-guard; ! systemctl is-active apt-cacher-ng")
    cluster.shell("node1", DRAW.format("tree"))
    assert cluster.run().changed == {"head": 1, "node1": 0}
    assert cluster.ask("node1", "GET /trainyard/mirrors") == ["200 OK"]


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
    # node2 is not of the cluster any more: the cache lets it in no more, and its host key is forgotten.
    assert cluster.run().changed == {"head": 2, "node1": 0}


def test_what_is_no_longer_wanted_goes(cluster: Cluster) -> None:
    assert cluster.run("--check", enabled=False).changed == {"head": 5, "node1": 1}
    cluster.shell("node1", f"test -e {SETTINGS}")
    assert cluster.run(enabled=False).changed == {"head": 5, "node1": 1}
    for node in ("head", "node1"):
        cluster.shell(
            node, f"! ls {SETTINGS} {CHOICE} /etc/trainyard/package_cache /usr/sbin/apt-cacher-ng /var/cache/apt-cacher-ng 2>/dev/null"
        )
    cluster.shell("head", "! ls /etc/systemd/system/apt-cacher-ng.service.d/trainyard.conf 2>/dev/null; ! ss -Hlnt sport = :3142 | grep .")
    cluster.shell(
        "head", "! grep -i trainyard /etc/hosts.allow; ! ls /etc/systemd/system/trainyard-* /usr/local/lib/trainyard/* 2>/dev/null"
    )
    assert cluster.run(enabled=False).changed == {"head": 0, "node1": 0}
    assert cluster.draw("node1", "tree")["node1"] > 1_000_000


def test_what_cannot_be_is_refused_by_name(cluster: Cluster) -> None:
    done = cluster.run("-e", "package_cache_port=80")
    mirrors = cluster.run("-e", '{"package_cache_mirrors": ["https://mirror.example/debian"], "package_cache_max_size": "much"}').failures()
    assert "package_cache_mirrors: https://mirror.example/debian: use a URL that begins with http://" in mirrors
    assert "package_cache_max_size: 'much' is not a size. Use one such as 20G or 500M." in mirrors
    assert "package_cache_port: 80 is none for a service that is not root's; right are 1024 to 65535, such as 3142." in done.failures()
