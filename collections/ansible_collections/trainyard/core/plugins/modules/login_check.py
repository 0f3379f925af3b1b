#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether sshd would let the lab's users in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: login_check
short_description: Fails where sshd would refuse a user of the lab, and says why
version_added: 0.1.0
description:
  - Reads sshd's configuration, as it is or as M(trainyard.core.ssh_hardening) would make it, and the accounts of the node.
  - Says for each user what would keep her out although she has a key. Looks at shell and keys; at AllowUsers, AllowGroups, DenyUsers,
    DenyGroups and AuthorizedKeysFile; at an account that has expired or is locked; at modes of home and keys that StrictModes refuses.
  - Says nothing on a node without sshd, and nothing of modules of PAM other than pam_shells and pam_unix.
options:
  users:
    description: Users with C(name), C(shell), C(groups) and C(keys); one with C(state=absent) is left out.
    type: list
    elements: dict
    default: []
  hardening:
    description: O(hardening.profile) and O(hardening.config) of the hardening that will be applied; leave it out where none will.
    type: dict
    suboptions:
      profile:
        description: As in M(trainyard.core.ssh_hardening).
        type: str
        choices: [modern, cis]
        default: modern
      config:
        description: As in M(trainyard.core.ssh_hardening).
        type: dict
        default: {}
  packages:
    description: Packages that will be installed before the users are made, so that a shell which is missing may be yet to come.
    type: list
    elements: str
    default: []
  homes:
    description: Whether this node has the homes, rather than mount them from another one.
    type: bool
    default: true
  made:
    description: Whether the users have been made already, so that everything has to be as sshd wants it.
    type: bool
    default: false
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
- name: Check that the lab's users can log in
  trainyard.core.login_check:
    users:
      - name: alice
        keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrvGRH1a3gwGQ+tT1L2yusnNqXqvFQuduzeYBZqU5TE"]
    hardening: {profile: modern}
"""

RETURN = r"""
problems:
  description: A sentence or two for each reason for which a user would be refused.
  returned: failure
  type: list
  elements: str
"""

import grp
import os
import pwd
import stat
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _sshd
from ansible_collections.trainyard.core.plugins.module_utils._host.steps import RefusalError
from ansible_collections.trainyard.core.plugins.module_utils._ssh import access, node
from ansible_collections.trainyard.core.plugins.module_utils._sshd import Effective, Files

SHELLS = "/etc/shells"
ON_PURPOSE = "If users are not meant to log in to this node, set base_check_logins: false for it."


def configuration(hardening: Mapping[str, Any] | None) -> Files:
    """Return the files of sshd's configuration as they are, or as they will be.

    Raises:
        RefusalError: that cannot be known; the role that hardens says why.
    """
    current = node.configuration()
    if hardening is None:
        return current
    base, _rules, _changes = node.repaired(_sshd.remove(current))
    defaults, errors, _root = node.judge({_sshd.MAIN: ""})
    if errors:
        raise RefusalError(errors)
    profile, config = hardening.get("profile") or "modern", hardening.get("config") or {}
    return _sshd.place(base, _sshd.drop_in(profile, _sshd.wanted_settings(profile, config, [], defaults)))


def rules_for(files: Files, name: str) -> Effective:
    """Return sshd's effective configuration for a user; empty where sshd refuses the files."""
    return node.judge(files, "-C", f"user={name},host=,addr=192.0.2.1,laddr=192.0.2.2,lport=22,rdomain=")[0]


def place(files: Files, keyword: str) -> str:
    """Return the line that sets a keyword."""
    found = next((line for line in _sshd.settings(files) if line.keyword == keyword and line.values), None)
    if not found:
        return ""
    return "ssh_hardening_config" if found.path in _sshd.DROP_INS else found.place


def pam_shells(service: str = "sshd", depth: int = 0) -> bool:
    """Return whether PAM lets in nobody with a shell that is not in /etc/shells."""
    for line in (node.read(f"/etc/pam.d/{service}") or "").splitlines():
        words = line.partition("#")[0].split()
        if any(word.endswith("pam_shells.so") for word in words):
            return True
        if words[:1] == ["@include"] and len(words) > 1 and depth < 8 and pam_shells(words[1], depth + 1):
            return True
    return False


def insecure(path: str, home: str, owner: pwd.struct_passwd) -> list[str]:
    """Return which of a path and the folders above it, up to the home, StrictModes refuses."""
    found = []
    while path.startswith(home):
        try:
            seen = os.stat(path)
        except OSError:
            seen = None
        if seen and seen.st_uid not in (0, owner.pw_uid):
            found.append(f"{path} (it belongs to the user number {seen.st_uid})")
        elif seen and (seen.st_mode & 0o002 or (seen.st_mode & 0o020 and not private_group(seen.st_gid, owner))):
            found.append(f"{path} (mode {stat.S_IMODE(seen.st_mode):04o})")
        if path == home:
            break
        path = os.path.dirname(path)
    return found


def private_group(number: int, owner: pwd.struct_passwd) -> bool:
    """Return whether a group is the user's alone: Debian's sshd lets such a group write."""
    if not os.path.exists("/etc/debian_version") or number != owner.pw_gid:
        return False
    try:
        members = set(grp.getgrgid(number).gr_mem)
    except KeyError:
        return False
    return members <= {owner.pw_name} and all(entry.pw_name == owner.pw_name for entry in pwd.getpwall() if entry.pw_gid == number)


def there(user: access.User, rules: Effective, params: Mapping[str, Any], today: int) -> access.There:
    """Return what the node has of a user."""
    shell_runs = os.path.isfile(user.shell) and os.access(user.shell, os.X_OK)
    try:
        entry = pwd.getpwnam(user.name)
    except KeyError:
        return access.There(None, f"/home/{user.name}", shell_runs)
    own = os.path.join(entry.pw_dir, ".ssh/authorized_keys")
    shadow = next((line.split(":") for line in (node.read("/etc/shadow") or "").splitlines() if line.startswith(user.name + ":")), [])
    loose = insecure(own, entry.pw_dir, entry) if params["homes"] else []
    blobs = [word for key in user.keys for word in key.split() if word.startswith("AAAA")]
    others = [path for path in _sshd.key_files(user.name, entry.pw_dir, entry.pw_uid, rules) if os.path.normpath(path) != own]
    return access.There(
        node.account(user.name, rules),
        entry.pw_dir,
        shell_runs,
        access.password_due(shadow, today),
        loose,
        any(blob in (node.read(path) or "") for path in others for blob in blobs),
    )


def shell_of(name: str) -> str:
    """Return the shell of an account where the inventory does not name one: its own, or that of a new account."""
    try:
        return pwd.getpwnam(name).pw_shell or "/bin/sh"
    except KeyError:
        return "/bin/bash"


def findings(params: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the problems, and the remarks."""
    wanted: Sequence[Mapping[str, Any]] = [user for user in params["users"] if user.get("state", "present") != "absent"]
    if not wanted or not os.access(node.SSHD, os.X_OK) or not os.path.exists(_sshd.MAIN):
        return [], []
    try:
        files = configuration(params["hardening"])
    except RefusalError:
        return [], []  # the role that hardens refuses it, and says what is wrong
    today = int(time.time() // 86400)
    shells = set((node.read(SHELLS) or "").split()) if pam_shells() else None
    machine = access.Node(
        today,
        time.strftime("%Y%m%d%H%M%S", time.gmtime()),
        lambda keyword: place(files, keyword),
        shells,
        () if params["made"] else params["packages"],
    )
    differ = any(line.matched and line.path not in _sshd.DROP_INS for line in _sshd.settings(files))
    same = rules_for(files, str(wanted[0]["name"]))
    problems: list[str] = []
    remarks: list[str] = []
    for each in wanted:
        user = access.User(
            str(each["name"]),
            str(each.get("shell") or shell_of(str(each["name"]))),
            each.get("groups") or [],
            [str(key) for key in each.get("keys") or []],
        )
        rules = rules_for(files, user.name) if differ else same
        if rules:
            found, noted = access.problems(user, there(user, rules, params, today), rules, machine)
            problems += found
            remarks += noted
    return problems, remarks


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "users": {"type": "list", "elements": "dict", "default": [], "no_log": False},
            "hardening": {
                "type": "dict",
                "options": {
                    "profile": {"type": "str", "choices": ["modern", "cis"], "default": "modern"},
                    "config": {"type": "dict", "default": {}},
                },
            },
            "packages": {"type": "list", "elements": "str", "default": []},
            "homes": {"type": "bool", "default": True},
            "made": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    problems, remarks = findings(module.params)
    for remark in remarks:
        module.warn(remark)
    if problems:
        module.fail_json(msg=" ".join([*problems, ON_PURPOSE]), problems=problems)
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
