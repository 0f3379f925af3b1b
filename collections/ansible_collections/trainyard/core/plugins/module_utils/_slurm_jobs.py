# Copyright (c) Trainyard contributors
# Simplified BSD License (see https://opensource.org/licenses/BSD-2-Clause)
"""Which changes of slurm.conf would cost jobs, and which jobs.

What Slurm does to jobs by such a change was tried with 22.05: a job whose queue or requested node has gone ends as NODE_FAIL, whether it
runs or waits. A job on a node that has gone, or that has other cores than before, goes back into the queue and starts again. A job survives
that its node leaves the queue, and lower time limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Names = frozenset[str]
Expand = Callable[[str], Names]

SQUEUE = ("squeue", "--all", "--noheader", "--states=all", "--format=%i|%u|%T|%P|%N|%n")
"""Asks for what :func:`parse_jobs` reads."""
SHOW_NODE = ("scontrol", "--oneliner", "--details", "show", "node")
"""Asks for what :func:`parse_use` reads."""
NAMED = 10
"""How many jobs a message names."""

_ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}
_WAITING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
_PART = re.compile(r"([A-Za-z]+)=(\"[^\"]*\"|\S*)")
_CORES = ("CPUs", "Boards", "SocketsPerBoard", "CoresPerSocket", "ThreadsPerCore")

_STATE_KEYS = {"ClusterName": "", "StateSaveLocation": "", "SelectType": "", "SwitchType": "switch/none", "AuthType": "", "CredType": ""}
"""Keys by which Slurm reads what it keeps of all jobs, with Slurm's own value for those that may be missing."""
_RUN_KEYS = {
    "SelectTypeParameters": "",
    "AccountingStorageType": "accounting_storage/none",
    "JobAcctGatherType": "jobacct_gather/none",
    "SlurmdSpoolDir": "",
    "SlurmctldPort": "6817",
    "SlurmdPort": "6818",
}
"""Keys by which the daemons and the processes of running jobs understand each other."""
_VARIABLES = {"ClusterName": "slurm_cluster_name", "AccountingStorageType": "slurm_accounting", "JobAcctGatherType": "slurm_accounting"}


@dataclass(frozen=True)
class Job:
    """A job that has not ended.

    Attributes:
        number: as Slurm prints it, such as ``12`` or ``12_[3-9]``.
        user: whose it is.
        state: Slurm's word for it.
        queues: those that it may run in.
        nodes: those that it has.
        requested: those that it cannot do without.
    """

    number: str
    user: str
    state: str
    queues: Names
    nodes: Names
    requested: Names

    @property
    def waits(self) -> bool:
        """Whether it has nothing of any node."""
        return self.state in _WAITING

    @property
    def is_ending(self) -> bool:
        """Whether only its cleaning up is left."""
        return self.state == "COMPLETING"

    def __str__(self) -> str:
        """Return number, user and state, as a message names it."""
        return f"{self.number} ({self.user}, {'waiting' if self.waits else 'ending' if self.is_ending else 'running'})"


@dataclass(frozen=True)
class Use:
    """What the jobs of a node use: memory in MiB, and whether any has a GPU."""

    memory: int = 0
    gpus: bool = False


@dataclass(frozen=True)
class Change:
    """A change that costs the jobs which it concerns.

    Attributes:
        variable: the one of the role that asks for it.
        what: what changes, a sentence without its end.
        advice: what to do besides waiting for the jobs; empty for nothing.
        concerns: tells of a job, and of the use of all nodes, whether it would be lost or disturbed.
    """

    variable: str
    what: str
    advice: str
    concerns: Callable[[Job, Mapping[str, Use]], bool]


def parse_jobs(text: str, expand: Expand) -> list[Job]:
    """Read what :data:`SQUEUE` prints, in the order of their numbers; jobs that have ended are left out.

    Args:
        text: the output.
        expand: names of nodes as Slurm shortens them (``node[1-3]``) -> each of them.
    """
    found = []
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 6 or parts[2] in _ENDED:
            continue
        number, user, state, queues, nodes, requested = parts
        found.append(
            Job(number, user, state, frozenset(queues.split(",")), *(expand(each) if each else frozenset() for each in (nodes, requested)))
        )
    return sorted(found, key=lambda job: int(re.split(r"\D", job.number)[0] or 0))


def parse_use(text: str) -> dict[str, Use]:
    """Read what :data:`SHOW_NODE` prints: the use of each node by its name."""
    found = {}
    for line in text.splitlines():
        words = dict(word.partition("=")[::2] for word in line.split())
        if words.get("NodeName"):
            memory, gpus = words.get("AllocMem", ""), re.findall(r"gpu(?::[^:,(]+)?:(\d+)", words.get("GresUsed", ""))
            found[words["NodeName"]] = Use(int(memory) if memory.isdigit() else 0, any(map(int, gpus)))
    return found


def queues(text: str) -> dict[str, dict[str, str]]:
    """Return the queues of a slurm.conf, each with the parts of its line, name first."""
    return _described(text, "PartitionName")


def value(text: str, key: str) -> str:
    """Return a key's value in a slurm.conf; empty where it has none."""
    found = re.search(rf"(?mi)^{key}=(.*)$", text)
    return found[1].strip() if found else ""


def changes(running: str, wanted: str, leaving: Sequence[str] = ()) -> list[Change]:
    """Return what could cost jobs where Slurm's controller goes over from one slurm.conf to another.

    Args:
        running: the text that the controller runs with; empty where there was none.
        wanted: the new text.
        leaving: nodes whose running jobs somebody waits for before the change is made.
    """
    if not running:
        return []
    return [*_of_values(running, wanted), *_of_queues(running, wanted), *_of_nodes(running, wanted, leaving)]


def losses(found: Sequence[Change], jobs: Sequence[Job], use: Mapping[str, Use]) -> list[tuple[Change, list[Job]]]:
    """Return those changes that cost jobs, each with the jobs."""
    pairs = [(change, [job for job in jobs if change.concerns(job, use)]) for change in found]
    return [(change, hit) for change, hit in pairs if hit]


def refusal(lost: Sequence[tuple[Change, list[Job]]]) -> str:
    """Return why changes are refused: each with its variable and its jobs, and what to do."""
    said = [f"{change.variable}: {change.what}, and {listed(jobs)} would be lost or start again." for change, jobs in lost]
    advice = dict.fromkeys(change.advice for change, _jobs in lost if change.advice)
    return " ".join([*said, "Nothing was changed. Wait until these jobs have ended, or end them (scancel).", *advice])


def listed(jobs: Sequence[Job]) -> str:
    """Return jobs as a message names them."""
    named = ", ".join(map(str, jobs[:NAMED])) + (f" and {len(jobs) - NAMED} more" if len(jobs) > NAMED else "")
    return f"the {'job' if len(jobs) == 1 else 'jobs'} {named}"


def _described(text: str, key: str) -> dict[str, dict[str, str]]:
    parts = (dict(_PART.findall(line)) for line in text.splitlines() if line.startswith(f"{key}="))
    return {each[key]: each for each in parts}


def _of_values(running: str, wanted: str) -> list[Change]:
    found: dict[str, Change] = {}
    for keys, also_waiting in ((_STATE_KEYS, True), (_RUN_KEYS, False)):
        for key, default in keys.items():
            before, after = (value(text, key) or default for text in (running, wanted))
            variable = _VARIABLES.get(key, "slurm_config")
            # One request may change several keys: it is named once.
            if before.lower() != after.lower():
                what = f"{key} would change from {before or 'nothing'} to {after or 'nothing'}"
                found.setdefault(variable if variable != "slurm_config" else key, Change(variable, what, "", _any(also_waiting)))
    return list(found.values())


def _any(also_waiting: bool) -> Callable[[Job, Mapping[str, Use]], bool]:
    return lambda job, _use: also_waiting or not job.waits


def _of_queues(running: str, wanted: str) -> list[Change]:
    def of_queue(name: str) -> Change:
        proof = "RootOnly" in before[name]
        advice = "" if proof else "With slurm_removed_partitions: wait the queue takes no new jobs and goes once it is empty."
        return Change(
            "slurm_closed" if proof else "slurm_partitions",
            f"the queue '{name}' would go",
            advice,
            lambda job, _use: name in job.queues,
        )

    before, after = queues(running), queues(wanted)
    return [of_queue(name) for name in before if name not in after]


def _of_nodes(running: str, wanted: str, leaving: Sequence[str]) -> list[Change]:
    def gone(name: str) -> Change:
        waited_for = name in leaving
        return Change(
            "slurm_computes",
            f"the node {name} would leave the cluster",
            "./trainyard remove-node waits for the jobs that run on a node.",
            lambda job, _use: (name in job.nodes and not waited_for) or (job.waits and name in job.requested),
        )

    def other_cores(name: str) -> Change:
        what = f"the cores of {name} would change ({_cores(before[name])} to {_cores(after[name])})"
        return Change("slurm_computes", what, f"./trainyard drain {name} keeps new jobs away.", lambda job, _use: name in job.nodes)

    def less_memory(name: str, memory: int) -> Change:
        return Change(
            "slurm_memory_margin",
            f"jobs could have {memory} MiB of {name} instead of {before[name]['RealMemory']}, less than those there have",
            "",
            lambda job, use: name in job.nodes and use.get(name, Use()).memory > memory,
        )

    def other_gpus(name: str) -> Change:
        return Change(
            "slurm_gpus",
            f"the GPUs of {name} would change from {before[name].get('Gres', 'none')} to {after[name].get('Gres', 'none')}",
            "",
            lambda job, use: name in job.nodes and use.get(name, Use()).gpus,
        )

    before, after = _described(running, "NodeName"), _described(wanted, "NodeName")
    found = [gone(name) for name in before if name not in after]
    for name in (each for each in before if each in after):
        if _cores(before[name]) != _cores(after[name]):
            found.append(other_cores(name))
        memory = int(after[name]["RealMemory"])
        if memory < int(before[name]["RealMemory"]):
            found.append(less_memory(name, memory))
        if before[name].get("Gres") != after[name].get("Gres"):
            found.append(other_gpus(name))
    return found


def _cores(node: Mapping[str, str]) -> str:
    return " ".join(f"{key}={node[key]}" for key in _CORES if key in node)
