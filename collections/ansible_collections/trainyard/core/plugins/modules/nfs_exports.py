#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders that a node exports to the other nodes of its cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_exports
short_description: Exports folders to the nodes of a cluster and to nobody else
version_added: 0.1.0
description:
  - Keeps C(/etc/exports.d/trainyard.exports) and has the server follow it. Other exports stay as they are.
  - A node that this run has not seen keeps the address under which an earlier run exported to it. One that is not named any more loses it.
  - The decision to tell the server survives an interruption between writing and telling.
  - Warns of a folder that several users may write without its sticky bit, since they could replace each other's files there.
options:
  folders:
    description: What is exported. Without any the file goes.
    type: list
    elements: path
    default: []
  nodes:
    description: What P(trainyard.core.node_addresses#filter) returns.
    type: dict
    default: {}
  server:
    description: Name of this node, which needs no export itself.
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
- name: Export the folder
  trainyard.core.nfs_exports:
    folders: [/srv/shared]
    nodes:
      head: {address: 192.0.2.10, names: [head], seen: true}
      node1: {address: 192.0.2.11, names: [node1], seen: true}
    server: head
"""

RETURN = r"""
unknown:
  description: Nodes that are exported nothing, since nobody knows their address so far.
  returned: always
  type: list
  elements: str
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _nfs as nfs
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as files
from ansible_collections.trainyard.core.plugins.module_utils._host import files as host_files
from ansible_collections.trainyard.core.plugins.module_utils._host import locks
from ansible_collections.trainyard.core.plugins.module_utils._host.reported import ReportedError

PENDING = Path("/var/lib/trainyard/exports-pending")


@locks.turn("nfs_exports")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "folders": {"type": "list", "elements": "path", "default": []},
            "nodes": {"type": "dict", "default": {}},
            "server": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    before = files.read(nfs.EXPORTS)
    try:
        after, unknown = nfs.exports(before, module.params["folders"], module.params["nodes"], module.params["server"])
    except ReportedError as error:
        module.fail_json(msg=f"{error} {nfs.EXPORTS} was left as it is.")
    due = before != after or PENDING.exists()
    if due and not module.check_mode:
        host_files.make_folders(PENDING.parent)
        PENDING.touch(0o600)
        if after:
            files.write(nfs.EXPORTS, after)
        elif os.path.exists(nfs.EXPORTS):
            os.unlink(nfs.EXPORTS)
        exportfs = module.get_bin_path("exportfs", opt_dirs=["/usr/sbin", "/sbin"])
        if exportfs:
            rc, output, errors = module.run_command([exportfs, "-r"])
            if rc:
                module.fail_json(msg=f"The folders could not be exported: {(errors or output).strip()[-1000:]}")
        PENDING.unlink()
    for path in module.params["folders"]:
        remark = nfs.unsafe(path)
        if remark:
            module.warn(remark)
    module.exit_json(
        changed=due,
        unknown=unknown,
        diff={"before_header": nfs.EXPORTS, "after_header": nfs.EXPORTS, "before": before, "after": after},
    )


if __name__ == "__main__":
    main()
