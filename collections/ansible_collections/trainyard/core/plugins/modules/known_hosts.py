#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host keys by which a node knows the others."""

from __future__ import annotations

DOCUMENTATION = r"""
module: known_hosts
short_description: Keeps the nodes' SSH host keys in C(/etc/ssh/ssh_known_hosts2), for every user
version_added: 0.1.0
description:
  - One line for each node. A node that this run has not seen keeps its line. A node that is not named any more loses it.
  - Lines of others in that file stay, and C(/etc/ssh/ssh_known_hosts) is not touched.
options:
  nodes:
    description: What P(trainyard.core.known_hosts#filter) returns. Without nodes the lines are removed.
    type: dict
    default: {}
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would change and does nothing.
  diff_mode:
    support: full
    description: Shows the file before and after.
"""

EXAMPLES = r"""
- name: Write the nodes' host keys
  trainyard.core.known_hosts:
    nodes:
      node1: {names: [node1, 192.0.2.11], keys: ["ssh-ed25519 AAAAC3..."], seen: true}
"""

RETURN = r"""
# nothing but what every module returns
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as files
from ansible_collections.trainyard.core.plugins.module_utils._host import files as durable
from ansible_collections.trainyard.core.plugins.module_utils._host import locks, reported
from ansible_collections.trainyard.core.plugins.module_utils._ssh import known_hosts

PATH = known_hosts.FILE


@locks.turn("known_hosts")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"nodes": {"type": "dict", "default": {}}}, supports_check_mode=True)
    before = files.read(PATH)
    try:
        after = known_hosts.renewed(before, module.params["nodes"])
    except reported.ReportedError as error:
        module.fail_json(msg=f"{error} {PATH} was left as it is.")
    if after != before and not module.check_mode:
        if after:
            durable.write(PATH, after, 0o644)
        else:
            os.unlink(PATH)
    module.exit_json(
        changed=after != before,
        diff={"before_header": PATH, "after_header": PATH, "before": before, "after": after},
    )


if __name__ == "__main__":
    main()
