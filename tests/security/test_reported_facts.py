"""What root of a compromised node has that node report: it changes nothing on the controller, and no other node believes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.security.conftest import CLUSTER, House
from tests.support import tool

pytestmark = pytest.mark.security

CLUSTER_PLAYBOOK = "playbooks/cluster.yml"
PROGRAM = "/tmp/p"
MIRROR = "deb" + ".debian" + ".org"
NAMES = {MIRROR: (), "node1": ("--limit", "node2,head"), f"node2\nPrologSlurmctld={PROGRAM} #\x1b[2J": ()}
"""What the compromised node calls itself, and the arguments of the run: a clone joins while the run leaves the other node alone."""
FILES = "/etc/hosts /etc/slurm/*.conf /etc/trainyard/environments/rsyncd.conf /var/lib/trainyard/slurm/*"


def state(house: House) -> dict[str, str]:
    """Return what facts of other nodes would change on each node, and when its daemons were started."""
    started = "systemctl show -P ExecMainStartTimestampMonotonic slurmctld slurmd munge"
    script = f"sha256sum {FILES} 2>&1 || true; {started}; ls {PROGRAM}.ran 2>&1 || true"
    return {node: house.root(node, script, check=False) for node in CLUSTER}


@contextmanager
def called(house: House, node: str, name: str) -> Iterator[None]:
    """Have a node call itself otherwise for a while, by the system call, which takes any bytes."""

    def call(text: str) -> None:
        house.root(node, f"python3 -c 'import socket; socket.sethostname(bytes.fromhex(\"{text.encode().hex()}\").decode())'")

    call(name)
    try:
        yield
    finally:
        call(node)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_node_that_calls_itself_otherwise_is_refused_before_anything_changes(house: House, name: str) -> None:
    house.root("head", f"printf '#!/bin/sh\\ntouch {PROGRAM}.ran\\n' > {PROGRAM}; chmod 0755 {PROGRAM}")
    before = state(house)
    with called(house, "node2", name):
        refused = house.play(CLUSTER_PLAYBOOK, *NAMES[name])
    house.root("head", f"rm {PROGRAM}")
    assert refused.status != 0
    said = refused.failures()
    short = name.partition(".")[0]
    assert (
        f"node2 calls itself {short if short.isalnum() else repr(short)}{', as node1 is called' if short == 'node1' else ''}; by the"
        in said
    )
    assert "by the inventory its host name is node2" in said
    assert "sudo hostnamectl set-hostname node2" in said
    assert "\x1b" not in said
    assert set(refused.changed.values()) == {0}
    assert state(house) == before


def test_hardware_that_no_machine_has_never_reaches_slurm(house: House) -> None:
    before = state(house)
    real = "/usr/sbin/slurmd"
    house.root("node2", f"mv {real} {real}.real; printf '#!/bin/sh\\necho NodeName=node2 CPUs=999999999 RealMemory=4000\\n' > {real}")
    house.root("node2", f"chmod 0755 {real}")
    try:
        refused = house.play(CLUSTER_PLAYBOOK)
    finally:
        house.root("node2", f"mv {real}.real {real}")
    assert refused.status != 0
    assert "node2 reports the CPUs '999999999', which is refused" in refused.failures()
    assert state(house) == before


def test_an_honest_node_is_served_and_its_full_name_is_nobodys_business(house: House) -> None:
    folder = house.root("node2", "python3 -c 'import site; print(site.getsitepackages()[0])'")
    house.root("node2", f"mkdir -p {folder}; echo \"import socket; socket.getfqdn = lambda name='': '{MIRROR}'\" > {folder}/lie.pth")
    try:
        assert house.root("node2", "python3 -c 'import socket; print(socket.getfqdn())'") == MIRROR
        served = house.play(CLUSTER_PLAYBOOK)
    finally:
        house.root("node2", f"rm {folder}/lie.pth")
    assert served.status == 0, served.failures()
    assert served.changed == dict.fromkeys(CLUSTER, 0)
    for node in CLUSTER:
        assert MIRROR not in house.root(node, "cat /etc/hosts")
    assert house.user("alice", "srun -w node2 hostname") == (0, "node2")


def test_a_jobs_name_does_not_write_to_the_terminal_of_who_drains(house: House) -> None:
    rc, job = house.user("alice", r"sbatch --parsable -w node1 --mem=10 --output=/dev/null -J $'[red]\e[2J\e]0;x\a' --wrap 'sleep 300'")
    assert rc == 0, job
    try:
        house.until("head", f"squeue -h -j {job} -o %T", "RUNNING")
        status, said = tool(house.describe(), "drain", "node1", "--reason", "a fan rattles", "--wait", "--deadline", "1s")
    finally:
        house.root("head", f"scancel {job}; scontrol update NodeName=node1 State=RESUME", check=False)
        house.until("head", "squeue -h", "")
    assert status == 1
    assert re.search(rf"node1: {job} \(alice, \[red\]", said)
    assert all(each.isprintable() or each == "\n" for each in said)
