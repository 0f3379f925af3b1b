"""Reboots with a real Slurm: jobs are waited for, one node goes after another, and only what came back sound gets jobs again.

The nodes are containers, whose reboot Docker completes (``restart=always``), and which have no boot id of their own: what systemd says of
its start stands in for it. There is no GPU; the proof after the reboot is a command of the test's, or a stand-in for nvidia-smi.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nodes.test_driver_check import Tree
from tests.support import Play, play
from trainyard.containers import Lab, connect
from trainyard.paths import CHECKOUT

pytestmark = pytest.mark.nodes

COMPUTE = ["node1", "node2", "node3"]
NODES = ["head", *COMPUTE]
REASON = "trainyard reboots this node"
BOOT_TIME = "systemctl show -P UserspaceTimestampMonotonic"
UNSOUND = "node1 has not come back sound from its reboot"
STRATEGIES = ["trainyard.core.mitogen_if_present", "ansible.builtin.linear"]
CONFIGURATION = f"""\
ClusterName=lab
SlurmctldHost=head
SlurmUser=slurm
AuthType=auth/munge
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=0
SlurmdTimeout=300
MailProg=/bin/true
NodeName={",".join(COMPUTE)} CPUs=1 State=UNKNOWN
PartitionName=all Nodes={",".join(COMPUTE)} Default=YES MaxTime=INFINITE State=UP
"""


def shell(lab: Lab, node: str, script: str, *, check: bool = True) -> str:
    return lab.execute(node, ["bash", "-ec", script], check=check)


def put(lab: Lab, node: str, path: str, content: bytes) -> None:
    shell(lab, node, f"echo {base64.b64encode(content).decode()} | base64 -d > {path}")


def until(lab: Lab, script: str, wanted: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while (said := shell(lab, "head", script, check=False).strip()) != wanted:
        assert time.monotonic() < end, f"{script}: {said}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A controller and three nodes that compute, as Debian packages them; a driver's files under /srv/driver."""
    tree = Tree(tmp_path_factory.mktemp("driver"))
    tree.smi("mismatch_535.txt", 18)
    tree.finish()
    folder = tree.root.parent
    folder.chmod(0o755)
    lab = Lab(f"test-node-reboot-{CHECKOUT}", NODES, tmp_path_factory.mktemp("lab"), mounts={folder: "/srv/driver"}, say=lambda _text: None)
    lab.down()
    lab.up()
    try:
        key = os.urandom(1024)
        parts = {"head": "slurmctld slurm-client", **dict.fromkeys(COMPUTE, "slurmd slurm-client")}

        def install(node: str) -> None:
            shell(
                lab,
                node,
                f"apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq munge {parts[node]} && useradd -m -u 2000 ada",
            )
            put(lab, node, "/etc/munge/munge.key", key)
            put(lab, node, "/etc/slurm/slurm.conf", CONFIGURATION.encode())
            daemon = parts[node].split()[0]
            shell(lab, node, f"chown munge: /etc/munge/munge.key && chmod 0400 /etc/munge/munge.key && systemctl restart munge {daemon}")

        workers = [threading.Thread(target=install, args=[node]) for node in NODES]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for node in COMPUTE:
            connect().containers.get(f"trainyard-{lab.name}-{node}").update(restart_policy={"Name": "always"})
        until(lab, "sinfo -h -o %T", "idle")
        yield lab
    finally:
        lab.down()


@pytest.fixture(autouse=True)
def open_nodes(cluster: Lab) -> Iterator[None]:
    """Every test begins with open nodes and no jobs."""
    yield
    shell(cluster, "head", f"scancel --user=ada; scontrol update NodeName={','.join(COMPUTE)} State=RESUME", check=False)
    until(cluster, "sinfo -h -o %T", "idle")


def reboot(lab: Lab, folder: Path, words: list[str] | None = None, **wish: Any) -> Play:
    task = {
        "name": "Reboot",
        "trainyard.core.node_reboot": {"account": "admin", "boot_time_command": BOOT_TIME, **wish},
        "throttle": 1,
    }
    return play(lab, folder, [task], words or ["--limit", ",".join(COMPUTE)])


def boots(lab: Lab) -> list[str]:
    return [lab.execute(node, BOOT_TIME.split()).strip() for node in COMPUTE]


def submit(lab: Lab, node: str, seconds: int) -> str:
    job = shell(lab, "head", f"cd /home/ada && runuser -u ada -- sbatch --parsable -w {node} -o /dev/null --wrap 'sleep {seconds}'").strip()
    until(lab, f"squeue -h -j {job} -o %T", "RUNNING")
    return job


def state(lab: Lab, node: str) -> str:
    said = shell(lab, "head", f"sinfo -h -n {node} -o '%T|%E'").strip()
    return said.replace("*|", "|")  # one that does not answer just now


def test_one_after_another_each_drained_and_put_back(cluster: Lab, tmp_path: Path) -> None:
    before, seen, done = boots(cluster), [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(shell(cluster, "head", "sinfo -h -N -o '%N %T %E'"))
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = reboot(cluster, tmp_path, proof=["true"])
    done.set()
    watcher.join()
    assert result.status == 0, result.text
    assert all(result.results["Reboot", node]["rebooted"] for node in COMPUTE)
    assert all(one != other for one, other in zip(before, boots(cluster), strict=True))
    until(cluster, "sinfo -h -o %T", "idle")
    out = [{line.split()[0] for line in moment.splitlines() if REASON in line} for moment in seen]
    assert all({node} in out for node in COMPUTE)
    assert max(map(len, out)) == 1, "two were out of the queues at once"


def test_a_running_job_holds_it_up_and_the_node_is_put_back(cluster: Lab, tmp_path: Path) -> None:
    before, job = boots(cluster), submit(cluster, "node1", 300)
    result = reboot(cluster, tmp_path, ["--limit", "node1"])
    assert result.status == 0, result.text
    assert result.results["Reboot", "node1"]["hindrances"] == [f"the job {job} of Slurm runs"]
    assert result.changed == {"node1": 0}
    assert boots(cluster) == before
    assert state(cluster, "node1").startswith("allocated|none")
    assert shell(cluster, "head", f"squeue -h -j {job} -o %T").strip() == "RUNNING"


def test_a_job_is_waited_for_and_no_new_one_starts(cluster: Lab, tmp_path: Path) -> None:
    before, job = boots(cluster), submit(cluster, "node1", 12)
    late = shell(
        cluster, "head", "cd /home/ada && runuser -u ada -- sbatch --parsable -w node1 -o /dev/null --wrap 'cat /proc/1/stat > boot'"
    ).strip()
    result = reboot(cluster, tmp_path, ["--limit", "node1"], drain_seconds=120, proof=["true"])
    assert result.status == 0, result.text
    assert result.results["Reboot", "node1"]["rebooted"]
    assert boots(cluster)[0] != before[0]
    until(cluster, f"squeue -h -j {late} -o %T", "", 90)
    ended = shell(cluster, "head", f"scontrol --oneliner show job {job}; scontrol --oneliner show job {late}").splitlines()
    assert all("JobState=COMPLETED" in line for line in ended), ended


def test_what_somebody_else_drained_stays_drained(cluster: Lab, tmp_path: Path) -> None:
    shell(cluster, "head", "scontrol update NodeName=node1 State=DRAIN Reason='a broken fan'")
    result = reboot(cluster, tmp_path, ["--limit", "node1"], proof=["true"])
    assert result.status == 0, result.text
    assert result.results["Reboot", "node1"]["rebooted"]
    assert state(cluster, "node1").endswith("|a broken fan")


def test_what_does_not_come_back_sound_stays_drained_until_it_is(cluster: Lab, tmp_path: Path) -> None:
    result = reboot(cluster, tmp_path, ["--limit", "node1"], proof=["sh", "-c", "echo no GPU; exit 9"])
    said = result.results["Reboot", "node1"]
    assert said["rebooted"]
    assert said["drained"]
    assert said["proof"] == "no GPU"
    assert state(cluster, "node1").endswith(f"|{REASON}")
    again = {"name": "Resume", "trainyard.core.slurm_node": {"state": "resumed", "reason": REASON}}
    assert play(cluster, tmp_path, [again], ["--limit", "node1"]).changed == {"node1": 1}
    assert play(cluster, tmp_path, [again], ["--limit", "node1"]).changed == {"node1": 0}
    assert state(cluster, "node1").endswith("|none")


def assert_the_others_were_left_alone(cluster: Lab, result: Play, before: list[str]) -> None:
    for node in COMPUTE[1:]:
        said = result.results["Reboot", node]
        assert (said["rebooted"], said["drained"], said["hindrances"]) == (False, False, [UNSOUND])
        assert result.changed[node] == 0
        assert state(cluster, node) == "idle|none"
    assert boots(cluster)[1:] == before[1:]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_after_the_first_that_is_not_sound_no_other_is_rebooted_until_it_is(
    cluster: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setenv("ANSIBLE_STRATEGY", strategy)
    before = boots(cluster)
    proof = ["sh", "-c", "! test -e /etc/unsound"]
    shell(cluster, "node1", "touch /etc/unsound")
    result = reboot(cluster, tmp_path, proof=proof)
    shell(cluster, "node1", "rm /etc/unsound")
    assert result.results["Reboot", "node1"]["rebooted"]
    assert boots(cluster)[0] != before[0]
    assert state(cluster, "node1").endswith(f"|{REASON}")
    assert_the_others_were_left_alone(cluster, result, before)

    again = reboot(cluster, tmp_path, proof=proof)
    assert all(again.results["Reboot", node]["rebooted"] for node in COMPUTE)
    assert all(one != other for one, other in zip(before, boots(cluster), strict=True))
    until(cluster, "sinfo -h -o '%T|%E' | sort -u", "idle|none")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_after_the_first_that_does_not_come_back_no_other_is_rebooted(
    cluster: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setenv("ANSIBLE_STRATEGY", strategy)
    before = boots(cluster)
    node1 = connect().containers.get(f"trainyard-{cluster.name}-node1")
    node1.update(restart_policy={"Name": "no"})
    try:
        result = reboot(cluster, tmp_path, reboot_timeout=10)
    finally:
        node1.update(restart_policy={"Name": "always"})
        node1.start()
    until(cluster, "scontrol ping > /dev/null && echo up", "up")
    said = result.results["Reboot", "node1"]
    assert said["failed"]
    assert "Timed out waiting for last boot time check" in said["msg"]
    assert "The node node1 stays drained in Slurm until that is mended." in said["msg"]
    assert state(cluster, "node1").endswith(f"|{REASON}")
    end = time.monotonic() + 60
    while shell(cluster, "node1", "systemctl is-active ssh slurmd", check=False).split() != ["active", "active"]:
        assert time.monotonic() < end
        time.sleep(0.5)
    assert_the_others_were_left_alone(cluster, result, before)


def test_a_driver_that_does_not_work_after_the_reboot_reaches_one_node(cluster: Lab, tmp_path: Path) -> None:
    before = boots(cluster)
    unchanged = {"changed": False, "unavailable": []}
    tasks = [
        {
            "name": "Drive",
            "vars": {f"nvidia_driver_{part}_result": unchanged for part in ("packages", "built", "runfile", "nouveau")}
            | {"nvidia_driver_branch": 470, "nvidia_driver_reboot": "now"},
            "environment": {"PATH": "/srv/driver/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            "module_defaults": {
                "trainyard.core.gpu_info": {"root": "/srv/driver/root", "timeout": 2},
                "trainyard.core.node_reboot": {"boot_time_command": BOOT_TIME},
            },
            "block": [
                {"name": "See", "trainyard.core.gpu_info": {}, "register": "nvidia_driver_seen_result"},
                {"name": "Prove", "ansible.builtin.include_role": {"name": "nvidia_driver", "tasks_from": "prove"}},
            ],
        }
    ]
    unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
    for node in COMPUTE:
        put(cluster, node, "/etc/systemd/system/nvidia-persistenced.service", unit.encode())
    checked = play(cluster, tmp_path, tasks, ["--limit", ",".join(COMPUTE), "--check"])
    assert checked.status == 0, checked.text
    assert all(checked.results["nvidia_driver : Reboot into the driver, one node after another", node]["rebooted"] for node in COMPUTE)
    assert boots(cluster) == before

    result = play(cluster, tmp_path, tasks, ["--limit", ",".join(COMPUTE)])
    said = [result.results["nvidia_driver : Stop where the driver does not work", node]["msg"] for node in COMPUTE]
    assert all("the library of 535.261:" in words for words in said)
    assert "not rebooted" not in said[0]
    assert all(words.endswith(f"The node was not rebooted because {UNSOUND}.") for words in said[1:])
    assert boots(cluster)[0] != before[0]
    assert boots(cluster)[1:] == before[1:]
    assert state(cluster, "node1").endswith("|trainyard reboots this node to bring its NVIDIA driver into use")
    assert [state(cluster, node) for node in COMPUTE[1:]] == ["idle|none"] * 2


def test_check_mode_says_it_and_does_nothing(cluster: Lab, tmp_path: Path) -> None:
    before = boots(cluster)
    result = reboot(cluster, tmp_path, ["--limit", "node1", "--check", "--diff"], proof=["true"])
    assert result.status == 0, result.text
    assert result.changed == {"node1": 1}
    assert boots(cluster) == before
    assert state(cluster, "node1") == "idle|none"


def test_somebody_who_is_logged_in_holds_it_up(cluster: Lab, tmp_path: Path) -> None:
    cluster.execute("node1", ["systemd-run", "--uid=ada", "--unit=ada-works", "sleep", "600"])
    result = reboot(cluster, tmp_path, ["--limit", "node1"])
    cluster.execute("node1", ["systemctl", "stop", "ada-works"])
    assert result.results["Reboot", "node1"]["hindrances"] == ["processes of ada run"]
    assert state(cluster, "node1") == "idle|none"


def test_a_controller_that_is_down_is_a_hindrance(cluster: Lab, tmp_path: Path) -> None:
    cluster.execute("head", ["systemctl", "stop", "slurmctld"])
    result = reboot(cluster, tmp_path, ["--limit", "node1"])
    cluster.execute("head", ["systemctl", "start", "slurmctld"])
    (said,) = result.results["Reboot", "node1"]["hindrances"]
    assert said.startswith("Slurm does not answer (")
    until(cluster, "sinfo -h -o %T", "idle")


def test_a_sound_node_that_cannot_be_put_back_is_said_to_be_drained(cluster: Lab, tmp_path: Path) -> None:
    result = reboot(cluster, tmp_path, ["--limit", "node1"], proof=["systemctl", "stop", "munge"])
    cluster.execute("node1", ["systemctl", "start", "munge"])
    said = result.results["Reboot", "node1"]
    assert (said["rebooted"], said["drained"]) == (True, True)
    (warning,) = said["warnings"]
    assert warning.startswith("Slurm does not answer (")
    assert warning.endswith("The node node1 stays drained in Slurm until that is mended.")
    assert state(cluster, "node1").endswith(f"|{REASON}")


def test_a_node_without_slurm_is_simply_rebooted(cluster: Lab, tmp_path: Path) -> None:
    task = {"name": "Drain", "trainyard.core.slurm_node": {"state": "drained"}}
    result = play(cluster, tmp_path, [task], ["--limit", "head"])
    assert result.status == 0, result.text
    assert result.changed == {"head": 0}
    assert result.results["Drain", "head"]["node"] == ""
