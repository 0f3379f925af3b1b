#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node of a Slurm cluster, taken out of the queues and put back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_node
short_description: Takes the node that it runs on out of Slurm's queues, and puts it back
version_added: 0.1.0
description:
  - Drains the node, so that no new job starts there, and waits for the jobs that run to end. No job is ever ended.
  - Puts back only what it drained itself, which it knows by the reason; a node that somebody else drained stays drained.
  - On a node where no C(slurmd) is set up, there is nothing to do, and that is no failure.
options:
  state:
    description: Whether new jobs may start on the node.
    type: str
    choices: [drained, resumed]
    required: true
  reason:
    description: Reason to give to Slurm, and to know the own drain by.
    type: str
    default: trainyard works on this node
  wait_seconds:
    description: How long to wait for jobs to end.
    type: int
    default: 0
  give_up:
    description: Whether to put the node back where jobs still run after the wait, so that it does not stand idle for nothing.
    type: bool
    default: true
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be done, does nothing, and does not wait.
  diff_mode:
    support: full
    description: Shows the node's state and reason.
"""

EXAMPLES = r"""
- name: Let no new job start, and wait a day at most for those that run
  trainyard.core.slurm_node:
    state: drained
    wait_seconds: 86400
  register: drain

- name: Let jobs in again
  trainyard.core.slurm_node:
    state: resumed
"""

RETURN = r"""
node:
  description: The node's name in Slurm; empty where no C(slurmd) is set up.
  returned: always
  type: str
own:
  description: Whether the node is drained, or in check mode would be, by this module.
  returned: always
  type: bool
hindrances:
  description: Why the node is not free of jobs, parts of a sentence; empty where none runs.
  returned: always
  type: list
  elements: str
  sample: [the jobs 12 and 13 of Slurm run]
"""

import os
import platform
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _slurm as slurm

POLL = 2.0
START = 60.0  # seconds that slurmd is given after a boot


class SlurmError(Exception):
    """Slurm does not answer, or does not know the node."""


class Scheduler:
    """Slurm as this node sees it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def is_here(self) -> bool:
        """Return whether this node computes for Slurm."""
        systemctl = self.module.get_bin_path("systemctl")
        return bool(systemctl) and self.module.run_command([systemctl, "is-enabled", "--quiet", "slurmd.service"])[0] == 0

    def _ask(self, *words: str) -> str:
        status, output, errors = self.module.run_command([self.module.get_bin_path(words[0], required=True), *words[1:]])
        if status:
            raise SlurmError(f"Slurm does not answer ({' '.join((errors or output).split())[-200:]})")
        return str(output)

    def node(self) -> slurm.Node:
        """Return this node; raises SlurmError where Slurm does not know it."""
        host = platform.node().partition(".")[0]
        for node in slurm.parse_nodes(self._ask("scontrol", "--oneliner", "show", "nodes")):
            if node.host.partition(".")[0] == host:
                return node
        raise SlurmError(f"Slurm knows no node whose host is {host}")

    def jobs(self, node: slurm.Node) -> list[str]:
        """Return the jobs that have something of the node."""
        states = "RUNNING,COMPLETING,CONFIGURING,SUSPENDED,STOPPED"
        return self._ask("squeue", "--noheader", f"--states={states}", "--nodelist", node.name, "--format=%i").split()

    def update(self, node: slurm.Node, *words: str) -> None:
        """Change the node's state."""
        self._ask("scontrol", "update", f"NodeName={node.name}", *words)


def drained(module: AnsibleModule, scheduler: Scheduler) -> dict[str, object]:
    """Drain the node and wait for its jobs; return the result."""
    params, node = module.params, scheduler.node()
    mine = not node.drains or node.reason == params["reason"]
    changed = not node.drains
    before = f"{node.name}: {'drained, ' + node.reason if node.drains else 'open'}\n"
    if changed and not module.check_mode:
        scheduler.update(node, "State=DRAIN", f"Reason={params['reason']}")
    end = time.monotonic() + (0 if module.check_mode else params["wait_seconds"])
    while (jobs := scheduler.jobs(node)) and time.monotonic() < end:
        time.sleep(POLL)
    if jobs and mine and params["give_up"]:
        if not module.check_mode:
            scheduler.update(node, "State=RESUME")
        mine = changed = False
    after = before if not changed else f"{node.name}: drained, {params['reason']}\n"
    said = f"the job {jobs[0]} of Slurm runs" if len(jobs) == 1 else f"the jobs {', '.join(jobs)} of Slurm run"
    return {
        "changed": changed,
        "node": node.name,
        "own": mine,
        "hindrances": [said] if jobs else [],
        "diff": {"before": before, "after": after},
    }


def resumed(module: AnsibleModule, scheduler: Scheduler) -> dict[str, object]:
    """Put the node back where this module drained it; return the result."""
    node = scheduler.node()
    mine = node.drains and node.reason == module.params["reason"]
    if mine and not module.check_mode:
        end = time.monotonic() + START  # a node that has just booted has yet to say that it is there
        while "NOT_RESPONDING" in node.flags and time.monotonic() < end:
            time.sleep(POLL)
            node = scheduler.node()
        scheduler.update(node, "State=RESUME")
    before = f"{node.name}: drained, {node.reason}\n" if node.drains else f"{node.name}: open\n"
    return {
        "changed": mine,
        "node": node.name,
        "own": False,
        "hindrances": [],
        "diff": {"before": before, "after": f"{node.name}: open\n" if mine else before},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["drained", "resumed"], "required": True},
            "reason": {"type": "str", "default": "trainyard works on this node"},
            "wait_seconds": {"type": "int", "default": 0},
            "give_up": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    os.environ["LC_ALL"] = "C"
    scheduler = Scheduler(module)
    if not scheduler.is_here():
        module.exit_json(changed=False, node="", own=False, hindrances=[], diff={"before": "", "after": ""})
    try:
        result = drained(module, scheduler) if module.params["state"] == "drained" else resumed(module, scheduler)
    except SlurmError as error:
        said = str(error)
        module.fail_json(
            msg=f"{said}. See on the node: systemctl status slurmd munge; scontrol ping.", node="", own=False, hindrances=[said]
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
