#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A folder that root makes for a service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_folder
short_description: Makes a folder for a service or its account, and takes it back
version_added: 0.1.0
description:
  - Makes a folder where none is, with those above it. A folder that is there keeps its owner and mode.
  - With I(account), a folder that belongs to root, as I(state=retained) or an interrupted run leaves it, is given to that account with
    all that is in it.
  - With I(state=retained), a folder of I(account) becomes root's, so that nobody else enters it when another account gets the number.
  - Fails instead of working in a place where others than root could put a link in the way.
options:
  path:
    description: The folder.
    type: path
    required: true
  mode:
    description: Permissions of a folder that is made or given, in octal digits.
    type: str
    required: true
  account:
    description: The account that it belongs to; root where none is named.
    type: str
    default: root
  variable:
    description: The name of the variable that I(path) comes from, for messages.
    type: str
    required: true
  state:
    description:
      - Whether the folder is for the service, or only retained.
      - V(possible) changes nothing, and fails where V(present) would, before an account that does not exist yet is made with that home.
    type: str
    choices: [present, retained, possible]
    default: present
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing.
  diff_mode:
    support: full
    description: Shows owner and mode before and after.
"""

EXAMPLES = r"""
- name: Create the log folder
  trainyard.core.service_folder:
    path: "{{ tensorboard_logdir }}"
    mode: "1777"
    variable: tensorboard_logdir
"""

RETURN = r"""
# nothing but what every module returns
"""

import os
import pwd
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils._host import folders


def name_of(user: int) -> str:
    """Return a user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def shown(user: int, mode: int) -> str:
    """Return owner and mode for a diff."""
    return f"owner: {name_of(user)}\nmode: {mode:04o}\n"


def make(path: str, mode: int) -> None:
    """Make a folder of root's, and those above it."""
    above = os.path.dirname(path)
    if not os.path.isdir(above):
        make(above, 0o755)
    os.mkdir(path, 0o700)
    os.chmod(path, mode)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "mode": {"type": "str", "required": True},
            "account": {"type": "str", "default": "root"},
            "variable": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "retained", "possible"], "default": "present"},
        },
        supports_check_mode=True,
    )
    params = module.params
    look = module.check_mode or params["state"] == "possible"
    path, mode, retained = os.path.normpath(params["path"]), int(params["mode"], 8), params["state"] == "retained"
    try:
        account = pwd.getpwnam(params["account"])
    except KeyError:
        if not look:
            module.fail_json(msg=f"There is no account {params['account']} on this node, which {path} is for.")
        account = pwd.getpwuid(0)  # it would have been made before

    def refuse_links() -> None:
        others = folders.who_else(path)
        if others:
            module.fail_json(
                msg=f"{params['variable']} is {path}, and others than root may put links into {others}: root would follow them anywhere. "
                f"Choose a folder whose parents belong to root and are writable for root alone, or make {path} yourself."
            )

    try:
        there = os.path.lexists(path)
        if retained and not there:
            module.exit_json(changed=False)
        if os.path.isdir(path) and (account.pw_uid == 0 or os.path.islink(path)):
            module.exit_json(changed=False)  # left as it is
        if not there:
            refuse_links()
            if not look:
                make(path, 0o700 if account.pw_uid else mode)
                if account.pw_uid:
                    os.chown(path, account.pw_uid, account.pw_gid)
                    os.chmod(path, mode)
            module.exit_json(changed=params["state"] != "possible", diff={"before": "", "after": shown(account.pw_uid, mode)})
        with folders.opened(path) as folder:
            before = os.fstat(folder)
            if before.st_uid != (account.pw_uid if retained else 0):
                module.exit_json(changed=False)
            refuse_links()
            if params["state"] == "possible":
                module.exit_json(changed=False)
            user, group = (0, 0) if retained else (account.pw_uid, account.pw_gid)
            after = 0o700 if retained else mode
            if not module.check_mode:
                if retained:
                    os.fchmod(folder, after)
                    os.fchown(folder, user, group)
                else:
                    os.fchmod(folder, 0o700)  # nobody enters before all of it is the account's
                    folders.give_content(folder, user, group)
                    os.fchown(folder, user, group)
                    os.fchmod(folder, after)
            module.exit_json(changed=True, diff={"before": shown(before.st_uid, stat.S_IMODE(before.st_mode)), "after": shown(user, after)})
    except folders.FolderError as error:
        module.fail_json(msg=f"{params['variable']}: {error}. Remove it, or choose another folder.")


if __name__ == "__main__":
    main()
