#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A file with the hash of a password."""

from __future__ import annotations

DOCUMENTATION = r"""
module: password_hash_file
short_description: Keeps the Argon2 hash of a password in a file
version_added: 0.1.0
description:
  - Writes the Argon2 hash of a password into a file of root's with mode 0600, and rewrites it only when the hash there is not that of the
    password, or is weaker than what is made today.
  - The password goes through a pipe to an interpreter that has C(argon2-cffi); it is in no command line, in no file and in no log.
options:
  path:
    description: File for the hash; folders above it that are missing are made with mode 0755.
    type: path
    required: true
  password:
    description: The password.
    type: str
    required: true
  python:
    description: Interpreter that can import C(argon2), such as that of the environment of the service that checks the password.
    type: path
    required: true
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing.
  diff_mode:
    support: full
    description: Shows that the hash changes, never the hash.
"""

EXAMPLES = r"""
- name: Keep the hash of the notebook's password
  trainyard.core.password_hash_file:
    path: /etc/trainyard/jupyter/password
    password: "{{ jupyter_password }}"
    python: /opt/trainyard/envs/jupyterlab/bin/python
"""

RETURN = r"""
reason:
  description: Why the file was, or in check mode would be, written; empty when it was right.
  returned: always
  type: str
  sample: the hash there is not that of the password
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _password as passwords
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as secret_file
from ansible_collections.trainyard.core.plugins.module_utils._host import locks


@locks.turn("password_hash_file")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "python": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    path, python = module.params["path"], module.params["python"]
    stored = secret_file.read(path).strip()
    if os.access(python, os.X_OK):
        status, output, errors = module.run_command(
            [python, "-I", "-c", passwords.HASHER], data=passwords.question(module.params["password"], stored, module.check_mode)
        )
        found = passwords.answer(status, output, errors, python)
        if found.problem:
            module.fail_json(msg=found.problem)
    elif module.check_mode:
        found = passwords.Answer("", "")  # on a bare node the environment would be made before
    else:
        module.fail_json(msg=f"There is no {python}. The environment has to be made before the service that lives in it.")
    reason = ""
    if not stored:
        reason = "there is none"
    elif found.hash != stored:
        reason = "the hash there is not that of the password, or weaker than today's"
    elif not secret_file.is_private(path):
        reason = "others than root may read it"
    if reason and not module.check_mode:
        secret_file.write(path, found.hash + "\n")
    module.exit_json(
        changed=bool(reason),
        reason=reason,
        diff={"before": f"{path}: {reason}\n" if reason else "", "after": f"{path}: the password's hash\n" if reason else ""},
    )


if __name__ == "__main__":
    main()
