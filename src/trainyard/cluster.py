"""A cluster as its controller sees it: nodes and jobs, asked and told there, and the proof of a node that is yet closed."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible_collections.trainyard.core.plugins.module_utils import _slurm as slurm
from ansible_collections.trainyard.core.plugins.module_utils import _slurm_conf as slurm_conf
from ansible_collections.trainyard.core.plugins.module_utils._host import reported
from ansible_collections.trainyard.core.plugins.module_utils._report import what_to_do

from trainyard import runner
from trainyard.errors import TrainyardError, UsageError
from trainyard.hosts_file import HostsFile, locate

RECORD = "/var/lib/trainyard/slurm/nodes.json"
TRAINING = "/usr/local/lib/trainyard/training/run"
"""What the role training has on every node."""
POLL = 2.0
DURATION = re.compile(r"(?P<number>\d+)(?P<unit>[smhd]?)\Z")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Verdict(Enum):
    """How a proof ended."""

    PROVEN = "proven"
    FAILED = "failed"
    NO_ROOM = "no room"


@dataclass(frozen=True)
class Proof:
    """A verdict, and what was printed on the way there."""

    verdict: Verdict
    output: str


class Cluster:
    """The controller of an inventory's cluster.

    Raises:
        TrainyardError: the inventory names none.
    """

    def __init__(self, inventory: Path) -> None:
        self.inventory = inventory
        self.file = HostsFile(locate(inventory).read_text())
        self.controller = self.file.controller()

    def ask(self, script: str) -> str:
        """Run a script as root on the controller, and return what it printed.

        Raises:
            TrainyardError: it failed, or the controller was not reached.
        """
        status, output, errors = shell(self.inventory, [self.controller], script)[self.controller]
        if status:
            raise TrainyardError(f"On the controller {self.controller}: {(errors or output).strip()[-1000:]}")
        return output

    @cached_property
    def _record(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads(self.ask(f"cat {RECORD} 2>/dev/null || true") or "{}")
        return found

    @property
    def known(self) -> dict[str, str]:
        """Return the nodes that Slurm has: name in the inventory -> name in Slurm."""
        try:
            return {name: reported.host_name(name, node["host"]) for name, node in self._record.items()}
        except reported.ReportedError as error:
            raise TrainyardError(f"{RECORD} on {self.controller}: {error}") from error

    def gpus(self) -> dict[str, list[str]]:
        """Return the types of each node's GPUs, as Slurm has them."""
        return {name: list(node.get("gpus") or []) for name, node in self._record.items()}

    def confined(self, but: str = "") -> bool:
        """Return whether jobs are held in cgroups on all nodes, one left aside."""
        others = [node for name, node in self._record.items() if name != but]
        return bool(others) and not any(node.get("unconfined") for node in others)

    def host(self, node: str) -> str:
        """Return a node's name in Slurm.

        Raises:
            TrainyardError: Slurm does not have it.
        """
        if node not in self.known:
            raise TrainyardError(f"{node} is no node of the cluster. Its nodes: {', '.join(self.known) or 'none'}")
        return self.known[node]

    def state(self, node: str) -> slurm.Node:
        """Return a node as Slurm has it now."""
        found = slurm.parse_nodes(self.ask(f"LC_ALL=C scontrol --oneliner show node {shlex.quote(self.host(node))}"))
        if not found:
            raise TrainyardError(f"Slurm does not know {node} ({self.host(node)}). Bring it there with: ./trainyard apply")
        return found[0]

    def jobs(self, node: str) -> list[str]:
        """Return the jobs that have something of a node, each with its user and name."""
        states = "RUNNING,COMPLETING,CONFIGURING,SUSPENDED,STOPPED"
        return self.ask(f"squeue --all -h --states={states} -w {shlex.quote(self.host(node))} -o '%i (%u, %j)'").splitlines()

    def drain(self, node: str, reason: str) -> bool:
        """Let no new job start on a node; return whether it did so far. Whoever drained it before keeps his reason."""
        if self.state(node).drains:
            return False
        self.ask(f"scontrol update NodeName={shlex.quote(self.host(node))} State=DRAIN Reason={shlex.quote(reason)}")
        return True

    def resume(self, node: str) -> bool:
        """Let jobs start on a node again; return whether it was drained or down."""
        state = self.state(node)
        if not state.drains and not state.flags & {"DOWN", "FAIL", "FAILING"}:
            return False
        self.ask(f"scontrol update NodeName={shlex.quote(self.host(node))} State=RESUME")
        return True

    def kill_jobs(self, node: str) -> None:
        """End the jobs of a node."""
        self.ask(f"squeue --all -h -w {shlex.quote(self.host(node))} -o %i | xargs -r scancel")

    def wait_for_jobs(self, node: str, seconds: float, say: Callable[[str], None]) -> list[str]:
        """Wait until a node has no job; return those that are left when the time is over."""
        end, before = time.monotonic() + seconds, list[str]()
        while jobs := self.jobs(node):
            if jobs != before:
                say(f"{node}: waiting for {'the job' if len(jobs) == 1 else 'the jobs'} {', '.join(jobs)}")
                before = jobs
            if time.monotonic() >= end:
                return jobs
            time.sleep(POLL)
        return []

    def queues(self, node: str) -> list[str]:
        """Return the queues that a node stands in, but that of the proofs."""
        found = self.ask(f"sinfo --all -h -n {shlex.quote(self.host(node))} -o %R").split()
        return [name for name in dict.fromkeys(found) if name != slurm_conf.PROOF_QUEUE]

    def proof(self, node: str, seconds: int) -> Proof:
        """Prove a closed node by a job of two nodes, it and whichever other one has a free core first, waiting so long at most.

        They meet over the network, then train the first framework that both have, on a GPU each where both have one.
        """
        gpus = self.gpus()
        paired = gpus.get(node) and any(found for other, found in gpus.items() if other != node)
        words = [
            "salloc",
            f"--partition={slurm_conf.PROOF_QUEUE}",
            f"--nodelist={self.host(node)}",
            *("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--time=15", "--chdir=/"),
            *(f"--immediate={seconds}", "--job-name=trainyard_proof", *(["--gpus-per-node=1"] if paired else [])),
            *(TRAINING, "prove"),
        ]
        status, output, errors = shell(self.inventory, [self.controller], shlex.join(words))[self.controller]
        text = "\n".join(part.strip() for part in (output, errors) if part.strip())
        if not status:
            return Proof(Verdict.PROVEN, text)
        return Proof(Verdict.FAILED if output or not NO_ROOM.search(errors) else Verdict.NO_ROOM, text)


NO_ROOM = re.compile(r"Requested nodes are busy|[Tt]imed out|revoked|Immediate execution impossible")


def shell(inventory: Path, hosts: Sequence[str], script: str) -> dict[str, tuple[int, str, str]]:
    """Run a script as root on hosts; return the status, output and errors of each.

    Raises:
        TrainyardError: one was not reached, or does not let us become root.
    """
    found = {}
    for host, said in runner.module(inventory, hosts, "ansible.builtin.shell", {"cmd": script, "executable": "/bin/bash"}).items():
        if said["unreachable"] or "rc" not in said:
            what = str(said.get("msg") or said.get("module_stderr") or "no answer").strip()[-1000:]
            raise TrainyardError(f"{host} was not reached, or not as root: {what}\n-> {what_to_do(what, host)}")
        found[host] = (int(said["rc"]), str(said.get("stdout", "")), str(said.get("stderr", "")))
    return found


def seconds(text: str) -> int:
    """Return the seconds of words such as 90s, 30m, 1h or 2d.

    Raises:
        UsageError: they are none.
    """
    found = DURATION.match(text)
    if not found:
        raise UsageError(f"'{text}' is no duration such as 90s, 30m, 1h or 2d")
    return int(found["number"]) * SECONDS[found["unit"]]
