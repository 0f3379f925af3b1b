#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The password of an account, by its hash."""

from __future__ import annotations

DOCUMENTATION = r"""
module: account_password
short_description: Sets the password of an account by its hash, which nobody sees
version_added: 0.1.0
description:
  - Hands the hash to C(chpasswd) on its standard input. M(ansible.builtin.user) gives it to C(usermod) as an argument, where every
    account of the node can read it for a moment.
options:
  user:
    description: The account.
    type: str
    required: true
  password_hash:
    description: A hash of C(crypt(3\)).
    type: str
    required: true
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says whether the password would change and does nothing.
  diff_mode:
    support: none
    description: Shows nothing of a password.
"""

EXAMPLES = r"""
- name: Set the password of alice
  trainyard.core.account_password:
    user: alice
    password_hash: "{{ vault_alice_password_hash }}"
"""

RETURN = r"""
# nothing but what every module returns
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils._host import locks
from ansible_collections.trainyard.core.plugins.module_utils._ssh import node


@locks.turn("account_password")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"user": {"type": "str", "required": True}, "password_hash": {"type": "str", "required": True, "no_log": True}},
        supports_check_mode=True,
    )
    name, wanted = module.params["user"], module.params["password_hash"]
    if any(sign in wanted + name for sign in ":\n"):
        module.fail_json(msg=f"The user {name!r} has a password hash or a name with a colon or a line break.")
    lines = (line.split(":") for line in (node.read("/etc/shadow") or "").splitlines())
    before = next((line[1] for line in lines if len(line) > 1 and line[0] == name), "")
    if before != wanted and before.lstrip("!") == wanted:
        module.warn(f"The password of {name} was locked on this node (usermod -L) and stays locked. To unlock it: sudo usermod -U {name}")
        module.exit_json(changed=False)
    changed = before != wanted
    if changed and not module.check_mode:
        status, _output, errors = module.run_command(
            [module.get_bin_path("chpasswd", required=True, opt_dirs=["/usr/sbin"]), "--encrypted"], data=f"{name}:{wanted}"
        )
        if status:
            module.fail_json(msg=f"chpasswd could not set the password of {name}: {errors.replace(wanted, '...').strip()}")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
