# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The cluster as Slurm tells of it: queues and their limits. Nothing here keeps a state of its own."""

from __future__ import annotations

import pwd
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import UNAVAILABLE, RefusedError

UNLIMITED = "UNLIMITED"
RECORDED = 4
"""Looks for a record that is on its way."""
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "SUSPENDED", "REQUEUE_HOLD", "SPECIAL_EXIT"}
OPEN = {*WAITING, "RUNNING", "COMPLETING", "STOPPED"}


@dataclass(frozen=True)
class Queue:
    """A partition of Slurm's.

    Attributes:
        name: as ``--where`` takes it.
        default: whether jobs go there that name no queue.
        limit: seconds that a job may run; None for no limit.
        nodes: how many nodes it has.
        cores: cores of its smallest node.
        gpus: GPUs of the node that has fewest; 0 where one has none.
        open: whether it takes jobs.
    """

    name: str
    default: bool
    limit: int | None
    nodes: int
    cores: int
    gpus: int
    open: bool

    def __str__(self) -> str:
        """Say it as in a list of what there is."""
        limit = "no time limit" if self.limit is None else f"up to {duration(self.limit)}"
        gpus = f", {self.gpus} GPUs each" if self.gpus else ""
        return f"{self.name} ({limit}, {self.nodes} node{'s' if self.nodes != 1 else ''}, {self.cores} cores each{gpus})"


@dataclass(frozen=True)
class Allocation:
    """What Slurm has given to the shell that this runs in.

    Attributes:
        job: its number.
        nodes: how many.
        cores: on the node with fewest.
        gpus: on each node.
    """

    job: str
    nodes: int
    cores: int
    gpus: int


def allocation(environment: Mapping[str, str]) -> Allocation:
    """Return the allocation that variables of Slurm's describe.

    Raises:
        RefusedError: there is none.
    """
    if "SLURM_JOB_ID" not in environment:
        raise RefusedError("--here: this shell is in no allocation. Begin one, such as: salloc --nodes 2")
    return Allocation(
        environment["SLURM_JOB_ID"],
        int(environment["SLURM_JOB_NUM_NODES"]),
        min(int(part.partition("(")[0]) for part in environment["SLURM_JOB_CPUS_PER_NODE"].split(",")),
        int(environment.get("SLURM_GPUS_PER_NODE", "0").rpartition(":")[2]),
    )


def seconds(words: str) -> int:
    """Return the seconds of a time in one of Slurm's forms: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S.

    Raises:
        ValueError: it has none of them.
    """
    form = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", words)
    if not form:
        raise ValueError(words)
    days, *parts = (None if part is None else int(part) for part in form.groups())
    given = [part for part in parts if part is not None]
    if days is not None:
        hours, minutes, rest = [*given, 0, 0][:3]
    elif len(given) == 3:
        hours, minutes, rest = given
    else:
        hours, minutes, rest = 0, *[*given, 0][:2]
    return (days or 0) * 86400 + hours * 3600 + minutes * 60 + rest


def duration(count: int) -> str:
    """Return seconds as Slurm prints them, such as 1-12:00:00 or 00:30:00."""
    days, rest = divmod(count, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def ask(command: Sequence[str]) -> str:
    """Run one of Slurm's commands and return what it printed.

    Raises:
        RefusedError: Slurm is not there, or says no.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        raise RefusedError(f"{command[0]} is not installed: this machine is not in a Slurm cluster.", UNAVAILABLE) from error
    except subprocess.TimeoutExpired as error:
        raise RefusedError(
            f"{command[0]} did not answer within a minute: is the cluster's controller up? Ask: scontrol ping", UNAVAILABLE
        ) from error
    if done.returncode:
        raise RefusedError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}", UNAVAILABLE)
    return done.stdout


QUEUES = ["sinfo", "--noheader", "--format=%R|%l|%D|%c|%G|%a|%P"]


def queues() -> dict[str, Queue]:
    """Return name -> queue, for those that this user may use, in Slurm's order.

    Raises:
        RefusedError: Slurm does not answer.
    """
    return parse_queues(ask(QUEUES))


def parse_queues(printed: str) -> dict[str, Queue]:
    """Read what `QUEUES` prints: a line for each queue and sort of node."""
    found: dict[str, Queue] = {}
    for line in printed.splitlines():
        name, limit, nodes, cores, resources, available, marked = line.strip().split("|")
        part = Queue(
            name=name,
            default=marked.endswith("*"),
            limit=None if limit == "infinite" else seconds(limit),
            nodes=int(nodes),
            cores=int(cores.rstrip("+")),
            gpus=gpus(resources),
            open=available == "up",
        )
        before = found.get(name)
        if before:
            part = Queue(
                name,
                part.default,
                part.limit,
                before.nodes + part.nodes,
                min(before.cores, part.cores),
                min(before.gpus, part.gpus),
                part.open,
            )
        found[name] = part
    return found


def nodes(queue: str) -> set[str]:
    """Return the names of a queue's nodes.

    Raises:
        RefusedError: Slurm does not answer.
    """
    return set(ask(["sinfo", "--noheader", "--Node", f"--partition={queue}", "--format=%N"]).split())


def gpus(resources: str) -> int:
    """Return how many GPUs stand in a node's generic resources, such as ``gpu:a100:4(S:0-1),gpu:t4:1``."""
    return sum(int(count) for count in re.findall(r"gpu(?::[^:,(]+)?:(\d+)", resources))


def addresses(nodes: Sequence[str]) -> list[str]:
    """Return the addresses of nodes as Slurm has them: a node need not know a new one by name.

    Raises:
        RefusedError: Slurm does not answer.
    """
    return parse_addresses(nodes, ask(["scontrol", "--oneliner", "show", "node", ",".join(nodes)]))


def parse_addresses(nodes: Sequence[str], printed: str) -> list[str]:
    """Read what ``scontrol --oneliner show node`` prints; a node without an address stands for itself."""
    found = dict(re.findall(r"^NodeName=(\S+).*? NodeAddr=(\S+)", printed, re.MULTILINE))
    return [found.get(node, node) for node in nodes]


def state(job: str) -> dict[str, str]:
    """Return what the controller says of a job, by its own names; empty where it knows none any more."""
    done = subprocess.run(["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True, timeout=60, check=False)
    return dict(re.findall(r"(\S+?)=(\S*)", done.stdout)) if not done.returncode else {}


def is_ending(job: str) -> bool:
    """Whether a job still has something running, though the controller says how it ended: it says so before the nodes are done."""
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%T"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "COMPLETING" in done.stdout.split()


def canceller(job: str) -> str:
    """Return the name of whoever ended a job; '' where the cluster keeps no records that say so."""
    command = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State"]
    for again in range(RECORDED):
        time.sleep(again / 2)  # the controller sends its records in the background
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        if done.returncode:
            return ""
        if found := re.search(r"CANCELLED by (\d+)", done.stdout):
            return _user(int(found[1]))
    return ""


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def unfinished() -> set[str]:
    """Return the numbers of this user's jobs that have not ended.

    Raises:
        RefusedError: Slurm does not answer.
    """
    return set(ask(["squeue", "--me", "--noheader", "--format=%A"]).split())


def tasks(job: str) -> dict[int, str]:
    """Return number -> ``waiting`` or ``running``, for the tasks of this user's array job that have not ended.

    Raises:
        RefusedError: Slurm does not answer.
    """
    return parse_tasks(job, ask(["squeue", "--me", "--array", "--noheader", "--format=%F|%K|%T"]))


def parse_tasks(job: str, printed: str) -> dict[int, str]:
    """Read what squeue prints of tasks: the array job's number, the task's and its state."""
    rows = (line.strip().split("|") for line in printed.splitlines())
    return {int(task): "waiting" if state in WAITING else "running" for number, task, state in rows if number == job and task.isdecimal()}


def ended_tasks(job: str) -> dict[int, tuple[str, str]]:
    """Return number -> (state, exit code), for the tasks of an array job that ended and that the controller still knows."""
    try:
        return parse_ended_tasks(ask(["scontrol", "--oneliner", "show", "job", job])) if job else {}
    except RefusedError:
        return {}


def parse_ended_tasks(printed: str) -> dict[int, tuple[str, str]]:
    """Read what ``scontrol --oneliner show job`` prints of an array job."""
    found = {}
    for line in printed.splitlines():
        words = dict(re.findall(r"(\S+?)=(\S*)", line))
        if words.get("ArrayTaskId", "").isdecimal() and words.get("JobState") not in OPEN:
            found[int(words["ArrayTaskId"])] = (words["JobState"], words["ExitCode"])
    return found
