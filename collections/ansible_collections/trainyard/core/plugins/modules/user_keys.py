#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""SSH keys that let a user in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: user_keys
short_description: Lets a user in with SSH keys, without root working in the user's home
version_added: 0.1.0
description:
  - Adds lines to C(~/.ssh/authorized_keys) of a user, with that user's rights. C(ansible.posix.authorized_key) does it as root and follows
    what the user put there; with a link from C(~/.ssh) to C(/etc) it gives the user C(/etc).
  - Keys that are there stay. A line with the same key and another comment or other options is replaced.
  - A home in which the user has made that impossible is reported by a warning; it is nobody else's problem.
options:
  user:
    description: The user.
    type: str
    required: true
  keys:
    description: Public keys, each as a line of C(authorized_keys).
    type: list
    elements: str
    required: true
  exclusive:
    description:
      - Whether every other key of the user is removed, from C(~/.ssh/authorized_keys2) too.
      - The account that this run logs in with keeps its other keys, with a warning, so that nobody locks herself out.
    type: bool
    default: false
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing.
  diff_mode:
    support: full
    description: Shows the file before and after.
"""

EXAMPLES = r"""
- name: Let alice in with her keys
  trainyard.core.user_keys:
    user: alice
    keys: ["ssh-ed25519 AAAAC3... alice@laptop"]
"""

RETURN = r"""
# nothing but what every module returns
"""

import os
import pwd

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils._host import as_user
from ansible_collections.trainyard.core.plugins.module_utils._ssh import user_keys


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "required": True},
            "keys": {"type": "list", "elements": "str", "required": True, "no_log": False},
            "exclusive": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    name, keys, exclusive = (module.params[key] for key in ("user", "keys", "exclusive"))
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        if not module.check_mode:
            module.fail_json(msg=f"There is no user {name} on this node.")
        module.exit_json(changed=bool(keys), diff={"before": "", "after": user_keys.merged("", keys)})
    spared = exclusive and os.environ.get("SUDO_USER") == name
    try:
        done = as_user.run(account, lambda: user_keys.ensure(account.pw_dir, keys, module.check_mode, exclusive and not spared))
        if spared and as_user.run(account, lambda: user_keys.ensure(account.pw_dir, keys, True, True))["changed"]:
            module.warn(f"This run logs in as {name}, whose other keys stay. Remove them by hand from {account.pw_dir}/.ssh.")
    except as_user.UserError as error:
        module.warn(
            f"The keys of {name} could not be put into {account.pw_dir}/.ssh/authorized_keys: {error}. Only {name} is concerned. "
            f"Look at that folder and repair it, then run this again."
        )
        module.exit_json(changed=False)
    module.exit_json(changed=done["changed"], diff={"before": done["before"], "after": done["after"]})


if __name__ == "__main__":
    main()
