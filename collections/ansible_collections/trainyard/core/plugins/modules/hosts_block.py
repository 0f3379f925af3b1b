#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The nodes' names and addresses in /etc/hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hosts_block
short_description: Keeps the nodes' names and addresses in /etc/hosts, in a block of its own
version_added: 0.1.0
description:
  - The block stands first in the file, so that a machine's own name leads to its address on the network before C(127.0.1.1).
  - A node that this run has not seen keeps its line. A node that is not named any more loses it. Lines outside the block stay.
options:
  nodes:
    description: What P(trainyard.core.node_addresses#filter) returns. Without nodes the block goes.
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
- name: Know the other nodes by name
  trainyard.core.hosts_block:
    nodes:
      head: {address: 192.0.2.10, names: [head, head.lab.example], seen: true}
      node1: {address: 192.0.2.11, names: [node1], seen: false}
"""

RETURN = r"""
unknown:
  description: Nodes that have no line, since nobody knows their address so far.
  returned: always
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _hosts as hosts
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as secret_file
from ansible_collections.trainyard.core.plugins.module_utils._host import locks, reported

PATH = "/etc/hosts"


def write(text: str) -> None:
    """Replace the file in one step, or in place where it is mounted, as in a container."""
    beside = PATH + ".trainyard-new"
    with open(beside, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.replace(beside, PATH)
    except OSError:
        os.unlink(beside)
        with open(PATH, "w", encoding="utf-8") as file:
            file.write(text)


@locks.turn("hosts_block")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"nodes": {"type": "dict", "default": {}}}, supports_check_mode=True)
    before = secret_file.read(PATH)
    try:
        after, unknown = hosts.renewed(before, module.params["nodes"])
    except reported.ReportedError as error:
        module.fail_json(msg=f"{error} {PATH} was left as it is.")
    if after != before and not module.check_mode:
        write(after)
    module.exit_json(
        changed=after != before,
        unknown=unknown,
        diff={"before_header": PATH, "after_header": PATH, "before": before, "after": after},
    )


if __name__ == "__main__":
    main()
