#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Limits on the login sessions of ordinary users."""

from __future__ import annotations

DOCUMENTATION = r"""
module: session_limits
short_description: Limits memory, processes and CPU weight of each user's login sessions
version_added: 0.1.0
description:
  - Writes systemd drop-ins for the slices of users (C(user-UID.slice)), which hold all that a user runs from a login.
    Services, and jobs of a scheduler, are not in them.
  - Root and admins have no limits. Admins are the members of the groups C(sudo), C(admin) and C(wheel), whoever sudo lets run everything as
    root, and the account that this module was reached by.
  - Limits hold at once for sessions that are open, and nobody is logged out. A limit that the running processes of a user exceed already
    is not set for that user, since processes would be ended. It is set by a later run that finds less.
options:
  memory:
    description: Memory, such as C(16G), a share of the machine's such as C(50%), or C(infinity).
    type: str
    default: infinity
  tasks:
    description: Processes and threads.
    type: int
    default: 8192
  cpu_weight:
    description: Share of the CPU when several want it; others have 100.
    type: int
    default: 50
  unlimited:
    description: Further accounts without limits.
    type: list
    elements: str
    default: []
  state:
    description: Whether there are limits.
    type: str
    choices: [present, absent]
    default: present
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would change and does nothing.
  diff_mode:
    support: full
    description: Shows the files before and after.
"""

EXAMPLES = r"""
- name: Limit the login sessions of users
  trainyard.core.session_limits:
    memory: 50%
    tasks: 4096
    unlimited: [backup]
"""

RETURN = r"""
unlimited:
  description: Accounts without limits.
  returned: always
  type: list
  elements: str
exceeding:
  description: Users whose running processes hold more than a limit, in words. The limits do not bind them yet.
  returned: always
  type: list
  elements: str
unbound:
  description: Cgroup controllers that the machine does not have, out of C(memory), C(pids) and C(cpu). Their limits bind nobody.
  returned: always
  type: list
  elements: str
unknown:
  description: Accounts of O(unlimited) that the machine does not have.
  returned: always
  type: list
  elements: str
"""

import glob
import grp
import os
import pwd
from collections.abc import Iterable
from contextlib import suppress

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _secret_file as files
from ansible_collections.trainyard.core.plugins.module_utils._host import files as durable
from ansible_collections.trainyard.core.plugins.module_utils._host import session_limits as core

CGROUPS = "/sys/fs/cgroup"


def is_unified() -> bool:
    """Return whether cgroups are of version 2."""
    return os.path.exists(f"{CGROUPS}/cgroup.controllers")


def unbound() -> list[str]:
    """Return the controllers that systemd cannot set limits with here."""
    if is_unified():
        return [each for each in core.CONTROLLERS if each not in files.read(f"{CGROUPS}/cgroup.controllers").split()]
    # A container may see the host's and not be allowed to write there.
    return [each for each in core.CONTROLLERS if not os.access(f"{CGROUPS}/{each}", os.W_OK)]


def usage(uid: int) -> core.Usage:
    """Return what the sessions of a user hold."""
    name = f"user.slice/user-{uid}.slice"
    if is_unified():
        memory = tasks = f"{CGROUPS}/{name}"
        bound = "memory.max"
    else:
        memory, tasks = f"{CGROUPS}/memory/{name}", f"{CGROUPS}/pids/{name}"
        bound = "memory.limit_in_bytes"
    return core.Usage(
        core.held(files.read(f"{memory}/memory.stat"), files.read(f"{memory}/memory.swap.current")),
        int(files.read(f"{tasks}/pids.current") or 0),
        core.limit(files.read(f"{memory}/{bound}")),
        core.limit(files.read(f"{tasks}/pids.max")),
    )


def admins(module: AnsibleModule) -> list[str]:
    """Return the accounts that administer the machine, the one that this module was reached by among them."""
    accounts = pwd.getpwall()
    convert = module.get_bin_path("cvtsudoers")
    users, powerful = core.trusted(module.run_command([convert, "-f", "json", "-e", "/etc/sudoers"])[1] if convert else "")
    found = [entry.pw_name for entry in accounts if entry.pw_uid == 0] + users
    for name in (*core.ADMIN_GROUPS, *powerful):
        with suppress(KeyError):  # no such group
            group = grp.getgrnam(name)
            found += [*group.gr_mem, *(entry.pw_name for entry in accounts if entry.pw_gid == group.gr_gid)]
    return [*found, os.environ.get("SUDO_USER") or "root"]


def ids(names: Iterable[str]) -> dict[str, int]:
    """Return the user IDs of the accounts that the machine knows, by name."""
    known = {}
    for name in names:
        with suppress(KeyError):
            known[name] = pwd.getpwnam(name).pw_uid
    return known


def ours() -> dict[str, str]:
    """Return the files that this module wrote: path -> text."""
    found = [core.EVERYBODY, *glob.glob(f"{core.UNITS}/user-*.slice.d/{core.UNLIMITED}")]
    found += glob.glob(f"{core.RUNTIME}/user-*.slice.d/{core.RUNNING}")
    return {path: files.read(path) for path in found if os.path.exists(path)}


def remove(path: str) -> None:
    """Remove a file, and its folder where nothing else is in it."""
    os.unlink(path)
    if not os.listdir(os.path.dirname(path)):
        os.rmdir(os.path.dirname(path))


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "memory": {"type": "str", "default": "infinity"},
            "tasks": {"type": "int", "default": 8192},
            "cpu_weight": {"type": "int", "default": 50},
            "unlimited": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    present = module.params["state"] == "present"
    limits = core.Limits(module.params["memory"], module.params["tasks"], module.params["cpu_weight"])
    systemctl = module.get_bin_path("systemctl", required=True)
    shown = [systemctl, "show", "--property=Id,DropInPaths,NeedDaemonReload", "user-*.slice"]
    slices = core.parse_slices(module.run_command(shown, check_rc=True)[1])
    free = ids([*admins(module), *module.params["unlimited"]]) if present else {}
    left: dict[int, core.Usage] = {}
    exceeding: list[str] = []
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for uid in sorted(set(slices) - set(free.values())) if present else ():
        now = usage(uid)
        much = core.over(now, limits, total)
        if much:
            left[uid] = now
            exceeding.append(f"{name_of(uid)} holds {' and '.join(much)}")
    before, after = ours(), core.wanted(limits if present else None, free, left)
    changed = before != after
    if not module.check_mode:
        # What is left alone first: systemd may read the files at any moment.
        for path, text in after.items():
            if before.get(path) != text:
                durable.write(path, text, 0o644)
        for path in [path for path in before if path not in after]:
            remove(path)
        if changed or core.stale(slices, after):
            module.run_command([systemctl, "daemon-reload"], check_rc=True)
    module.exit_json(
        changed=changed,
        unlimited=sorted(free),
        exceeding=exceeding,
        unbound=unbound() if present else [],
        unknown=[name for name in module.params["unlimited"] if present and name not in free],
        diff=[
            {"before_header": path, "after_header": path, "before": before.get(path, ""), "after": after.get(path, "")}
            for path in {**before, **after}
            if before.get(path) != after.get(path)
        ],
    )


def name_of(uid: int) -> str:
    """Return the name of an account, or its number where nobody knows the name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


if __name__ == "__main__":
    main()
