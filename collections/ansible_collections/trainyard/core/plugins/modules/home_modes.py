#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The modes of users' homes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: home_modes
short_description: Gives new homes their mode and reports older ones that are more open
version_added: 0.1.0
description:
  - Called before accounts are made, it notes which users have no home yet. Called again afterwards, it gives the homes of those users
    the mode. The note survives an interruption, so that the next run does it.
  - A home that was there before is never changed. Where it lets others do more than the mode, a warning names user, path and mode.
options:
  users:
    description: Names of the users.
    type: list
    elements: str
    required: true
  mode:
    description: Mode of new homes in octal, such as C(0750).
    type: str
    required: true
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would change and does nothing.
  diff_mode:
    support: full
    description: Shows the modes before and after.
"""

EXAMPLES = r"""
- name: Check the modes of the homes
  trainyard.core.home_modes:
    users: [alice]
    mode: "0750"
  register: homes_result
"""

RETURN = r"""
missing:
  description: Users who have no home yet.
  returned: always
  type: list
  elements: str
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _homes
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as files

NOTE = "/var/lib/trainyard/new-homes"


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "users": {"type": "list", "elements": "str", "required": True},
            "mode": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    mode = int(module.params["mode"], 8)
    homes, missing = _homes.found(module.params["users"])
    noted = _homes.noted(files.read(NOTE))
    wrong = [home for home in homes if home.user in noted and home.mode != mode]
    if not module.check_mode:
        for home in wrong:
            try:
                _homes.close(home, mode)
            except OSError as error:
                module.fail_json(msg=f"The home {home.path} of {home.user} could not be given the mode {mode:04o}: {error.strerror}.")
        if missing and sorted(missing) != sorted(noted):
            files.write(NOTE, json.dumps(missing))
        elif not missing and os.path.exists(NOTE):
            os.unlink(NOTE)
    remark = _homes.remark([home for home in _homes.too_open(homes, mode) if home not in wrong], f"{mode:04o}")
    if remark:
        module.warn(remark)
    module.exit_json(
        changed=bool(wrong),
        missing=missing,
        diff={
            "before": "".join(f"{home.path} {home.mode:04o}\n" for home in wrong),
            "after": "".join(f"{home.path} {mode:04o}\n" for home in wrong),
        },
    )


if __name__ == "__main__":
    main()
