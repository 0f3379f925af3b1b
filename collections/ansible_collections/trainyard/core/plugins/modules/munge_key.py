#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The key by which the nodes of a cluster know each other."""

from __future__ import annotations

DOCUMENTATION = r"""
module: munge_key
short_description: Keeps munge's key, made once on one node and the same on all others
version_added: 0.1.0
description:
  - Without O(key) the node's own key is kept, or made where there is none, and returned. With it, another key on the node is replaced.
  - The key belongs to the account C(munge), which alone may read it. It never stands in a command line or in a diff.
  - Tasks with it need C(no_log), since the key is returned.
options:
  key:
    description: The key in base64, as this module returned it on another node.
    type: str
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing; a key that is yet to be made is returned empty.
  diff_mode:
    support: none
    description: A key is not shown.
"""

EXAMPLES = r"""
- name: Have a key on the controller
  trainyard.core.munge_key:
  no_log: true
  register: key_result
"""

RETURN = r"""
key:
  description: The key in base64; empty in check mode where there is none so far, and where O(key) was given.
  returned: always
  type: str
"""

import base64
import os
import pwd

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils._host import locks

PATH = "/etc/munge/munge.key"
ACCOUNT = "munge"
SIZE = 128  # bytes, as munge's own tool makes it
SHORTEST = 32  # munge refuses shorter ones
LONGEST = 65536  # longer ones are no keys
MODE = 0o400


@locks.turn("munge_key")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"key": {"type": "str", "no_log": True}}, supports_check_mode=True)
    try:
        with open(PATH, "rb") as file:
            before = file.read()
        status = os.stat(PATH)
    except FileNotFoundError:
        before, status = b"", None
    try:
        account = pwd.getpwnam(ACCOUNT)
    except KeyError:
        if module.check_mode:
            module.exit_json(changed=True, key="")
        module.fail_json(msg="There is no account munge here. The package munge has to be installed first.")
    try:
        wanted = base64.b64decode(module.params["key"], validate=True) if module.params["key"] else before
    except ValueError:
        wanted = b""
    if module.params["key"] and not SHORTEST <= len(wanted) <= LONGEST:
        module.fail_json(msg=f"The key that the controller gave is none of {SHORTEST} to {LONGEST} bytes. The old one was left.")
    if not module.params["key"] and len(before) < SHORTEST:
        wanted = b"" if module.check_mode else os.urandom(SIZE)
    owner = (account.pw_uid, account.pw_gid, MODE)
    right = status is not None and (status.st_uid, status.st_gid, status.st_mode & 0o7777) == owner
    changed = wanted != before or not before or not right
    if changed and not module.check_mode:
        beside = PATH + ".new"  # always the same name: the next run replaces what a killed one left
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, MODE)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, MODE)
            os.fchown(descriptor, account.pw_uid, account.pw_gid)
            file.write(wanted)
            file.flush()
            os.fsync(descriptor)
        os.replace(beside, PATH)
    module.exit_json(changed=changed, key="" if module.params["key"] else base64.b64encode(wanted).decode())


if __name__ == "__main__":
    main()
