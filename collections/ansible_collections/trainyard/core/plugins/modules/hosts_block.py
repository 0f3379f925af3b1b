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
  - A node that this run has not seen keeps its line. A node that is not named any more loses it. Lines outside the block stay, but for the
    node's own names there, such as Debian's on C(127.0.1.1); such a line is kept as a comment and comes back when the block goes.
  - Where the node's own name leads elsewhere afterwards, or to more than its one address, the task fails and says where.
  - Where cloud-init would write the file at each boot, a file in C(/etc/cloud/cloud.cfg.d) tells it not to.
options:
  nodes:
    description: What P(trainyard.core.node_addresses#filter) returns. Without nodes the block goes.
    type: dict
    default: {}
  own:
    description: Name in the inventory of this node. Its own names lead to its address alone.
    type: str
    default: ""
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
    own: head
"""

RETURN = r"""
unknown:
  description: Nodes that have no line, since nobody knows their address so far.
  returned: always
  type: list
  elements: str
cloud_init:
  description: Whether cloud-init goes on writing the file at each boot, since its user data says so.
  returned: always
  type: bool
"""

import glob
import ipaddress
import os
import platform
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _hosts as hosts
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as secret_file
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks, reported

PATH = "/etc/hosts"
PATIENCE = 5.0  # seconds for a cache of names to take the file up
CLOUD = "/etc/cloud/cloud.cfg.d/99_trainyard_hosts.cfg"
CLOUD_TEXT = "# Written by Trainyard (role names_and_time), which keeps /etc/hosts.\nmanage_etc_hosts: false\n"
USER_DATA = ("/var/lib/cloud/instance/vendor-data.txt", "/var/lib/cloud/instance/user-data.txt")
"""What counts more than any file below /etc."""


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


def proven(module: AnsibleModule, address: str) -> None:
    """Fail where this node's own name does not lead to its one address, and to nothing else."""
    name, end = platform.node(), time.monotonic() + PATIENCE
    while (found := hosts.addresses(module.run_command(["getent", "ahosts", name])[1])) != [address]:
        if time.monotonic() > end:
            module.fail_json(
                msg=f"This node's own name {name} leads to {', '.join(found) or 'no address'} and not to {address} alone: what listens by "
                f"it is not reached by other nodes. {PATH} is right. Look at the line hosts: in /etc/nsswitch.conf, and where the name has "
                "a domain, at names_and_time_domain."
            )
        time.sleep(0.5)


def cloud_init(module: AnsibleModule, present: bool) -> tuple[bool, bool]:
    """Have cloud-init leave the file alone; return whether that changed anything, and whether its user data says otherwise."""
    texts = [
        secret_file.read(path) for path in ["/etc/cloud/cloud.cfg", *sorted(glob.glob("/etc/cloud/cloud.cfg.d/*.cfg"))] if path != CLOUD
    ]
    wanted = CLOUD_TEXT if present and hosts.cloud_init_writes(texts) else ""
    changed = secret_file.read(CLOUD) != wanted
    if changed and not module.check_mode:
        if wanted:
            host_files.write(CLOUD, wanted, 0o644)
        else:
            os.unlink(CLOUD)
    return changed, present and hosts.cloud_init_writes([secret_file.read(path) for path in USER_DATA])


@locks.turn("hosts_block")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"nodes": {"type": "dict", "default": {}}, "own": {"type": "str", "default": ""}}, supports_check_mode=True
    )
    nodes, own = module.params["nodes"], module.params["own"]
    before = secret_file.read(PATH)
    try:
        after, unknown = hosts.renewed(before, nodes, own)
    except reported.ReportedError as error:
        module.fail_json(msg=f"{error} {PATH} was left as it is.")
    if after != before and not module.check_mode:
        write(after)
    quieted, still_writes = cloud_init(module, bool(nodes))
    if own in nodes and own not in unknown and (after == before or not module.check_mode):
        proven(module, str(ipaddress.ip_address(nodes[own]["address"])))
    module.exit_json(
        changed=after != before or quieted,
        unknown=unknown,
        cloud_init=still_writes,
        diff={"before_header": PATH, "after_header": PATH, "before": before, "after": after},
    )


if __name__ == "__main__":
    main()
