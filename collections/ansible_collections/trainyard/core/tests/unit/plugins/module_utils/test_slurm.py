"""What ``scontrol --oneliner show nodes`` of Slurm 22.05.8 printed in containers with Debian 12; states and reasons are varied."""

from __future__ import annotations

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _slurm as slurm

LINE = (
    "NodeName=node1 Arch=x86_64 CoresPerSocket=1  CPUAlloc=0 CPUEfctv=1 CPUTot=1 CPULoad=9.82 AvailableFeatures=(null) "
    "ActiveFeatures=(null) Gres=(null) NodeAddr=node1 NodeHostName=node1 Version=22.05.8 OS=Linux 6.18.44 #1 SMP PREEMPT_DYNAMIC @0  "
    "RealMemory=1 AllocMem=0 FreeMem=16266 Sockets=1 Boards=1 State={state} ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A "
    "Partitions=all  BootTime=2026-11-20T23:03:59 SlurmdStartTime=2026-11-21T14:57:33 LastBusyTime=2026-11-21T14:57:22 "
    "CfgTRES=cpu=1,mem=1M,billing=1 AllocTRES= CapWatts=n/a CurrentWatts=0 AveWatts=0 ExtSensorsJoules=n/s ExtSensorsWatts=0 "
    "ExtSensorsTemp=n/s{reason}"
)


@pytest.mark.parametrize(
    "state, reason, drains, why",
    [
        ("IDLE", "", False, ""),
        ("MIXED", "", False, ""),
        ("IDLE+DRAIN", " Reason=broken fan [root@2026-01-05T10:00:00]", True, "broken fan"),
        ("ALLOCATED+DRAIN", " Reason=State=odd is a reason too [ada@2026-01-05T10:00:00]", True, "State=odd is a reason too"),
        ("DOWN+DRAIN+NOT_RESPONDING", " Reason=Not responding [slurm@2026-01-05T10:00:00] Comment=see the wiki", True, "Not responding"),
        ("DOWN*+DRAIN", " Reason=trainyard works on this node", True, "trainyard works on this node"),
    ],
)
def test_states_and_reasons(state: str, reason: str, drains: bool, why: str) -> None:
    (node,) = slurm.parse_nodes(LINE.format(state=state, reason=reason) + "\n")
    assert (node.name, node.host, node.drains, node.reason) == ("node1", "node1", drains, why)


def test_no_nodes_and_what_is_not_one() -> None:
    assert slurm.parse_nodes("") == []
    assert slurm.parse_nodes("No nodes in the system\n") == []


def test_the_host_may_have_another_name() -> None:
    (node,) = slurm.parse_nodes("NodeName=gpu07 NodeHostName=dgx-7.lab.example State=IDLE")
    assert (node.name, node.host) == ("gpu07", "dgx-7.lab.example")


@pytest.mark.parametrize(
    ("state", "heard"),
    [
        ("IDLE", True),
        ("MIXED+DRAIN", True),
        ("DOWN", True),  # by an admin's hand; it answers
        ("IDLE+CLOUD", True),
        ("UNKNOWN", False),
        ("UNKNOWN*", False),
        ("IDLE+NOT_RESPONDING", False),
        ("DOWN+NOT_RESPONDING", False),
        ("COMPLETING+NOT_RESPONDING", False),
        ("DOWN*", False),
        ("IDLE*+DRAIN", False),
    ],
)
def test_a_node_that_does_not_respond_is_not_heard(state: str, heard: bool) -> None:
    text = f"NodeName=node1 Arch=x86_64 CoresPerSocket=1 NodeAddr=192.0.2.1 State={state} ThreadsPerCore=1 Reason=State=x\n"
    assert slurm.unheard(text) == ("" if heard else f"State={state}")


def test_a_node_that_slurm_does_not_have_is_not_heard() -> None:
    assert slurm.unheard("Node node9 not found\n") == "Slurm has no such node"


@pytest.mark.parametrize(
    "texts, controller",
    [
        (["ClusterName=lab\nSlurmctldHost=head(192.0.2.1)\n"], "head"),
        (["", '# theirs\nSLURMD_OPTIONS="--conf-server elsewhere:6817"\n'], "elsewhere:6817"),
        (['[Service]\nEnvironment="SLURMD_OPTIONS=--conf-server head"\n'], "head"),
        (["SLURMD_OPTIONS=-D --conf-server=head.lab.example:6817\n"], "head.lab.example:6817"),
        (["# --conf-server head\n#SlurmctldHost=head\n"], ""),
        ([], ""),
    ],
)
def test_the_controller_that_a_node_obeys(texts: list[str], controller: str) -> None:
    assert slurm.controller_of(texts) == controller
