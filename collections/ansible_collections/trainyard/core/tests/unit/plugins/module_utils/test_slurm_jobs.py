"""Which changes of slurm.conf cost which jobs, judged on what Slurm 22.05 printed."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trainyard.core.plugins.module_utils import _slurm_conf as slurm_conf
from ansible_collections.trainyard.core.plugins.module_utils import _slurm_jobs as slurm_jobs

# squeue: a job on two nodes, an array that waits, one that asks for a node and two queues, one that ends, one that has ended.
JOBS = """\
8|bob|PENDING|main,spare||node2
7_[3-9]|bob|PENDING|spare||
4|ada|RUNNING|main|node[1-2]|
9|ada|COMPLETING|main|node1|
5|ada|NODE_FAIL|main||
"""
EXPANDED = {"node[1-2]": ["node1", "node2"], "node1": ["node1"], "node2": ["node2"]}
USE = """\
NodeName=node1 CPUAlloc=2 CPUTot=2 Gres=gpu:a100:2 GresDrain=N/A GresUsed=gpu:a100:0(IDX:N/A) RealMemory=3800 AllocMem=10 Sockets=1
NodeName=node2 Arch=x86_64 CPUAlloc=1 CPUTot=2 Gres=gpu:a100:2 GresDrain=N/A GresUsed=gpu:a100:1(IDX:1),gpu:t4:0(IDX:N/A) AllocMem=2000
"""
HARDWARE = {"CPUs": 2, "Boards": 1, "SocketsPerBoard": 1, "CoresPerSocket": 2, "ThreadsPerCore": 1, "RealMemory": 4000}
QUEUES = [{"name": "main"}, {"name": "spare"}]


def jobs() -> list[slurm_jobs.Job]:
    return slurm_jobs.parse_jobs(JOBS, lambda short: frozenset(EXPANDED[short]))


def node(host: str, gpus: int = 2, **hardware: int) -> dict[str, Any]:
    return {"host": host, "address": "192.0.2.1", "hardware": {**HARDWARE, **hardware}, "unconfined": "", "gpus": ["a100"] * gpus}


def conf(**more: Any) -> str:
    given = {"cluster": "lab", "nodes": {}, "queues": QUEUES, "config": {}, "margin": 5, "closed": [], "emptied": [], **more}
    nodes = {"node1": node("node1"), "node2": node("node2"), **given["nodes"]}
    nodes = {name: each for name, each in nodes.items() if each}
    return slurm_conf.files(
        given["cluster"], "head", nodes, given["queues"], given["config"], given["margin"], given["closed"], (), given["emptied"]
    )["slurm.conf"]


def lost(wanted: str, leaving: tuple[str, ...] = (), running: str = "") -> dict[str, list[str]]:
    """Return variable -> numbers of the jobs that a change of the plain configuration costs."""
    found = slurm_jobs.changes(running or conf(), wanted, leaving)
    return {change.variable: [job.number for job in hit] for change, hit in slurm_jobs.losses(found, jobs(), slurm_jobs.parse_use(USE))}


def test_jobs_are_read_and_those_that_have_ended_are_left_out() -> None:
    assert [str(job) for job in jobs()] == ["4 (ada, running)", "7_[3-9] (bob, waiting)", "8 (bob, waiting)", "9 (ada, ending)"]
    assert jobs()[0].nodes == {"node1", "node2"}
    assert jobs()[2].queues == {"main", "spare"}


def test_what_jobs_use_of_a_node() -> None:
    assert slurm_jobs.parse_use(USE) == {"node1": slurm_jobs.Use(10, False), "node2": slurm_jobs.Use(2000, True)}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, {}),
        ({"queues": [{"name": "main", "max_time": "1", "nodes": ["node1"], "options": {"AllowGroups": "lab"}}, QUEUES[1]]}, {}),
        ({"config": {"KillWait": 5, "MaxJobCount": 1}}, {}),
        ({"queues": QUEUES[:1]}, {"slurm_partitions": ["7_[3-9]", "8"]}),
        ({"nodes": {"node2": None}}, {"slurm_computes": ["4", "8"]}),
        ({"nodes": {"node2": node("node2", CPUs=4, CoresPerSocket=4)}}, {"slurm_computes": ["4"]}),
        ({"nodes": {"node2": node("node2", RealMemory=2200)}}, {}),
        ({"nodes": {"node2": node("node2", RealMemory=2000)}}, {"slurm_memory_margin": ["4"]}),
        ({"nodes": {"node2": node("node2", gpus=1)}}, {"slurm_gpus": ["4"]}),
        ({"nodes": {"node1": node("node1", gpus=1)}}, {}),
        ({"cluster": "other"}, {"slurm_cluster_name": ["4", "7_[3-9]", "8", "9"]}),
        ({"config": {"selecttype": "select/linear"}}, {"slurm_config": ["4", "7_[3-9]", "8", "9"]}),
        ({"config": {"SelectTypeParameters": "CR_Core"}}, {"slurm_config": ["4", "9"]}),
        ({"config": {"AccountingStorageType": "accounting_storage/slurmdbd"}}, {"slurm_accounting": ["4", "9"]}),
        ({"config": {"SlurmdPort": 6818}}, {}),
        ({"config": {"SlurmdPort": 7000}}, {"slurm_config": ["4", "9"]}),
    ],
)
def test_what_a_change_costs(change: dict[str, Any], found: dict[str, list[str]]) -> None:
    assert lost(conf(**change)) == found


def test_where_nothing_ran_nothing_is_lost() -> None:
    assert slurm_jobs.changes("", conf()) == []


def test_of_a_node_whose_jobs_somebody_waits_for_only_those_that_cannot_do_without_it_are_lost() -> None:
    assert lost(conf(nodes={"node2": None}), leaving=("node2",)) == {"slurm_computes": ["8"]}


def test_a_queue_that_waits_keeps_its_nodes_and_gives_way_as_before() -> None:
    before = conf(queues=[QUEUES[0], {"name": "spare", "preemptible": True, "nodes": ["node1", "node2"]}])
    wanted = conf(queues=QUEUES[:1], nodes={"node1": None}, emptied=[slurm_jobs.queues(before)["spare"]])
    assert wanted.splitlines()[-1] == (
        "PartitionName=spare Nodes=node2 Default=NO MaxTime=UNLIMITED PriorityTier=10 PriorityJobFactor=10 PreemptMode=REQUEUE State=DRAIN"
    )
    assert "PreemptType=preempt/partition_prio" in wanted
    assert lost(wanted, leaving=("node1",), running=before) == {}
    assert conf(queues=QUEUES[:1], nodes={"node1": None}, emptied=[slurm_jobs.queues(wanted)["spare"]]) == wanted


def test_the_refusal_names_variables_jobs_and_what_helps() -> None:
    hit = slurm_jobs.losses(slurm_jobs.changes(conf(), conf(queues=QUEUES[:1])), jobs(), {})
    assert slurm_jobs.refusal(hit) == (
        "slurm_partitions: the queue 'spare' would go, and the jobs 7_[3-9] (bob, waiting), 8 (bob, waiting) would be lost or start again. "
        "Nothing was changed. Wait until these jobs have ended, or end them (scancel). With slurm_removed_partitions: wait the queue takes "
        "no new jobs and goes once it is empty."
    )
    many = [slurm_jobs.Job(str(number), "ada", "RUNNING", frozenset(), frozenset(), frozenset()) for number in range(12)]
    assert slurm_jobs.listed(many).endswith("9 (ada, running) and 2 more")
