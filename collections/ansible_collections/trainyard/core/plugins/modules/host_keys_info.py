#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The public host keys of a node's sshd."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_keys_info
short_description: Returns the public host keys that sshd on a node has
version_added: 0.1.0
description:
  - Asks C(sshd -T) which keys it uses, and reads their public halves. Where sshd gives no answer, it reads those in C(/etc/ssh).
options: {}
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Changes nothing.
"""

EXAMPLES = r"""
- name: Read the host keys
  trainyard.core.host_keys_info:
  register: host_keys_result
"""

RETURN = r"""
keys:
  description: Public keys, such as C(ssh-ed25519 AAAA...); none where there is no sshd.
  returned: always
  type: list
  elements: str
"""

import glob
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils._ssh import known_hosts, node


def paths() -> list[str]:
    """Return the files of the public keys."""
    if not os.access(node.SSHD, os.X_OK):
        return []
    with node.separation_folder():
        status, output, _errors = node.command(node.SSHD, "-T")
    used = [line.split(None, 1)[1] for line in output.splitlines() if line.startswith("hostkey ")] if status == 0 else []
    return [f"{path}.pub" for path in used] or sorted(glob.glob("/etc/ssh/ssh_host_*_key.pub"))


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    lines = [" ".join((node.read(path) or "").split()[:2]) for path in paths()]
    module.exit_json(changed=False, keys=known_hosts.best([line for line in lines if line]))


if __name__ == "__main__":
    main()
