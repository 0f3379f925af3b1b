#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Accounts, groups and homes of a node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: account_info
short_description: Returns the accounts, groups and homes that a node has
version_added: 0.1.0
description:
  - For P(trainyard.core.account_problems#filter), which compares them with an inventory. Never returns a password or its hash.
  - Accounts of a directory (LDAP) that cannot be listed are looked up by the names and numbers that are given.
options:
  users:
    description: Names of accounts to look up.
    type: list
    elements: str
    default: []
  uids:
    description: Numbers of accounts to look up.
    type: list
    elements: int
    default: []
  groups:
    description: Names of groups to look up.
    type: list
    elements: str
    default: []
  gids:
    description: Numbers of groups to look up.
    type: list
    elements: int
    default: []
  homes:
    description: Whether to look at C(/home); not where another node has the homes.
    type: bool
    default: true
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
- name: Gather the node's accounts
  trainyard.core.account_info:
    users: [alice]
  register: account_result
"""

RETURN = r"""
accounts:
  description: For each account by its name C(uid), C(gid), C(home), C(shell), and C(password), whether a password lets it in.
  returned: always
  type: dict
groups:
  description: The number of each group by its name.
  returned: always
  type: dict
homes:
  description: The number of the owner of each folder in C(/home).
  returned: always
  type: dict
lowest:
  description: The lowest number of an account of a person.
  returned: always
  type: int
login:
  description: The account that this module was reached by.
  returned: always
  type: str
sudo_folder:
  description: Whether sudo reads C(/etc/sudoers.d), or is not installed.
  returned: always
  type: bool
free_groups:
  description: Groups whose members sudo does not ask for a password.
  returned: always
  type: list
  elements: str
"""

import glob
import grp
import os
import pwd
import re
from contextlib import suppress
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils._ssh import node

FREE = re.compile(r"^\s*%(\S+)\s.*NOPASSWD:\s*ALL\s*$", re.MULTILINE)


def groups(module: AnsibleModule) -> dict[str, int]:
    """Return the groups by name."""
    found = {entry.gr_name: entry.gr_gid for entry in grp.getgrall()}
    for key, look in (("groups", grp.getgrnam), ("gids", grp.getgrgid)):
        for each in module.params[key]:
            with suppress(KeyError, OverflowError):
                entry = look(each)  # type: ignore[operator]
                found[entry.gr_name] = entry.gr_gid
    return found


def accounts(module: AnsibleModule) -> dict[str, dict[str, Any]]:
    """Return the accounts by name."""
    found = {entry.pw_name: entry for entry in pwd.getpwall()}
    for key, look in (("users", pwd.getpwnam), ("uids", pwd.getpwuid)):
        for each in module.params[key]:
            with suppress(KeyError, OverflowError):
                entry = look(each)  # type: ignore[operator]
                found[entry.pw_name] = entry
    fields = (line.split(":") for line in (node.read("/etc/shadow") or "").splitlines())
    locked = {each[0] for each in fields if len(each) > 1 and each[1][:1] in {"", "!", "*"}}
    return {
        name: {
            "uid": entry.pw_uid,
            "gid": entry.pw_gid,
            "home": entry.pw_dir,
            "shell": entry.pw_shell or "/bin/sh",
            "password": name not in locked,
        }
        for name, entry in found.items()
    }


def homes() -> dict[str, int]:
    """Return the owners of the folders in /home."""
    found = {}
    with suppress(OSError), os.scandir("/home") as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found[entry.path] = entry.stat(follow_symlinks=False).st_uid
    return found


def lowest() -> int:
    """Return the lowest number of an account of a person."""
    match = re.search(r"^UID_MIN\s+(\d+)", node.read("/etc/login.defs") or "", re.MULTILINE)
    return int(match.group(1)) if match else 1000


def main() -> None:
    """Entry point."""
    numbers = {"type": "list", "elements": "int", "default": []}
    names = {"type": "list", "elements": "str", "default": []}
    spec = {"users": names, "uids": numbers, "groups": names, "gids": numbers, "homes": {"type": "bool", "default": True}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    # The groups first: useradd makes an account before its group, and another run may be at it.
    of_groups = groups(module)
    sudoers = node.read("/etc/sudoers")
    rules = [sudoers or "", *(node.read(path) or "" for path in glob.glob("/etc/sudoers.d/*"))]
    module.exit_json(
        changed=False,
        groups=of_groups,
        accounts=accounts(module),
        homes=homes() if module.params["homes"] else {},
        lowest=lowest(),
        login=os.environ.get("SUDO_USER") or "root",
        sudo_folder=sudoers is None or bool(re.search(r"^[@#]includedir\s+/etc/sudoers\.d\s*$", sudoers, re.MULTILINE)),
        free_groups=sorted({name for text in rules for name in FREE.findall(text)}),
    )


if __name__ == "__main__":
    main()
