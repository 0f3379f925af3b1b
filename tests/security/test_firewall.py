"""Outsiders against the listeners of jobs and of Slurm: they reach SSH and nothing of the cluster, while its nodes go on.

A small server stands in for the listener of a framework, such as PyTorch's store, which runs what whoever reaches it sends.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.security.conftest import CLUSTER, OUTSIDERS, House

pytestmark = pytest.mark.security

LISTEN = """
import json, os, socket, sys, time
ports = []
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    line = socket.socket(socket.AF_INET, kind)
    line.bind(("0.0.0.0", 0))
    ports.append(line.getsockname()[1])
    if kind == socket.SOCK_STREAM:
        line.listen()
        stream = line
with open("ports.new", "w") as file:
    json.dump(ports, file)
os.rename("ports.new", "ports")
while True:
    peer, _ = stream.accept()
    peer.sendall(b"in")
    peer.close()
"""
KNOCK = """
import socket, sys
for word in sys.argv[1:]:
    host, port = word.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=3) as line:
            print("in", end=" ")
    except ConnectionRefusedError:
        print("refused", end=" ")
    except OSError:
        print("out", end=" ")
"""


def knock(house: House, sources: tuple[str, ...], *targets: str) -> dict[str, list[str]]:
    """Return for each machine what became of its connections to these addresses and ports."""

    def one(source: str) -> list[str]:
        house.root(source, f"cat > /run/knock.py << 'END'\n{KNOCK}\nEND")
        return house.root(source, f"python3 /run/knock.py {' '.join(targets)}").split()

    with ThreadPoolExecutor() as pool:
        return dict(zip(sources, pool.map(one, sources), strict=True))


def test_the_listener_of_a_job_is_reached_by_nodes_and_by_no_outsider(house: House) -> None:
    house.root("node1", f"runuser -l alice -c 'mkdir -p listening; cat > listening/listen.py' << 'END'\n{LISTEN}\nEND")
    status, job = house.user(
        "alice", "cd /tmp; sbatch --parsable -w node1 --output=/dev/null --chdir=/home/alice/listening --wrap 'python3 listen.py'"
    )
    assert status == 0, job
    try:
        house.until("node1", "test -e /home/alice/listening/ports && echo there", "there")
        stream, _datagram = json.loads(house.root("node1", "cat /home/alice/listening/ports"))
        target = f"{house.lab.address('node1')}:{stream}"
        assert knock(house, ("head", "node2", "node1"), target) == {"head": ["in"], "node2": ["in"], "node1": ["in"]}
        assert knock(house, OUTSIDERS, target) == {outsider: ["out"] for outsider in OUTSIDERS}
    finally:
        house.user("alice", f"scancel {job}")
        house.until("head", f"squeue -h -j {job} 2>/dev/null", "")
        house.root("node1", "rm -rf /home/alice/listening")


def test_slurm_and_every_other_high_port_is_closed_to_outsiders_and_ssh_is_not(house: House) -> None:
    ports = {
        node: {int(line.rpartition(":")[2]) for line in house.root(node, "ss -Hltn | awk '{print $4}'").splitlines()} for node in CLUSTER
    }
    assert 6817 in ports["head"]
    assert 6818 in ports["node1"] & ports["node2"]
    high = [f"{house.lab.address(node)}:{port}" for node in CLUSTER for port in sorted(ports[node]) if port >= 1024]
    ssh = [f"{house.lab.address(node)}:22" for node in CLUSTER]
    answers = knock(house, OUTSIDERS, *high, *ssh)
    assert answers == {outsider: ["out"] * len(high) + ["in"] * len(ssh) for outsider in OUTSIDERS}
    slurm = [f"{house.lab.address('head')}:6817", f"{house.lab.address('node1')}:6818", f"{house.lab.address('node2')}:6818"]
    assert knock(house, CLUSTER, *slurm) == {node: ["in"] * 3 for node in CLUSTER}


def test_users_log_in_and_compute_across_nodes_as_before(house: House) -> None:
    assert all(house.ssh("alice", "true", node).returncode == 0 for node in CLUSTER)
    status, printed = house.user("alice", "srun --immediate=60 -N2 hostname | sort")
    assert (status, printed.split()) == (0, ["node1", "node2"])
