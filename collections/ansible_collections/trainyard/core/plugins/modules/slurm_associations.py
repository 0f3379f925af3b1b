#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Users in the records of Slurm's jobs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_associations
short_description: Adds users to the records of Slurm's jobs
version_added: 0.1.0
description:
  - Without an association of the cluster, an account and the user, C(sreport) counts nobody's jobs, and there is no fair share.
  - A user who has one in the cluster already, with whatever account and limits, is left as he is.
  - Nothing is removed. What somebody used stays in the reports after he has left, and without a login he submits nothing.
options:
  cluster:
    description: The cluster's name.
    type: str
    required: true
  account:
    description: The account to which new users belong.
    type: str
    required: true
  users:
    description: Login names.
    type: list
    elements: str
    required: true
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says who would be added. Where the records are yet to come, that is everybody.
  diff_mode:
    support: full
    description: Shows the users before and after.
"""

EXAMPLES = r"""
- name: Add the users to the records
  trainyard.core.slurm_associations:
    cluster: lab
    account: students
    users: [ada, bob]
"""

RETURN = r"""
added:
  description: Users who were, or in check mode would be, added.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _slurm as slurm
from ansible_collections.trainyard.core.plugins.module_utils._host import locks


def sacctmgr(module: AnsibleModule, *words: str) -> str:
    """Ask or tell the records' daemon; fail where it does not answer."""
    rc, output, errors = module.run_command(
        ["sacctmgr", "--immediate", "--noheader", "--parsable2", *words], environ_update={"LC_ALL": "C"}
    )
    if rc:
        said = " ".join((errors or output).split())
        module.fail_json(msg=f"sacctmgr {' '.join(words[:2])} failed: {said}. See systemctl status slurmdbd mariadb.")
    return str(output)


@locks.turn("slurm_associations")
def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "account": {"type": "str", "required": True},
            "users": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    cluster, account, wanted = (module.params[name] for name in ("cluster", "account", "users"))
    of_cluster = f"cluster={cluster}"
    if module.check_mode and (not module.get_bin_path("sacctmgr") or module.run_command(["sacctmgr", "ping"])[0]):
        accounts, users = set[str](), set[str]()
    else:
        accounts, users = slurm.parse_associations(sacctmgr(module, "show", "associations", "where", of_cluster, "format=account,user"))
    missing = [name for name in dict.fromkeys(wanted) if name not in users]
    if missing and not module.check_mode:
        if account not in accounts:
            sacctmgr(module, "add", "account", account, of_cluster, "description=Trainyard", "organization=Trainyard")
        sacctmgr(module, "add", "user", ",".join(missing), f"account={account}", of_cluster)
    module.exit_json(
        changed=bool(missing),
        added=missing,
        diff={
            "before_header": f"users in the records of {cluster}",
            "after_header": f"users in the records of {cluster}",
            "before": "".join(f"{name}\n" for name in sorted(users)),
            "after": "".join(f"{name}\n" for name in sorted(users | set(missing))),
        },
    )


if __name__ == "__main__":
    main()
