#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Admins: accounts that may use sudo without a password."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sudo_admins
short_description: Lets accounts use sudo without a password, by a file of its own
version_added: 0.1.0
description:
  - Writes C(/etc/sudoers.d/trainyard), which C(visudo) has to accept first. Accounts that are not listed
    lose the right that this file gave them.
  - The account that this run uses sudo with keeps its line, with a warning, so that nobody locks herself out.
options:
  users:
    description: Names of the accounts. Without any, the file is removed.
    type: list
    elements: str
    default: []
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
- name: Let the admins use sudo
  trainyard.core.sudo_admins:
    users: [alice]
"""

RETURN = r"""
# nothing but what every module returns
"""

import os
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as files
from ansible_collections.trainyard.core.plugins.module_utils._accounts import sudoers
from ansible_collections.trainyard.core.plugins.module_utils._host import files as durable
from ansible_collections.trainyard.core.plugins.module_utils._host import locks

MODE = 0o440


def is_right(text: str) -> bool:
    """Return whether the file has this text, and owner and mode that sudo accepts; for '' whether there is none."""
    try:
        status = os.lstat(sudoers.PATH)
    except FileNotFoundError:
        return not text
    own = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, MODE) and stat.S_ISREG(status.st_mode)
    return own and files.read(sudoers.PATH) == text != ""


def complaint(module: AnsibleModule, text: str) -> str:
    """Return what visudo says against a text; '' where it accepts it."""
    visudo = module.get_bin_path("visudo", opt_dirs=["/usr/sbin", "/sbin"])
    if not visudo:
        return "visudo was not found; install the package sudo"
    with tempfile.NamedTemporaryFile("w", dir=module.tmpdir) as file:
        file.write(text)
        file.flush()
        status, output, errors = module.run_command([visudo, "-cf", file.name])
    return "" if status == 0 else f"{output} {errors}".strip()


@locks.turn("sudo_admins")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"users": {"type": "list", "elements": "str", "default": []}}, supports_check_mode=True)
    before = files.read(sudoers.PATH)
    users, login = list(module.params["users"]), os.environ.get("SUDO_USER", "")
    if login in sudoers.names(before) and login not in users:
        users.append(login)
        module.warn(
            f"This run uses sudo as {login}, who stays an admin. When another account can use sudo, remove the line with "
            f"visudo -f {sudoers.PATH}, or run this with that account."
        )
    after = sudoers.text(users)
    changed = not is_right(after)
    if changed and not module.check_mode:
        if after:
            refused = complaint(module, after)
            if refused:
                module.fail_json(msg=f"base_users: visudo refuses the file for the admins, and nothing was changed: {refused}")
            durable.write(sudoers.PATH, after, MODE)
            os.chown(sudoers.PATH, 0, 0)
        else:
            os.unlink(sudoers.PATH)
    module.exit_json(
        changed=changed,
        diff={"before_header": sudoers.PATH, "after_header": sudoers.PATH, "before": before, "after": after},
    )


if __name__ == "__main__":
    main()
