"""The firewall between a cluster and everybody else: nodes, two outsiders, an admin's own rules, and a controller that dies.

A small server stands in for a framework's listener. Containers of the lab have no IPv6 on their network, so the nodes are given it here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import BIN, Play, ansible_playbook
from trainyard.containers import Lab
from trainyard.paths import CHECKOUT, REPOSITORY

pytestmark = pytest.mark.nodes

CLUSTER, SPARE, OUTSIDERS = ("head", "node1"), "node2", ("outsider", "outsider2")
NODES = [*CLUSTER, SPARE, *OUTSIDERS]
HIGH, LOW, OPEN = 5000, 80, 8080
TASK = "node_firewall : Load the firewall, and prove that a new login works"
TABLE = "nft --stateless list table inet trainyard"
ADMINS = "table inet admins {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t\ttcp dport 25 drop\n\t}\n}\n"

# Answers on both protocols and both families what it is asked; a stream stays open until the other side ends it.
LISTENER = """
import socketserver, sys, threading

class Stream(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(64):
            self.request.sendall(data)

class Datagram(socketserver.BaseRequestHandler):
    def handle(self):
        self.request[1].sendto(self.request[0], self.client_address)

def serve(kind, handler, port):
    kind.address_family, kind.allow_reuse_address, kind.daemon_threads = 10, True, True
    threading.Thread(target=kind(("::", port), handler).serve_forever).start()

class Streams(socketserver.ThreadingTCPServer): pass
class Datagrams(socketserver.ThreadingUDPServer): pass

for port in map(int, sys.argv[1:]):
    serve(Streams, Stream, port)
    serve(Datagrams, Datagram, port)
"""
ASK = """
import socket, sys, threading

def ask(protocol, address):
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(10 if ":" in address else 2, kind) as line:
        line.settimeout(1.5)
        try:
            line.connect((address, int(sys.argv[1])))
            line.send(b"ping")
            if line.recv(4) == b"ping":
                print(f"{protocol}{6 if ':' in address else 4}", flush=True)
        except OSError:
            pass

for way in [(protocol, address) for protocol in ("tcp", "udp") for address in sys.argv[2:]]:
    threading.Thread(target=ask, args=way).start()
"""
# A connection that outlives the arrival of the firewall: it says something again whenever a file appears.
HELD = """
import os, socket, sys, time
line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
for turn in range(2):
    line.sendall(b"held")
    line.settimeout(5)
    open(f"/run/held-{turn}", "w").write(line.recv(4).decode())
    while not turn and not os.path.exists("/run/again"):
        time.sleep(0.1)
"""


class Site:
    """The nodes, their inventory, and who reaches whom."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.six = {node: f"fd00:7::{number}" for number, node in enumerate(NODES, 1)}

    def root(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a script as root in a node, beside SSH."""
        return self.lab.execute(node, ["bash", "-ec", script], check=check).strip()

    def prepare(self, node: str) -> None:
        """Give a node IPv6 and its listeners, which a reboot takes away."""
        self.root(
            node,
            "mkdir -p /run/proc; mount -t proc proc /run/proc; echo 0 > /run/proc/sys/net/ipv6/conf/eth0/disable_ipv6; umount /run/proc\n"
            f"ip -6 addr add {self.six[node]}/64 dev eth0 nodad\n"
            f"cat > /root/listener.py << 'END'\n{LISTENER}\nEND\ncat > /root/ask.py << 'END'\n{ASK}\nEND\n"
            f"systemd-run -q --unit listener python3 /root/listener.py {HIGH} {LOW} {OPEN}\n"
            f"until [ $(ss -Hltn | grep -c -E ':({HIGH}|{LOW}|{OPEN}) ') = 3 ]; do sleep 0.1; done",
        )

    def ways(self, source: str, target: str, port: int) -> set[str]:
        """Return by which protocols and families a node is answered by another one's listener."""
        return set(self.root(source, f"python3 /root/ask.py {port} {self.lab.address(target)} {self.six[target]}").split())

    def reached(self, target: str, port: int) -> dict[str, set[str]]:
        """Return for each other machine by which ways it is answered."""
        others = [node for node in NODES if node != target]
        with ThreadPoolExecutor() as pool:
            return dict(zip(others, pool.map(lambda node: self.ways(node, target, port), others), strict=True))

    def ssh(self, node: str) -> int:
        """Log in anew and return the exit status."""
        words = ["ssh", "-F", str(self.lab.ssh_config), "-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "ConnectTimeout=3"]
        return subprocess.run([*words, node, "true"], capture_output=True, timeout=30, check=False, stdin=subprocess.DEVNULL).returncode

    def inventory(self, cluster: Sequence[str] = CLUSTER, hosts: Mapping[str, Mapping[str, Any]] | None = None, **variables: Any) -> Path:
        """Write an inventory with these nodes in the cluster, and return its path."""
        every = {"ansible_user": "admin", "ansible_ssh_common_args": f"-F {self.lab.ssh_config}", **variables}
        members = {node: (hosts or {}).get(node, {}) for node in cluster}
        path = self.folder / "hosts.yml"
        path.write_text(yaml.safe_dump({"all": {"vars": every, "children": {"cluster": {"hosts": members}}}}))
        return path

    def play(self, *words: str, timeout: float = 200, **inventory: Any) -> Play:
        """Run the playbook of the firewall."""
        return ansible_playbook(REPOSITORY / "playbooks" / "firewall.yml", self.inventory(**inventory), words, timeout=timeout)

    def state(self, node: str) -> str:
        """Return what the role keeps on a node, and what the kernel has."""
        return self.root(
            node,
            f"{TABLE} 2>/dev/null; cat /etc/trainyard/firewall.nft 2>/dev/null; "
            "ls -d /etc/trainyard /var/lib/trainyard/node_firewall /etc/systemd/system/{,*/}*trainyard* 2>/dev/null",
            check=False,
        )


ALL = {"tcp4", "tcp6", "udp4", "udp6"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two nodes of a cluster, one that may join, and two outsiders; none has a firewall."""
    lab = Lab(f"test-node-firewall-{CHECKOUT}", NODES, tmp_path_factory.mktemp("lab"), say=lambda _text: None)
    lab.down()
    lab.up()
    try:
        found = Site(lab, tmp_path_factory.mktemp("inventory"))
        for node in NODES:
            found.prepare(node)
        yield found
    finally:
        lab.down()


# --- before it is there ----------------------------------------------------------------------------------------------


def test_without_a_firewall_everybody_reaches_a_listener(site: Site) -> None:
    assert site.reached("head", HIGH) == {node: ALL for node in NODES if node != "head"}


def test_a_way_to_sshd_by_another_port_is_not_cut_off(site: Site) -> None:
    """The node sees the login come to port 22 from itself; only the new login shows that the way there is closed."""
    before = site.state("head")
    site.root("head", "systemd-run -q --unit forwarder --socket-property=ListenStream=2200 /lib/systemd/systemd-socket-proxyd 127.0.0.1:22")
    other = {"cluster": ["head"], "hosts": {"head": {"ansible_port": 2200}}}
    done = site.play(**other)
    assert done.status != 0
    said = done.failures()
    assert "A new login as 'admin'" in said
    assert "does not work (" in said
    assert "Where the way to sshd leads over another port of this node, add that to node_firewall_open_ports." in said
    assert said.endswith("The former firewall is back. A new login works again."), said
    assert site.state("head") == before
    assert site.ways("outsider", "head", HIGH) == ALL

    done = site.play(**other, node_firewall_open_ports=[2200])
    assert (done.status, done.results[TASK, "head"]["login_proven"]) == (0, True), done.failures()
    done = site.play("-e", "trainyard_state=absent", **other)
    assert done.status == 0, done.failures()
    site.root("head", "systemctl stop forwarder.socket forwarder.service")
    assert site.state("head") == before


class Kill:
    """An ssh client that stands still at the proof, for the controller to be killed there."""

    def __init__(self, folder: Path) -> None:
        self.mark, seen, self.wrapper = folder / "proof-reached", folder / "first-login", folder / "ssh"
        self.wrapper.write_text(
            '#!/bin/sh\ncase "$*" in *ControlPath=none*)\n'
            f"  if [ -e {seen} ]; then touch {self.mark}; exec sleep 600; fi; touch {seen};;\nesac\n"
            'exec /usr/bin/ssh "$@"\n'
        )
        self.wrapper.chmod(0o755)

    def run(self, site: Site, **variables: Any) -> None:
        """Start a run, and kill it with all its children when the new rules are live and unproven."""
        inventory = site.inventory(["head"], ansible_ssh_executable=str(self.wrapper), **variables)
        process = subprocess.Popen(
            [str(BIN / "ansible-playbook"), "playbooks/firewall.yml", "-i", str(inventory)],
            cwd=REPOSITORY,
            env={**os.environ, "TRAINYARD_REPORT_JSON": "", "TRAINYARD_REPORT_HTML": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        end = time.monotonic() + 60
        while not self.mark.exists() and time.monotonic() < end and process.poll() is None:
            time.sleep(0.1)
        assert self.mark.exists(), process.stdout.read().decode() if process.stdout else ""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_node_goes_back_by_itself_when_the_controller_is_killed(site: Site, tmp_path: Path) -> None:
    before = site.state("head")
    Kill(tmp_path).run(site, node_firewall_rollback_seconds=10)
    assert not site.ways("outsider", "head", HIGH), "the rules were to be live"
    end = time.monotonic() + 60
    while not site.ways("outsider", "head", HIGH) and time.monotonic() < end:
        time.sleep(0.5)
    while "activating" in site.root("head", "systemctl is-active trainyard-firewall-rollback.service", check=False):
        time.sleep(0.2)
    assert site.state("head") == before
    assert site.ways("outsider", "head", HIGH) == ALL


def test_a_run_after_a_killed_one_proves_what_was_left_unproven(site: Site, tmp_path: Path) -> None:
    Kill(tmp_path).run(site)
    again = site.play(cluster=["head"])
    assert again.status == 0, again.failures()
    result = again.results[TASK, "head"]
    assert "prove a firewall that an interrupted run left unproven" in result["changes"]
    assert result["login_proven"] is True
    assert site.root("head", "systemctl list-units --all --plain --no-legend 'trainyard-firewall-rollback*'") == ""
    assert site.play(cluster=["head"]).changed == {"head": 0}
    assert site.play("-e", "trainyard_state=absent", cluster=["head"]).status == 0


# --- the cluster -----------------------------------------------------------------------------------------------------


def test_the_firewall_comes_as_foretold_and_open_connections_stay(site: Site) -> None:
    before, head = {node: site.state(node) for node in CLUSTER}, site.lab.address("head")
    site.root(
        "outsider",
        f"cat > /root/held.py << 'END'\n{HELD}\nEND\nsystemd-run -q --unit held python3 /root/held.py {head} {HIGH}",
    )
    site.root("outsider", "until [ -e /run/held-0 ]; do sleep 0.1; done")
    foretold = site.play("--check", "--diff")
    assert foretold.status == 0, foretold.failures()
    assert {node: site.state(node) for node in CLUSTER} == before
    done = site.play("--diff")
    assert done.status == 0, done.failures()
    for node in CLUSTER:
        result = done.results[TASK, node]
        assert result["changes"] == foretold.results[TASK, node]["changes"]
        assert result["login_proof"] == "a new login of 'admin' and its sudo worked"
        assert f"{HIGH}/tcp" in result["closes"]
        assert f"{HIGH}/udp" in result["closes"]
        assert f"{LOW}/tcp" not in result["closes"]
        assert any(f"{HIGH}/tcp" in warning for warning in result["warnings"])
        assert result["diff"][0]["before"] == ""
        assert result["diff"][0]["after"] == site.root(node, TABLE) + "\n"
    assert site.play().changed == dict.fromkeys(CLUSTER, 0)
    assert site.play("--check").changed == dict.fromkeys(CLUSTER, 0)
    site.root("outsider", "touch /run/again; for _ in $(seq 50); do [ ! -e /run/held-1 ] || break; sleep 0.1; done; cat /run/held-1")
    assert site.root("outsider", "cat /run/held-1") == "held", "a connection that was open before goes on"


@pytest.mark.parametrize("target", CLUSTER)
def test_a_listener_is_reached_from_the_cluster_and_by_no_outsider(site: Site, target: str) -> None:
    other = next(node for node in CLUSTER if node != target)
    assert site.reached(target, HIGH) == {other: ALL, SPARE: set(), **{outsider: set() for outsider in OUTSIDERS}}
    assert site.ways(target, target, HIGH) == ALL
    assert site.reached(target, LOW) == {node: ALL for node in NODES if node != target}, "low ports are not the cluster's"
    assert site.ssh(target) == 0
    assert all(site.root(node, f"timeout 3 bash -c '</dev/tcp/{site.lab.address(target)}/22' && echo in") == "in" for node in OUTSIDERS)


def test_a_node_reaches_out_as_before(site: Site) -> None:
    assert site.reached("outsider", HIGH)["head"] == ALL


def test_what_the_admin_names_is_open(site: Site) -> None:
    admitted = [site.lab.address("outsider2"), f"{site.six['outsider2']}/128"]
    assert site.play(node_firewall_open_ports=[OPEN], node_firewall_admitted=admitted).status == 0
    assert site.reached("head", OPEN)["outsider"] == {"tcp4", "tcp6"}
    assert site.reached("head", HIGH) == {"node1": ALL, SPARE: set(), "outsider": set(), "outsider2": ALL}
    assert site.play().status == 0
    assert site.reached("head", OPEN)["outsider"] == set()
    assert site.reached("head", HIGH)["outsider2"] == set()


def test_values_that_cannot_be_used_are_refused_before_anything_changes(site: Site) -> None:
    before = {node: site.state(node) for node in CLUSTER}
    for name, value, said in (
        ("open_ports", ["http"], "node_firewall_open_ports: 'http' is not a port."),
        ("admitted", ["0.0.0.0/0"], "node_firewall_admitted: '0.0.0.0/0' admits everybody."),
        ("first_port", 22, "node_firewall_first_port is 22: it must be from 1024 to 65535."),
        ("interfaces", ["*"], "node_firewall_interfaces: '*' is not the name of a network interface"),
    ):
        done = site.play(**{f"node_firewall_{name}": value})
        assert done.status != 0
        assert said in done.failures()
    assert {node: site.state(node) for node in CLUSTER} == before


def test_the_admins_own_rules_stay_and_what_is_flushed_is_repaired(site: Site) -> None:
    rules = site.root("head", TABLE)
    site.root("head", f"cat > /etc/nftables.conf << 'END'\n#!/usr/sbin/nft -f\nflush ruleset\n{ADMINS}END\nsystemctl start nftables")
    for verb in ("reload", "restart"):
        site.root("head", f"systemctl {verb} nftables")
        assert site.root("head", TABLE) == rules, verb
    site.root("head", "nft --file /etc/nftables.conf")  # by hand: nobody notices
    assert site.ways("outsider", "head", HIGH) == ALL
    foretold = site.play("--check")
    assert foretold.results[TASK, "head"]["changes"] == ["load the table inet trainyard"]
    done = site.play()
    assert (done.status, done.changed) == (0, {"head": 1, "node1": 0})
    assert site.root("head", TABLE) == rules
    assert "tcp dport 25 drop" in site.root("head", "nft list table inet admins")

    site.root("head", "nft add rule inet trainyard input tcp dport 25 drop; nft flush set inet trainyard cluster4")
    assert site.play().changed == {"head": 1, "node1": 0}
    assert site.root("head", TABLE) == rules


def test_a_node_joins_and_leaves(site: Site) -> None:
    three = [*CLUSTER, SPARE]
    done = site.play(cluster=three)
    assert done.status == 0, done.failures()
    for target in three:
        assert site.reached(target, HIGH) == {**{node: ALL for node in three if node != target}, **{each: set() for each in OUTSIDERS}}
    # A run of some nodes only keeps what it knows of the others.
    assert site.play("--limit", "head", cluster=three).changed == {"head": 0}

    assert site.play().status == 0
    for target in CLUSTER:
        assert site.reached(target, HIGH)[SPARE] == set()
    inventory = site.inventory([SPARE])
    undone = ansible_playbook(REPOSITORY / "playbooks" / "firewall.yml", inventory, ["-e", "trainyard_state=absent"])
    assert undone.status == 0, undone.failures()
    assert site.reached(SPARE, HIGH)["head"] == ALL


def test_a_node_whose_address_nobody_knows_is_named(site: Site) -> None:
    done = site.play("--limit", "head", cluster=[*CLUSTER, SPARE])
    assert done.status == 0
    warnings = done.results[TASK, "head"]["warnings"]
    assert any(each.startswith(f"head does not admit {SPARE} yet: no address is known.") for each in warnings), warnings
    assert site.reached("head", HIGH)["node1"] == ALL


def test_the_firewall_is_there_again_after_a_reboot(site: Site) -> None:
    rules = site.root("node1", TABLE)
    site.lab.restart("node1")
    site.prepare("node1")
    assert site.root("node1", TABLE) == rules
    assert site.reached("node1", HIGH) == {"head": ALL, SPARE: set(), **{outsider: set() for outsider in OUTSIDERS}}
    assert site.ssh("node1") == 0
    assert site.play().changed["node1"] == 0


def test_it_goes_and_takes_only_its_own_along(site: Site) -> None:
    done = site.play("-e", "node_firewall_enabled=false", "--limit", "node1")
    assert (done.status, done.changed) == (0, {"node1": 2}), done.failures()
    undone = site.play("-e", "trainyard_state=absent")
    assert undone.status == 0, undone.failures()
    site.root("node1", "! ls -d /etc/trainyard /var/lib/trainyard/node_firewall /usr/sbin/nft 2>/dev/null")
    assert "tcp dport 25 drop" in site.root("head", "nft list table inet admins"), "whoever uses nftables.service keeps nftables"
    site.root("head", "! grep -rls Trainyard /etc; ! systemctl list-units --all --plain --no-legend 'trainyard-firewall*' | grep .")
    assert all(site.ways("outsider", node, HIGH) == ALL for node in CLUSTER)
    assert site.play("-e", "trainyard_state=absent").changed == dict.fromkeys(CLUSTER, 0)
