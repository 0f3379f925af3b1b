#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Slurm's controller and a node hear each other."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_node_heard
short_description: Waits until Slurm's controller hears this node, and fails where it does not
version_added: 0.1.0
description:
  - Asks the controller for the state of this node until that is neither C(UNKNOWN) nor C(NOT_RESPONDING).
options:
  name:
    description: Name of this node in Slurm.
    type: str
    required: true
  timeout:
    description: How many seconds to wait. The controller asks a node that did not respond again after a third of C(SlurmdTimeout).
    type: int
    default: 150
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode. In check mode nothing is asked, since the daemon may be yet to come.
  diff_mode:
    support: none
    description: Nothing is changed.
"""

EXAMPLES = r"""
- name: Wait until the controller hears the node
  trainyard.core.slurm_node_heard:
    name: node1
"""

RETURN = r"""
waited:
  description: How many seconds it took.
  returned: success
  type: float
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _slurm as slurm


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"name": {"type": "str", "required": True}, "timeout": {"type": "int", "default": 150}}, supports_check_mode=True
    )
    if module.check_mode:
        module.exit_json(changed=False, waited=0.0)
    name, started = module.params["name"], time.monotonic()
    while True:
        status, output, errors = module.run_command(["scontrol", "--oneliner", "show", "node", name], environ_update={"LC_ALL": "C"})
        why = slurm.unheard(output) if not status else (errors or output).strip()
        waited = time.monotonic() - started
        if not why:
            module.exit_json(changed=False, waited=round(waited, 1))
        if waited >= module.params["timeout"]:
            module.fail_json(
                msg=f"Slurm's controller does not hear {name} ({why}) after {waited:.0f} seconds. Their ports reach each other, so read "
                f"what the daemons say: journalctl --unit slurmd on {name}, journalctl --unit slurmctld on the controller."
            )
        time.sleep(1)


if __name__ == "__main__":
    main()
