#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Proves that nodes of a cluster train together."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_proof
short_description: Proves that nodes of a Slurm cluster train together
version_added: 0.1.0
description:
  - On the node that schedules, submits a job of some nodes. They meet over the network, then train handwritten digits together with the
    first framework that all of them have.
  - A proof that was passed holds as long as its nodes belong to the cluster and neither their environments nor the programs changed.
  - Waits for its turn like any job, and disturbs none. Where no nodes have room in time it is reported as not run.
options:
  nodes:
    description:
      - The cluster's nodes that compute, by their names in Slurm. For each, the environments that are proven there and the fingerprints of
        those proofs; nothing for a node that was not looked at in this run.
      - Where fewer than O(size) nodes have a framework in common, nothing is run and nothing is reported.
    type: dict
    required: true
  program:
    description: The program of the role C(training), which proves the nodes of an allocation.
    type: path
    required: true
  programs:
    description: Folders and files whose content the proof depends on.
    type: list
    elements: path
    default: []
  state:
    description: File in which what was proven is kept.
    type: path
    required: true
  size:
    description: How many nodes train together.
    type: int
    default: 2
  patience:
    description: Seconds to wait for nodes with room for the job.
    type: int
    default: 60
  rerun:
    description: Whether they train again although an earlier proof holds.
    type: bool
    default: false
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Trains nothing; reports an earlier proof that still holds, else that none was run.
  diff_mode:
    support: none
    description: Changes nothing but its own record.
"""

EXAMPLES = r"""
- name: Train on two nodes together
  trainyard.core.cluster_proof:
    nodes: {node1: {pytorch: 1f0c...}, node2: {pytorch: 1f0c...}}
    program: /usr/local/lib/trainyard/training/run
    programs: [/usr/local/lib/trainyard/training, /opt/trainyard/samples]
    state: /opt/trainyard/proofs/cluster.json
"""

RETURN = r"""
proofs:
  description:
    - As of M(trainyard.core.training_proof), one entry or none; in addition C(nodes), the names of those that trained together.
  returned: always
  type: list
  elements: dict
"""

import hashlib
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _proof_runner as runner
from ansible_collections.trainyard.core.plugins.module_utils._training import together

SINFO = ("sinfo", "--all", "--noheader", "--format=%P %a %D")


def digest(paths: list[str]) -> str:
    """Return a digest of the files below some paths; what Python compiled of them does not count."""
    found = hashlib.sha256()
    files = [os.path.join(folder, name) for path in paths for folder, _folders, names in os.walk(path) for name in names]
    for path in sorted(path for path in [*files, *paths] if os.path.isfile(path) and not path.endswith(".pyc")):
        found.update(path.encode() + b"\0" + (runner.read(path) or "").encode() + b"\0")
    return found.hexdigest()


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "dict", "required": True},
            "program": {"type": "path", "required": True},
            "programs": {"type": "list", "elements": "path", "default": []},
            "state": {"type": "path", "required": True},
            "size": {"type": "int", "default": 2},
            "patience": {"type": "int", "default": 60},
            "rerun": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    nodes: together.Nodes = module.params["nodes"]
    demand = together.Demand(*(module.params[field] for field in together.Demand._fields))
    name = together.framework(nodes, demand.size)
    if not name:
        module.exit_json(changed=False, proofs=[])
    programs = digest(module.params["programs"])
    earlier = (
        None
        if module.params["rerun"] and not module.check_mode
        else together.recall(runner.read(module.params["state"]) or "", programs, nodes)
    )
    if earlier or module.check_mode:
        module.exit_json(changed=False, proofs=[earlier or together.unproven(name)])
    slurm = {"LC_ALL": "C.UTF-8"}
    listing = module.run_command([*SINFO], environ_update=slurm)[1]
    partition = together.queue(listing, demand.size)
    if not partition:
        proof = {**together.unproven(name), "problem": f"not run: no queue that is up has {demand.size} nodes"}
    else:
        ran_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        done = module.run_command(together.command(demand, partition), environ_update=slurm)
        proof = {**together.verdict(name, demand, *done), "ran_at": ran_at}
    if proof["passed"] is None:
        module.warn(f"{proof['environment']} on {demand.size} nodes: {proof['problem']}. Train later with: ./trainyard verify")
        module.exit_json(changed=False, proofs=[proof])
    runner.write(module.params["state"], together.remember(proof, programs, nodes))
    message = together.failure_message(proof, proof["nodes"])
    if message:
        module.fail_json(msg=message, proofs=[proof])
    module.exit_json(changed=False, proofs=[proof])


if __name__ == "__main__":
    main()
