"""Nodes that come and go by the command line tool: a cluster of containers over SSH, a spare machine, and jobs that must not notice.

Containers share their host's clock and platform: a program called date and a changed os-release stand in for another clock and another
release. There is no GPU.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tests.support import ansible_playbook, tool
from trainyard.containers import Lab, connect
from trainyard.lab import WHEELHOUSE
from trainyard.lab import lab as own_lab
from trainyard.paths import CHECKOUT, REPOSITORY

pytestmark = pytest.mark.nodes

# A training of many nodes that counts its steps until a file tells it to end.
TRAINING = """
import os, socket, time
import torch, torch.distributed as dist

dist.init_process_group("gloo")
steps, goes_on = 0, torch.ones(1)
while goes_on.item():
    goes_on[0] = not os.path.exists("/tmp/training-may-end")
    dist.all_reduce(goes_on, dist.ReduceOp.MIN)
    steps += 1
    time.sleep(0.2)
hosts = [None] * dist.get_world_size()
dist.all_gather_object(hosts, socket.gethostname())
if dist.get_rank() == 0:
    print("trained", steps, *hosts, flush=True)
dist.barrier()
dist.destroy_process_group()
"""
STARTED = "systemctl show -P ExecMainStartTimestampMonotonic slurmd"
HOSTS = """\
# A lab for a test.
all:
  vars:
    ansible_user: admin
    ansible_ssh_common_args: "-F {{{{ inventory_dir }}}}/ssh_config"
    base_users: [{{name: ada, uid: 2000}}]
    base_ca_certificates: "{{{{ query('ansible.builtin.fileglob', '/usr/local/share/ca-certificates/*.crt') }}}}"
    plan_environments: [pytorch]
    framework_env_wheelhouse: {wheelhouse}
    ssh_hardening_enabled: false
    trainyard_boot_time_command: systemctl show -P UserspaceTimestampMonotonic
  children:
    cluster:
      children:
        slurm_controller:
          hosts:
            head: {{ansible_host: {head}}}
        slurm_compute:  # who computes
          hosts:
            node1: {{ansible_host: {node1}}}
            node2: {{ansible_host: {node2}}}  # the old one
"""


class Site:
    """The nodes, their inventory and the command line tool."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.hosts, self.known = folder / "hosts.yml", folder / "known_hosts"
        self.before = HOSTS.format(wheelhouse=WHEELHOUSE, **{node: lab.address(node) for node in ("head", "node1", "node2")})
        self.hosts.write_text(self.before)
        lines = [line.split(" ", 1) for line in (lab.state / "known_hosts").read_text().splitlines()]
        self.keys = [(node, f"{lab.address(node)} {rest}") for node, rest in lines]
        self.known.write_text("".join(f"{line}\n" for node, line in self.keys if node != "spare"))
        (folder / "ssh_config").write_text(
            f"Host *\n  IdentityFile {lab.key.resolve()}\n  IdentitiesOnly yes\n  UserKnownHostsFile {self.known}\n"
            "  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
        )

    def tool(self, *words: str, timeout: float = 400) -> tuple[int, str]:
        """Run a verb over the inventory; return its exit status and all that it printed."""
        return tool(self.hosts, *words, timeout=timeout)

    def add(self, *words: str) -> tuple[int, str]:
        """Add the spare machine."""
        return self.tool("add-node", "spare", "--address", self.lab.address("spare"), *words)

    def shell(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a script as root in a node, beside SSH."""
        return self.lab.execute(node, ["bash", "-ec", script], check=check).strip()

    def until(self, script: str, wanted: str, seconds: float = 60) -> None:
        """Wait until a script on the head prints something."""
        end = time.monotonic() + seconds
        while (said := self.shell("head", script, check=False)) != wanted:
            assert time.monotonic() < end, f"{script}: {said}"
            time.sleep(0.3)

    def submit(self, words: str) -> str:
        """Start a long job of an ordinary user, and return its number once it runs."""
        job = self.shell("head", f"cd /tmp; runuser -u ada -- sbatch --parsable --output=/dev/null {words} --wrap 'sleep 900'")
        self.until(f"squeue -h -j {job} -o %T", "RUNNING")
        return job

    def train(self) -> str:
        """Start a training of ada's on node1 and node2 that leaves room for others, and return the job's number once it runs."""
        self.shell("head", f"mkdir -p /home/ada/training; cat > /home/ada/training/train.py << 'END'\n{TRAINING}\nEND")
        words = "salloc --quiet --nodelist=node1,node2 --ntasks-per-node=1 --mem=2000 cluster_train --here"
        self.shell(
            "head",
            "chown -R ada: /home/ada/training; systemd-run --quiet --unit=training --uid=ada --working-directory=/home/ada/training "
            "-p RemainAfterExit=yes -p StandardOutput=file:/tmp/training -p StandardError=file:/tmp/training "
            f"{words} --framework pytorch --config train.py --num-nodes 2",
        )
        self.until("squeue -h -u ada -o '%T %N'", "RUNNING node[1-2]")
        return self.shell("head", "squeue -h -u ada -o %i")

    def state(self) -> str:
        """Return what must be as before after a refusal or a failure."""
        return self.shell("head", "cat /etc/slurm/slurm.conf /etc/hosts; sinfo --all -h -N -o '%N %P %t' | sort") + self.hosts.read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A lab of a head and two nodes, made by site.yml, and a bare machine."""
    nodes = ["head", "node1", "node2", "spare"]
    mounts = {next(iter(own_lab().mounts)): WHEELHOUSE}
    lab = Lab(f"test-come-and-go-{CHECKOUT}", nodes, tmp_path_factory.mktemp("lab"), mounts=mounts, say=lambda _text: None)
    lab.down()
    lab.up()
    try:
        found = Site(lab, tmp_path_factory.mktemp("inventory"))
        for node in ("node1", "node2"):
            connect().containers.get(f"trainyard-{lab.name}-{node}").update(restart_policy={"Name": "always"})
        status, said = found.tool("apply", timeout=900)
        assert status == 0, said[-3000:]
        yield found
    finally:
        lab.down()


@pytest.fixture(autouse=True)
def idle(site: Site) -> Iterator[None]:
    """Every test ends without jobs and with open nodes."""
    yield
    site.shell("head", "scancel --user=ada; scontrol update NodeName=ALL State=RESUME", check=False)
    site.until("squeue --all -h -o %i", "")


def fingerprint(site: Site) -> str:
    said = site.shell("spare", "for key in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $key; done")
    return re.findall(r"(SHA256:\S+) .*\(ED25519\)", said)[0]


def test_an_unknown_host_key_has_to_be_confirmed(site: Site) -> None:
    before = site.state()
    status, said = site.add("--check")
    assert status == 1
    assert "The host key of spare is not known." in said
    assert f"--host-key {fingerprint(site)}" in said
    status, said = site.add("--check", "--host-key", "SHA256:" + "A" * 43)
    assert status == 1
    assert "The host key of spare is not SHA256:AAA" in said
    assert "spare" not in {line.split()[0] for line in site.known.read_text().splitlines()}
    assert site.lab.address("spare") not in site.known.read_text()

    status, said = site.add("--check", "--host-key", fingerprint(site))
    assert status == 0
    assert f"+            spare: {{ansible_host: {site.lab.address('spare')}}}" in said
    assert f"{site.lab.address('spare')} ssh-ed25519" in site.known.read_text()
    assert site.state() == before


def test_what_cannot_join_is_refused_and_nothing_changes(site: Site) -> None:
    before, address = site.state(), site.lab.address("spare")
    assert "node1 is in the inventory already" in site.tool("add-node", "node1", "--address", address)[1]
    said = site.tool("add-node", "spare", "--address", site.lab.address("node2"))[1]
    assert f"The address {site.lab.address('node2')} is node2's already" in said
    assert "--like node9: it does not compute here" in site.add("--like", "node9")[1]

    # Stand-ins: another release, another clock, a name that is taken, and a really full disk.
    site.shell("spare", "cp /etc/os-release /root/; sed -i 's/^VERSION_ID=.*/VERSION_ID=13/' /etc/os-release")
    site.shell(
        "spare", 'printf \'#!/bin/sh\\nexec /usr/bin/date -d "+600 seconds" "$@"\\n\' > /usr/local/bin/date; chmod +x /usr/local/bin/date'
    )
    site.shell("spare", "mount -t tmpfs -o size=1m none /opt; hostname node1")
    site.shell("spare", "mkdir -p /etc/munge; head -c 128 /dev/urandom > /etc/munge/munge.key")
    site.shell("spare", "printf '# theirs\\nSLURMD_OPTIONS=\"--conf-server elsewhere:6817\"\\n' > /etc/default/slurmd")
    status, said = site.add()
    site.shell("spare", "rm -r /etc/munge /etc/default/slurmd")
    site.shell("spare", "cp /root/os-release /etc/os-release; rm /usr/local/bin/date; umount /opt; hostname spare")
    assert status == 1
    said = " ".join(said.split())
    assert "spare is debian 13 (x86_64), and the cluster's controller debian 12 (x86_64)" in said
    assert re.search(r"The clock of spare is (59|60)\d seconds ahead of the controller's, and 60 are allowed", said)
    assert "The disk of spare is full at /opt (0.0 GiB free)" in said
    assert "spare calls itself node1, as node1 does" in said
    assert "spare is a node of another cluster: its Slurm obeys elsewhere:6817, and its munge key is not the one of head." in said
    assert site.state() == before

    without = site.folder / "none.yml"
    without.write_text("all:\n  hosts:\n    head:\n")
    status, said = tool(without, "add-node", "spare", "--address", address)
    assert (status, "The group slurm_controller has no node" in said) == (1, True)


def test_a_failure_on_the_way_leaves_the_cluster_as_it_was(site: Site) -> None:
    before = site.state()
    site.shell("spare", "mkdir -p /run/systemd/system; ln -s /dev/null /run/systemd/system/slurmd.service")
    status, said = site.add()
    site.shell("spare", "rm /run/systemd/system/slurmd.service; systemctl daemon-reload")
    assert status == 1
    assert "spare could not be brought up" in said
    assert "The inventory and the cluster are as before." in said
    assert site.state() == before


def test_a_node_joins_while_two_others_train_and_leaves_again(site: Site) -> None:
    job = site.train()
    started = {node: site.shell(node, STARTED) for node in ("node1", "node2")}
    for node in started:
        site.shell(node, "touch /run/before")

    # A full cluster: the node stays closed, and no user can get at it.
    full = [site.submit(f"-w {node} -n1 --mem=10") for node in ("node1", "node2")]
    status, said = site.add("--deadline", "5s")
    assert status == 1
    assert "spare stays closed and in the inventory" in said
    assert "slurm_closed: true" in site.hosts.read_text()
    assert site.shell("head", "cd /tmp; runuser -u ada -- sinfo -h -N -n spare -o %P") == "", "root sees what is hidden"
    refused = site.shell("head", "cd /tmp; runuser -u ada -- srun -p trainyard_proof hostname 2>&1", check=False)
    assert "allocate resources" in refused
    site.shell("head", f"scancel {' '.join(full)}")

    status, said = site.add()
    assert status == 0
    assert re.search(r"(node1|node2) has met spare", said)
    assert re.search(r"PyTorch trained on node[12] and spare \(cpu\) to 0\.9[5-9]", said)
    marker = json.loads(site.shell("spare", "cat /opt/trainyard/envs/pytorch/.trainyard-env.json"))
    assert marker["from"] == "head", "the framework came from the controller"
    added = site.before.replace("# the old one\n", f"# the old one\n            spare: {{ansible_host: {site.lab.address('spare')}}}\n")
    assert site.hosts.read_text() == added
    site.until("sinfo --all -h -N -o '%N %P %t' | sort", "node1 main* mix\nnode2 main* mix\nspare main* idle")
    assert site.shell("head", "cd /tmp; runuser -u ada -- srun -w spare --mem=10 hostname") == "spare"

    site.until(f"squeue -h -j {job} -o %T", "RUNNING")
    assert {node: site.shell(node, STARTED) for node in started} == started
    for node in started:
        touched = site.shell(node, "find /etc /usr/local /var/lib/trainyard -type f -newer /run/before")
        assert touched == "/etc/trainyard/firewall.nft", "nobody touched anything else"
        admitted = re.findall(r"[\d.]+(?:/\d+)?", site.shell(node, "nft list set inet trainyard cluster4 | grep -A9 elements"))
        assert any(ip_address(site.lab.address("spare")) in ip_network(each) for each in admitted), admitted
    again = site.tool("add-node", "spare", "--address", site.lab.address("spare"))
    assert (again[0], "spare is in the inventory already" in again[1]) == (1, True)
    everywhere = ansible_playbook(REPOSITORY / "playbooks" / "cluster.yml", site.hosts)
    assert everywhere.changed == {"head": 0, "node1": 1, "node2": 1, "spare": 0}, "hosts files name the new one"

    left = site.submit("-w spare -n1 --mem=10")
    status, said = site.tool("remove-node", "spare", "--deadline", "1s")
    assert status == 1
    assert f"spare still has {left} (ada, wrap) after 1s" in said
    assert site.hosts.read_text() == added
    site.until(f"squeue -h -j {left} -o %T", "RUNNING")
    assert site.shell("head", "sinfo -h -n spare -o %E") == "trainyard removes this node"
    status, said = site.tool("remove-node", "spare", "--kill-jobs", "--undo")
    assert status == 0
    assert site.hosts.read_text() == site.before
    assert site.shell("head", "sinfo --all -h -N -o %N | sort") == "node1\nnode2"
    assert "spare" not in site.shell("head", "cat /etc/hosts")
    for node in ("head", "node1", "node2"):
        assert "# node spare:" not in site.shell(node, "cat /etc/trainyard/firewall.nft"), "no node admits it any more"
    site.shell("spare", "! ls /etc/munge/munge.key /usr/sbin/slurmd /opt/trainyard/envs/pytorch 2>/dev/null; ! grep Trainyard /etc/hosts")
    site.shell("spare", "! dpkg -s tmux; ! grep -rls Trainyard /etc")
    site.until(f"squeue -h -j {job} -o %T", "RUNNING")
    assert {node: site.shell(node, STARTED) for node in started} == started

    site.shell("node2", "touch /tmp/training-may-end")
    site.until("systemctl show -P SubState training", "exited")
    said = site.shell("head", "systemctl show -P ExecMainStatus training; cat /tmp/training")
    assert said.splitlines()[0] == "0", said
    assert int(re.findall(r"trained (\d+) node1 node2$", said, re.MULTILINE)[0]) > 100


def test_nodes_are_drained_and_resumed(site: Site) -> None:
    assert "node9 is no node of the cluster. Its nodes: node1, node2" in site.tool("drain", "node1", "node9")[1]
    job = site.submit("-w node1 -n1 --mem=10")
    status, said = site.tool("drain", "node1", "--reason", "a fan rattles", "--wait", "--deadline", "1s")
    assert (status, f"node1: {job} (ada, wrap)" in said) == (1, True)
    assert site.shell("head", "sinfo -h -n node1 -o '%t %E'") == "drng a fan rattles"
    assert "node1: was drained before (a fan rattles) and stays so" in site.tool("drain", "node1")[1]
    assert "node1: takes jobs again (was: a fan rattles)" in site.tool("resume", "node1")[1]
    assert site.tool("resume", "node1")[1].count("node1: took jobs all along") == 1
    site.until("sinfo -h -n node1 -o %t", "mix")
    site.until(f"squeue -h -j {job} -o %T", "RUNNING")


def test_nodes_reboot_one_after_another_and_stop_at_the_first_that_cannot(site: Site) -> None:
    boots = {node: site.shell(node, "systemctl show -P UserspaceTimestampMonotonic") for node in ("node1", "node2")}
    job = site.submit("-w node1 -n1 --mem=10")
    status, said = site.tool("reboot", "--deadline", "1s")
    assert status == 1
    assert f"node1: not rebooted, since the job {job} of Slurm runs. Not touched: node2." in said
    site.until("sinfo -h -n node1 -o %t", "mix")
    site.shell("head", f"scancel {job}; scontrol update NodeName=node2 State=DRAIN Reason='a fan rattles'")
    status, said = site.tool("reboot", "--deadline", "1m")
    assert status == 0
    assert "node1: rebooted, takes jobs" in said
    assert "node2: rebooted, stays drained (a fan rattles)" in said
    assert all(site.shell(node, "systemctl show -P UserspaceTimestampMonotonic") != before for node, before in boots.items())
    site.until("sinfo -h -n node1 -o %t", "idle")
