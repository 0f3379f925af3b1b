#!/usr/bin/python
# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian packages, with patience for apt's locks and a cure for an interrupted dpkg."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Installs or removes Debian packages, waiting for locks and healing an interrupted dpkg
version_added: 0.1.0
description:
  - Waits until all four locks of apt and dpkg are free, so that unattended upgrades and a colleague's shell do not make the play fail.
  - Finishes what a killed dpkg or apt left half done before it does anything else.
  - Package lists are fetched only when a wanted package is not installed.
  - Asks dpkg once and does nothing more when everything is as wanted, which is what makes a second run quick.
options:
  name:
    description: Names of packages.
    type: list
    elements: str
    required: true
  state:
    description: Whether the packages are to be installed or to be gone. Configuration files and what was installed beside them stay.
    type: str
    choices: [present, absent]
    default: present
  owner:
    description:
      - Who wants the packages, such as the name of a role. What is newly installed is written down under that name in
        C(/var/lib/trainyard/packages).
      - With O(state=absent), only packages that are written down under the name, and under no other, are removed, so that nothing goes that
        was there before.
    type: str
  wait:
    description: How many seconds to wait for locks that another process holds.
    type: int
    default: 600
author:
  - Trainyard contributors (@trainyard)
attributes:
  check_mode:
    support: full
    description: Says what would be installed, removed or finished, and does nothing.
  diff_mode:
    support: full
    description: Lists the packages before and after.
extends_documentation_fragment: []
"""

EXAMPLES = r"""
- name: Have the tools that every lab user expects
  trainyard.core.packages:
    name: [tmux, screen]
"""

RETURN = r"""
installed:
  description: Packages that were, or in check mode would be, installed.
  returned: always
  type: list
  elements: str
removed:
  description: Packages that were, or in check mode would be, removed.
  returned: always
  type: list
  elements: str
healed:
  description: Packages that an earlier interrupted run had left half done.
  returned: always
  type: list
  elements: str
"""

import os
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trainyard.core.plugins.module_utils import _apt as apt

ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "NEEDRESTART_MODE": "l"}
# An administrator's edited configuration file is kept; a new default lands beside it.
KEEP_CONFIGURATION = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
LISTS = "/var/lib/apt/lists"


class Ledger:
    """Which packages were installed for whom."""

    folder = Path("/var/lib/trainyard/packages")

    def __init__(self, owner: str | None) -> None:
        self.owner = owner

    def _names(self, path: Path) -> set[str]:
        return set(path.read_text().split()) if path.is_file() else set()

    def _write(self, names: set[str]) -> None:
        if self.owner:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / self.owner).write_text("".join(f"{name}\n" for name in sorted(names)))

    def may_remove(self, name: str) -> bool:
        """Whether a package was installed for this owner and for no other; always when no owner is named."""
        if not self.owner:
            return True
        holders = {path.name for path in self.folder.glob("*") if name in self._names(path)}
        return holders == {self.owner}

    def add(self, names: list[str]) -> None:
        """Write packages down."""
        if self.owner and names:
            self._write(self._names(self.folder / self.owner) | set(names))

    def forget(self, names: list[str]) -> None:
        """Strike packages out."""
        if self.owner:
            self._write(self._names(self.folder / self.owner) - set(names))


class Packages:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.deadline = time.monotonic() + module.params["wait"]

    def status(self) -> dict[str, str]:
        """Ask dpkg for every package's state."""
        query = self.module.get_bin_path("dpkg-query")
        if not query:
            self.module.fail_json(msg="dpkg-query is not there: this is no Debian or Ubuntu system, and no other one is supported yet.")
        _rc, output, _errors = self.module.run_command(
            [query, "--show", "--showformat", "${binary:Package}\\t${db:Status-Abbrev}\\n"], environ_update=ENVIRONMENT
        )
        return apt.parse_status(output)

    def run(self, command: list[str], purpose: str, *, may_fail: bool = False) -> bool:
        """Run apt or dpkg once the locks are free, again while somebody takes one in between; return whether it went well."""
        while True:
            held = apt.wait_for_locks(self.deadline - time.monotonic())
            if held:
                self.module.fail_json(
                    msg=f"Another process held {held} for all of the {self.module.params['wait']} seconds that were waited. "
                    f"Find it with `fuser -v {held}`, let it finish, and run again."
                )
            rc, output, errors = self.module.run_command(command, environ_update=ENVIRONMENT)
            if rc == 0:
                return True
            if apt.says_locked(errors) and time.monotonic() < self.deadline:
                time.sleep(1)
                continue
            if may_fail:
                return False
            self.module.fail_json(
                msg=f"{purpose} failed ({' '.join(command)}): {(errors or output).strip()[-1200:]}", rc=rc, stdout=output, stderr=errors
            )

    def heal(self) -> None:
        """Finish what an interrupted dpkg left."""
        self.run(["dpkg", "--configure", "-a"], "Finishing an interrupted installation")
        self.run(["apt-get", "-q", "-y", *KEEP_CONFIGURATION, "-f", "install"], "Mending broken dependencies")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "owner": {"type": "str"},
            "wait": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    names: list[str] = sorted(set(module.params["name"]))
    bad = apt.invalid_names(names)
    if bad:
        module.fail_json(msg=f"name: {', '.join(bad)} cannot be the name of a Debian package (lower-case letters, digits, + - . only).")

    work = Packages(module)
    before = work.status()
    broken = apt.half_done(before)
    interrupted = bool(broken) or apt.interrupted()
    have = {name for name in names if apt.is_installed(before.get(name, ""))}
    wanted = module.params["state"] == "present"
    ledger = Ledger(module.params["owner"])
    change = [name for name in names if (name in have) != wanted and (wanted or ledger.may_remove(name))]
    result: dict[str, Any] = {
        "changed": bool(change) or interrupted,
        "installed": change if wanted else [],
        "removed": [] if wanted else change,
        "healed": broken,
        "diff": {
            "before": "".join(f"{name}\n" for name in sorted(have)),
            "after": "".join(f"{name}\n" for name in (names if wanted else [])),
        },
    }
    if result["changed"] and not module.check_mode:
        if wanted:
            ledger.add(change)  # before, so that an interruption forgets nothing
        if interrupted:
            work.heal()
        if change and wanted:
            if not _lists_know(module, change):
                work.run(["apt-get", "-q", "update", "--error-on=any"], "Fetching the package lists")
            install = ["apt-get", "-q", "-y", "--no-install-recommends", *KEEP_CONFIGURATION, "install", *change]
            if not work.run(install, "Installing packages", may_fail=True):
                # The lists are older than what the mirror holds now: fetched anew, once.
                work.run(["apt-get", "-q", "update", "--error-on=any"], "Fetching the package lists")
                work.run(install, "Installing packages")
        elif change:
            work.run(["apt-get", "-q", "-y", "remove", *change], "Removing packages")
            ledger.forget(change)
    module.exit_json(**result)


def _lists_know(module: AnsibleModule, names: list[str]) -> bool:
    if not any(entry.endswith("_Packages") or "_Packages." in entry for entry in os.listdir(LISTS)):
        return False
    rc, output, _errors = module.run_command(["apt-cache", "policy", *names], environ_update=ENVIRONMENT)
    return rc == 0 and output.count("Candidate:") == len(names) and "Candidate: (none)" not in output


if __name__ == "__main__":
    main()
