#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The nodes that may use the cache of packages, in /etc/hosts.allow."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_cache_clients
short_description: Lets nodes use apt-cacher-ng, and nobody else
version_added: 0.1.0
description:
  - Keeps a block in C(/etc/hosts.allow) for the daemon C(apt-cacher-ng) alone, which reads it anew for each connection.
  - A node that this run has not seen keeps its address. A node that is not named any more loses it. Lines outside the block stay.
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
- name: Allow the cluster's nodes to use the cache
  trainyard.core.package_cache_clients:
    nodes:
      head: {address: 192.0.2.10, seen: true}
      node1: {address: 192.0.2.11, seen: false}
"""

RETURN = r""" # """

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _package_cache as core
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as files
from ansible_collections.trainyard.core.plugins.module_utils._host import files as durable

PATH = "/etc/hosts.allow"


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"nodes": {"type": "dict", "default": {}}}, supports_check_mode=True)
    before = files.read(PATH)
    after = core.renewed(before, module.params["nodes"])
    if after != before and not module.check_mode:
        durable.write(PATH, after, os.stat(PATH).st_mode & 0o777 if os.path.exists(PATH) else 0o644)
    module.exit_json(
        changed=after != before,
        diff={"before_header": PATH, "after_header": PATH, "before": before, "after": after},
    )


if __name__ == "__main__":
    main()
